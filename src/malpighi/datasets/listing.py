"""What layouts of folders and lists share: where a data set begins, and what a file's place says of it."""

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import msgspec

from malpighi.datasets.adapter import Entry, Survey, image_files, read_bytes
from malpighi.errors import DataError
from malpighi.records import Split

_TCGA_PATIENT = re.compile(r"TCGA-[A-Z0-9]{2}-[A-Z0-9]{4}", re.IGNORECASE)


class Place(NamedTuple):
    """What a file's place says of the image.

    Attributes:
        label: the class.
        group: what may never straddle a split; the image itself where "".
        split: the official one.
        name: the id; the path without its ending where "".
    """

    label: str
    group: str = ""
    split: Split | None = None
    name: str = ""


Placing = Callable[[PurePosixPath], Place | str | None]
"""From a file's path to its place, to why it cannot be used, or to None where it is no part of the exam."""


def root_of(folder: Path, top: str, holds: Sequence[str]) -> Path:
    """The folder that a data set begins in: `top` below `folder`, or `folder`; archives unpack both ways.

    Args:
        folder: the data set's own.
        top: the folder that the archive unpacks to; may be several levels, with `/` between.
        holds: files or folders of which at least one must lie there.

    Raises:
        DataError: neither holds any of them; the message lists what was found instead.
    """
    for root in (folder / top, folder):
        if any((root / name).exists() for name in holds):
            return root
    found = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    raise DataError(
        f"{folder}: expected {top}/ (or the folder itself) with {' or '.join(holds)}; "
        f"found {', '.join(found[:8]) or 'nothing'}{' ...' if len(found) > 8 else ''}"
    )


def absent(root: Path, names: Iterable[str]) -> list[tuple[str, str]]:
    """A failure for each of the folders that is not there."""
    return [(name, f"no folder {name} in {root}") for name in names if not (root / name).is_dir()]


def survey_places(root: Path, place: Placing, below: str = "") -> Survey:
    """Survey of all image files by what their paths say.

    Args:
        root: where ids begin.
        place: reads a path relative to `root`.
        below: the only part of `root` that is looked at.
    """
    entries: list[Entry] = []
    failures: list[tuple[str, str]] = []
    for name, path in image_files(root / below).items():
        within = PurePosixPath(below, name)
        stem = str(within.with_suffix(""))
        found = place(within)
        if isinstance(found, str):
            failures.append((stem, found))
        elif found is not None:
            own = found.name or stem
            entries.append(Entry(own, path, found.group or own, found.label, found.split))
    return Survey(entries, failures)


def joined(surveys: Iterable[Survey], failures: Iterable[tuple[str, str]] = ()) -> Survey:
    """Several surveys as one; `failures` come first."""
    whole = Survey([], list(failures))
    for survey in surveys:
        whole.entries.extend(survey.entries)
        whole.failures.extend(survey.failures)
    return whole


def stem_of(file: str, row: int) -> str:
    """The id of an image that a list names: the path without its ending; the row's number where it has none.

    Example:
        >>> stem_of("train/a.1.JPG", 3), stem_of("", 3), stem_of("/", 3)
        ('train/a.1', 'row 3', 'row 3')
    """
    path = PurePosixPath(file)
    return str(path.with_suffix("")) if path.name else f"row {row}"


def one_of(found: str, names: Iterable[str]) -> str:
    """The reason why a folder or label is not one of those known."""
    return f"{found!r}; expected one of {', '.join(names)}"


def tcga_patient(name: str) -> str:
    """The patient in a TCGA barcode; "" where there is none.

    Example:
        >>> tcga_patient("blk-TCGA-AA-3692-01Z-00-DX1.png")
        'TCGA-AA-3692'
    """
    found = _TCGA_PATIENT.search(name)
    return found[0].upper() if found else ""


def read_records(path: Path) -> list[dict[str, Any]]:
    """A JSON file that is a list of objects.

    Raises:
        DataError: missing, unreadable, no JSON, or something else than a list of objects.
    """
    try:
        records = msgspec.json.decode(read_bytes(path))
    except (msgspec.DecodeError, UnicodeError) as error:
        raise DataError(f"{path} is no JSON: {error}") from error
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise DataError(f"{path}: expected a list of objects")
    return records
