"""The store: images by content in tar shards, samples and failures in Parquet tables.

    corpus.json                  what is committed; written last, so half a corpus is not taken for a whole
    shards/00000.tar             `<key>.<ext>` and `<key>.json` per image, readable as WebDataset
    tables/images-00000.parquet  one part per commit: where each image lies
    tables/{samples,failures}-00000.parquet

What was committed is never changed: a later commit adds shards and table parts and replaces corpus.json.
"""

import hashlib
import io
import re
import tarfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from malpighi.durable import mending, replacing, sync, sync_folder
from malpighi.errors import DataError, FormatVersionError
from malpighi.geometry import Size
from malpighi.pixels import decode_image as decode_image  # part of this file's interface too
from malpighi.pixels import decode_labels, image_size
from malpighi.records import Blob, Failure, Item, MaskRef, Sample, Split, from_json, to_json

FORMAT = "malpighi-corpus"
VERSION = 1
SHARD_BYTES = 256 * 2**20

_META = {b"malpighi.format": FORMAT.encode(), b"malpighi.version": str(VERSION).encode()}
_SCHEMAS = {
    "images": pa.schema(
        [(name, pa.string()) for name in ("key", "shard", "suffix", "sha256")]
        + [(name, pa.int64()) for name in ("offset", "size", "width", "height")],
        _META,
    ),
    "samples": pa.schema(
        [(name, pa.string()) for name in ("id", "dataset", "exam", "task", "split", "group", "json")], _META
    ),
    "failures": pa.schema([(name, pa.string()) for name in ("id", "stage", "reason")], _META),
}


class _Place(NamedTuple):
    """Where an image lies: `offset` and `size` are bytes in `shard`; `width` and `height` are px."""

    shard: str
    offset: int
    size: int
    suffix: str
    width: int
    height: int


class _Commit(msgspec.Struct, frozen=True):
    """One commit: table files by table name, shard files with their lengths in bytes."""

    tables: dict[str, str]
    shards: dict[str, int]


class _Manifest(msgspec.Struct):
    """The content of corpus.json."""

    format: str
    version: int
    commits: list[_Commit]


def key_of(data: bytes) -> str:
    """The corpus key of some bytes: their SHA-256, hexadecimal.

    Example:
        >>> key_of(b"")[:8]
        'e3b0c442'
    """
    return hashlib.sha256(data).hexdigest()


def blob_of(data: bytes, suffix: str) -> Blob:
    """A blob with its key; `suffix` with the dot, any case."""
    return Blob(key_of(data), data, suffix.lower())


