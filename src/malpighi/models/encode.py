"""From prompts and targets to tensors: the only place that builds token sequences, masks and labels.

Shapes: B samples, L tokens, N patches of all images together, I images, F numbers per patch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from malpighi.errors import DataError
from malpighi.models.families import IMAGE_TOKEN, PAD_TOKEN, TURN_END
from malpighi.models.prompt import Prompt, refuse_special
from malpighi.models.vlm import Vlm

Side = Literal["left", "right"]
Batch = dict[str, torch.Tensor]

IGNORED = -100
"""Label of positions that no loss is taken from."""


@dataclass(frozen=True, eq=False)
class Encoded:
    """One sample in tokens.

    Attributes:
        ids: prompt, then target.
        prompt_length: how many of `ids` belong to the prompt.
        pixels_nf: float32 patches of all its images; None without images.
        grid_i3: int64 (time, height, width) in patches per image; None without images.
    """

    ids: tuple[int, ...]
    prompt_length: int
    pixels_nf: torch.Tensor | None
    grid_i3: torch.Tensor | None


def encode(
    prompts: Sequence[Prompt],
    targets: Sequence[str | Sequence[int]] | None,
    vlm: Vlm,
    *,
    padding: Side = "right",
    max_length: int | None = None,
) -> Batch:
    """A batch for the model.

    Args:
        prompts: what is shown.
        targets: what should be said, one per prompt, see `encode_one`; None where the model is to say it.
        vlm: whose tokenizer, chat template and image processor are used.
        padding: side of the padding: right for training, left for generation.
        max_length: most tokens of one sample; None for no bound.

    Returns:
        `input_ids`, `attention_mask`, `mm_token_type_ids` (int64, B x L; 1 on image tokens); with targets
        `labels` (int64, B x L; `IGNORED` outside target and end token); with images `pixel_values` (float32,
        N x F) and `image_grid_thw` (int64, I x 3). On the CPU.

    Raises:
        DataError: a sample longer than `max_length`, or any other reason of `encode_one`.
    """
    said: Sequence[str | Sequence[int] | None] = [None] * len(prompts) if targets is None else targets
    if len(said) != len(prompts):
        raise DataError(f"{len(prompts)} prompts but {len(said)} targets; give one each")
    samples = [
        encode_one(prompt, target, vlm, max_length=max_length)
        for prompt, target in zip(prompts, said, strict=True)
    ]
    return collate(samples, vlm, padding=padding, labels=targets is not None)


def encode_one(
    prompt: Prompt, target: str | Sequence[int] | None, vlm: Vlm, *, max_length: int | None = None
) -> Encoded:
    """One sample in tokens; never cut, so an image always keeps all its tokens.

    Args:
        prompt: what is shown.
        target: words to be said, to which the end token is added; or the very token ids that a model sampled,
            taken as they are; or None.
        vlm: whose tokenizer, chat template and image processor are used.
        max_length: most tokens; None for no bound.

    Raises:
        DataError: the sample is longer than `max_length`, or its image tokens do not match its images.
    """
    pixels_nf, grid_i3 = _pixels(prompt, vlm)
    prompt_ids = _with_image_tokens(_prompt_ids(prompt, vlm), grid_i3, vlm)
    target_ids = _target_ids(target, vlm)
    length = len(prompt_ids) + len(target_ids)
    if max_length is not None and length > max_length:
        images = sum(token == vlm.token_id(IMAGE_TOKEN) for token in prompt_ids)
        raise DataError(
            f"a sample of {length} tokens ({images} of images, {len(prompt_ids) - images} of other prompt, "
            f"{len(target_ids)} of target) exceeds max_length={max_length}; raise it or lower the budget"
        )
    return Encoded((*prompt_ids, *target_ids), len(prompt_ids), pixels_nf, grid_i3)


def collate(samples: Sequence[Encoded], vlm: Vlm, *, padding: Side = "right", labels: bool = True) -> Batch:
    """Encoded samples padded to the longest; see `encode` for what comes out.

    Raises:
        DataError: no samples.
    """
    if not samples:
        raise DataError("a batch needs at least one sample")
    ids_bl = _padded([list(s.ids) for s in samples], vlm.token_id(PAD_TOKEN), padding)
    batch = {
        "input_ids": ids_bl,
        "attention_mask": _padded([[1] * len(s.ids) for s in samples], 0, padding),
        "mm_token_type_ids": (ids_bl == vlm.token_id(IMAGE_TOKEN)).long(),
    }
    if labels:
        told = [[IGNORED] * s.prompt_length + list(s.ids[s.prompt_length :]) for s in samples]
        batch["labels"] = _padded(told, IGNORED, padding)
    pixels = [s.pixels_nf for s in samples if s.pixels_nf is not None]
    grids = [s.grid_i3 for s in samples if s.grid_i3 is not None]
    if pixels:
        batch["pixel_values"], batch["image_grid_thw"] = torch.cat(pixels), torch.cat(grids)
    return batch


def chat(prompt: Prompt) -> list[dict[str, Any]]:
    """The prompt as the chat template's messages: images stand before the words of their user turn."""
    messages: list[dict[str, Any]] = []
    if prompt.system:
        messages.append({"role": "system", "content": [{"type": "text", "text": prompt.system}]})
    for index, turn in enumerate(prompt.turns):
        content: list[dict[str, Any]] = [{"type": "image"} for _ in prompt.images_before(index)]
        messages.append({"role": turn.role, "content": [*content, {"type": "text", "text": turn.text}]})
    return messages


