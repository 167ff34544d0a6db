"""Fingerprints of a corpus: computed once, kept beside it, and written out without its images.

<corpus>/fingerprints/pictures-v1-*.parquet   key, quality, hashes, error: parts, appended
<export>/pictures.parquet, samples.parquet        all that `find_leaks` needs of one side
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from malpighi.corpus import Corpus, decode_image
from malpighi.durable import mending, replacing
from malpighi.errors import DataError, FormatVersionError
from malpighi.likeness.pdq import PictureHash, Words, picture_hash
from malpighi.likeness.shingles import Shingles, shingles
from malpighi.likeness.sources import Source, hidden, sources_of
from malpighi.records import Choice, Failure, Sample, Text

VERSION = 1
"""Of how pictures are hashed; parts of other versions are passed over."""

_PART = 2000
_META = {b"malpighi.format": b"malpighi-fingerprints", b"malpighi.version": str(VERSION).encode()}
_PICTURES = pa.schema(
    [
        ("key", pa.string()),
        ("quality", pa.int16()),
        ("pdq", pa.binary(256)),
        ("low", pa.binary(128)),
        ("error", pa.string()),
    ],
    _META,
)
_SAMPLES = pa.schema(
    [
        ("id", pa.string()),
        ("exam", pa.string()),
        ("pictures", pa.list_(pa.string())),
        ("texts", pa.list_(pa.list_(pa.uint32()))),
        ("sources", pa.list_(pa.list_(pa.string()))),
    ],
    _META,
)


@dataclass(frozen=True)
class Pictures:
    """Hashes of pictures.

    Attributes:
        keys: corpus keys, each once.
        pdq: uint64, N x 8 x 4, per picture its 8 turns and flips (see `PictureHash`).
        low: uint64, N x 8 x 2, likewise.
        quality: int16, N, 0 to 100; -1 where the picture could not be read.
        errors: why, by key.
    """

    keys: list[str]
    pdq: Words
    low: Words
    quality: NDArray[np.int16]
    errors: dict[str, str]


class SamplePrint(NamedTuple):
    """What is compared of a sample beside its pictures.

    Attributes:
        id: the sample.
        exam: its exam.
        pictures: keys of the pictures it shows.
        texts: shingles of its question and of its answer.
        sources: what it was made from.
    """

    id: str
    exam: str
    pictures: tuple[str, ...]
    texts: tuple[Shingles, ...]
    sources: tuple[Source, ...]


@dataclass(frozen=True)
class Fingerprints:
    """One side of a leak check.

    Attributes:
        samples: what is compared of each.
        pictures: hashes of all pictures they show.
        corpus: where the pictures themselves are, to decide doubtful cases; None for an export.
    """

    samples: list[SamplePrint]
    pictures: Pictures
    corpus: Corpus | None = None

    @property
    def failures(self) -> list[Failure]:
        """Pictures that could not be read, by key."""
        errors = self.pictures.errors.items()
        return [Failure(id=key, stage="fingerprint", reason=why) for key, why in sorted(errors)]


def fingerprint(
    corpus: Corpus,
    samples: Sequence[Sample],
    *,
    folder: Path | None = None,
    workers: int = 2,
    on_progress: Callable[[int, int], None] | None = None,
) -> Fingerprints:
    """The fingerprints of some samples of a corpus; pictures that were hashed before are not read again.

    Args:
        corpus: holds the pictures.
        samples: which; slides of which no view is stored are compared by source only.
        folder: where hashes are kept, `fingerprints` in the corpus's folder where None.
        workers: threads.
        on_progress: called with (pictures done, pictures to do).

    Raises:
        UserError: the folder cannot be written.
    """
    keys = list(dict.fromkeys(ref.key for sample in samples for ref in sample.images if ref.key in corpus))
    pictures = _hash_pictures(
        corpus, keys, folder or corpus.folder / "fingerprints", workers, on_progress or (lambda *_: None)
    )
    return Fingerprints([sample_print(sample, corpus) for sample in samples], pictures, corpus)


def sample_print(sample: Sample, corpus: Corpus) -> SamplePrint:
    """What is compared of a sample beside its pictures' hashes."""
    kept = tuple(ref.key for ref in sample.images if ref.key in corpus)
    texts = tuple(shingles(text) for text in (sample.question, _answer_text(sample)))
    return SamplePrint(sample.id, sample.exam, kept, texts, sources_of(sample))


def write_fingerprints(prints: Fingerprints, folder: Path, *, hide_sources: bool = True) -> None:
    """Write an export: no pixels, no words; patients and slides as hashes unless told otherwise.

    Raises:
        UserError: the folder cannot be written.
    """
    rows = [
        {
            "id": one.id,
            "exam": one.exam,
            "pictures": one.pictures,
            "texts": one.texts,
            "sources": [tuple(hidden(source) if hide_sources else source) for source in one.sources],
        }
        for one in prints.samples
    ]
    with mending(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / "samples.parquet", pa.Table.from_pylist(rows, schema=_SAMPLES))
        _write(
            folder / "pictures.parquet", pa.Table.from_pylist(list(_rows(prints.pictures)), schema=_PICTURES)
        )


