"""How large an image is shown to the model: the resizing T(M, P) of SmartPath-R1.

P is the side, in pixels, of the square of the image that becomes one token of the language model (28 for
Qwen2.5-VL, 32 for Qwen3-VL); M is the largest number of such tokens that one image may cost.
"""

import math

from malpighi.errors import ConfigError, DataError

Size = tuple[int, int]


def fit(size: Size, max_tokens: int, pixels_per_token: int) -> Size:
    """The size (width, height), px, at which an image is shown: multiples of P that cost at most M tokens.

    An image within the budget only has its sides rounded to the nearest multiple of P (half to even, at least
    one P). A larger image is scaled down by one factor and its sides are rounded down.

    Args:
        size: (width, height) of the image, px.
        max_tokens: M, the token budget of one image.
        pixels_per_token: P, px per token along one side.

    Raises:
        ConfigError: M or P is below 1.
        DataError: the image has no pixels.

    Source: SmartPath-R1, section 4.2: a scaling factor, then P-aligned rounding, with H'W'/P^2 <= M. The
        paper prints no formula; the factor and the two roundings are those of Qwen's `smart_resize`.
    Departs: the bound holds for every size. `smart_resize` breaks it, or returns a side of 0, for thin images
        (20 x 1000 px with M=16) and refuses aspect ratios over 200; here a side that rounds to nothing
        becomes P and the other side is cut to what the budget leaves. There is no lower bound on
        tokens, so a small image is never scaled up.

    Example:
        >>> fit((1536, 2048), 256, 28)
        (364, 504)
        >>> fit((20, 1000), 16, 28)
        (28, 448)
    """
    _check(size, max_tokens, pixels_per_token)
    columns, rows = (max(1, round(side / pixels_per_token)) for side in size)
    if columns * rows > max_tokens:
        shrink = math.sqrt(size[0] * size[1] / (max_tokens * pixels_per_token**2))
        columns, rows = (max(1, math.floor(side / shrink / pixels_per_token)) for side in size)
    if columns * rows > max_tokens:
        columns, rows = _cut(columns, rows, max_tokens)
    return (columns * pixels_per_token, rows * pixels_per_token)


def tokens(size: Size, pixels_per_token: int) -> int:
    """How many tokens an image of this size, a result of `fit`, costs.

    Raises:
        DataError: a side is not a multiple of P.

    Example:
        >>> tokens((364, 504), 28)
        234
    """
    width, height = size
    if width % pixels_per_token or height % pixels_per_token or min(size) < pixels_per_token:
        raise DataError(
            f"an image of {width} x {height} px does not divide into tokens of {pixels_per_token} px; "
            "resize it with fit()"
        )
    return (width // pixels_per_token) * (height // pixels_per_token)


def _cut(columns: int, rows: int, max_tokens: int) -> Size:
    """The longer side shortened to what the budget leaves beside the shorter one."""
    if columns >= rows:
        return (max_tokens // rows, rows)
    return (columns, max_tokens // columns)


def _check(size: Size, max_tokens: int, pixels_per_token: int) -> None:
    if max_tokens < 1 or pixels_per_token < 1:
        raise ConfigError(
            f"a budget of {max_tokens} tokens of {pixels_per_token} px is no budget; both must be at least 1"
        )
    if min(size) < 1:
        raise DataError(f"an image of {size[0]} x {size[1]} px has no pixels")