def _prompt_ids(prompt: Prompt, vlm: Vlm) -> list[int]:
    for text in (prompt.system, *(turn.text for turn in prompt.turns)):
        refuse_special(text, "prompt")
    text = vlm.processor.apply_chat_template(chat(prompt), tokenize=False, add_generation_prompt=True)
    # Templates of "thinking" checkpoints open the thought themselves; a completion would lack its first tag.
    text = text.removesuffix("<think>\n")
    return list(vlm.tokenizer(text, add_special_tokens=False)["input_ids"])


def _target_ids(target: str | Sequence[int] | None, vlm: Vlm) -> list[int]:
    if target is None:
        return []
    if not isinstance(target, str):
        return list(target)
    refuse_special(target, "target")
    return [*vlm.tokenizer(target, add_special_tokens=False)["input_ids"], vlm.token_id(TURN_END)]


def _pixels(prompt: Prompt, vlm: Vlm) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    if not prompt.images:
        return None, None
    side = vlm.family.pixels_per_token
    for image in prompt.images:
        if image.width % side or image.height % side or image.mode != "RGB":
            raise DataError(
                f"a {image.mode} image of {image.size} px is not made for {vlm.family.name}: expected RGB "
                f"with sides that are multiples of {side}; build the prompt with that family's style"
            )
    # Our own resizing has been done; the processor's would move the pixels that boxes are counted in.
    seen = vlm.processor.image_processor(images=list(prompt.images), do_resize=False, return_tensors="pt")
    return seen["pixel_values"], seen["image_grid_thw"]


def _with_image_tokens(ids: Sequence[int], grid_i3: torch.Tensor | None, vlm: Vlm) -> list[int]:
    """Each image's one placeholder repeated to the number of tokens that the image becomes."""
    image_id = vlm.token_id(IMAGE_TOKEN)
    counts = [] if grid_i3 is None else (grid_i3.prod(-1) // vlm.family.merge**2).tolist()
    placeholders = sum(token == image_id for token in ids)
    if placeholders != len(counts):
        raise DataError(
            f"the chat template wrote {placeholders} image placeholders for {len(counts)} images; it is not "
            "the template of this family, or the conversation has no user turn"
        )
    waiting = iter(counts)
    expanded: list[int] = []
    for token in ids:
        expanded += [token] * (next(waiting) if token == image_id else 1)
    return expanded


def _padded(rows: Sequence[list[int]], filler: int, side: Side) -> torch.Tensor:
    longest = max(len(row) for row in rows)
    fill = [[filler] * (longest - len(row)) for row in rows]
    if side == "left":
        return torch.tensor([pad + row for row, pad in zip(rows, fill, strict=True)])
    return torch.tensor([row + pad for row, pad in zip(rows, fill, strict=True)])
