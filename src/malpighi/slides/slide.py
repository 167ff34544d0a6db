"""What a slide is: levels, a scale, and pixels of any region at any size.

Shape legend: H x W x 3 = rows x columns x RGB, uint8. Positions of regions are level-0 px.
"""

import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Self

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from malpighi.errors import DataError
from malpighi.geometry import Region, Size, coarser, on_level, shrinkage
from malpighi.slides.area import mean_over_areas

Pixels = NDArray[np.uint8]

WHITE = (255, 255, 255)
MAX_PIXELS = 1 << 38
_BAND_PIXELS = 2_000_000
_BAND_ROWS = 1024
_FEW = 64
_NEARLY = 1e-6


class Level(msgspec.Struct, frozen=True):
    """One stored resolution of a slide.

    Attributes:
        size: (width, height), px of this level.
        downsample: how many level-0 px make one px of this level, along one side.
        tile: (width, height) of a stored tile, px of this level; None where the format does not say.
    """

    size: Size
    downsample: float
    tile: Size | None = None


class SlideFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a slide without looking at its pixels.

    Attributes:
        reader: who decodes it: `tiff`, `openslide`, `dicom` or `picture`.
        levels: the stored resolutions, finest first.
        mpp: micrometres per level-0 pixel; None where no source states a usable one.
        mpp_source: where the scale comes from, e.g. `given`, `aperio.MPP`; "" where there is none.
        objective: nominal magnification of the objective; None where not stated. Never turned into an mpp.
        vendor: who made the file, as the format says; "" where it does not.
        properties: what else the file says, as text.
        notes: what a user should know, e.g. why another reader was taken.
    """

    reader: str
    levels: tuple[Level, ...]
    mpp: float | None = None
    mpp_source: str = ""
    objective: float | None = None
    vendor: str = ""
    properties: dict[str, str] = {}
    notes: tuple[str, ...] = ()


class Damage:
    """Tiles that could not be read, by place; they are painted as background. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tiles: dict[tuple[int, int, int], str] = {}

    def mark(self, level: int, column: int, row: int, reason: str) -> None:
        """Remember a tile; marking it again changes nothing."""
        with self._lock:
            self._tiles.setdefault((level, column, row), reason)

    def __len__(self) -> int:
        return len(self._tiles)

    def __contains__(self, place: object) -> bool:
        """Whether the tile (level, column, row) is marked."""
        return place in self._tiles

    def __iter__(self) -> Iterator[tuple[tuple[int, int, int], str]]:
        """((level, column, row), reason) of each tile, sorted."""
        with self._lock:
            return iter(sorted(self._tiles.items()))


