"""DICOM slides through wsidicom: a folder of files, or one file and those that belong to it."""

import threading
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from malpighi.errors import ConfigError, DataError
from malpighi.geometry import Size, downsample_of
from malpighi.slides.scale import Scale, Stated, from_imaged_volume, from_pixel_spacing, scale_of
from malpighi.slides.slide import Level, Pixels, Slide, SlideFacts

try:
    import pydicom
    import wsidicom
except ImportError:
    pydicom = wsidicom = None

_MARK = b"DICM"
_MARK_AT = 128


def is_dicom(path: Path) -> bool:
    """Whether a path is a DICOM file, or a folder that holds one."""
    if path.is_dir():
        return any(is_dicom(file) for file in sorted(path.iterdir()) if file.is_file())
    with path.open("rb") as file:
        return file.read(_MARK_AT + len(_MARK))[_MARK_AT:] == _MARK


class DicomSlide(Slide):
    """A DICOM whole-slide image.

    Frames that do not decode are background and marked in `damage`.

    Args:
        path: a folder, or one of its files: the files of the same series beside it are read with it.
        mpp: overrides the scale that the files state.
        source: where `mpp` comes from.
        notes: what a user should know besides what the files show.

    Raises:
        ConfigError: the extra `dicom` is not installed.
        DataError: no DICOM slide.
    """

    def __init__(
        self, path: Path, mpp: float | None = None, source: str = "given", notes: tuple[str, ...] = ()
    ) -> None:
        if wsidicom is None:
            raise ConfigError(f"{path} is DICOM; install the extra for it: pip install 'malpighi[dicom]'")
        files = _files(path)
        try:
            self._handle = wsidicom.WsiDicom.open(files)
            levels = list(self._handle.levels)
        except Exception as error:  # the parsers below raise nearly anything on damaged files
            raise DataError(f"{path}: wsidicom cannot open it as a slide ({error})") from error
        self._numbers = [level.level for level in levels]
        self._lock, self._closed, self._made_with = threading.Lock(), False, (mpp, source, notes)
        super().__init__(path, _facts(levels, files, Scale(mpp, source), notes))

    def _decode(self, level: int, corner: tuple[int, int], size: Size, shrink: int) -> Pixels:
        del shrink
        if self._closed:
            raise DataError(f"{self.path} is closed; open the slide again")
        out = np.full((size[1], size[0], 3), 255, dtype=np.uint8)
        wide, high = self.levels[level].size
        x0, y0 = max(corner[0], 0), max(corner[1], 0)
        x1, y1 = min(corner[0] + size[0], wide), min(corner[1] + size[1], high)
        if x1 > x0 and y1 > y0:
            part = out[y0 - corner[1] : y1 - corner[1], x0 - corner[0] : x1 - corner[0]]
            try:
                part[...] = self._read(level, (x0, y0), (x1 - x0, y1 - y0))
            except DataError:
                raise
            except Exception:
                self._by_tiles(part, level, (x0, y0))
        return out

    def _read(self, level: int, corner: tuple[int, int], size: Size) -> Pixels:
        return np.asarray(self._handle.read_region(corner, self._numbers[level], size).convert("RGB"))

    def _by_tiles(self, out: Pixels, level: int, corner: tuple[int, int]) -> None:
        """Fill `out` frame by frame; a frame that does not decode stays white and is marked."""
        wide, high = self.levels[level].tile or out.shape[1::-1]
        right, lower = corner[0] + out.shape[1], corner[1] + out.shape[0]
        columns = range(corner[0] // wide, -(-right // wide))
        for row, column in product(range(corner[1] // high, -(-lower // high)), columns):
            x0, y0 = max(corner[0], column * wide), max(corner[1], row * high)
            x1, y1 = min(right, (column + 1) * wide), min(lower, (row + 1) * high)
            try:
                rgb = self._read(level, (x0, y0), (x1 - x0, y1 - y0))
            except Exception as error:  # on damaged bytes a decoder may raise nearly anything
                self.damage.mark(level, column, row, f"it does not decode: {error}")
                continue
            out[y0 - corner[1] : y1 - corner[1], x0 - corner[0] : x1 - corner[0]] = rgb

    def close(self) -> None:
        """Close the files."""
        with self._lock:
            closed, self._closed = self._closed, True
        if not closed:
            self._handle.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return (DicomSlide, (self.path, *self._made_with))


def _files(path: Path) -> list[Path]:
    """The DICOM files of a folder, or those of the same series as a file."""
    if path.is_dir():
        return [file for file in sorted(path.iterdir()) if file.is_file() and is_dicom(file)]
    series = _series(path)
    beside = (file for file in sorted(path.parent.iterdir()) if file.is_file() and file != path)
    return [path, *(file for file in beside if is_dicom(file) and series and _series(file) == series)]


def _series(path: Path) -> str:
    try:
        head = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SeriesInstanceUID"])
    except Exception:  # a damaged neighbour belongs to no series; wsidicom says so of the file itself
        return ""
    return str(head.get("SeriesInstanceUID", ""))


def _facts(levels: list[Any], files: list[Path], given: Scale, notes: tuple[str, ...]) -> SlideFacts:
    sizes = [(level.size.width, level.size.height) for level in levels]
    scale = scale_of(given, _stated(levels[0]))
    used = sum(len(instance.datasets) for level in levels for instance in level.instances.values())
    left = len(files) - used
    aside = (f"{left} of {len(files)} DICOM files are no levels of it",) if left > 0 else ()
    head = levels[0].default_instance.dataset
    return SlideFacts(
        reader="dicom",
        levels=tuple(
            Level(size, downsample_of(sizes[0], size), (level.tile_size.width, level.tile_size.height))
            for size, level in zip(sizes, levels, strict=True)
        ),
        mpp=scale.mpp,
        mpp_source=scale.source if scale.mpp is not None else "",
        vendor=str(head.get("Manufacturer", "")),
        properties={name: str(head.get(name)) for name in _SHOWN if head.get(name) is not None},
        notes=(*aside, *scale.notes, *notes),
    )


def _stated(level: Any) -> list[Stated]:
    """The spacing of pixels; where a file lacks it, the extent of the glass that it shows."""
    found, head = [], level.default_instance.dataset
    if level.pixel_spacing is not None:
        found = from_pixel_spacing(float(level.pixel_spacing.width), float(level.pixel_spacing.height))
    extent = [head.get(f"ImagedVolume{side}") for side in ("Width", "Height")]
    return found + (from_imaged_volume(extent, (level.size.width, level.size.height)) if all(extent) else [])


_SHOWN = (
    "Manufacturer", "ManufacturerModelName", "StudyInstanceUID", "SeriesInstanceUID", "PhotometricInterpretation",
    "ContainerIdentifier", "FrameOfReferenceUID", "LossyImageCompressionRatio",
)  # fmt: skip
