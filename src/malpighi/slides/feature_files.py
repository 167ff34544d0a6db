"""Features as the H5 files that users of CLAM and TRIDENT have: `features` (N x D) and `coords` (N x 2).

Both tools keep one file per slide; `coords` are the upper left corners of the tiles, level-0 px. What a tile
is stands in the attributes of `coords`, under names that differ: TRIDENT writes `patch_size` (px of the
picture) and `patch_size_level0`, CLAM writes `patch_size` in px of the level `patch_level`.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from malpighi.durable import mending, sync_folder
from malpighi.errors import DataError
from malpighi.geometry import on_slide
from malpighi.slides.features import SHARD_ROWS, Bag, BagFacts, FeatureStore


def export_h5(store: FeatureStore, slide: str, path: Path) -> None:
    """Write the features of a slide as an H5 file, whole or not at all; `features` are float32.

    Raises:
        DataError: the store has no such slide, or its tiles are not square and alike, which the format needs.
        UserError: the file cannot be written.
    """
    facts, count = store.facts(slide)
    part = path.with_name(path.name + ".part")
    with mending(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with h5py.File(part, "w") as file:
                features = file.create_dataset("features", (count, facts.width), np.float32)
                coords = file.create_dataset("coords", (count, 2), np.int64)
                coords.attrs["patch_size"] = facts.tile
                coords.attrs["name"] = Path(slide).stem
                first = 0
                for bag in store.blocks(slide):
                    rows = slice(first, first + len(bag.places))
                    features[rows], coords[rows] = bag.features, bag.places[:, :2]
                    coords.attrs["patch_size_level0"] = _extent(bag, coords.attrs.get("patch_size_level0"))
                    first = rows.stop
                file.attrs["encoder"] = facts.encoder
                if facts.mpp is not None:
                    coords.attrs["mpp"] = facts.mpp
            with part.open("rb") as written:
                os.fsync(written.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        sync_folder(path.parent)


def import_h5(path: Path, store: FeatureStore, slide: str, *, extent: int | None = None) -> BagFacts:
    """Take the features of a slide over from an H5 file.

    Args:
        path: with `features` (N x D or 1 x N x D) and `coords` (N x 2, level-0 px).
        store: where they go.
        slide: name of the slide in the store.
        extent: side of a tile, level-0 px; needed where the file does not say, as CLAM's features do not.

    Raises:
        DataError: not such a file, or nobody says how large a tile is.
    """
    with _reading(path) as file:
        features, coords = file["features"], file["coords"]
        shape = features.shape[-2:]
        if features.ndim not in (2, 3) or features.size != np.prod(shape) or coords.shape != (shape[0], 2):
            raise DataError(
                f"{path}: features {features.shape} and coords {coords.shape}; expected (N, D) and (N, 2)"
            )
        said = dict(coords.attrs)
        side = extent or _level0_side(said)
        if side is None:
            raise DataError(f"{path} does not say how large a tile is; give its side in level-0 px")
        facts = BagFacts(
            slide=slide,
            encoder=store.encoder,
            width=int(shape[1]),
            tile=int(said.get("patch_size", side)),
            mpp=float(said["mpp"]) if "mpp" in said else None,
            source=f"h5:{path.name}",
            kind="float16" if features.dtype == np.float16 else "float32",
        )
        with store.writing(facts) as bag:
            for first in range(bag.done, shape[0], SHARD_ROWS):
                rows = slice(first, first + SHARD_ROWS)
                values = features[rows] if features.ndim == 2 else features[0, rows]
                corners = np.asarray(coords[rows], np.int64)
                bag.append(values, np.column_stack([corners, np.full_like(corners, side)]))
    return facts


def _extent(bag: Bag, before: Any) -> int:
    """The one side, level-0 px, that all tiles have."""
    sides = {int(side) for side in np.unique(bag.places[:, 2:])}
    sides |= set() if before is None else {int(before)}
    if len(sides) > 1:
        raise DataError(
            f"{bag.facts.slide}: tiles of sides {sorted(sides)[:5]}; an H5 file holds one size only"
        )
    return sides.pop() if sides else bag.facts.tile


def _level0_side(said: dict[str, Any]) -> int | None:
    """Side of a tile, level-0 px, from TRIDENT's or CLAM's attributes; None where they do not say."""
    if "patch_size_level0" in said:
        return int(said["patch_size_level0"])
    if {"patch_size", "downsample"} <= said.keys():
        side = float(said["patch_size"])
        return round(on_slide((0.0, 0.0, side, side), float(np.ravel(said["downsample"])[0]), None).width)
    return None


@contextmanager
def _reading(path: Path) -> Iterator[h5py.File]:
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise DataError(f"{path} is no readable H5 file with `features` and `coords` ({error})") from error
