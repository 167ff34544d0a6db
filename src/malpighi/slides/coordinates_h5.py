"""Coordinates of tiles in the HDF5 layouts of CLAM and TRIDENT: read either, write either.

Both hold a dataset `coords` (N x 2, int64: x, y of the upper left corner, level-0 px) with attributes:

    CLAM     patch_size (px of the level), patch_level, downsample (x, y), level_dim, downsampled_level_dim,
             name, save_path; a reader takes patch_size px of patch_level at each corner
    TRIDENT  patch_size (px of the picture), patch_size_level0, level0_magnification, target_magnification,
             overlap (px of the picture), name, savetodir, level0_width, level0_height; a reader takes
             patch_size * level0_magnification / target_magnification level-0 px and resizes them

Source: the files that CLAM (create_patches_fp.py) and TRIDENT 0.3 (coords_to_h5) write.
"""

import io
from pathlib import Path
from typing import Any

import h5py
import msgspec
import numpy as np
from numpy.typing import NDArray

from malpighi.durable import replacing
from malpighi.errors import DataError
from malpighi.geometry import Size, coarser, level_corner, level_steps, magnification, px_of_level
from malpighi.slides.choices import Layout
from malpighi.slides.grid import Boxes, Picture
from malpighi.slides.slide import Slide

_ROWS_AT_ONCE = 4096


class Coordinates(msgspec.Struct, frozen=True):
    """Where the tiles of one slide lie, as such a file says.

    Attributes:
        layout: whose file it is.
        corners: upper left corners (x, y), level-0 px: N x 2, int64.
        size: side of a picture, px.
        extent: side of a tile, level-0 px; None where the file leaves it to the slide (CLAM without
            `downsample`).
        level: the stored level to read; None where the file names none (TRIDENT).
        overlap: by how much neighbours share, px of a picture; 0 where the file does not say.
        name: of the slide, as the file says; "" where it does not.
        slide_size: (width, height) of level 0, px; None where the file does not say.
    """

    layout: Layout
    corners: NDArray[np.int64]
    size: int
    extent: int | None = None
    level: int | None = None
    overlap: int = 0
    name: str = ""
    slide_size: Size | None = None


def read_coordinates(path: Path) -> Coordinates:
    """The coordinates in a file of CLAM or TRIDENT, told apart by their attributes.

    Raises:
        DataError: no HDF5 file, no `coords`, or attributes of neither layout; the message names what is
            missing.
    """
    try:
        with h5py.File(path, "r") as file:
            found = file["coords"]
            corners_N2, attributes = np.asarray(found[:]), dict(found.attrs)
    except (OSError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: not a file of coordinates (HDF5 with a dataset `coords`): {error}"
        ) from error
    if corners_N2.size == 0:
        corners_N2 = corners_N2.reshape(0, 2)
    if corners_N2.ndim != 2 or corners_N2.shape[1] != 2 or not np.issubdtype(corners_N2.dtype, np.number):
        raise DataError(f"{path}: `coords` is {corners_N2.dtype} {corners_N2.shape}; expected N x 2 numbers")
    corners_N2 = np.rint(corners_N2).astype(np.int64)
    try:
        if "patch_level" in attributes:
            return _from_clam(corners_N2, attributes)
        return _from_trident(corners_N2, attributes)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise DataError(
            f"{path}: attributes {sorted(attributes)} are neither CLAM's (patch_size, patch_level) nor "
            f"TRIDENT's (patch_size, and patch_size_level0 or both magnifications): {error!r}"
        ) from error


def placed(found: Coordinates, slide: Slide) -> tuple[Boxes, Picture]:
    """Coordinates of a file on their slide, as `grid.tiles_of` takes them.

    Returns:
        (boxes_N4, what the pictures are like).

    Raises:
        DataError: the file is of another slide, or names a level that the slide does not have.
    """
    if found.slide_size not in (None, slide.size):
        raise DataError(
            f"{slide.path.name} has {slide.size} px; the coordinates are of a slide of {found.slide_size} px"
        )
    if found.level is not None and not 0 <= found.level < len(slide.levels):
        raise DataError(
            f"{slide.path.name} has {len(slide.levels)} levels; the coordinates ask for {found.level}"
        )
    extent = found.extent
    if extent is None:
        extent = level_steps([found.size], slide.levels[found.level or 0].downsample)[0]
    step, level = extent / found.size, found.level
    if level is None:
        alike = [
            i for i, one in enumerate(slide.levels) if level_steps([found.size], one.downsample)[0] == extent
        ]
        level = alike[0] if alike else slide.level_for(step)
    downsample = slide.levels[level].downsample
    resampled = level_steps([found.size], downsample)[0] != extent or not _on_pixels(
        found.corners, downsample
    )
    boxes_N4 = np.concatenate([found.corners, found.corners + extent], axis=1)
    return boxes_N4, Picture(found.size, level, downsample, resampled, coarser(slide.mpp, step))


