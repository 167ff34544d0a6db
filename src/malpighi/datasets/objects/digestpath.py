"""DigestPath 2019: signet ring cells, and malignant tissue of colonoscopies.

SmartPath-R1: `DigestPath2019-Cell` (Tables 18 and 29) and `DigestPath2019-Tissue` (Tables 19 and 29).
"""

import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from malpighi.datasets.adapter import Adapter, Asked, Entry, Picture, Survey, image_files, read_bytes
from malpighi.datasets.objects.exams import Theme
from malpighi.datasets.objects.folders import grey_for, pairs, require, root_of
from malpighi.datasets.split import rule_text
from malpighi.errors import DataError
from malpighi.geometry import Box, Size, View
from malpighi.records import Scale

THRESHOLD = 128
MIN_LESION = 1024

_CASE = re.compile(r"\d{4}_\d+|[^_]+")
_CELLS = Theme("signet ring cells", "stomach and colon")
_LESIONS = Theme("malignant lesions", "colon")
_KIND = "ring_cell_cancer"


def case_of(name: str) -> str:
    """The case, which is what a file name begins with.

    Example:
        >>> case_of("2018_64982_1-3_2019-02-25 21_57_36-lv0-33516-59515-2003-2010")
        '2018_64982'
    """
    match = _CASE.match(name)
    return match[0] if match else name


def survey_cells(folder: Path) -> Survey:
    """Survey of `sig-train-pos/<name>.jpeg`, `<name>.xml` beside it, and `sig-train-neg/<name>.jpeg`.

    Raises:
        DataError: one of the folders is missing.
    """
    root = root_of(folder, "Signet_ring_cell_dataset")
    require(root, "sig-train-pos", "sig-train-neg")
    survey = Survey([], [])
    for path in image_files(root / "sig-train-pos").values():
        notes = path.with_suffix(".xml")
        if notes.is_file():
            survey.entries.append(_entry(path, "positive", {"notes": notes}))
        else:
            survey.failures.append((path.stem, "a positive image without its XML file"))
    survey.entries.extend(
        _entry(path, "negative", {}) for path in image_files(root / "sig-train-neg").values()
    )
    return survey


def ask_cells(entry: Entry, picture: Picture) -> Iterator[Asked | tuple[str, str]]:
    """Where the marked cells are; bad boxes by number, from 1.

    Raises:
        DataError: the XML is damaged, or marks nothing.
    """
    if entry.label == "negative":
        yield _CELLS.detection(())
        return
    boxes = []
    for number, thing in enumerate(_things(entry.detail["notes"]), 1):
        try:
            boxes.append(_box(thing, picture.ref.size))
        except DataError as error:
            yield (f"#{number}", str(error))
    if not boxes:
        raise DataError("a positive image in which no usable box is marked")
    yield from _CELLS.by_boxes(tuple(boxes), picture.ref.size, partly_marked=True)


def survey_tissue(folder: Path) -> Survey:
    """Survey of `tissue-train-pos-v1/<name>.jpg`, `<name>_mask.jpg` and `tissue-train-neg/<name>.jpg`.

    Raises:
        DataError: one of the folders is missing.
    """
    root = root_of(folder, "Colonoscopy_tissue_segment_dataset")
    require(root, "tissue-train-pos-v1", "tissue-train-neg")
    found, failures = pairs(root / "tissue-train-pos-v1", root / "tissue-train-pos-v1", "_mask")
    entries = [_entry(pair.image, "positive", {"marks": pair.marks}) for pair in found]
    entries += [_entry(path, "negative", {}) for path in image_files(root / "tissue-train-neg").values()]
    return Survey(entries, failures)


def ask_tissue(entry: Entry, picture: Picture) -> Iterator[Asked]:
    """Where the malignant tissue is, or that there is none.

    Raises:
        DataError: the mask is damaged, of another size or empty.
    """
    if entry.label == "negative":
        yield _LESIONS.detection(())
        return
    mask_hw = grey_for(entry.detail["marks"], picture) > THRESHOLD
    if not mask_hw.any():
        raise DataError("a positive image whose mask marks nothing")
    yield from _LESIONS.by_mask(mask_hw, MIN_LESION)


def _entry(path: Path, label: str, detail: dict[str, Path]) -> Entry:
    return Entry(path.stem, path, case_of(path.stem), label, detail=detail)


def _things(path: Path) -> list[ElementTree.Element]:
    try:
        return list(ElementTree.fromstring(read_bytes(path)).iter("object"))
    except ElementTree.ParseError as error:
        raise DataError(f"{path.name} is not readable XML: {error}") from error


def _box(thing: ElementTree.Element, size: Size) -> Box:
    kind = (thing.findtext("name") or "").strip()
    texts = [thing.findtext(f"bndbox/{name}") or "" for name in ("xmin", "ymin", "xmax", "ymax")]
    if kind != _KIND:
        raise DataError(f"a box of kind {kind!r}; expected {_KIND}")
    try:
        x0, y0, x1, y1 = map(float, texts)
        box = View(size).clip(Box(x0, y0, x1, y1))
    except ValueError as error:
        raise DataError(f"a box of {texts}; expected four numbers") from error
    if not box.area > 0:
        raise DataError(f"a box of {texts}, which holds nothing of the image of {size}")
    return box


_LICENCE = "CC BY-NC-SA (not verified)"
_SOURCE = "Da et al. 2022, https://digestpath2019.grand-challenge.org/"

digestpath_cell = Adapter(
    name="digestpath_cell",
    title="DigestPath 2019: signet ring cells of stomach and colon",
    licence=_LICENCE,
    use="research",
    source=_SOURCE,
    layout="Signet_ring_cell_dataset/sig-train-pos/<name>.jpeg and .xml, sig-train-neg/<name>.jpeg",
    scale=Scale.ROI,
    organ="",
    stain="H&E",
    counts={"images": 455},
    split_rule=rule_text("case (first part of the file name)"),
    traps=(
        "Not every signet ring cell of a positive image is marked: a right box may count as wrong, and "
        "windows without a mark are no negatives. Negative images are.",
        "There are no masks: the exam segmentation-of-boxes compares with filled boxes, as the paper must.",
        "The official test is hidden; ours is a part of the training images.",
    ),
    survey=survey_cells,
    ask=ask_cells,
    access="registration",
    window=1024,
)

digestpath_tissue = Adapter(
    name="digestpath_tissue",
    title="DigestPath 2019: malignant tissue of colonoscopies",
    licence=_LICENCE,
    use="research",
    source=_SOURCE,
    layout=(
        "Colonoscopy_tissue_segment_dataset/tissue-train-pos-v1/<name>.jpg and <name>_mask.jpg, "
        "tissue-train-neg/<name>.jpg"
    ),
    scale=Scale.ROI,
    organ="colon",
    stain="H&E",
    counts={"images": 660},
    split_rule=rule_text("case (first part of the file name)"),
    traps=(
        f"Masks are lossy JPEG: grey above {THRESHOLD} is malignant; pieces under {MIN_LESION} px are noise.",
        "Boxes frame connected regions of tissue, which are not single things.",
        "The paper counts 872 images of 476 patients; the public training set has 660.",
        "The official test is hidden; ours is a part of the training images.",
    ),
    survey=survey_tissue,
    ask=ask_tissue,
    access="registration",
    window=1024,
)
