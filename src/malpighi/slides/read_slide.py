"""A region of a slide as a picture file: what `malpighi slide read` writes for each."""

from pathlib import Path

from PIL import Image

from malpighi.config import Settings
from malpighi.durable import replacing
from malpighi.errors import ConfigError, DataError
from malpighi.geometry import Region, Size, coarser, on_level, shrinkage
from malpighi.pixels import MAX_PIXELS
from malpighi.slides.slide import Slide

PICTURE = "region.png"
_SIDE = 1024


class ReadSettings(Settings, frozen=True):
    """What is read.

    Attributes:
        region: (x, y, width, height), level-0 px; None for the whole slide.
        size: (width, height) of the picture, px.
        mpp: micrometres per pixel of the picture, in place of `size`. With neither, the picture has the
            region's own pixels, or as many as make 1024 px along its longer side.
    """

    region: tuple[float, float, float, float] | None = None
    size: Size | None = None
    mpp: float | None = None

    def __post_init__(self) -> None:
        """Refuse contradictions."""
        if self.size is not None and self.mpp is not None:
            raise ConfigError("give the picture's size or its micrometres per pixel, not both")
        if self.region is not None and min(self.region[2:]) <= 0:
            raise ConfigError(f"region {self.region} has no extent; give x,y,width,height in level-0 px")
        if self.size is not None and min(self.size) < 1:
            raise ConfigError(f"a picture of {self.size[0]} x {self.size[1]} px has no pixels")


def read_slide(slide: Slide, out: Path, settings: ReadSettings) -> dict[str, object]:
    """Write a region of a slide to `region.png`.

    Args:
        slide: open for reading.
        out: folder for the file.
        settings: what is read.

    Returns:
        Figures for the summary.

    Raises:
        MissingScaleError: a scale is asked of a slide that states none.
        DataError: a picture too large to be held.
    """
    region = slide.whole if settings.region is None else Region(*settings.region, slide.mpp)
    size = _size(slide, region, settings)
    if size[0] * size[1] > MAX_PIXELS:
        raise DataError(
            f"{slide.path.name}: a picture of {size[0]} x {size[1]} px is more than the {MAX_PIXELS} px "
            "allowed; read a smaller region, or at a coarser scale"
        )
    step = max(region.width / size[0], region.height / size[1])
    with replacing(out / PICTURE) as file:
        Image.fromarray(slide.read(region, size)).save(file, "PNG", compress_level=3)
    mpp = coarser(slide.mpp, step)
    return {
        "width": size[0],
        "height": size[1],
        "mpp": None if mpp is None else round(mpp, 6),
        "level": slide.level_for(step),
        "reader": slide.facts.reader,
    }


def _size(slide: Slide, region: Region, settings: ReadSettings) -> Size:
    if settings.size is not None:
        return settings.size
    step = max(max(region.width, region.height) / _SIDE, 1.0)
    if settings.mpp is not None:
        step = shrinkage(slide.mpp, settings.mpp)
    x0, y0, x1, y1 = on_level(region, step)
    return (max(1, round(x1 - x0)), max(1, round(y1 - y0)))
