"""Slides through OpenSlide: the formats that are not read directly."""

from pathlib import Path
from typing import Any

import numpy as np
import openslide
from PIL import Image

from malpighi.errors import DataError
from malpighi.geometry import Size
from malpighi.slides.slide import WHITE, Level, Pixels, Slide, SlideFacts

_MPP = (openslide.PROPERTY_NAME_MPP_X, openslide.PROPERTY_NAME_MPP_Y)


class OpenSlideSlide(Slide):
    """A slide that OpenSlide reads.

    Args:
        path: the file.
        mpp: overrides the scale that the file states.

    Raises:
        DataError: OpenSlide cannot open the file.
    """

    def __init__(self, path: Path, mpp: float | None = None) -> None:
        try:
            self._handle = openslide.OpenSlide(str(path))
        except (openslide.OpenSlideError, OSError) as error:
            raise DataError(f"{path}: OpenSlide cannot open it ({error})") from error
        properties = dict(self._handle.properties)
        sizes, factors = self._handle.level_dimensions, self._handle.level_downsamples
        levels = tuple(Level(size, factor) for size, factor in zip(sizes, factors, strict=True))
        stated = _stated(properties)
        found, source = (mpp, "given") if mpp is not None else stated
        facts = SlideFacts(
            reader="openslide",
            levels=levels,
            mpp=found,
            mpp_source=source,
            vendor=properties.get(openslide.PROPERTY_NAME_VENDOR, ""),
            properties=properties,
        )
        self._given = mpp
        super().__init__(path, facts)

    def _decode(self, level: int, corner: tuple[int, int], size: Size, shrink: int) -> Pixels:
        del shrink
        scale = self.levels[level].downsample
        place = (round(corner[0] * scale), round(corner[1] * scale))
        rgba = self._handle.read_region(place, level, size)
        white = Image.new("RGB", size, WHITE)
        white.paste(rgba, mask=rgba.getchannel("A"))
        return np.asarray(white)

    def close(self) -> None:
        """Close the handle."""
        self._handle.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return (OpenSlideSlide, (self.path, self._given))


def _stated(properties: dict[str, str]) -> tuple[float | None, str]:
    try:
        found = [float(properties[name]) for name in _MPP]
    except (KeyError, ValueError):
        return None, ""
    return sum(found) / 2, _MPP[0]