class Corpus:
    """Images, samples and failures in one folder.

    Reading is thread-safe and a committed corpus can be pickled. Writing is for one process at a time:

        with Corpus.create(folder) as corpus:  # commits at the end, unless an exception passes
            corpus.add(item)

    Attributes:
        folder: where the corpus lies.
    """

    def __init__(self, folder: Path, commits: list[_Commit], *, writable: bool, shard_bytes: int) -> None:
        self.folder = folder
        self._commits = commits
        self._writable = writable
        self._shard_bytes = shard_bytes
        self._pending: dict[str, list[dict[str, Any]]] = {name: [] for name in _SCHEMAS}
        self._tables = {name: self._read_tables(name) for name in _SCHEMAS}
        images = self._tables["images"].to_pylist()
        self._places = {row["key"]: _Place(*(row[name] for name in _Place._fields)) for row in images}
        self._ids = set(self._tables["samples"]["id"].to_pylist()) if writable else set()
        self._new_shards: dict[str, int] = {}
        self._shard: _Shard | None = None

    @classmethod
    def create(cls, folder: str | Path, *, shard_bytes: int = SHARD_BYTES) -> "Corpus":
        """A new corpus to write; what an earlier writing that was cut short left there is removed.

        Args:
            folder: made where missing.
            shard_bytes: length at which a new shard is begun.

        Raises:
            DataError: the folder holds a committed corpus.
            UserError: the folder cannot be written.
        """
        folder = Path(folder)
        if (folder / "corpus.json").exists():
            raise DataError(f"{folder} holds a corpus already; extend it or give another folder")
        corpus = cls(folder, [], writable=True, shard_bytes=shard_bytes)
        corpus._prepare()
        return corpus

    @classmethod
    def extend(cls, folder: str | Path, *, shard_bytes: int = SHARD_BYTES) -> "Corpus":
        """A committed corpus, to add to it; raises as `open` and `create`."""
        folder = Path(folder)
        corpus = cls(folder, _read_manifest(folder).commits, writable=True, shard_bytes=shard_bytes)
        corpus._prepare()
        return corpus

    @classmethod
    def open(cls, folder: str | Path) -> "Corpus":
        """A committed corpus, to read.

        Raises:
            DataError: there is none, its writing was cut short, or a file is missing or damaged.
            FormatVersionError: it was written in a version that this release does not read.
        """
        folder = Path(folder)
        return cls(folder, _read_manifest(folder).commits, writable=False, shard_bytes=SHARD_BYTES)

    def __len__(self) -> int:
        """Number of samples."""
        return int(self._tables["samples"].num_rows) + len(self._pending["samples"])

    def __contains__(self, key: str) -> bool:
        return key in self._places

    @property
    def image_keys(self) -> list[str]:
        """Keys of all stored images and masks, sorted."""
        return sorted(self._places)

    def samples(
        self, split: Split | None = None, dataset: str | None = None, exam: str | None = None
    ) -> list[Sample]:
        """The samples in the order they were added, narrowed to a split, data set or exam."""
        table = self._table("samples")
        for column, wanted in (("split", split), ("dataset", dataset), ("exam", exam)):
            if wanted is not None:
                table = table.filter(pc.equal(table[column], str(wanted)))
        return [from_json(text, Sample) for text in table["json"].to_pylist()]

    def failures(self) -> list[Failure]:
        """What could not be used, in the order it was reported."""
        return [Failure(**row) for row in self._table("failures").to_pylist()]

    def image_bytes(self, key: str) -> bytes:
        """The stored bytes of an image, checked against their key.

        Raises:
            DataError: no such key, or the shard is damaged there.
        """
        place = self._places.get(key)
        if place is None:
            raise DataError(f"{self.folder} holds no image {key}")
        if self._shard is not None and place.shard == self._shard.name:
            self._shard.flush()
        path = self._shard_path(place.shard)
        try:
            with path.open("rb") as file:
                file.seek(place.offset)
                data = file.read(place.size)
        except OSError as error:
            raise DataError(f"cannot read image {key} in {path}: {error.strerror}") from error
        if key_of(data) != key:
            raise DataError(f"image {key} in {path} is damaged (its SHA-256 differs); restore or rewrite it")
        return data

    def mask(self, key: str) -> np.ndarray:
        """mask_HW: bool, true in the foreground; raises as `image_bytes` and `decode_labels`."""
        return decode_labels(self.image_bytes(key)) > 0

    def fingerprint(self) -> str:
        """Hash over samples and image keys in canonical order: the same content, the same fingerprint."""
        table = self._table("samples")
        digest = hashlib.sha256()
        for _, text in sorted(zip(table["id"].to_pylist(), table["json"].to_pylist(), strict=True)):
            digest.update(text.encode() + b"\n")
        for key in self.image_keys:
            digest.update(key.encode() + b"\n")
        return digest.hexdigest()

    def add(self, item: Item) -> None:
        """Store a sample and those of its images that are not stored yet.

        Raises:
            DataError: the id was used before, or a blob or reference does not fit; nothing is stored then.
            UserError: the disk is full or not writable; the corpus takes nothing more then.
        """
        self._require_writable()
        sample = item.sample
        if sample.id in self._ids:
            raise DataError(f"sample id {sample.id!r} was added before; ids must be unique in a corpus")
        new = _check(sample, item.blobs, self._places)
        for blob in item.blobs:
            if blob.key not in self._places:
                self._store(blob, new[blob.key])
        row = {name: str(getattr(sample, name) or "") for name in _SCHEMAS["samples"].names[:-1]}
        self._pending["samples"].append({**row, "json": to_json(sample).decode()})
        self._ids.add(sample.id)

    def fail(self, failure: Failure) -> None:
        """Record an item that could not be used."""
        self._require_writable()
        self._pending["failures"].append(msgspec.to_builtins(failure))

    def commit(self) -> None:
        """Make everything added so far durable and visible to `open`; may be called again after adding more.

        Raises:
            UserError: the disk is full or not writable; the last commit stays as it was.
        """
        self._require_writable()
        if self._commits and not any(self._pending.values()):
            return
        with mending(self.folder):
            self._close_shard()
            tables = {name: f"tables/{name}-{len(self._commits):05d}.parquet" for name in _SCHEMAS}
            for name, relative in tables.items():
                part = pa.Table.from_pylist(self._pending[name], schema=_SCHEMAS[name])
                with replacing(self.folder / relative) as file:
                    pq.write_table(part, file, compression="zstd", write_page_checksum=True)
            commits = [*self._commits, _Commit(tables, dict(self._new_shards))]
            with replacing(self.folder / "corpus.json") as file:
                manifest = msgspec.json.encode(_Manifest(FORMAT, VERSION, commits))
                file.write(msgspec.json.format(manifest, indent=1) + b"\n")
        self._tables = {name: self._table(name) for name in _SCHEMAS}
        self._pending = {name: [] for name in _SCHEMAS}
        self._commits, self._new_shards = commits, {}

    def close(self) -> None:
        """Stop writing; what was not committed is lost."""
        self._writable = False
        if self._shard is not None:
            self._shard.discard()
            self._shard = None

    def __enter__(self) -> "Corpus":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None and self._writable:
                self.commit()
        finally:
            self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        if self._shard is not None or any(self._pending.values()):
            raise DataError(f"{self.folder} has uncommitted content; commit before passing it on")
        return (Corpus.open, (self.folder,))

    def _prepare(self) -> None:
        """Make the folders and remove what no commit names."""
        known = {name for commit in self._commits for name in (*commit.tables.values(), *commit.shards)}
        with mending(self.folder):
            for part in ("shards", "tables"):
                (self.folder / part).mkdir(parents=True, exist_ok=True)
                for path in (self.folder / part).iterdir():
                    ours = path.suffix in (".tar", ".parquet", ".part")
                    if ours and f"{part}/{path.name}" not in known:
                        path.unlink()

    def _store(self, blob: Blob, size: Size) -> None:
        try:
            with mending(self.folder):
                shard = self._shard_with_room(len(blob.data))
                offset = shard.append(blob, size)
        except BaseException:
            self.close()  # a shard with half a member must not be written on
            raise
        place = self._places[blob.key] = _Place(shard.name, offset, len(blob.data), blob.suffix, *size)
        self._pending["images"].append({"key": blob.key, "sha256": blob.key, **place._asdict()})

    def _shard_with_room(self, size: int) -> "_Shard":
        if self._shard is not None and self._shard.length + size > self._shard_bytes:
            self._close_shard()
        if self._shard is None:
            number = sum(len(commit.shards) for commit in self._commits) + len(self._new_shards)
            self._shard = _Shard(self.folder, f"shards/{number:05d}.tar")
        return self._shard

    def _close_shard(self) -> None:
        if self._shard is not None:
            self._new_shards[self._shard.name] = self._shard.close()
            self._shard = None

    def _require_writable(self) -> None:
        if not self._writable:
            raise DataError(f"{self.folder} is not open for writing; use Corpus.create or Corpus.extend")

    def _shard_path(self, name: str) -> Path:
        path = self.folder / name
        return path.with_name(path.name + ".part") if self._shard and name == self._shard.name else path

    def _table(self, name: str) -> pa.Table:
        pending = pa.Table.from_pylist(self._pending[name], schema=_SCHEMAS[name])
        return pa.concat_tables([self._tables[name], pending])

    def _read_tables(self, name: str) -> pa.Table:
        parts = [_read_table(self.folder / commit.tables[name], name) for commit in self._commits]
        return pa.concat_tables([_SCHEMAS[name].empty_table(), *parts])


