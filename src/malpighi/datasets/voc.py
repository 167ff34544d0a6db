"""Data sets with Pascal VOC boxes: BCCD."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from malpighi.datasets.adapter import (
    Adapter,
    Asked,
    Entry,
    Picture,
    Survey,
    image_files,
    read_bytes,
    read_text,
)
from malpighi.datasets.split import rule_text
from malpighi.errors import DataError
from malpighi.geometry import Box, Size
from malpighi.records import Boxes, Scale, Split, TaskKind

_KINDS = {"WBC": "white blood cells", "RBC": "red blood cells", "Platelets": "platelets"}
_LISTS = {"train": Split.TRAIN, "val": Split.VALIDATION, "test": Split.TEST}


def survey_voc(folder: Path) -> Survey:
    """Survey of `BCCD/JPEGImages`, `BCCD/Annotations` and the lists of `BCCD/ImageSets/Main`.

    An image in two lists counts for the later of train, val, test.

    Raises:
        DataError: one of the folders is missing.
    """
    root = folder / "BCCD" if (folder / "BCCD").is_dir() else folder
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        if not (root / part).is_dir():
            raise DataError(
                f"{folder}: no folder {part}; expected BCCD/JPEGImages, Annotations, ImageSets/Main"
            )
    official: dict[str, Split] = {}
    for name, split in _LISTS.items():
        path = root / "ImageSets/Main" / f"{name}.txt"
        official.update(dict.fromkeys(read_text(path).split() if path.is_file() else (), split))
    entries, failures = [], []
    for path in image_files(root / "JPEGImages").values():
        notes = root / "Annotations" / f"{path.stem}.xml"
        if notes.is_file():
            given = official.get(path.stem)
            entries.append(Entry(path.stem, path, path.stem, split=given, detail={"notes": notes}))
        else:
            failures.append((path.stem, f"no annotation; expected {notes.relative_to(folder)}"))
    present = {entry.name for entry in entries} | {name for name, _ in failures}
    for name in sorted(set(official) - present):
        failures.append((name, f"the {official[name]} list names it, but there is no such image"))
    return Survey(entries, failures)


def ask_voc(entry: Entry, picture: Picture) -> Iterator[Asked | tuple[str, str]]:
    """One question per kind of cell that the image shows; bad boxes by number within their kind, from 1.

    Raises:
        DataError: the annotation is damaged, or of an image of another size.
    """
    notes = _parse(entry.detail["notes"], picture.ref.size)
    found: dict[str, list[Box]] = {kind: [] for kind in _KINDS}
    numbers: Counter[str] = Counter()
    for thing in notes.iter("object"):
        kind = (thing.findtext("name") or "").strip()
        numbers[kind] += 1
        try:
            if kind not in _KINDS:
                raise DataError(f"a box of kind {kind!r}; expected one of {', '.join(_KINDS)}")
            found[kind].append(_box(thing, picture.ref.size))
        except DataError as error:
            yield (f":{kind}#{numbers[kind]}", str(error))
    for kind, boxes in found.items():
        if boxes:
            text = f"Detect {_KINDS[kind]} in pathology blood smear."
            answer = Boxes(tuple(boxes))
            yield Asked(kind, TaskKind.DETECTION, text, answer, suffix=f":{kind}")


def _parse(path: Path, size: Size) -> ElementTree.Element:
    try:
        notes = ElementTree.fromstring(read_bytes(path))
    except ElementTree.ParseError as error:
        raise DataError(f"annotation {path.name} is not readable XML: {error}") from error
    stated = (notes.findtext("size/width"), notes.findtext("size/height"))
    if stated != (str(size[0]), str(size[1])):
        raise DataError(
            f"annotation {path.name} is for {' x '.join(map(str, stated))} px; the image is {size}"
        )
    return notes


def _box(thing: ElementTree.Element, size: Size) -> Box:
    """VOC counts pixels from 1 and includes the last; ours are half-open from 0."""
    texts = [thing.findtext(f"bndbox/{name}") or "" for name in ("xmin", "ymin", "xmax", "ymax")]
    try:
        x0, y0, x1, y1 = (int(text) for text in texts)
    except ValueError as error:
        raise DataError(f"a box of {texts}; expected four whole numbers") from error
    if x1 <= x0 or y1 <= y0:
        raise DataError(f"a box without extent: x {x0} to {x1}, y {y0} to {y1}")
    if x0 < 1 or y0 < 1 or x1 > size[0] or y1 > size[1]:
        raise DataError(f"a box outside the image of {size[0]} x {size[1]}: x {x0} to {x1}, y {y0} to {y1}")
    return Box(x0 - 1, y0 - 1, x1, y1)


bccd = Adapter(
    name="bccd",
    title="BCCD: blood cells in smears",
    licence="MIT",
    use="any",
    source="https://github.com/Shenggan/BCCD_Dataset",
    layout="BCCD/JPEGImages, BCCD/Annotations and BCCD/ImageSets/Main",
    scale=Scale.ROI,
    organ="blood",
    stain="",
    counts={"WBC": 372, "RBC": 4153, "Platelets": 361},
    split_rule=rule_text("file (patients are not known)", official=True),
    traps=(
        "Two of the 4,155 boxes of red blood cells have no extent; they are left out and listed.",
        "Not every cell is marked, and at the edges marking is uneven: a right box may count as wrong.",
        "Haematology, not histology.",
    ),
    survey=survey_voc,
    ask=ask_voc,
)
