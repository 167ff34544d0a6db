"""DICOM slides through wsidicom: a folder of files, or one file and those that belong to it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace

from malpighi.errors import ConfigError, DataError
from malpighi.geometry import downsample_of
from malpighi.slides.jpeg import SHRINKS, Completion, decode_jpeg, states_colours
from malpighi.slides.scale import Scale, Stated, from_imaged_volume, from_pixel_spacing, scale_of
from malpighi.slides.slide import Level, Pixels, SlideFacts
from malpighi.slides.tiled_slide import TiledSlide, TileError

try:
    import pydicom
    import wsidicom  # type: ignore[import-untyped]
    from wsidicom.geometry import Point  # type: ignore[import-untyped]
except ImportError:  # the extra `dicom` is not installed; only opening a DICOM slide needs it
    wsidicom = None

_MARK = b"DICM"
_MARK_AT = 128
_JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
_HEAD = 1024
_WHOLE = {"crop_to_image_boundary": False}
_YCBCR_NAMED_RGB = "PhotometricInterpretation is RGB, but the frames are JFIF; they are read as YCbCr"


def is_dicom(path: Path) -> bool:
    """Whether a path is a DICOM file, or a folder that holds one."""
    if path.is_dir():
        return any(is_dicom(file) for file in sorted(path.iterdir()) if file.is_file())
    with path.open("rb") as file:
        return file.read(_MARK_AT + len(_MARK))[_MARK_AT:] == _MARK


class DicomSlide(TiledSlide):
    """A DICOM whole-slide image.

    Frames that are JPEG are decoded here, all others by wsidicom. Of what colours a JPEG frame has, its own
    segments are believed before the DICOM tag: a JFIF stream is YCbCr by definition, and converters are known
    that store such frames and name them RGB.

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
        self._lock, self._closed, self._made_with = threading.Lock(), False, (mpp, source, notes)
        try:
            self._handle = wsidicom.WsiDicom.open(files)
            self._stored = list(self._handle.levels)
            facts = _facts(self._stored, files, Scale(mpp, source), notes)
            self._jpeg = [_is_jpeg(level) for level in self._stored]
        except Exception as error:  # the parsers below raise nearly anything on damaged files
            raise DataError(f"{path}: wsidicom cannot open it as a slide ({error})") from error
        rgb = facts.properties.get("PhotometricInterpretation") == "RGB"
        self._completion = Completion(b"", rgb=rgb)
        if rgb and all(self._jpeg) and b"JFIF" in self._frame(0, 0, 0)[:_HEAD]:
            facts = replace(facts, notes=(*facts.notes, _YCBCR_NAMED_RGB))
        divides = all(side % SHRINKS[-1] == 0 for level in facts.levels for side in level.tile or (1,))
        super().__init__(path, facts, SHRINKS if all(self._jpeg) and divides else (1,))

    def tile_jpeg(self, level: int, column: int, row: int) -> bytes | None:
        """The stored JPEG of a frame; see `Slide`."""
        if not self._jpeg[level]:
            return None
        try:
            return self._completed(level, column, row)
        except TileError as error:
            self.damage.mark(level, column, row, str(error))
            return None

    def close(self) -> None:
        """Close the files."""
        with self._lock:
            closed, self._closed = self._closed, True
            if not closed:
                self._handle.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return (DicomSlide, (self.path, *self._made_with))

    def _tile_pixels(self, level: int, column: int, row: int, shrink: int) -> Pixels:
        if self._jpeg[level]:
            data = self._completed(level, column, row)
            try:
                return decode_jpeg(data, self.levels[level].tile or (0, 0), shrink)
            except (ValueError, DataError) as error:
                raise TileError(f"it does not decode: {error}") from error
        with self._open_lock():
            rgb = _attempt(partial(self._stored[level].get_tile, Point(column, row), **_WHOLE))
        return np.array(rgb[..., :3] if rgb.ndim == 3 else np.repeat(rgb[..., None], 3, axis=2), np.uint8)

    def _completed(self, level: int, column: int, row: int) -> bytes:
        data = self._frame(level, column, row)
        return data if states_colours(data) else _attempt(partial(self._completion.complete, data))

    def _frame(self, level: int, column: int, row: int) -> bytes:
        """The bytes of a frame; wsidicom's file handles are not shared by threads."""
        with self._open_lock():
            found: bytes = _attempt(
                partial(self._stored[level].get_encoded_tile, Point(column, row), **_WHOLE)
            )
        return found

    @contextmanager
    def _open_lock(self) -> Iterator[None]:
        with self._lock:
            if self._closed:
                raise DataError(f"{self.path} is closed; open the slide again")
            yield


def _attempt(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except MemoryError:
        raise
    except Exception as error:  # on damaged bytes a parser may raise nearly anything
        raise TileError(f"it cannot be read: {error}") from error


def _is_jpeg(level: Any) -> bool:
    """Whether the frames are JPEG of 8 bits and three values a pixel."""
    data = level.default_instance.image_data
    return str(data.transfer_syntax) == _JPEG_BASELINE and (data.samples_per_pixel, data.bits) == (3, 8)


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
    head = levels[0].default_instance.dataset.as_dataset()
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
    head = level.default_instance.dataset
    spacing, extent = head.pixel_spacing, head.mm_size
    found = [] if spacing is None else from_pixel_spacing(float(spacing.width), float(spacing.height))
    if extent is None:
        return found
    size = (level.size.width, level.size.height)
    return found + from_imaged_volume((float(extent.width), float(extent.height)), size)


_SHOWN = (
    "Manufacturer", "ManufacturerModelName", "StudyInstanceUID", "SeriesInstanceUID", "ContainerIdentifier",
    "FrameOfReferenceUID", "PhotometricInterpretation", "LossyImageCompressionRatio",
)  # fmt: skip
