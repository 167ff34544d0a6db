"""Families of chat models that can be examined through `transformers`, as data.

Sources: the configurations, processors and published chat templates of each family in `transformers`; for the
frames of boxes see `models.families`. MedGemma is a Gemma 3 and Llama-Vision an Mllama.
"""

from typing import Literal

import msgspec

from malpighi.models.families import EXAMINED, FAMILIES, VISION_TOKENS, Family


class ChatFamily(msgspec.Struct, frozen=True, kw_only=True):
    """What differs between families, beside sides, tokens and boxes.

    Attributes:
        facts: sides, tokens and the frame of boxes.
        system: `own` where its template takes a system message; `folded` where it knows none, or none beside
            an image (Llama-Vision): the words then stand before those of the first user turn.
        many: whether it was made for several images in one prompt.
        template: whether it has a chat template; without one the words stand behind the image, as they are.
        stops: tokens that end its turn, beside those that its checkpoint names.
        marks: tokens that announce an image, which it must never say.
        processing: options of its processor.
        square: whether the image is squeezed to the tower's square first, because the processor would cut off
            what lies outside the middle square. Relative boxes stay exact. Departs: LLaVA 1.5 was trained on
            images padded to a square.
        tiles: whether it cuts large images into tiles of the tower's side; at most as many as the image has
            pixels for. The small picture of the whole that stands beside several tiles costs one more.
    """

    facts: Family
    system: Literal["own", "folded"]
    many: bool
    template: bool = True
    stops: tuple[str, ...] = ()
    marks: tuple[str, ...] = ("<image>",)
    processing: dict[str, bool] = {}
    square: bool = False
    tiles: bool = False


def _qwen(facts: Family) -> ChatFamily:
    return ChatFamily(
        facts=facts,
        system="own",
        many=True,
        stops=("<|im_end|>", "<|endoftext|>"),
        marks=VISION_TOKENS,
        # Our own resizing has been done; the processor's would move the pixels that boxes are counted in.
        processing={"do_resize": False},
    )


CHAT_FAMILIES: dict[str, ChatFamily] = {
    "qwen2_vl": _qwen(EXAMINED["qwen2_vl"]),
    "qwen2_5_vl": _qwen(FAMILIES["qwen2_5_vl"]),
    "qwen3_vl": _qwen(FAMILIES["qwen3_vl"]),
    "qwen3_vl_moe": _qwen(FAMILIES["qwen3_vl"]),
    "internvl": ChatFamily(
        facts=EXAMINED["internvl"],
        system="own",
        many=True,
        stops=("<|im_end|>",),
        marks=("<IMG_CONTEXT>", "<img>", "</img>", "<video>"),
        tiles=True,
    ),
    "llava": ChatFamily(facts=EXAMINED["llava"], system="folded", many=False, square=True),
    "llava_next": ChatFamily(facts=EXAMINED["llava_next"], system="folded", many=False),
    "llava_onevision": ChatFamily(
        facts=EXAMINED["llava_onevision"],
        system="own",
        many=True,
        stops=("<|im_end|>",),
        marks=("<image>", "<video>"),
    ),
    "gemma3": ChatFamily(
        facts=EXAMINED["gemma3"],
        system="folded",
        many=True,
        stops=("<end_of_turn>",),
        marks=("<start_of_image>", "<end_of_image>", "<image_soft_token>"),
    ),
    "paligemma": ChatFamily(facts=EXAMINED["paligemma"], system="folded", many=False, template=False),
    "mllama": ChatFamily(
        facts=EXAMINED["mllama"],
        system="folded",
        many=False,
        stops=("<|eot_id|>", "<|eom_id|>", "<|end_of_text|>"),
        marks=("<|image|>",),
    ),
}
"""`model_type` of a configuration -> its family."""
