"""Finding images and their masks in the folders of a release."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from malpighi.datasets.adapter import Picture, image_files, read_bytes
from malpighi.errors import DataError
from malpighi.pixels import decode_image, decode_labels


class Pair(NamedTuple):
    """An image and what marks it, of the same name."""

    name: str
    image: Path
    marks: Path


def root_of(folder: Path, *names: str) -> Path:
    """The release's own folder within a data set's folder, where it was unpacked with it; else the folder."""
    return next((folder / name for name in names if (folder / name).is_dir()), folder)


def require(root: Path, *parts: str) -> None:
    """See that folders are there.

    Raises:
        DataError: the first that is missing, by name.
    """
    for part in parts:
        if not (root / part).is_dir():
            raise DataError(f"{root}: no folder {part}; expected {', '.join(parts)}")


def pairs(images: Path, marks: Path, ending: str = "") -> tuple[list[Pair], list[tuple[str, str]]]:
    """Images and marks by name, and (name, reason) for what stands alone.

    Args:
        images: folder of images.
        marks: folder of masks or tables, the same or another; names are compared without their suffix.
        ending: what the names of marks have after that of the image, e.g. `_mask`.
    """
    tables = {path.name: path for path in marks.rglob("*.csv") if not path.name.startswith(".")}
    found = {Path(name).stem: path for name, path in {**image_files(marks), **tables}.items()}
    known = {stem: path for stem, path in found.items() if stem.endswith(ending)}
    pictures = {Path(name).stem: path for name, path in image_files(images).items()}
    if ending:
        pictures = {stem: path for stem, path in pictures.items() if not stem.endswith(ending)}
    good = [
        Pair(stem, path, known[stem + ending]) for stem, path in pictures.items() if stem + ending in known
    ]
    lone = [
        (stem, f"no {stem + ending} in {marks.name} that marks it")
        for stem in pictures
        if stem + ending not in known
    ]
    wanted = {stem + ending for stem in pictures}
    return good, lone + [(stem, f"in {marks.name}, but of no image") for stem in known if stem not in wanted]


def labels_for(path: Path, picture: Picture) -> np.ndarray:
    """A label map or mask of one channel, as numbers.

    Raises:
        DataError: damaged, or of another size than the image.
    """
    labels_hw = decode_labels(read_bytes(path))
    require_size(labels_hw, picture, path)
    return labels_hw


def grey_for(path: Path, picture: Picture) -> np.ndarray:
    """A mask that may be stored in colour, as grey values 0 to 255; raises as `labels_for`."""
    grey_hw = np.asarray(decode_image(read_bytes(path)).convert("L"))
    require_size(grey_hw, picture, path)
    return grey_hw


def require_size(labels_hw: np.ndarray, picture: Picture, path: Path) -> None:
    """See that a mask fits its image.

    Raises:
        DataError: it does not.
    """
    height, width = labels_hw.shape[:2]
    if (width, height) != picture.ref.size:
        raise DataError(f"{path.name} is {width} x {height} px; the image is {picture.ref.size}")


def by_colour(path: Path, colours: Mapping[tuple[int, int, int], int], picture: Picture) -> np.ndarray:
    """A painted mask as codes, whatever its palette's indices are.

    Raises:
        DataError: damaged, of another size, or of a colour that is not known.
    """
    pixels_hw3 = np.asarray(decode_image(read_bytes(path))).astype(np.int32)
    require_size(pixels_hw3, picture, path)
    packed_hw = (pixels_hw3 << (16, 8, 0)).sum(axis=2)
    codes_hw = np.full(packed_hw.shape, -1, np.int32)
    for (red, green, blue), code in colours.items():
        codes_hw[packed_hw == (red << 16) + (green << 8) + blue] = code
    if (codes_hw < 0).any():
        y, x = np.argwhere(codes_hw < 0)[0]
        raise DataError(
            f"{path.name} has the colour {tuple(pixels_hw3[y, x].tolist())}; expected {list(colours)}"
        )
    return codes_hw