def _on_pixels(corners_N2: NDArray[np.int64], downsample: float) -> bool:
    """Whether all corners lie on whole pixels of a level."""
    sides: list[int] = np.unique(corners_N2).tolist()
    return level_steps([level_corner((side, 0), downsample)[0] for side in sides], downsample) == sides


def write_coordinates(
    path: Path, layout: Layout, slide: Slide, boxes_N4: Boxes, picture: Picture, *, overlap: int = 0
) -> None:
    """Save tiles so that CLAM's or TRIDENT's next step reads them.

    CLAM reads whole pixels of a stored level: resampled tiles are given as the stretch of that level that
    they cover, and CLAM resizes them itself.

    Args:
        path: the file to write.
        layout: whose reader it is for.
        slide: where the tiles are from.
        boxes_N4: the tiles, level-0 px.
        picture: what their pictures are like.
        overlap: by how much neighbours share, px of a picture.

    Raises:
        MissingScaleError: for TRIDENT, of a slide that states neither objective nor scale.
    """
    extent = (
        int(boxes_N4[0, 2] - boxes_N4[0, 0])
        if len(boxes_N4)
        else level_steps([picture.size], picture.downsample)[0]
    )
    where = str(path.parent)
    if layout is Layout.CLAM:
        attributes = _for_clam(slide, extent, picture) | {"save_path": where}
    else:
        attributes = _for_trident(slide, extent, picture) | {"overlap": overlap, "savetodir": where}
    # HDF5 is written in memory: coordinates are small, and the file then appears whole or not at all.
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", track_order=False) as file:
        corners_N2 = np.ascontiguousarray(boxes_N4[:, :2], dtype=np.int64)
        chunks = (_ROWS_AT_ONCE, 2)
        made = file.create_dataset("coords", data=corners_N2, maxshape=(None, 2), chunks=chunks)
        for name, value in (attributes | {"name": slide.path.stem}).items():
            made.attrs[name] = value
    with replacing(path) as out:
        out.write(buffer.getvalue())


def _for_clam(slide: Slide, extent: int, picture: Picture) -> dict[str, Any]:
    size = slide.levels[picture.level].size
    return {
        "patch_size": px_of_level(extent, picture.downsample) if picture.resampled else picture.size,
        "patch_level": picture.level,
        "downsample": (picture.downsample, picture.downsample),
        "downsampled_level_dim": size,
        "level_dim": size,
    }


def _for_trident(slide: Slide, extent: int, picture: Picture) -> dict[str, Any]:
    """The magnifications' ratio is what TRIDENT reads by, so the target is made to give `extent` exactly."""
    full = slide.facts.objective or magnification(slide.mpp)
    return {
        "patch_size": picture.size,
        "patch_size_level0": extent,
        "level0_magnification": _plain(full),
        "target_magnification": _plain(full * picture.size / extent),
        "level0_width": slide.size[0],
        "level0_height": slide.size[1],
    }


def _from_clam(corners_N2: NDArray[np.int64], attributes: dict[str, Any]) -> Coordinates:
    size, extent = int(attributes["patch_size"]), None
    if "downsample" in attributes:
        downsample = float(np.ravel(attributes["downsample"])[0])
        extent = level_steps([size * int(attributes.get("custom_downsample", 1))], downsample)[0]
    return Coordinates(
        Layout.CLAM,
        corners_N2,
        _positive(size),
        extent,
        level=int(attributes["patch_level"]),
        name=_text(attributes.get("name", "")),
    )


def _from_trident(corners_N2: NDArray[np.int64], attributes: dict[str, Any]) -> Coordinates:
    size = _positive(int(attributes["patch_size"]))
    if "patch_size_level0" in attributes:
        extent = int(attributes["patch_size_level0"])
    else:
        ratio = float(attributes["level0_magnification"]) / float(attributes["target_magnification"])
        extent = round(size * ratio)
    sides = [int(attributes.get(f"level0_{side}", 0)) for side in ("width", "height")]
    return Coordinates(
        Layout.TRIDENT,
        corners_N2,
        size,
        _positive(extent),
        overlap=int(attributes.get("overlap", 0)),
        name=_text(attributes.get("name", "")),
        slide_size=(sides[0], sides[1]) if all(sides) else None,
    )


def _positive(value: int) -> int:
    if value < 1:
        raise ValueError(f"a size of {value} px")
    return value


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _plain(value: float) -> int | float:
    """Whole numbers as integers, as TRIDENT writes them."""
    return int(value) if float(value).is_integer() else float(value)