def read_fingerprints(folder: Path) -> Fingerprints:
    """An export back.

    Raises:
        DataError: a file is missing or damaged.
        FormatVersionError: it was written in a version that this release does not compare with.
    """
    rows = _read(folder / "samples.parquet", _SAMPLES).to_pylist()
    samples = [
        SamplePrint(
            row["id"],
            row["exam"],
            tuple(row["pictures"]),
            tuple(np.array(text, dtype=np.uint32) for text in row["texts"]),
            tuple(Source(*source) for source in row["sources"]),
        )
        for row in rows
    ]
    return Fingerprints(samples, _pictures(_read(folder / "pictures.parquet", _PICTURES)))


def _answer_text(sample: Sample) -> str:
    if isinstance(sample.answer, Text):
        return sample.answer.value
    chosen = isinstance(sample.answer, Choice) and sample.answer.index < len(sample.options)
    return sample.options[sample.answer.index] if chosen and isinstance(sample.answer, Choice) else ""


_Row = tuple[str, PictureHash | None, str]


def _hash_pictures(
    corpus: Corpus, keys: list[str], folder: Path, workers: int, told: Callable[[int, int], None]
) -> Pictures:
    known = _read_parts(folder)
    missing = [key for key in keys if key not in known]
    done = len(keys) - len(missing)
    told(done, len(keys))
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        for start in range(0, len(missing), _PART):
            rows = []
            for row in pool.map(lambda key: _hash(corpus, key), missing[start : start + _PART]):
                rows.append(row)
                done += 1
                told(done, len(keys))
            _write_part(folder, rows)
            known.update((row["key"], row) for row in rows)
    return _pictures(pa.Table.from_pylist([known[key] for key in keys], schema=_PICTURES))


def _hash(corpus: Corpus, key: str) -> dict[str, Any]:
    try:
        found = picture_hash(np.asarray(decode_image(corpus.image_bytes(key))))
    except (DataError, ValueError) as error:
        return {"key": key, "quality": -1, "pdq": bytes(256), "low": bytes(128), "error": str(error)}
    return {
        "key": key,
        "quality": found.quality,
        "pdq": found.pdq.astype("<u8").tobytes(),
        "low": found.low.astype("<u8").tobytes(),
        "error": "",
    }


def _rows(pictures: Pictures) -> Iterator[dict[str, Any]]:
    for place, key in enumerate(pictures.keys):
        yield {
            "key": key,
            "quality": int(pictures.quality[place]),
            "pdq": pictures.pdq[place].astype("<u8").tobytes(),
            "low": pictures.low[place].astype("<u8").tobytes(),
            "error": pictures.errors.get(key, ""),
        }


def _pictures(table: pa.Table) -> Pictures:
    pdq, low = (
        np.frombuffer(b"".join(table[name].to_pylist()), "<u8").astype(np.uint64).reshape(-1, 8, words)
        for name, words in (("pdq", 4), ("low", 2))
    )
    keys = table["key"].to_pylist()
    errors = {key: why for key, why in zip(keys, table["error"].to_pylist(), strict=True) if why}
    return Pictures(keys, pdq, low, np.asarray(table["quality"].to_numpy(), np.int16), errors)


def _write_part(folder: Path, rows: list[dict[str, Any]]) -> None:
    """One more part; its number may be taken by another process meanwhile, so it carries ours too."""
    with mending(folder):
        folder.mkdir(parents=True, exist_ok=True)
        number = len(list(folder.glob(_parts())))
        path = folder / f"pictures-v{VERSION}-{number:05d}-{os.getpid()}.parquet"
        _write(path, pa.Table.from_pylist(rows, schema=_PICTURES))


def _read_parts(folder: Path) -> dict[str, dict[str, Any]]:
    """Rows by key. Pictures that could not be read are tried again: a shard may have been restored."""
    known: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob(_parts())):
        known.update((row["key"], row) for row in _read(path, _PICTURES).to_pylist() if not row["error"])
    return known


def _parts() -> str:
    return f"pictures-v{VERSION}-*.parquet"


def _write(path: Path, table: pa.Table) -> None:
    with replacing(path) as file:
        pq.write_table(table, file, compression="zstd", write_page_checksum=True)


def _read(path: Path, schema: pa.Schema) -> pa.Table:
    try:
        table = pq.read_table(path, page_checksum_verification=True)
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"fingerprints {path} are missing or damaged ({error}); delete and make them again"
        ) from error
    found = (table.schema.metadata or {}).get(b"malpighi.version", b"none").decode()
    if found != str(VERSION):
        raise FormatVersionError(
            f"fingerprints {path} are of version {found}; expected {VERSION}: make them again"
        )
    if not table.schema.equals(schema):
        raise DataError(f"fingerprints {path}: columns {table.column_names}; expected {schema.names}")
    return table