class _Shard:
    """A tar file being written under a temporary name."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self._path = folder / name
        self._part = self._path.with_name(self._path.name + ".part")
        self._file = self._part.open("wb")
        # USTAR: one header block of 512 bytes per member, so offsets are known while writing.
        self._tar = tarfile.open(fileobj=self._file, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115

    @property
    def length(self) -> int:
        return int(self._tar.offset)

    def append(self, blob: Blob, size: Size) -> int:
        """Write an image and its JSON; returns the offset of the image's first byte."""
        offset = self._member(blob.key + blob.suffix, blob.data)
        facts = {"key": blob.key, "suffix": blob.suffix, "width": size[0], "height": size[1]}
        self._member(f"{blob.key}.json", msgspec.json.encode(facts))
        return offset

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> int:
        """End the tar, make it durable under its own name; returns its length in bytes."""
        self._tar.close()
        sync(self._file)
        length = self._file.tell()
        self._file.close()
        self._part.replace(self._path)
        sync_folder(self._path.parent)
        return length

    def discard(self) -> None:
        """Close without ending the tar; what was written stays under the temporary name."""
        with suppress(OSError):  # closing writes what is buffered, and may fail again as before
            self._file.close()

    def _member(self, name: str, data: bytes) -> int:
        header = tarfile.TarInfo(name)
        header.size = len(data)
        offset = self._tar.offset + tarfile.BLOCKSIZE
        self._tar.addfile(header, io.BytesIO(data))
        return offset


