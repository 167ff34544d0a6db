"""Rollouts by vLLM: each question is asked once, for all completions of its group.

TRL holds the engine (in this process, or as a server) and gives it the weights after every step. In this
process it would send each prompt once per completion; a request with n = G lets vLLM read prompt and picture
once.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from PIL import Image


class Drawn(NamedTuple):
    """Completions.

    Attributes:
        ids: token ids of each, the end token included.
        log_probs: of each token as it was drawn, None for one that vLLM could not tell; None in all where the
            trainer itself drew.
    """

    ids: list[list[int]]
    log_probs: list[list[float | None]] | None


def sampling(group: int, suppressed: Sequence[int]) -> dict[str, Any]:
    """What vLLM's `SamplingParams` are given beside what TRL gives: n, and tokens that are never drawn."""
    return {"n": group, "logit_bias": dict.fromkeys(suppressed, -100.0)}


def draw_by_vllm(
    generation: Any, prompts: Sequence[Sequence[int]], images: Sequence[Sequence[Image.Image]], group: int
) -> Drawn:
    """`group` completions for each prompt, those of one prompt together.

    Args:
        generation: TRL's `VLLMGeneration`, made with `sampling`.
        prompts: token ids, image tokens included.
        images: those of each prompt, at the size that they are shown.
        group: completions per prompt.
    """
    # TRL takes every `group`-th prompt of what it sends to a server, and all of what stays in this process.
    times = group if generation.mode == "server" else 1
    rows = [list(ids) for ids in prompts for _ in range(times)]
    shown = [list(each) or None for each in images for _ in range(times)]
    _, ids, log_probs, _ = generation.generate(
        prompts=rows, images=shown if any(shown) else None, num_generations=group
    )
    known = None if log_probs is None else [[token[0] for token in each] for each in log_probs]
    return Drawn([list(each) for each in ids], known)