class Slide(ABC):
    """A slide that is open for reading. Safe to share between threads; pickled, it is opened anew.

    Attributes:
        path: the file or folder.
        facts: what is known of it.
        damage: tiles found missing or corrupt so far.
        shrinks: powers of two by which `_decode` shrinks while it decodes, ascending, 1 first.
    """

    shrinks: tuple[int, ...] = (1,)

    def __init__(self, path: Path, facts: SlideFacts) -> None:
        wide, high = facts.levels[0].size
        if wide * high > MAX_PIXELS:
            raise DataError(f"{path.name} states {wide} x {high} px; no slide has so many, it is damaged")
        self.path = path
        self.facts = facts
        self.damage = Damage()

    @property
    def size(self) -> Size:
        """(width, height) of level 0, px."""
        return self.facts.levels[0].size

    @property
    def levels(self) -> tuple[Level, ...]:
        """The stored resolutions, finest first."""
        return self.facts.levels

    @property
    def mpp(self) -> float | None:
        """Micrometres per level-0 pixel; None where unknown."""
        return self.facts.mpp

    @property
    def whole(self) -> Region:
        """The region that is the whole slide."""
        return Region(0, 0, *self.size, self.mpp)

    def level_for(self, step: float) -> int:
        """The coarsest level that is not coarser than `step` level-0 px per px.

        No coarser level is ever enlarged: what it lacks cannot be had back.
        """
        fit = [index for index, level in enumerate(self.levels) if level.downsample <= step * (1 + _NEARLY)]
        return max(fit, key=lambda index: self.levels[index].downsample, default=0)

    def read(self, region: Region, size: Size) -> Pixels:
        """A region of the slide at a size; what lies outside of the slide is background.

        The coarsest level that is fine enough is reduced by area; only level 0 is ever enlarged (bicubic).
        Memory is bounded by the size asked for, not by the region: it is read in blocks.

        Args:
            region: level-0 px; may be fractional and may reach over the edge.
            size: (width, height) of the result, px.

        Returns:
            rgb_HW3 of `size`.

        Raises:
            DataError: a region or a size without extent.
        """
        if min(size) < 1 or not (region.width > 0 and region.height > 0):
            raise DataError(f"{self.path.name}: {region} at {size[0]} x {size[1]} px has no extent to read")
        step = min(region.width / size[0], region.height / size[1])
        index = self.level_for(step)
        scale = self.levels[index].downsample
        shrink = max(s for s in self.shrinks if s == 1 or scale * s <= step * (1 + _NEARLY))
        corners = on_level(region, scale * shrink)
        if _inside(region, self.size):
            (x0, x1), (y0, y1) = (
                _within(corners[side], corners[side + 2], self.levels[index].size[side] / shrink)
                for side in (0, 1)
            )
            corners = (x0, y0, x1, y1)
        return self._resampled(index, shrink, corners, size)

    def read_at(self, corner: tuple[float, float], size: Size, mpp: float) -> Pixels:
        """`size` px at `mpp` micrometres per pixel, whose upper left corner is at `corner` (level-0 px).

        Raises:
            MissingScaleError: the slide states no scale; open it with `mpp=`.
        """
        factor = shrinkage(self.mpp, mpp)
        return self.read(Region(*corner, size[0] * factor, size[1] * factor, self.mpp), size)

    def read_level(self, level: int, corner: tuple[int, int], size: Size) -> Pixels:
        """Pixels of one level as stored.

        Args:
            level: index into `levels`.
            corner: (x, y) of the upper left corner, px of that level; may be negative.
            size: (width, height), px of that level.
        """
        return self._decode(level, corner, size, 1)

    def read_many(
        self, corners: Sequence[tuple[int, int]] | NDArray[Any], size: Size, level: int = 0
    ) -> Iterator[tuple[int, Pixels]]:
        """Many rectangles of one size, in the order that is cheapest to read.

        Args:
            corners: upper left corners (x, y), px of the level: pairs, or an integer array N x 2.
            size: (width, height) of each, px of the level.
            level: index into `levels`.

        Yields:
            (index into `corners`, rgb_HW3); every index once.
        """
        for index, corner in enumerate(np.asarray(corners).reshape(-1, 2).tolist()):
            yield index, self.read_level(level, (int(corner[0]), int(corner[1])), size)

    def tile_jpeg(self, level: int, column: int, row: int) -> bytes | None:
        """The stored JPEG of a tile as a file of its own, its pixels untouched; at an edge with its padding.

        Returns:
            None where tiles are not stored as JPEG, are not at hand, or this one is missing or corrupt.
        """
        del level, column, row
        return None

    def mpp_of(self, level: int) -> float | None:
        """Micrometres per pixel of a level; None where the slide states no scale."""
        return coarser(self.mpp, self.levels[level].downsample)

    @abstractmethod
    def _decode(self, level: int, corner: tuple[int, int], size: Size, shrink: int) -> Pixels:
        """A rectangle of a level, shrunk by `shrink`; corner and size in shrunken px, outside is white.

        Tiles that are missing or corrupt are painted white and marked in `damage`.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of the file; reading afterwards is an error."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def __reduce__(self) -> tuple[Any, ...]:
        """Travels by path and options."""

    def _resampled(
        self, level: int, shrink: int, corners: tuple[float, float, float, float], size: Size
    ) -> Pixels:
        """The rectangle `corners` of a shrunken level as `size` px, decoded in blocks of bounded size."""
        x0, y0, x1, y1 = corners
        across, down = (x1 - x0) / size[0], (y1 - y0) / size[1]
        if min(across, down) < 1 - _NEARLY:
            return self._block(level, shrink, corners, size)
        wide = _whole_px(across, min(size[0], int(_BAND_PIXELS / across / max(down, _BAND_ROWS))))
        high = _whole_px(down, min(size[1], int(_BAND_PIXELS / across / down / wide)))
        if (wide, high) == size:
            return self._block(level, shrink, corners, size)
        out = np.empty((size[1], size[0], 3), dtype=np.uint8)
        for top, left in product(range(0, size[1], high), range(0, size[0], wide)):
            lower, right = min(top + high, size[1]), min(left + wide, size[0])
            part = (x0 + left * across, y0 + top * down, x0 + right * across, y0 + lower * down)
            out[top:lower, left:right] = self._block(level, shrink, part, (right - left, lower - top))
        return out

    def _block(
        self, level: int, shrink: int, corners: tuple[float, float, float, float], size: Size
    ) -> Pixels:
        """The rectangle `corners` of a shrunken level, decoded at once."""
        x0, y0, x1, y1 = corners
        left, top = math.floor(x0 + _NEARLY), math.floor(y0 + _NEARLY)
        right = max(math.ceil(x1 - _NEARLY), left + 1)
        lower = max(math.ceil(y1 - _NEARLY), top + 1)
        pixels = self._decode(level, (left, top), (right - left, lower - top), shrink)
        grows = (x1 - x0) / size[0] < 1 - _NEARLY or (y1 - y0) / size[1] < 1 - _NEARLY
        return _resize(pixels, size, (x0 - left, y0 - top, x1 - left, y1 - top), grows=grows)


def _whole_px(step: float, count: int) -> int:
    """At most `count` steps, at least one; so many, where few suffice, that they end between two pixels."""
    period = next((n for n in range(1, min(count, _FEW) + 1) if abs(n * step - round(n * step)) < _NEARLY), 1)
    return max(count - count % period, 1)


def _inside(region: Region, size: Size) -> bool:
    across, down = region.x + region.width, region.y + region.height
    return min(region.x, region.y) >= 0 and across <= size[0] + _NEARLY and down <= size[1] + _NEARLY


def _within(start: float, end: float, limit: float) -> tuple[float, float]:
    """A stretch that should lie on a level, moved back where the rounding of its downsample put it beyond."""
    beyond = max(end - limit, 0.0)
    return max(start - beyond, 0.0), end - beyond


def _resize(band: Pixels, size: Size, box: tuple[float, float, float, float], *, grows: bool) -> Pixels:
    """The part `box` of a picture as `size` px: by area where it shrinks, bicubic where it grows."""
    height, width = band.shape[:2]
    inside = (max(box[0], 0.0), max(box[1], 0.0), min(box[2], float(width)), min(box[3], float(height)))
    if not grows:
        return mean_over_areas(band, size, inside)
    return np.array(Image.fromarray(band).resize(size, Image.Resampling.BICUBIC, box=inside))