def _check(sample: Sample, blobs: tuple[Blob, ...], stored: Mapping[str, _Place]) -> dict[str, Size]:
    """Sizes of the new blobs, px, where these and the stored images are all that the sample needs."""
    new = {blob.key: _checked_size(sample.id, blob) for blob in blobs if blob.key not in stored}
    for ref in sample.images:
        size = new.get(ref.key) or (stored[ref.key][-2:] if ref.key in stored else None)
        if size is None and not ref.slide:
            raise DataError(f"{sample.id}: image {ref.key!r} is neither stored nor given with it")
        if size not in (None, ref.size):
            raise DataError(f"{sample.id}: image {ref.key} is {size} px; the sample says {ref.size}")
    if isinstance(sample.answer, MaskRef) and sample.answer.key not in {*new, *stored}:
        raise DataError(f"{sample.id}: mask {sample.answer.key!r} is neither stored nor given with it")
    return new


def _checked_size(sample_id: str, blob: Blob) -> Size:
    if key_of(blob.data) != blob.key:
        raise DataError(f"{sample_id}: a blob's key {blob.key} is not the SHA-256 of its bytes")
    if not re.fullmatch(r"\.[a-z0-9]{1,8}", blob.suffix) or blob.suffix == ".json":
        raise DataError(f"{sample_id}: image suffix {blob.suffix!r}; expected a dot and letters, as '.png'")
    return image_size(blob.data)


def _read_manifest(folder: Path) -> _Manifest:
    path = folder / "corpus.json"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{folder} holds no readable corpus.json ({error.strerror}): its writing was cut short, or it is "
            "another folder; write it again or give the right one"
        ) from error
    try:
        head = msgspec.json.decode(data, type=dict[str, Any])
        _check_version(path, head.get("format"), head.get("version"))
        manifest = msgspec.convert(head, _Manifest)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise DataError(f"{path} is damaged: {error}") from error
    for name, length in (pair for commit in manifest.commits for pair in commit.shards.items()):
        shard = folder / name
        found = shard.stat().st_size if shard.is_file() else None
        if found != length:
            raise DataError(f"shard {shard}: expected {length} bytes, found {found}; copy the corpus again")
    return manifest


def _read_table(path: Path, name: str) -> pa.Table:
    try:
        table = pq.read_table(path, page_checksum_verification=True)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"table {path} is missing or damaged: {error}") from error
    meta = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    _check_version(path, meta.get("malpighi.format"), meta.get("malpighi.version"))
    if not table.schema.equals(_SCHEMAS[name]):
        raise DataError(f"table {path}: columns {table.column_names}; expected {_SCHEMAS[name].names}")
    return table


def _check_version(path: Path, format_name: Any, version: Any) -> None:
    if format_name != FORMAT:
        raise FormatVersionError(f"{path} is of format {format_name!r}; expected {FORMAT!r}")
    if str(version) != str(VERSION):
        raise FormatVersionError(
            f"{path} is of version {version}; this release reads {VERSION}: use the one that wrote it"
        )
