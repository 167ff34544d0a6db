"""MIDOG 2022: mitotic figures of breast and of neuroendocrine tumours.

SmartPath-R1: `MIDOG-Breast` (Tables 20 and 29) and `MIDOG-Neuroendocrine` (Tables 21 and 29).
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from malpighi.datasets.adapter import Adapter, Asked, Entry, Picture, Survey, image_files, read_text
from malpighi.datasets.objects.exams import Theme
from malpighi.datasets.objects.folders import require, root_of
from malpighi.datasets.split import rule_text
from malpighi.errors import DataError
from malpighi.geometry import Box, Size, View
from malpighi.records import Scale

_INDEXES = ("MIDOG2022_training.json", "MIDOG.json")
_NUMBER = re.compile(r"\d+")
_KINDS = {1: "mitotic figures", 2: "non-mitotic figures"}


def survey_cases(first: int, last: int) -> Callable[[Path], Survey]:
    """Survey of `images/<number>.tiff` and the training JSON, for cases `first` to `last`, both included."""

    def survey(folder: Path) -> Survey:
        root = root_of(folder, "midog2")
        require(root, "images")
        files = {path.stem: path for path in image_files(root / "images").values()}
        notes = _notes(root)
        entries, failures = [], []
        for name, marks in sorted(notes.items()):
            if not _NUMBER.fullmatch(name) or not first <= int(name) <= last:
                continue
            if name in files:
                entries.append(Entry(name, files[name], name, detail={"marks": marks}))
            else:
                failures.append((name, "the JSON names it, but there is no such image"))
        for name in sorted(set(files) - set(notes)):
            if _NUMBER.fullmatch(name) and first <= int(name) <= last:
                failures.append((name, "the JSON does not name it"))
        return Survey(entries, failures)

    return survey


def ask_figures(tumour: str, where: str) -> Callable[[Entry, Picture], Iterator[Asked | tuple[str, str]]]:
    """Where the mitotic figures are, and, as a question of its own, where their look-alikes are.

    Args:
        tumour: in words.
        where: the tissue in words.
    """

    def ask(entry: Entry, picture: Picture) -> Iterator[Asked | tuple[str, str]]:
        found: dict[int, list[Box]] = {kind: [] for kind in _KINDS}
        for number, mark in enumerate(entry.detail["marks"], 1):
            try:
                found[_kind(mark)].append(_box(mark, picture.ref.size))
            except DataError as error:
                yield (f"#{number}", str(error))
        for kind, boxes in found.items():
            theme = Theme(f"{tumour} {_KINDS[kind]}", where)
            yield from theme.by_boxes(tuple(boxes), picture.ref.size)

    return ask


def _notes(root: Path) -> dict[str, list[Any]]:
    """Annotations by name of image."""
    path = next((root / name for name in _INDEXES if (root / name).is_file()), root / _INDEXES[0])
    try:
        index = json.loads(read_text(path))
        names = {image["id"]: Path(image["file_name"]).stem for image in index["images"]}
        marks: dict[str, list[Any]] = {name: [] for name in names.values()}
        others: set[Any] = set()
        for mark in index["annotations"]:
            name = names.get(mark["image_id"])
            if name is None:
                others.add(mark["image_id"])
            else:
                marks[name].append(mark)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: expected images and annotations as MIDOG has them: {error!r}") from error
    if others:
        raise DataError(f"{path}: annotations of images that it does not list: {sorted(others, key=str)[:3]}")
    return marks


def _kind(mark: Any) -> int:
    kind = mark.get("category_id") if isinstance(mark, dict) else None
    if kind not in _KINDS:
        raise DataError(f"a box of category {kind!r}; expected one of {', '.join(map(str, _KINDS))}")
    return int(kind)


def _box(mark: Any, size: Size) -> Box:
    """The box of a mark; MIDOG gives both corners, not corner and sides as COCO does."""
    corners = mark.get("bbox")
    try:
        x0, y0, x1, y1 = (float(number) for number in corners)
    except (TypeError, ValueError) as error:
        raise DataError(f"a box of {corners!r}; expected x0, y0, x1, y1") from error
    box = View(size).clip(Box(x0, y0, x1, y1))
    if x1 <= x0 or y1 <= y0 or not box.area > 0:
        raise DataError(f"a box of {corners}: expected x0, y0, x1, y1 within the image of {size}")
    return box


_LICENCE = "not verified"
_SOURCE = "Aubreville et al. 2023, https://midog2022.grand-challenge.org/"
_LAYOUT = "midog2/images/<number>.tiff and midog2/MIDOG2022_training.json"
_TRAPS = (
    "A bbox holds both corners (x0, y0, x1, y1), not COCO's corner and sides.",
    "Category 2, look-alikes that are no mitosis, is no target of the question for mitotic figures. It is a "
    "question of its own, since the paper asks for it.",
    "All boxes are 50 px squares around a centre: they frame no outline, and AP at an IoU of 0.7 asks for a "
    "centre within about 8 px.",
    "Scanners differ and images state no micrometres per pixel (0.23 to 0.25), so a box is not always of one "
    "true size.",
    "There are no masks: the exam segmentation-of-boxes compares with filled boxes, as the paper must.",
    "Most windows of 1,024 px hold no mitosis; the exam detection leaves them out, as the paper does.",
)

midog_breast = Adapter(
    name="midog_breast",
    title="MIDOG 2022: mitotic figures of human breast cancer",
    licence=_LICENCE,
    use="research",
    source=_SOURCE,
    layout=_LAYOUT,
    scale=Scale.ROI,
    organ="breast",
    stain="H&E",
    counts={"images": 150},
    split_rule=rule_text("case (number of the file)"),
    traps=_TRAPS,
    survey=survey_cases(1, 150),
    ask=ask_figures("breast cancer", "breast"),
    window=1024,
)

midog_neuroendocrine = Adapter(
    name="midog_neuroendocrine",
    title="MIDOG 2022: mitotic figures of human neuroendocrine tumours",
    licence=_LICENCE,
    use="research",
    source=_SOURCE,
    layout=_LAYOUT,
    scale=Scale.ROI,
    organ="pancreas",
    stain="H&E",
    counts={"images": 55},
    split_rule=rule_text("case (number of the file)"),
    traps=(*_TRAPS, "Tumours are of the pancreas and the gut; which is which is not stated."),
    survey=survey_cases(300, 354),
    ask=ask_figures("neuroendocrine tumor", "pancreas"),
    window=1024,
)
