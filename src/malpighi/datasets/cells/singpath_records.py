"""Records of the Singpath sets: a JSON list that names images, slides by the names of images, categories."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from malpighi.datasets.adapter import Entry, Survey, image_files
from malpighi.datasets.listing import one_of, read_records
from malpighi.errors import DataError

CATEGORIES = ("NILM", "ASC-US", "LSIL", "ASC-H", "HSIL", "AGC")


Reading = Callable[[dict[str, Any]], Mapping[str, Any]]


def survey_records(root: Path, index: str, read: Reading) -> Survey:
    """Survey of the images that a list names by `image_name`, wherever below `root` they lie.

    Args:
        root: that list and images lie below.
        index: name of the list.
        read: what to keep of a record; its `label`, where there is one, is the entry's. Raises DataError
            where the record cannot be used.

    Raises:
        DataError: the list is missing or no list of objects.
    """
    records = read_records(root / index)
    lying: dict[str, list[Path]] = defaultdict(list)
    for path in image_files(root).values():
        lying[path.name].append(path)
    entries: list[Entry] = []
    failures: list[tuple[str, str]] = []
    for number, record in enumerate(records):
        name = str(record.get("image_name", ""))
        stem = PurePosixPath(name).stem if name else f"{index}#{number}"
        found = lying.get(name, [])
        try:
            if len(found) != 1:
                raise DataError(
                    f"{index} names {name!r}, of which there are {len(found)} images; expected one"
                )
            detail = read(record)
        except DataError as error:
            failures.append((stem, str(error)))
            continue
        entries.append(Entry(stem, found[0], slide_of(stem), detail.get("label", ""), detail=detail))
    named = {str(record.get("image_name", "")) for record in records}
    failures += [(PurePosixPath(name).stem, f"not in {index}") for name in sorted(set(lying) - named)]
    return Survey(entries, failures)


def label_of(record: Mapping[str, Any]) -> str:
    """The Bethesda category of a record.

    Raises:
        DataError: none, or not one of the six.
    """
    label = str(record.get("label", "")).strip()
    if label not in CATEGORIES:
        raise DataError(f"label {one_of(label, CATEGORIES)}")
    return label


def slide_of(stem: str) -> str:
    """The slide in the name of an image; the whole name where it has but one part.

    Example:
        >>> slide_of("dEPhZAhd_2363_130_280_244"), slide_of("cell7")
        ('dEPhZAhd', 'cell7')
    """
    return stem.partition("_")[0]
