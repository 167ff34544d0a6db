"""Whether our own reading of a TIFF agrees with OpenSlide's, on a few tiles.

A wrong reading is silent: colours or places are off and nothing raises. So before our reader is trusted with
a file, some of its tiles are read by both.
"""

import math

import numpy as np

from malpighi.slides.openslide_slide import OpenSlideSlide
from malpighi.slides.slide import Pixels
from malpighi.slides.tiff_slide import TiffSlide

SAME = 2
_SAME_MEAN = 1.0
_WHOLE_PX = 1e-3
_WINDOW = 64
_VENDORS = ("aperio", "generic-tiff")

Place = tuple[int, int, int]


def disagreement(ours: TiffSlide, theirs: OpenSlideSlide) -> tuple[str, str]:
    """Compare the levels, and the pixels of up to three tiles.

    Returns:
        (what differs, what was compared); the first is empty where the readings agree. JPEG decoders may
        differ by `SAME` of 255.
    """
    if theirs.facts.vendor not in _VENDORS:
        return f"OpenSlide knows it as {theirs.facts.vendor}, which is not read directly", ""
    sizes = [[level.size for level in slide.levels] for slide in (ours, theirs)]
    if sizes[0][: len(sizes[1])] != sizes[1]:
        return f"levels of {sizes[0]} px; OpenSlide finds {sizes[1]}", ""
    compared, worst = 0, 0.0
    for place in places(ours, len(sizes[1])):
        found = difference(ours, theirs, place)
        if found is None:
            continue
        value, most = found
        if value > most:
            return f"tile {place[1:]} of level {place[0]} differs by {value:.1f} of 255", ""
        compared, worst = compared + 1, max(worst, value)
    unknown = len(sizes[0]) - len(sizes[1])
    beyond = f"; {unknown} levels are unknown to OpenSlide" if unknown else ""
    return "", f"{compared} tiles agree with OpenSlide (largest difference {worst:.1f} of 255){beyond}"


def places(slide: TiffSlide, levels: int) -> list[Place]:
    """(level, column, row) of the fullest tiles: two of level 0, one of the last level."""
    found = []
    for level in sorted({0, levels - 1}):
        counts = slide.stored_bytes(level)
        ordered = np.argsort(counts, axis=None)
        chosen = [ordered[-1], ordered[3 * len(ordered) // 4]] if level == 0 else [ordered[-1]]
        for index in dict.fromkeys(int(each) for each in chosen):
            row, column = divmod(index, counts.shape[1])
            if counts[row, column]:
                found.append((level, column, row))
    return found


def difference(ours: TiffSlide, theirs: OpenSlideSlide, place: Place) -> tuple[float, float] | None:
    """How far two readings of a tile's middle are apart, and how far they may be; None where it is damaged.

    OpenSlide takes places in level-0 px, so on a level whose downsample is no whole number it reads between
    pixels. There ours is moved by the same fraction (bilinear), and means are compared, not extremes.
    """
    level, column, row = place
    wide, high = ours.levels[level].tile or (0, 0)
    sides = zip((column * wide, row * high), (wide, high), ours.levels[level].size, strict=True)
    spans = [_middle(start, min(start + side, end)) for start, side, end in sides]
    corner, size = (spans[0][0], spans[1][0]), (spans[0][1], spans[1][1])
    mine = ours.read_level(level, corner, size)
    other = theirs.read_level(level, corner, size)
    if place in ours.damage or len(theirs.damage):
        return None
    scale = theirs.levels[level].downsample
    moved = [round(side * scale) / scale - side for side in corner]
    if max(map(abs, moved)) < _WHOLE_PX:
        return float(np.abs(mine.astype(int) - other).max()), SAME
    inner = _moved(mine, moved[0], moved[1]) - other[1:-1, 1:-1]
    return float(np.abs(inner).mean()) if inner.size else 0.0, _SAME_MEAN


def _middle(start: int, end: int) -> tuple[int, int]:
    """(start, length) of the middle of a stretch, at most `_WINDOW` long."""
    length = min(end - start, _WINDOW)
    return start + (end - start - length) // 2, length


def _moved(rgb: Pixels, x: float, y: float) -> np.ndarray:
    """The inside of a picture, read `x`, `y` px (within 1) further, bilinear."""
    values = rgb.astype(float)
    for axis, by in ((1, x), (0, y)):
        step = math.floor(by)
        low, high = (np.roll(values, -each, axis=axis) for each in (step, step + 1))
        values = low + (high - low) * (by - step)
    return values[1:-1, 1:-1]
