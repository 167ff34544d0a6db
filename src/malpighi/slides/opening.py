"""Which reader opens a file."""

from pathlib import Path

from malpighi.errors import DataError
from malpighi.slides.openslide_slide import OpenSlideSlide
from malpighi.slides.picture_slide import PictureSlide
from malpighi.slides.slide import Slide


def open_slide(path: str | Path, *, mpp: float | None = None) -> Slide:
    """Open a slide for reading.

    Args:
        path: a slide file, a folder of DICOM files, or a plain picture.
        mpp: micrometres per level-0 pixel; overrides what the file states.

    Raises:
        DataError: nothing that can be read as a slide.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"there is no slide {path}; check the path")
    try:
        return OpenSlideSlide(path, mpp)
    except DataError:
        return PictureSlide(path, mpp)
