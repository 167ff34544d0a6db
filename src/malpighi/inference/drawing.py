"""How answers are drawn: one stream of random numbers per prompt, whatever its neighbours are.

Shapes: B prompts of a batch, V entries of the vocabulary.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence

import torch
from transformers import GenerationConfig, LogitsProcessor

from malpighi.inference.engine import Sampling
from malpighi.models.prompt import Prompt


class GumbelNoise(LogitsProcessor):
    """Turns the argmax of greedy decoding into a draw from softmax(scores / temperature), row by row.

    Source: Gumbel-max: argmax of log p + Gumbel noise is distributed as p.
    """

    def __init__(self, seeds: Sequence[int], temperature: float) -> None:
        self._streams = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._temperature = temperature

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores (B, V) whose largest entries are the draws."""
        uniform_bv = torch.stack(
            [torch.rand(scores.shape[1], generator=stream, dtype=torch.float64) for stream in self._streams]
        )
        gumbel_bv = -(-uniform_bv.clamp_min(1e-300).log()).log()
        return scores / self._temperature + gumbel_bv.to(scores.device, torch.float32)


def seeds_of(prompts: Sequence[Prompt], seed: int) -> list[int]:
    """A seed per prompt, from the sampling's, the prompt's digest and how often it has occurred before."""
    occurred: Counter[str] = Counter()
    seeds = []
    for prompt in prompts:
        key = f"{seed}:{prompt.digest}:{occurred[prompt.digest]}"
        seeds.append(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 1)
        occurred[prompt.digest] += 1
    return seeds


def decoding(
    sampling: Sampling, *, never: Sequence[int], ends: Sequence[int], filler: int
) -> GenerationConfig:
    """Greedy decoding, to which `GumbelNoise` adds the drawing.

    Every setting that a checkpoint's generation_config.json could bring along is said here, because
    `generate` fills what is left open from that file: Qwen2.5-VL ships a repetition penalty.

    Args:
        sampling: gives the most tokens.
        never: ids of tokens that are not written.
        ends: ids of tokens that end an answer.
        filler: id of the token behind an ended answer.
    """
    return GenerationConfig(
        max_new_tokens=sampling.max_new_tokens,
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        temperature=1.0,
        top_k=50,
        top_p=1.0,
        use_cache=True,
        suppress_tokens=list(never) or None,
        eos_token_id=list(ends),
        pad_token_id=filler,
    )
