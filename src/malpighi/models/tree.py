"""One prompt, many completions: the picture and the prompt are computed once for the whole group.

A group's row is a tree: the prompt without its last token is the trunk, and each completion is a branch that
begins with the prompt's last token. A branch sees the trunk and itself, never another branch, and keeps the
3-D positions it would have alone; so its log-probabilities and their gradients are those of a row of its own.
Attention is two ordinary calls, trunk to trunk and branches to trunk and themselves: the cost grows with the
group by its completions alone.

Source: the idea for text is PrefixGrouper (arXiv 2506.05433). Departs: pictures are shared too, the layers of
`transformers` stay as they are, and trunk and branches go through them in one pass, so that gradient
checkpointing keeps the trunk's gradient (a cache of keys and values would lose it).

Shapes: B groups, G branches, P tokens of a prompt, T = P - 1 of the trunk, C of a completion, L = T + G * C,
H attention heads, D entries of a head.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from malpighi.models.encode import IGNORED, Batch

ATTENTION = "malpighi_tree"
"""Name of the attention that knows trees; without one it is `sdpa`."""


@dataclass(frozen=True, eq=False)
class Tree:
    """How a row of L tokens is made up.

    Attributes:
        trunk: T, its first tokens.
        branches: G, which share the rest equally.
        trunk_mask: boolean (B x 1 x T x T), which trunk token sees which.
    """

    trunk: int
    branches: int
    trunk_mask: torch.Tensor


class Scores(NamedTuple):
    """What a model makes of completions, per token (B x G x C); 0 on padding.

    Attributes:
        log_probs: log-probability of the token.
        entropy: of the distribution it was drawn from; None where the model's head was not asked for it.
    """

    log_probs: torch.Tensor
    entropy: torch.Tensor | None


def shares_heads(device: torch.device) -> bool:
    """Whether query heads may share a key head without a copy of it for each.

    So it is on a CPU. On a GPU a mask and shared heads leave only the slow kernel, which keeps all scores.
    """
    return str(device.type) == "cpu"


def tree_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    tree: Tree | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention over trees, in the form of `transformers`' attention functions; `sdpa` without a tree.

    Args:
        module: the attention layer.
        query: B x H x L x D.
        key: B x (H / groups of heads) x L x D.
        value: like `key`.
        attention_mask: with a tree, boolean (B * G x 1 x C x T + C): what each branch token sees.
        tree: the layout.
        kwargs: what else the layer passes on: `scaling` of the scores, `dropout`, and what is for `sdpa`.

    Returns:
        B x L x H x D, and no weights.
    """
    if tree is None:
        plain, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
        return plain, None
    scaling, dropout = kwargs.get("scaling"), kwargs.get("dropout", 0.0)
    heads = query.shape[1] // key.shape[1]
    b, g, t = query.shape[0], tree.branches, tree.trunk

    shared = shares_heads(query.device)

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        if not shared:
            k, v = repeat_kv(k, heads), repeat_kv(v, heads)
        return scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=dropout, scale=scaling, enable_gqa=shared
        )

    def branches(x_bhld: torch.Tensor) -> torch.Tensor:
        return x_bhld[:, :, t:].unflatten(2, (g, -1)).transpose(1, 2).flatten(0, 1)

    def on_trunk(x_bhld: torch.Tensor) -> torch.Tensor:
        trunk = x_bhld[:, None, :, :t].expand(-1, g, -1, -1, -1).flatten(0, 1)
        return torch.cat([trunk, branches(x_bhld)], dim=2)

    trunk = attend(query[:, :, :t], key[:, :, :t], value[:, :, :t], tree.trunk_mask)
    grown = attend(branches(query), on_trunk(key), on_trunk(value), attention_mask)
    grown = grown.unflatten(0, (b, g)).transpose(1, 2).flatten(2, 3)
    return torch.cat([trunk, grown], dim=2).transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION, tree_attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def attend_to_trees(model: Any) -> None:
    """Let the language layers of a model use `tree_attention`; the vision tower keeps its own."""
    model.config.get_text_config()._attn_implementation = ATTENTION


