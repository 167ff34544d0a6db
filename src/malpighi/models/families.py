"""What differs between families of vision-language models, as data.

Sources: the configurations and processors of `transformers` (qwen2_5_vl, qwen3_vl) for patches, merging and
token names; Qwen's grounding cookbooks for how each family writes boxes. Qwen2.5-VL was trained on pixels of
the resized image, Qwen3-VL on 0 to 1000 of the image's sides. For the families that are only examined: the
configurations of `transformers` for sides and tokens; the model cards and papers for boxes (Qwen2-VL and
InternVL 0 to 1000, LLaVA decimals, PaliGemma location tokens).
"""

import msgspec

from malpighi.errors import ConfigError
from malpighi.geometry import Frame

IMAGE_TOKEN = "<|image_pad|>"
VIDEO_TOKEN = "<|video_pad|>"
VISION_START = "<|vision_start|>"
VISION_END = "<|vision_end|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
PAD_TOKEN = "<|endoftext|>"

VISION_TOKENS = (VISION_START, VISION_END, IMAGE_TOKEN, VIDEO_TOKEN)
"""What a model must never write: a sampled placeholder has no image behind it."""

SPECIAL_TOKENS = (PAD_TOKEN, TURN_START, TURN_END, *VISION_TOKENS)
"""What no text of a user may contain: it would end a turn or announce an image."""

TAGS = ("<think>", "</think>", "<answer>", "</answer>")


class Family(msgspec.Struct, frozen=True):
    """The facts of one family.

    Attributes:
        name: the `model_type` of its configuration files.
        patch: side of a patch of the vision tower, px.
        merge: patches per token along one side.
        frame: the frame in which it writes boxes; where none was trained, the one that it is asked for.
        fixed: tokens that its smallest picture costs, however small the image; an image is then shown with as
            many pixels as these tokens hold, whatever the budget. 0 where the cost follows the size.
    """

    name: str
    patch: int
    merge: int
    frame: Frame
    fixed: int = 0

    @property
    def pixels_per_token(self) -> int:
        """P: side, px, of the square of the image that becomes one token."""
        return self.patch * self.merge


FAMILIES: dict[str, Family] = {
    "qwen2_5_vl": Family(
        name="qwen2_5_vl",
        patch=14,
        merge=2,
        frame=Frame.RESIZED,
    ),
    "qwen3_vl": Family(
        name="qwen3_vl",
        patch=16,
        merge=2,
        frame=Frame.RELATIVE1000,
    ),
}


ANY = "any"
"""The family of a server of which nothing is known: boxes are asked for in thousandths, in words."""

EXAMINED: dict[str, Family] = {
    family.name: family
    for family in (
        Family("qwen2_vl", patch=14, merge=2, frame=Frame.RELATIVE1000),
        Family("internvl", patch=14, merge=2, frame=Frame.RELATIVE1000, fixed=256),
        Family("llava", patch=14, merge=1, frame=Frame.RELATIVE1, fixed=576),
        Family("llava_next", patch=14, merge=1, frame=Frame.RELATIVE1, fixed=576),
        Family("llava_onevision", patch=14, merge=1, frame=Frame.RELATIVE1, fixed=729),
        Family("gemma3", patch=14, merge=4, frame=Frame.RELATIVE1000, fixed=256),
        Family("paligemma", patch=14, merge=1, frame=Frame.BINS1024, fixed=256),
        Family("mllama", patch=14, merge=1, frame=Frame.RELATIVE1000, fixed=1600),
        Family(ANY, patch=14, merge=2, frame=Frame.RELATIVE1000),
    )
}
"""Families that can be examined but not trained here; see `inference.chat_families`."""


def trained_family(name: str) -> Family:
    """The family of that name, if it can be trained and built here; raises as `family_named`."""
    if name not in FAMILIES:
        raise ConfigError(f"unknown model family '{name}'; known: {', '.join(FAMILIES)}")
    return FAMILIES[name]


def family_named(name: str) -> Family:
    """The family of that name, trained here or only examined.

    Raises:
        ConfigError: no such family; the message lists those known.
    """
    known = FAMILIES | EXAMINED
    if name not in known:
        raise ConfigError(f"unknown model family '{name}'; known: {', '.join(known)}")
    return known[name]
