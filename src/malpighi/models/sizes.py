"""How big a miniature is; kept apart from the code that builds it, which needs torch."""

from malpighi.config import Settings
from malpighi.errors import ConfigError
from malpighi.models.families import SPECIAL_TOKENS, TAGS

_SMALLEST_VOCABULARY = 256 + len(SPECIAL_TOKENS) + len(TAGS)


class TinySize(Settings, frozen=True):
    """How big a miniature is; the default is near 2.5 million parameters.

    Attributes:
        hidden: width of the language model; a multiple of `2 * heads`.
        layers: blocks of the language model.
        heads: attention heads.
        kv_heads: key and value heads; divides `heads`.
        feed_forward: width inside its feed-forward blocks.
        vision_hidden: width of the vision tower; a multiple of `4 * vision_heads`.
        vision_layers: blocks of the vision tower.
        vision_heads: attention heads of the vision tower.
        vision_feed_forward: width inside the tower's feed-forward blocks.
        vocabulary: most tokens of the tokenizer; short texts give fewer.
        grid: side of the learned position table, patches (Qwen3-VL only; interpolated to other sizes).
    """

    hidden: int = 192
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    feed_forward: int = 512
    vision_hidden: int = 96
    vision_layers: int = 4
    vision_heads: int = 4
    vision_feed_forward: int = 256
    vocabulary: int = 1024
    grid: int = 16

    def __post_init__(self) -> None:
        """Refuse sizes that attention or rotary positions cannot be built from."""
        if self.hidden % (2 * self.heads) or self.hidden // self.heads < 16:
            raise ConfigError(
                f"hidden={self.hidden} does not split over heads={self.heads}; take a multiple of "
                f"{2 * self.heads} of at least {16 * self.heads}"
            )
        if self.heads % self.kv_heads:
            raise ConfigError(f"kv_heads={self.kv_heads} must divide heads={self.heads}")
        if self.vision_hidden % (4 * self.vision_heads):
            raise ConfigError(
                f"vision_hidden={self.vision_hidden} must be a multiple of {4 * self.vision_heads}, four "
                f"times vision_heads={self.vision_heads}"
            )
        if self.vocabulary < _SMALLEST_VOCABULARY:
            raise ConfigError(
                f"vocabulary={self.vocabulary} has no room for bytes and special tokens; the least is "
                f"{_SMALLEST_VOCABULARY}"
            )
