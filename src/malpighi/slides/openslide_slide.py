"""Slides through OpenSlide: the formats that are not read directly."""

import threading
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import openslide
from PIL import Image

from malpighi.errors import DataError
from malpighi.geometry import Size
from malpighi.slides.scale import Scale, from_properties, objective_of, scale_of
from malpighi.slides.slide import WHITE, Level, Pixels, Slide, SlideFacts

_UNTILED = (512, 512)


class OpenSlideSlide(Slide):
    """A slide that OpenSlide reads.

    Args:
        path: the file.
        mpp: overrides the scale that the file states.
        source: where `mpp` comes from.
        notes: what a user should know besides what the file shows.

    Raises:
        DataError: OpenSlide cannot open the file.
    """

    def __init__(
        self, path: Path, mpp: float | None = None, source: str = "given", notes: tuple[str, ...] = ()
    ) -> None:
        self._handle, self._lock, self._closed = _opened(path), threading.Lock(), False
        properties = dict(self._handle.properties)
        scale = scale_of(Scale(mpp, source), from_properties(properties))
        facts = SlideFacts(
            reader="openslide",
            levels=_levels(self._handle, properties),
            mpp=scale.mpp,
            mpp_source=scale.source if scale.mpp is not None else "",
            objective=objective_of(properties),
            vendor=properties.get(openslide.PROPERTY_NAME_VENDOR, ""),
            properties=properties,
            notes=(*scale.notes, *notes),
        )
        self._made_with = (mpp, source, notes)
        super().__init__(path, facts)

    def _decode(self, level: int, corner: tuple[int, int], size: Size, shrink: int) -> Pixels:
        del shrink
        if self._closed:
            raise DataError(f"{self.path} is closed; open the slide again")
        handle = self._handle
        try:
            return self._read(handle, level, corner, size)
        except openslide.OpenSlideError:
            self._replace(handle)
            return self._by_tiles(level, corner, size)

    def _read(self, handle: openslide.OpenSlide, level: int, corner: tuple[int, int], size: Size) -> Pixels:
        scale = self.levels[level].downsample
        place = (round(corner[0] * scale), round(corner[1] * scale))
        rgba = handle.read_region(place, level, size)
        alpha = rgba.getchannel("A")
        if alpha.getextrema() == (255, 255):
            return np.array(rgba.convert("RGB"))
        white = Image.new("RGB", size, WHITE)
        white.paste(rgba, mask=alpha)
        return np.array(white)

    def _by_tiles(self, level: int, corner: tuple[int, int], size: Size) -> Pixels:
        """As `_read`, but a tile that OpenSlide cannot read stays white and is marked.

        A handle that failed once fails for ever, also for the good tiles of other threads: so one of its own.
        """
        (x, y), (width, height) = corner, size
        out = np.full((height, width, 3), 255, dtype=np.uint8)
        wide, high = self.levels[level].tile or _UNTILED
        columns, rows = range(x // wide, -(-(x + width) // wide)), range(y // high, -(-(y + height) // high))
        handle = _opened(self.path)
        for row, column in product(rows, columns):
            x0, y0 = max(x, column * wide), max(y, row * high)
            x1, y1 = min(x + width, (column + 1) * wide), min(y + height, (row + 1) * high)
            if (level, column, row) in self.damage:
                continue
            try:
                part = self._read(handle, level, (x0, y0), (x1 - x0, y1 - y0))
                out[y0 - y : y1 - y, x0 - x : x1 - x] = part
            except openslide.OpenSlideError as error:
                self.damage.mark(level, column, row, str(error))
                handle = _opened(self.path)
        handle.close()
        return out

    def _replace(self, failed: openslide.OpenSlide) -> None:
        with self._lock:
            if self._handle is failed and not self._closed:
                self._handle = _opened(self.path)

    def close(self) -> None:
        """Close the handle."""
        with self._lock:
            closed, self._closed = self._closed, True
            if not closed:
                self._handle.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return (OpenSlideSlide, (self.path, *self._made_with))


def _opened(path: Path) -> openslide.OpenSlide:
    try:
        return openslide.OpenSlide(str(path))
    except (openslide.OpenSlideError, OSError, UnicodeError) as error:
        raise DataError(f"{path}: OpenSlide cannot open it ({error})") from error


def _levels(handle: openslide.OpenSlide, properties: dict[str, str]) -> tuple[Level, ...]:
    found = []
    for index, (size, factor) in enumerate(
        zip(handle.level_dimensions, handle.level_downsamples, strict=True)
    ):
        sides = [properties.get(f"openslide.level[{index}].tile-{side}", "") for side in ("width", "height")]
        tile = (int(sides[0]), int(sides[1])) if all(side.isdigit() for side in sides) else None
        found.append(Level(size, factor, tile))
    return tuple(found)
