"""How likely a model holds each of several answers, from the probabilities of their words.

Shapes: B texts, L tokens, V entries of the vocabulary, N prompts, K answers.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from malpighi.models.encode import IGNORED, collate, encode_one
from malpighi.models.prompt import Prompt
from malpighi.models.vlm import Vlm


@torch.inference_mode()
def answer_chances(
    vlm: Vlm, prompts: Sequence[Prompt], answers: Sequence[Sequence[str]], batch_size: int = 16
) -> NDArray[np.float64]:
    """Probabilities of given answers to each prompt, as if nothing else could be said.

    p_k = P(answer_k | prompt) / sum_j P(answer_j | prompt), where P of an answer is the product over its
    tokens, the one that ends the turn included, so that a long answer is not favoured for its beginning.

    Args:
        vlm: the model.
        prompts: what is shown.
        answers: per prompt the K whole texts that could be said.
        batch_size: texts run together.

    Returns:
        chances_NK; each row adds up to 1.

    Raises:
        DataError: a prompt or an answer that cannot be encoded.
    """
    samples = [
        encode_one(prompt, answer, vlm)
        for prompt, said in zip(prompts, answers, strict=True)
        for answer in said
    ]
    was_training = vlm.model.training
    vlm.model.eval()
    sums: list[float] = []
    for start in range(0, len(samples), batch_size):
        batch = collate(samples[start : start + batch_size], vlm, padding="right")
        batch = {name: tensor.to(vlm.model.device) for name, tensor in batch.items()}
        labels_BL = batch.pop("labels")[:, 1:]
        logits_BLV = vlm.model(**batch).logits[:, :-1].float()
        said_BL = labels_BL != IGNORED
        logs_BL = torch.log_softmax(logits_BLV, dim=-1).gather(2, labels_BL.clamp_min(0)[..., None])[..., 0]
        sums += (logs_BL.double() * said_BL).sum(dim=1).tolist()
    vlm.model.train(was_training)
    logs_NK = np.asarray(sums).reshape(len(prompts), -1)
    chances_NK = np.exp(logs_NK - logs_NK.max(axis=1, keepdims=True))
    return np.asarray(chances_NK / chances_NK.sum(axis=1, keepdims=True))
