"""Which reader opens a file."""

import logging
from collections.abc import Mapping
from pathlib import Path

from malpighi.errors import DataError
from malpighi.slides.dicom_slide import DicomSlide, is_dicom
from malpighi.slides.openslide_slide import OpenSlideSlide
from malpighi.slides.picture_slide import PictureSlide
from malpighi.slides.scale import Scale, given_scale
from malpighi.slides.slide import Slide
from malpighi.slides.tiff_check import disagreement
from malpighi.slides.tiff_index import is_tiff
from malpighi.slides.tiff_slide import TiffSlide

_log = logging.getLogger(__name__)


def open_slide(
    path: str | Path,
    *,
    mpp: float | None = None,
    scales: Mapping[str, float] | None = None,
    check: bool = True,
) -> Slide:
    """Open a slide for reading.

    A tiled TIFF is read directly and, unless `check` is off, compared with OpenSlide on a few tiles; where
    they differ OpenSlide reads it, and the slide's notes and the log say by how much. DICOM goes to wsidicom,
    all else that OpenSlide knows to OpenSlide, a picture is a slide of one level.

    Args:
        path: a slide file, a folder of DICOM files, or a plain picture.
        mpp: micrometres per level-0 pixel; overrides what the file states.
        scales: mpp by file name, as `read_scales` reads it; overrides what the file states, not `mpp`.
        check: whether a TIFF is compared with OpenSlide; a second opening of the same file can go without.

    Raises:
        DataError: nothing that can be read as a slide; the message says why each reader refused it.
        ConfigError: an mpp that is not above 0, or DICOM without the extra for it.
    """
    path = Path(path)
    given = given_scale(path, mpp, scales)
    try:
        head = b"" if path.is_dir() else _head(path)
        dicom = is_dicom(path)
    except OSError as error:
        raise DataError(f"there is no slide {path} to read ({error.strerror}); check the path") from error
    if dicom:
        return DicomSlide(path, given.mpp, given.source)
    if path.is_dir():
        raise DataError(f"{path} is a folder without DICOM files; name a slide file")
    refused = []
    if is_tiff(head):
        try:
            return _tiff(path, given, check=check)
        except DataError as error:
            refused.append(f"directly: {error}")
    try:
        return OpenSlideSlide(path, given.mpp, given.source, tuple(refused))
    except DataError as error:
        refused.append(f"OpenSlide: {error}")
    try:
        return PictureSlide(path, given.mpp, given.source)
    except DataError as error:
        refused.append(f"as a picture: {error}")
    raise DataError(f"{path} cannot be read as a slide. " + "; ".join(refused))


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(16)


def _tiff(path: Path, given: Scale, *, check: bool) -> Slide:
    """The direct reader where OpenSlide agrees with it, or knows nothing of the file; OpenSlide otherwise."""
    ours = TiffSlide(path, given.mpp, given.source)
    if not check:
        return ours
    try:
        with OpenSlideSlide(path) as theirs:
            differs, compared = disagreement(ours, theirs)
    except DataError:
        differs, compared = "", "unchecked: OpenSlide does not open it"
    if not differs:
        ours.note(compared)
        return ours
    ours.close()
    note = f"read by OpenSlide, not directly: {differs}"
    _log.warning("%s: %s", path.name, note)
    return OpenSlideSlide(path, given.mpp, given.source, (note,))
