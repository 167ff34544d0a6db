"""Sampling completions for groups: each prompt is read once, its cache serves the whole group.

Rows that have ended leave the batch, so that one long answer does not make all others wait.

Shapes: B prompts, P tokens of a prompt, N completions of all prompts, R of them not ended yet, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from malpighi.models.encode import Batch


@dataclass(frozen=True)
class Drawing:
    """How tokens are drawn.

    Attributes:
        max_new_tokens: longest completion.
        temperature: divides the logits; 0 takes the likeliest token.
        ends: token ids that end a completion; they stay in it.
        suppressed: token ids that are never drawn.
    """

    max_new_tokens: int
    temperature: float
    ends: tuple[int, ...]
    suppressed: tuple[int, ...]


@torch.no_grad()
def roll_out(
    model: Any, prompts: Batch, positions: torch.Tensor, owners: Sequence[int], drawing: Drawing
) -> list[list[int]]:
    """One completion per entry of `owners`, drawn with torch's global random numbers.

    Args:
        model: the model itself, not wrapped for several devices.
        prompts: B left-padded prompts as `encode` gives them.
        positions: their 3-D positions (3 x B x P), see `tree.rope_positions`.
        owners: for each completion wanted, which prompt it answers, 0..B-1.
        drawing: how tokens are drawn.

    Returns:
        Token ids, the end token included; no end token where `max_new_tokens` was reached.
    """
    was_training = model.training
    model.eval()
    try:
        return _roll_out(model, prompts, positions, owners, drawing)
    finally:
        model.train(was_training)


def _roll_out(
    model: Any, prompts: Batch, positions: torch.Tensor, owners: Sequence[int], drawing: Drawing
) -> list[list[int]]:
    cache = DynamicCache(config=model.config.get_text_config())
    read = model(
        **prompts, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1
    ).logits[:, -1]
    chosen = torch.tensor(list(owners), device=read.device)
    cache.batch_select_indices(chosen)
    logits_rv = read[chosen]
    seen = prompts["attention_mask"][chosen]
    place_3r1 = positions[:, chosen, -1:]
    rows = list(range(len(owners)))
    said: list[list[int]] = [[] for _ in owners]
    for _ in range(drawing.max_new_tokens):
        tokens_r = _draw(logits_rv, drawing)
        for row, token in zip(rows, tokens_r.tolist(), strict=True):
            said[row].append(token)
        going = [k for k, row in enumerate(rows) if said[row][-1] not in drawing.ends]
        if not going or len(said[rows[going[0]]]) == drawing.max_new_tokens:
            break
        if len(going) < len(rows):
            keep = torch.tensor(going, device=tokens_r.device)
            cache.batch_select_indices(keep)
            rows = [rows[k] for k in going]
            tokens_r, seen, place_3r1 = tokens_r[keep], seen[keep], place_3r1[:, keep]
        seen = torch.cat([seen, seen.new_ones(len(rows), 1)], dim=1)
        place_3r1 = place_3r1 + 1
        logits_rv = model(
            input_ids=tokens_r[:, None],
            attention_mask=seen,
            position_ids=place_3r1,
            past_key_values=cache,
            use_cache=True,
        ).logits[:, -1]
    return said


def _draw(logits_rv: torch.Tensor, drawing: Drawing) -> torch.Tensor:
    scores = logits_rv.float()
    scores[:, list(drawing.suppressed)] = float("-inf")
    if drawing.temperature == 0:
        return scores.argmax(dim=-1)
    chances = (scores / drawing.temperature).softmax(dim=-1)
    return torch.multinomial(chances, 1).squeeze(1)
