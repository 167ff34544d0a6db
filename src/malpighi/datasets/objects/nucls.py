"""NuCLS: kinds of nuclei of breast cancer. SmartPath-R1: `NuCLS` (external, Tables 27 and 30)."""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

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
from malpighi.datasets.class_folders import read_index
from malpighi.datasets.masks import boxes_of, labels_blob
from malpighi.datasets.objects.arrays import picture_of
from malpighi.datasets.objects.exams import Theme
from malpighi.datasets.objects.folders import pairs, require, root_of
from malpighi.datasets.windows import FILLED_BOXES, SEGMENTATION, visible
from malpighi.errors import DataError
from malpighi.geometry import Box, Size
from malpighi.grading.masks import filled
from malpighi.pixels import decode_image
from malpighi.records import Scale, Split

_CLASSES = {
    "tumor": "tumor cells",
    "fibroblast": "fibroblasts",
    "lymphocyte": "lymphocytes",
    "plasma_cell": "plasma cells",
    "macrophage": "macrophages",
    "mitotic_figure": "mitotic figures",
    "vascular_endothelium": "vascular endothelium",
    "apoptotic_body": "apoptotic bodies",
    "neutrophil": "neutrophils",
    "ductal_epithelium": "ductal epithelium",
}
_NOT_ASKED = {"myoepithelium", "eosinophil", "unlabeled", "fov", "ambiguous", "other", ""}
_COLUMNS = ("raw_classification", "type", "xmin", "ymin", "xmax", "ymax", "coords_x", "coords_y")
_FIELD_CODES = (253, 255)
_PATIENT = re.compile(r"TCGA-\w\w-\w{4}")

Area = tuple[int, int, int, int]


class _Nucleus(NamedTuple):
    """A row of the table, in px of the cropped image; `outline` is empty where only a box was drawn."""

    box: Box
    outline: list[tuple[float, float]]


def survey_nucls(folder: Path) -> Survey:
    """Survey of `QC/{rgb,csv,mask}` and `train_test_splits/fold_1_{train,test}.csv`.

    Raises:
        DataError: one of the folders is missing.
    """
    root = root_of(folder, "NuCLS")
    require(root, "QC/rgb", "QC/csv", "QC/mask")
    official = _fold(root / "train_test_splits")
    found, failures = pairs(root / "QC/rgb", root / "QC/csv")
    masks = {path.stem: path for path in image_files(root / "QC/mask").values()}
    entries = []
    for pair in found:
        patient = _PATIENT.search(pair.name)
        if patient is None or pair.name not in masks:
            failures.append(
                (pair.name, "no mask of that name" if patient else "no patient (TCGA-XX-XXXX) in the name")
            )
            continue
        mask = masks[pair.name]
        detail = {"table": pair.marks, "mask": mask}
        load = partial(_load, pair.image, mask)
        split = official.get(patient[0])
        entries.append(Entry(pair.name, pair.image, patient[0], split=split, detail=detail, load=load))
    return Survey(entries, failures)


def ask_nucls(entry: Entry, picture: Picture) -> Iterator[Asked | tuple[str, str]]:
    """Where each of ten kinds of nucleus is; bad rows by number, from 1.

    Masks come from outlines. Where a nucleus of the kind has only a box, the box is filled, as in the masks
    of the release, and the question belongs to the exam of filled boxes.
    """
    area = field_of_view(_mask(entry.detail["mask"]), decode_image(read_bytes(entry.path)).size)
    found: dict[str, list[_Nucleus]] = {kind: [] for kind in _CLASSES}
    for number, row in enumerate(read_index(entry.detail["table"], _COLUMNS), 1):
        kind = row["raw_classification"].lower()
        if kind in _NOT_ASKED:
            continue
        try:
            found[_known(kind)].extend(_nucleus(row, area))
        except (DataError, ValueError) as error:
            yield (f"#{number}", f"not a usable row: {error}")
    for kind, nuclei in found.items():
        theme = Theme(_CLASSES[kind], "breast")
        yield theme.detection(tuple(nucleus.box for nucleus in nuclei))
        labels_hw = _drawn(nuclei, picture.ref.size)
        if labels_hw.any():
            what = SEGMENTATION if all(nucleus.outline for nucleus in nuclei) else FILLED_BOXES
            yield theme.segmentation(labels_blob(labels_hw), boxes_of(labels_hw), what)


