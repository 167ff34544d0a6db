"""Sampling completions for groups: each prompt is read once, its cache serves the whole group.

Rows that have ended leave the batch, so that one long answer does not make all others wait. Every completion
has random numbers of its own, one a token: what it says does not depend on what is decoded beside it, but for
rounding. A product of matrices rounds otherwise in another batch; where a random number falls into that gap
between two tokens, the other one is drawn.

Shapes: B prompts, P tokens of a prompt, N completions of all prompts, R of them not ended yet, V vocabulary,
M new tokens at most.
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, NamedTuple

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
        at_once: completions decoded in one batch; 0 takes all.
    """

    max_new_tokens: int
    temperature: float
    ends: tuple[int, ...]
    suppressed: tuple[int, ...]
    at_once: int = 0


@torch.no_grad()
def roll_out(
    model: Any, prompts: Batch, positions: torch.Tensor, owners: Sequence[int], drawing: Drawing
) -> list[list[int]]:
    """One completion per entry of `owners`, drawn with torch's global random numbers of the CPU.

    The numbers are taken completion by completion: two calls for some owners each take those of one for all.

    Args:
        model: the model itself, not wrapped for several devices.
        prompts: B left-padded prompts as `encode` gives them; read in one batch.
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
    logits_bv = model(
        **prompts, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1
    ).logits[:, -1]
    luck_nm = torch.rand(len(owners), drawing.max_new_tokens, dtype=torch.float64).to(logits_bv.device)
    chosen_n = torch.tensor(list(owners), device=logits_bv.device)
    said: list[list[int]] = []
    parts = zip(*(x.split(drawing.at_once or len(owners)) for x in (chosen_n, luck_nm)), strict=True)
    for chosen_r, luck_rm in parts:
        begun = _Begun(
            _taken(cache, chosen_r),
            logits_bv[chosen_r],
            prompts["attention_mask"][chosen_r],
            positions[:, chosen_r, -1:],
        )
        said += _decode(model, begun, luck_rm, drawing)
    return said


class _Begun(NamedTuple):
    """Rows whose prompts are read.

    Attributes:
        cache: keys and values of the prompts.
        logits_rv: of the first token to draw.
        seen_rp: which tokens of a prompt are real.
        place_3r1: position of its last token.
    """

    cache: DynamicCache
    logits_rv: torch.Tensor
    seen_rp: torch.Tensor
    place_3r1: torch.Tensor


def _taken(cache: DynamicCache, rows: torch.Tensor) -> DynamicCache:
    """A cache of chosen rows; the one they are taken from stays as it is."""
    taken = copy(cache)
    taken.layers = [copy(layer) for layer in cache.layers]
    taken.batch_select_indices(rows)
    return taken


def _decode(model: Any, begun: _Begun, luck_rm: torch.Tensor, drawing: Drawing) -> list[list[int]]:
    cache, logits_rv, seen, place_3r1 = begun
    rows = list(range(len(luck_rm)))
    said: list[list[int]] = [[] for _ in rows]
    for step in range(drawing.max_new_tokens):
        tokens_r = _draw(logits_rv, luck_rm[rows, step], drawing)
        for row, token in zip(rows, tokens_r.tolist(), strict=True):
            said[row].append(token)
        going = [k for k, row in enumerate(rows) if said[row][-1] not in drawing.ends]
        if not going or step + 1 == drawing.max_new_tokens:
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


def _draw(logits_rv: torch.Tensor, luck_r: torch.Tensor, drawing: Drawing) -> torch.Tensor:
    """The token in whose share of the probability, laid end to end, the random number (0..1) falls."""
    scores = logits_rv.float()
    scores[:, list(drawing.suppressed)] = float("-inf")
    if drawing.temperature == 0:
        return scores.argmax(dim=-1)
    # In double precision: summed over a large vocabulary, rare tokens would be lost in the rounding.
    upto_rv = (scores / drawing.temperature).softmax(dim=-1).double().cumsum(dim=-1)
    reached_r1 = luck_r[:, None] * upto_rv[:, -1:]
    return torch.searchsorted(upto_rv, reached_r1, right=True).squeeze(1)
