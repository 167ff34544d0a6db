"""What differs between the two families of vision-language models, as data.

Sources: the configurations and processors of `transformers` (qwen2_5_vl, qwen3_vl) for patches, merging and
token names; Qwen's grounding cookbooks for how each family writes boxes. Qwen2.5-VL was trained on pixels of
the resized image, Qwen3-VL on 0 to 1000 of the image's sides.
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
        frame: the frame in which it writes boxes.
    """

    name: str
    patch: int
    merge: int
    frame: Frame

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


def family_named(name: str) -> Family:
    """The family of that name.

    Raises:
        ConfigError: no such family; the message lists those known.
    """
    if name not in FAMILIES:
        raise ConfigError(f"unknown model family '{name}'; known: {', '.join(FAMILIES)}")
    return FAMILIES[name]