def rope_positions(model: Any, prompts: Batch) -> torch.Tensor:
    """The 3-D positions (3 x B x P) of left-padded prompts; time, height and width."""
    positions, _ = model.model.get_rope_index(
        prompts["input_ids"],
        image_grid_thw=prompts.get("image_grid_thw"),
        attention_mask=prompts["attention_mask"],
        mm_token_type_ids=prompts["mm_token_type_ids"],
    )
    return torch.as_tensor(positions)


def score(
    model: Any,
    prompts: Batch,
    completions_bgc: torch.Tensor,
    mask_bgc: torch.Tensor,
    *,
    positions: torch.Tensor,
) -> Scores:
    """Log-probabilities of completions, each group's prompt and pictures computed once.

    Args:
        model: carries TRL's fused head (`trl.trainer.utils.add_fused_lm_head`) and `attend_to_trees`; may be
            wrapped by PEFT or for several devices.
        prompts: B left-padded prompts as `encode` gives them.
        completions_bgc: token ids (B x G x C), right-padded.
        mask_bgc: 1 on real completion tokens (B x G x C).
        positions: `rope_positions` of the prompts (3 x B x P).
    """
    b, g, c = completions_bgc.shape
    trunk = prompts["input_ids"].shape[1] - 1
    rows = _grown(prompts["input_ids"], completions_bgc)
    labels = torch.cat(
        [
            completions_bgc.new_full((b, trunk), IGNORED),
            completions_bgc.masked_fill(mask_bgc == 0, IGNORED).flatten(1),
        ],
        dim=1,
    )
    steps = torch.arange(c, device=rows.device).repeat(g)
    pictures = {name: prompts[name] for name in ("pixel_values", "image_grid_thw") if name in prompts}
    seen = prompts["attention_mask"].bool()
    outputs = model(
        input_ids=rows,
        attention_mask=_branch_mask(seen[:, :-1], g, c),
        position_ids=torch.cat([positions[:, :, :-1], positions[:, :, -1:] + steps], dim=2),
        shift_labels=labels,
        fused_lm_head=True,
        tree=Tree(trunk, g, _trunk_mask(seen[:, :-1])),
        **pictures,
    )
    entropy = outputs.entropy
    return Scores(
        outputs.log_probs[:, trunk:].unflatten(1, (g, c)),
        None if entropy is None else entropy[:, trunk:].unflatten(1, (g, c)),
    )


def _grown(prompt_bp: torch.Tensor, completions_bgc: torch.Tensor) -> torch.Tensor:
    """The rows of ids (B x L): a branch reads the prompt's last token and all of its own but the last."""
    first = prompt_bp[:, None, -1:].expand(-1, completions_bgc.shape[1], -1)
    branches = torch.cat([first, completions_bgc[:, :, :-1]], dim=2)
    return torch.cat([prompt_bp[:, :-1], branches.flatten(1)], dim=1)


def _trunk_mask(seen_bt: torch.Tensor) -> torch.Tensor:
    """Causal over real tokens; padding sees itself, since a softmax over nothing is not a number."""
    t = seen_bt.shape[1]
    causal = torch.ones(t, t, dtype=torch.bool, device=seen_bt.device).tril()
    itself = torch.eye(t, dtype=torch.bool, device=seen_bt.device)
    return (causal & seen_bt[:, None, None, :]) | itself


def _branch_mask(seen_bt: torch.Tensor, branches: int, length: int) -> torch.Tensor:
    causal = torch.ones(length, length, dtype=torch.bool, device=seen_bt.device).tril()
    b, t = seen_bt.shape
    whole = torch.cat([seen_bt[:, None, :].expand(b, length, t), causal.expand(b, length, length)], dim=2)
    return whole.repeat_interleave(branches, dim=0)[:, None]
