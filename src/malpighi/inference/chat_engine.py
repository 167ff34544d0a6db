"""Generation in this process with a chat model of any declared family.

The two families that are trained here have a faster way of their own: `transformers_engine.py`.

Shapes: B prompts, L tokens of a prompt, T of the longest answer, V entries of the vocabulary, K answers.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from transformers import GenerationConfig, LogitsProcessorList

from malpighi.errors import ConfigError, UserError
from malpighi.inference.chat_model import Batch, ChatModel
from malpighi.inference.drawing import GumbelNoise, decoding, seeds_of
from malpighi.inference.engine import Completion, Sampling, failed
from malpighi.models.prompt import Prompt

_PER_TOKEN = {"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids", "cross_attention_mask"}
"""What a batch holds for each token of its prompts."""


class _Row(NamedTuple):
    """A prompt on its way: its words in the family's template, and the seed of its random numbers."""

    prompt: Prompt
    text: str
    seed: int


class ChatEngine:
    """Batched generation with left padding; draws as `TransformersEngine` does.

    A batch holds prompts with the same number of images. One that fails is halved down to the prompt at
    fault. Tokens that announce an image can never be drawn, and a checkpoint's own settings of sampling do
    not count.

    Args:
        chat: the model.
        batch_size: prompts generated together.
    """

    def __init__(self, chat: ChatModel, batch_size: int = 8) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size}; at least 1 is needed")
        self._chat = chat
        self._batch_size = batch_size

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """One completion per prompt, in order; see `Engine`."""
        done: dict[int, Completion] = {}
        waiting: dict[tuple[int, int], list[tuple[int, _Row]]] = {}
        for index, (prompt, seed) in enumerate(zip(prompts, seeds_of(prompts, sampling.seed), strict=True)):
            try:
                row = _Row(prompt, self._chat.text(prompt), seed)
            except UserError as error:
                done[index] = failed(error)
            else:
                kind = (len(prompt.images), self._chat.tiles(prompt))
                waiting.setdefault(kind, []).append((index, row))
        for rows in waiting.values():
            rows.sort(key=lambda pair: (len(pair[1].text), pair[0]))  # of like length: less padding
            for start in range(0, len(rows), self._batch_size):
                chosen = rows[start : start + self._batch_size]
                said = self._batch([row for _, row in chosen], sampling)
                done.update(zip((index for index, _ in chosen), said, strict=True))
        return [done[index] for index in range(len(prompts))]

    @torch.inference_mode()
    def chances(self, prompt: Prompt, answers: Sequence[str]) -> tuple[float, ...]:
        """Probabilities of given answers to a prompt, as if nothing else could be said.

        As `option_likelihood.answer_chances`: the product over an answer's tokens, its end included, divided
        by the sum over the answers.

        Args:
            prompt: what is shown.
            answers: the K whole texts that could be said.

        Raises:
            DataError: the prompt does not suit the family.
        """
        chat = self._chat
        prefix = chat.encode([prompt] * len(answers), [chat.text(prompt)] * len(answers))
        said = [self._target(answer) for answer in answers]
        batch = self._answered(prefix, said)
        start = prefix["input_ids"].shape[1]
        logits_KTV = chat.model(**batch).logits[:, start - 1 : -1].float()
        logs_KTV = torch.log_softmax(logits_KTV, dim=-1)
        sums = [logs_KTV[k, range(len(ids)), ids].double().sum() for k, ids in enumerate(said)]
        return tuple(torch.softmax(torch.stack(sums), dim=0).tolist())

    def _target(self, answer: str) -> list[int]:
        ids = self._chat.tokenizer(answer, add_special_tokens=False)["input_ids"]
        return [*ids, self._chat.end]

    def _answered(self, prefix: Batch, said: Sequence[Sequence[int]]) -> Batch:
        """The prompts with an answer each, padded on the right."""
        longest = max(len(ids) for ids in said)
        device = prefix["input_ids"].device
        ids_KT = torch.tensor([[*ids, *[self._chat.filler] * (longest - len(ids))] for ids in said])
        there_KT = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids in said])
        batch = dict(prefix)
        for name in _PER_TOKEN & prefix.keys():
            whole = prefix[name]
            if name == "input_ids":
                more = ids_KT
            elif name == "attention_mask":
                more = there_KT
            elif name == "token_type_ids" and not self._chat.family.template:
                more = torch.ones_like(
                    ids_KT
                )  # PaliGemma's prompt sees all of itself, its answer what is before
            else:  # an answer is text; it sees the image as the last word of the prompt does
                more = whole[:, -1:].repeat_interleave(longest, dim=1)
            batch[name] = torch.cat([whole, more.to(device, whole.dtype)], dim=1)
        return batch

    def _batch(self, rows: Sequence[_Row], sampling: Sampling) -> list[Completion]:
        """The completions of one batch; where it fails, its halves are tried, down to the prompt at fault."""
        try:
            return self._generate(rows, sampling)
        except Exception as error:  # each family's processor and model raise errors of their own
            if len(rows) == 1:
                return [failed(f"{type(error).__name__}: {error}")]
        half = len(rows) // 2
        return self._batch(rows[:half], sampling) + self._batch(rows[half:], sampling)

    def _generate(self, rows: Sequence[_Row], sampling: Sampling) -> list[Completion]:
        chat = self._chat
        batch = chat.encode([row.prompt for row in rows], [row.text for row in rows])
        noise = (
            [GumbelNoise([row.seed for row in rows], sampling.temperature)] if sampling.temperature else []
        )
        with torch.inference_mode():
            ids_BL = chat.model.generate(
                **batch,
                generation_config=self._configuration(sampling),
                logits_processor=LogitsProcessorList(noise),
            )
        said = ids_BL[:, batch["input_ids"].shape[1] :].tolist()
        return [self._completion(ids) for ids in said]

    def _configuration(self, sampling: Sampling) -> GenerationConfig:
        chat = self._chat
        return decoding(sampling, never=chat.marks, ends=chat.stops, filler=chat.filler)

    def _completion(self, ids: list[int]) -> Completion:
        length = next((i for i, token in enumerate(ids) if token in self._chat.stops), None)
        said = ids[:length]
        text = self._chat.tokenizer.decode(said, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        if length is None:
            return Completion(text, len(said), "length")
        return Completion(text, len(said) + 1, "stop")