def field_of_view(mask_hw3: np.ndarray, size: Size) -> Area:
    """The part of an image that was annotated: x0, y0, x1, y1, px.

    Nuclei that begin in the field may be drawn beyond it, where nothing else is; image and mask may differ by
    a pixel, and the smaller counts.

    Args:
        mask_hw3: mask as stored; the first channel is 253 (255 in some copies) in the field's background.
        size: (width, height) of the image, px.
    """
    width, height = min(size[0], mask_hw3.shape[1]), min(size[1], mask_hw3.shape[0])
    rows, columns = np.nonzero(np.isin(mask_hw3[:height, :width, 0], _FIELD_CODES))
    if not len(rows):
        return (0, 0, width, height)
    return (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)


def _nucleus(row: dict[str, str], area: Area) -> list[_Nucleus]:
    """The nucleus of a row, if at least half of it is in the field."""
    x0, y0, x1, y1 = (float(row[name]) for name in ("xmin", "ymin", "xmax", "ymax"))
    if x1 <= x0 or y1 <= y0:
        raise DataError(f"a box without extent: x {x0} to {x1}, y {y0} to {y1}")
    outline = []
    if row["type"] == "polyline":
        xs, ys = ([float(number) for number in row[name].split(",")] for name in ("coords_x", "coords_y"))
        outline = [(x - area[0], y - area[1]) for x, y in zip(xs, ys, strict=True)]
        if len(outline) < 3:
            raise DataError(f"an outline of {len(outline)} points")
    return [_Nucleus(box, outline) for box in visible((Box(x0, y0, x1, y1),), area)]


def _known(kind: str) -> str:
    if kind not in _CLASSES:
        raise DataError(f"class {kind!r}; expected one of {', '.join(_CLASSES)}")
    return kind


def _drawn(nuclei: list[_Nucleus], size: Size) -> np.ndarray:
    """Outlines and boxes filled, numbered from 1; a later one lies on top."""
    labels_hw = np.zeros(size[::-1], np.int32)
    for number, nucleus in enumerate(nuclei, 1):
        image = Image.new("1", size, 0)
        if nucleus.outline:
            ImageDraw.Draw(image).polygon(nucleus.outline, fill=1)
        labels_hw[np.asarray(image) if nucleus.outline else filled((nucleus.box,), size)] = number
    return labels_hw


def _mask(path: Path) -> np.ndarray:
    return np.asarray(decode_image(read_bytes(path)))


def _load(path: Path, mask: Path) -> Picture:
    image = decode_image(read_bytes(path))
    return picture_of(np.asarray(image.crop(field_of_view(_mask(mask), image.size))))


def _fold(folder: Path) -> dict[str, Split]:
    """Split by patient, from the first fold's lists, whichever column names the slides."""
    official: dict[str, Split] = {}
    for name, split in (("train", Split.TRAIN), ("test", Split.TEST)):
        path = folder / f"fold_1_{name}.csv"
        if path.is_file():
            official.update(dict.fromkeys(_PATIENT.findall(read_text(path)), split))
    return official


nucls = Adapter(
    name="nucls",
    title="NuCLS: nuclei of breast cancer (corrected, single rater)",
    licence="CC0 1.0 (not verified)",
    use="any",
    source="Amgad et al. 2022, https://sites.google.com/view/nucls/home",
    layout="NuCLS/QC/{rgb,csv,mask}/<name> and NuCLS/train_test_splits/fold_1_{train,test}.csv",
    scale=Scale.ROI,
    organ="breast",
    stain="H&E",
    counts={},
    split_rule="by hospital, the first of the five official folds; without the lists by patient, seeded",
    traps=(
        "About half of the nuclei have only a box: a mask that holds one of these is asked for in the exam "
        "segmentation-of-boxes, apart from those drawn by outline alone.",
        "That outlines stand in the columns coords_x and coords_y is assumed; a table without them is a "
        "failure that names the columns found.",
        "Images are cut to the annotated field of view; a nucleus seen by less than half is left out.",
        "Myoepithelium and eosinophils are never asked for, as in the paper; nor are unlabelled nuclei, "
        "which count against a model that finds them.",
        "Which images the paper's 905 samples come from is not published.",
        "The patients are those of BCSS: no external test for models trained on it.",
    ),
    survey=survey_nucls,
    ask=ask_nucls,
)
