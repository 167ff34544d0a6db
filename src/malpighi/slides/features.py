"""Features of tiles, kept: per encoder and slide one sharded zarr array, whole or not at all.

    <folder>/<encoder>/<slide>.zarr/          zarr v3 group, attributes: `BagFacts`, number of tiles, version
        features                              N x D, float16 or float32
        places                                N x 4, int64: (x, y, width, height) of each tile, level-0 px
    <folder>/<encoder>/<slide>.zarr.part/     being written; taken up again where a writing was cut short

Rows go to disk shard by shard, so memory does not grow with the slide, and a shard is never written twice.
Every chunk carries a checksum. One process writes a slide at a time: the job runner sees to that.

Shape legend: N tiles, D features.
"""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec

from malpighi.config import digest
from malpighi.durable import mending, replacing, sync_folder
from malpighi.errors import DataError, FormatVersionError

FORMAT = "malpighi-features"
VERSION = 1
CHUNK_ROWS, SHARD_ROWS = 256, 4096

_UNSAFE = re.compile(r'^\.|[\\/:*?"<>|%~\x00-\x1f]')
_NAME_BYTES = 180  # leaves room for the endings within the 255 bytes that file systems allow
_BEGUN = "begun.json"


class BagFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the features of one slide are.

    Attributes:
        slide: name of the slide in the store, e.g. its file name.
        encoder: what made them.
        width: D, numbers per tile.
        tile: side of a tile's picture, px.
        mpp: micrometres per pixel of a tile's picture; None where unknown.
        source: fingerprint of the slide file, or where the features were taken over from.
        kind: how numbers are kept.
    """

    slide: str
    encoder: str
    width: int
    tile: int
    mpp: float | None = None
    source: str = ""
    kind: Literal["float16", "float32"] = "float16"


class Bag(NamedTuple):
    """The tiles of one slide.

    Attributes:
        features: features_ND, as stored.
        places: places_N4, int64 (x, y, width, height), level-0 px.
        facts: what they are.
    """

    features: NDArray[np.floating]
    places: NDArray[np.int64]
    facts: BagFacts


class _Begun(msgspec.Struct, frozen=True):
    """What a writing that is under way writes, and how many tiles are safe on disk."""

    facts: BagFacts
    rows: int


class FeatureStore:
    """The features that one encoder made of many slides.

    Args:
        folder: of the store; made when the first slide is written.
        encoder: name of the encoder.
    """

    def __init__(self, folder: str | Path, encoder: str) -> None:
        self.encoder = encoder
        self.folder = Path(folder) / file_name(encoder)

    def __contains__(self, slide: str) -> bool:
        return self._path(slide).is_dir()

    def slides(self) -> list[str]:
        """Names of the slides that are there whole, sorted.

        Raises:
            DataError: a member of the store is damaged.
        """
        return sorted(_open(path)[1].slide for path in self.folder.glob("*.zarr"))

    def facts(self, slide: str) -> tuple[BagFacts, int]:
        """What is kept of a slide, and of how many tiles; raises as `read`."""
        group, facts = self._opened(slide)
        return facts, int(group.attrs["tiles"])

    def read(self, slide: str) -> Bag:
        """All tiles of a slide.

        Raises:
            DataError: the store has nothing of that slide, or it is damaged.
            FormatVersionError: it was written in another version.
        """
        blocks = list(self.blocks(slide))
        facts = blocks[0].facts
        return Bag(
            np.concatenate([b.features for b in blocks]), np.concatenate([b.places for b in blocks]), facts
        )

    def blocks(self, slide: str, rows: int = SHARD_ROWS) -> Iterator[Bag]:
        """The tiles of a slide, `rows` at a time, so that memory is bounded; at least one block."""
        path = self._path(slide)
        group, facts = self._opened(slide)
        count = int(group.attrs["tiles"])
        for first in range(0, max(count, 1), rows):
            part = slice(first, min(first + rows, count))
            yield Bag(_rows(path, group, "features", part), _rows(path, group, "places", part), facts)

    @contextmanager
    def writing(self, facts: BagFacts) -> Iterator["BagWriter"]:
        """Write the tiles of one slide; it appears whole when the block ends well.

        What an earlier writing of the same facts left is kept: skip the first `done` tiles. After an
        exception it stays for the next time.

            with store.writing(facts) as bag:
                for places, features in batches_from(bag.done):
                    bag.append(features, places)

        Raises:
            DataError: the slide is there already, or the facts name another encoder.
            UserError: the folder cannot be written.
        """
        path = self._path(facts.slide)
        if facts.encoder != self.encoder:
            raise DataError(f"features of '{facts.encoder}' do not belong into the store of '{self.encoder}'")
        if path.exists():
            raise DataError(f"{path} is there already; delete it to make the features of that slide again")
        part = path.with_name(path.name + ".part")
        with mending(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            bag = BagWriter(part, facts)
            yield bag
            bag.finish()
            part.replace(path)
            sync_folder(self.folder)

    def _opened(self, slide: str) -> tuple[Any, BagFacts]:
        group, facts = _open(self._path(slide))
        if facts.slide != slide:  # a file system that takes upper for lower case
            raise DataError(f"{self._path(slide)} holds the slide '{facts.slide}', not '{slide}'")
        return group, facts

    def _path(self, slide: str) -> Path:
        return self.folder / f"{file_name(slide)}.zarr"


class BagWriter:
    """Takes features in batches of any size and writes whole shards; see `FeatureStore.writing`.

    Attributes:
        done: tiles that an earlier, broken-off writing has left on disk.
    """

    def __init__(self, part: Path, facts: BagFacts) -> None:
        self._part, self._facts = part, facts
        self._features, self._places, self.done = _begun(part, facts)
        self._rows = self.done
        self._waiting: list[tuple[NDArray, NDArray]] = []

    def append(self, features_ND: NDArray, places_N4: NDArray) -> None:
        """Further tiles, in order.

        Raises:
            DataError: shapes that do not fit, or numbers that are not finite or too large for float16.
        """
        count, width = len(places_N4), self._facts.width
        if features_ND.shape != (count, width) or places_N4.shape != (count, 4):
            raise DataError(
                f"{self._facts.slide}: features {features_ND.shape} with places {places_N4.shape}; expected "
                f"(tiles, {width}) and (tiles, 4)"
            )
        with np.errstate(over="ignore"):
            kept = features_ND.astype(self._facts.kind)
        if not np.isfinite(kept).all():
            raise DataError(
                f"{self._facts.slide}: features that are not finite as {self._facts.kind}; look at the "
                "encoder, or keep float32"
            )
        self._waiting.append((kept, np.asarray(places_N4, np.int64)))
        if sum(len(places) for _, places in self._waiting) >= SHARD_ROWS:
            self._flush(whole=True)

    def finish(self) -> None:
        """Write the rest and what is known of it."""
        self._flush(whole=False)
        for array in (self._features, self._places):
            array.resize((self._rows, array.shape[1]))
        group = zarr.open_group(self._part, mode="r+", zarr_format=3)
        facts = msgspec.to_builtins(self._facts)
        group.attrs.update({"format": FORMAT, "version": VERSION, "tiles": self._rows, "facts": facts})
        (self._part / _BEGUN).unlink()
        _sync_tree(self._part)

    def _flush(self, *, whole: bool) -> None:
        """Write the shards that are full; with `whole` off, what is left over too."""
        if not self._waiting:
            return
        features, places = (np.concatenate(parts) for parts in zip(*self._waiting, strict=True))
        last = len(places) // SHARD_ROWS * SHARD_ROWS if whole else len(places)
        for first in range(0, last, SHARD_ROWS):
            rows = slice(first, min(first + SHARD_ROWS, last))
            self._write(features[rows], places[rows])
        self._waiting = [(features[last:], places[last:])]

    def _write(self, features: NDArray, places: NDArray) -> None:
        """One shard, noted only when it is safe on disk."""
        rows = slice(self._rows, self._rows + len(places))
        for array, values in ((self._features, features), (self._places, places)):
            array.resize((rows.stop, array.shape[1]))
            array[rows] = values
        self._rows = rows.stop
        if len(places) == SHARD_ROWS:
            _sync_tree(self._part)
            _write_begun(self._part, _Begun(self._facts, self._rows))


def file_name(name: str) -> str:
    """A name as a file may have it: without separators, short enough, unlike for unlike names.

    Example:
        >>> file_name("hf-hub:org/model")
        'hf-hub%3Aorg%2Fmodel'
    """
    safe = _UNSAFE.sub(lambda sign: f"%{ord(sign[0]):02X}", name)
    if len(safe.encode()) <= _NAME_BYTES:
        return safe
    return f"{safe.encode()[: _NAME_BYTES - 20].decode(errors='ignore')}~{digest(name)}"


def _begun(part: Path, facts: BagFacts) -> tuple[Any, Any, int]:
    """The two arrays to go on with, and how many rows are safe in them; new ones where none fit."""
    begun = _read_begun(part)
    if begun is None or begun.facts != facts:
        shutil.rmtree(part, ignore_errors=True)
        begun = _Begun(facts, 0)
        group = zarr.create_group(part, zarr_format=3)
        # What is not there reads as NaN and as places without extent, and so cannot pass for features.
        for name, width, kind, absent in (
            ("features", facts.width, facts.kind, np.nan),
            ("places", 4, "int64", 0),
        ):
            group.create_array(
                name,
                shape=(0, width),
                chunks=(CHUNK_ROWS, width),
                shards=(SHARD_ROWS, width),
                dtype=kind,
                compressors=[Crc32cCodec()],
                fill_value=absent,
            )
        _write_begun(part, begun)
    group = zarr.open_group(part, mode="r+", zarr_format=3)
    return group["features"], group["places"], begun.rows


def _read_begun(part: Path) -> _Begun | None:
    try:
        return msgspec.json.decode((part / _BEGUN).read_bytes(), type=_Begun)
    except (OSError, msgspec.MsgspecError):
        return None


def _write_begun(part: Path, begun: _Begun) -> None:
    with replacing(part / _BEGUN) as file:
        file.write(msgspec.json.encode(begun))


def _open(path: Path) -> tuple[Any, BagFacts]:
    if not path.is_dir():
        raise DataError(f"there are no features at {path}; make them first, with that encoder")
    try:
        group = zarr.open_group(path, mode="r", zarr_format=3)
        found = (group.attrs.get("format"), group.attrs.get("version"))
        if found != (FORMAT, VERSION):
            raise FormatVersionError(
                f"{path} says format and version {found}; expected {(FORMAT, VERSION)}: use the release that "
                "wrote it"
            )
        return group, msgspec.convert(group.attrs["facts"], BagFacts)
    except (OSError, KeyError, ValueError, TypeError, msgspec.MsgspecError) as error:
        raise DataError(f"features {path} are damaged ({error}); delete them and make them again") from error


def _rows(path: Path, group: Any, name: str, rows: slice) -> NDArray:
    try:
        values = np.asarray(group[name][rows])
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise DataError(f"{name} in {path} are damaged ({error}); delete them and make them again") from error
    whole = np.isfinite(values).all() if name == "features" else (values[:, 2:] > 0).all()
    if not whole:
        raise DataError(f"{name} in {path} are missing in part; delete them and make them again")
    return values


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _sync_tree(folder: Path) -> None:
    """Make a folder and all that is in it survive a power cut."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            sync_folder(path)
        else:
            _sync_file(path)
    sync_folder(folder)
