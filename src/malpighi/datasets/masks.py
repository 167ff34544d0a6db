"""Data sets with an image of labels beside each image: DSB 2018 (nuclei) and EBHI-SEG (glands)."""

import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from malpighi.corpus import blob_of
from malpighi.datasets.adapter import Adapter, Asked, Entry, Picture, Survey, image_files, read_bytes
from malpighi.datasets.split import rule_text
from malpighi.errors import DataError
from malpighi.geometry import Box
from malpighi.pixels import decode_image, decode_labels
from malpighi.records import Blob, Boxes, MaskRef, Scale, TaskKind

THRESHOLD = 128
MIN_AREA = 100

_EVERY_SIDE = np.ones((3, 3), dtype=int)


def boxes_of(labels_hw: np.ndarray) -> tuple[Box, ...]:
    """The bounding box of each label but 0, in image px, in the order of the labels.

    Example:
        >>> boxes_of(np.array([[0, 1, 1], [0, 0, 2]]))[0].corners
        (1.0, 0.0, 3.0, 1.0)
    """
    slices = [found for found in ndimage.find_objects(labels_hw) if found is not None]
    return tuple(Box(float(x.start), float(y.start), float(x.stop), float(y.stop)) for y, x in slices)


def without_specks(mask_hw: np.ndarray, min_area: int) -> tuple[np.ndarray, tuple[Box, ...]]:
    """The mask without pieces under `min_area` px, and the boxes of those that stay (see `pieces_of`)."""
    pieces_hw = pieces_of(mask_hw, min_area)
    return pieces_hw > 0, boxes_of(pieces_hw)


def pieces_of(mask_hw: np.ndarray, min_area: int = 1) -> np.ndarray:
    """The pieces of a mask, numbered from 1; pixels that touch by a corner belong to one piece.

    Args:
        mask_hw: bool, or 0 in the background.
        min_area: smaller pieces are left out, px.

    Returns:
        labels_HW: int32.
    """
    pieces_hw: np.ndarray
    pieces_hw, count = ndimage.label(mask_hw, structure=_EVERY_SIDE)
    kept = label_areas(pieces_hw, count) >= min_area
    kept[0] = False
    numbers = np.where(kept, np.cumsum(kept), 0).astype(np.int32)
    return np.asarray(numbers[pieces_hw])


def label_areas(labels_hw: np.ndarray, largest: int) -> np.ndarray:
    """Pixels of each label from 0 to `largest`; by blocks, since counting takes 8 bytes a pixel."""
    blocks = (labels_hw[top : top + 512].ravel() for top in range(0, len(labels_hw), 512))
    areas = np.zeros(largest + 1, np.int64)
    for block in blocks:
        areas += np.bincount(block, minlength=largest + 1)
    return areas


def mask_blob(mask_hw: np.ndarray) -> Blob:
    """A mask as PNG bytes: 255 in the foreground, 0 elsewhere."""
    return _png_blob(np.where(mask_hw, 255, 0).astype(np.uint8))


def labels_blob(labels_hw: np.ndarray) -> Blob:
    """A label map as PNG bytes: things numbered anew from 1 without gaps.

    Windows tell it from a plain mask (see `mask_blob`), which holds nothing but 0 and 255.

    Raises:
        DataError: more than 65,535 labels, which no PNG holds.
    """
    found = label_areas(labels_hw, int(labels_hw.max(initial=0))) > 0
    found[0] = False
    count = int(found.sum())
    if count > np.iinfo(np.uint16).max:
        raise DataError(f"{count} labels in one image; a PNG holds 65535")
    numbers = np.where(found, np.cumsum(found), 0)
    return _png_blob(numbers.astype(np.uint8 if count < 255 else np.uint16)[labels_hw])


def _png_blob(pixels_hw: np.ndarray) -> Blob:
    file = io.BytesIO()
    Image.fromarray(pixels_hw).save(file, "png")
    return blob_of(file.getvalue(), ".png")


def survey_pairs(folder: Path, masks: str, group: re.Pattern[str]) -> Survey:
    """Survey of `images/<name>` and `<masks>/<name>`.

    Args:
        folder: the data set's own.
        masks: name of the folder of masks.
        group: what of the name is the group.

    Raises:
        DataError: one of the folders is missing.
    """
    for part in ("images", masks):
        if not (folder / part).is_dir():
            raise DataError(f"{folder}: no folder {part}; expected images/<name> and {masks}/<name>")
    labels = {path.stem: path for path in image_files(folder / masks).values()}
    entries, failures = [], []
    for path in image_files(folder / "images").values():
        match = group.match(path.stem)
        if path.stem not in labels:
            failures.append((path.stem, f"no mask of that name in {masks}"))
        elif match is None:
            failures.append((path.stem, f"no group in the file name; expected {group.pattern}"))
        else:
            mask = labels.pop(path.stem)
            entries.append(Entry(path.stem, path, match[0].lower(), detail={"mask": mask}))
    unpaired = set(labels) - {name for name, _ in failures}
    failures.extend((stem, "a mask without an image") for stem in sorted(unpaired))
    return Survey(entries, failures)


def ask_nuclei(entry: Entry, picture: Picture) -> Iterator[Asked]:
    """Where the nuclei are, by boxes and by mask.

    Raises:
        DataError: the label map is damaged, empty or of another size.
    """
    labels_hw = decode_labels(read_bytes(entry.detail["mask"]))
    _require_size(labels_hw, picture)
    boxes = boxes_of(labels_hw)
    if not boxes:
        raise DataError("the label map marks no nucleus")
    blob = mask_blob(labels_hw > 0)
    question = "Detect nuclei in pathology tissue."
    yield Asked("nuclei", TaskKind.DETECTION, question, Boxes(boxes), suffix=":nuclei")
    yield Asked(
        what="nuclei_mask",
        task=TaskKind.SEGMENTATION,
        text="Segment nuclei in pathology tissue.",
        answer=MaskRef(blob.key, boxes),
        suffix=":nuclei_mask",
        blobs=(blob,),
    )


def ask_glands(entry: Entry, picture: Picture) -> Iterator[Asked]:
    """Where the glands are, by mask.

    Raises:
        DataError: the mask is damaged, empty or of another size.
    """
    grey_hw = np.asarray(decode_image(read_bytes(entry.detail["mask"])).convert("L"))
    _require_size(grey_hw, picture)
    mask_hw, boxes = without_specks(grey_hw >= THRESHOLD, MIN_AREA)
    if not boxes:
        raise DataError(f"the mask marks nothing of {MIN_AREA} px or more")
    blob = mask_blob(mask_hw)
    yield Asked(
        what="glands",
        task=TaskKind.SEGMENTATION,
        text="Segment glands in pathology colon polyp.",
        answer=MaskRef(blob.key, boxes),
        blobs=(blob,),
    )


def _require_size(labels_hw: np.ndarray, picture: Picture) -> None:
    height, width = labels_hw.shape
    if (width, height) != picture.ref.size:
        raise DataError(f"the mask is {width} x {height} px; the image is {picture.ref.size}")


def _survey_dsb(folder: Path) -> Survey:
    return survey_pairs(folder, "instance_masks", re.compile(r".+"))


def _survey_ebhi(folder: Path) -> Survey:
    return survey_pairs(folder, "masks", re.compile(r"GT(XC)?\d+", re.IGNORECASE))


dsb2018_he = Adapter(
    name="dsb2018_he",
    title="Data Science Bowl 2018: nuclei in stained tissue",
    licence="CC0 1.0",
    use="any",
    source="BBBC038v1, https://bbbc.broadinstitute.org/BBBC038; corrected masks by K. Lopuhin",
    layout="images/<name> and instance_masks/<name>",
    scale=Scale.ROI,
    organ="",
    stain="H&E",
    counts={"nuclei": 4550, "nuclei_mask": 107},
    split_rule=rule_text("file (slides are not known)"),
    traps=("Several images are crops of one slide, and which ones is not known.",),
    survey=_survey_dsb,
    ask=ask_nuclei,
)

ebhi_seg = Adapter(
    name="ebhi_seg",
    title="EBHI-SEG: glands in colorectal polyps",
    licence="CC BY 4.0",
    use="any",
    source="Shi et al. 2023, https://figshare.com/articles/dataset/21540159",
    layout="images/<name> and masks/<name>",
    scale=Scale.ROI,
    organ="colon",
    stain="H&E",
    counts={"glands": 49},
    split_rule=rule_text("patient (GT number of the file name)"),
    traps=(
        f"Masks are lossy JPEG: grey from {THRESHOLD} on is gland, pieces under {MIN_AREA} px are noise.",
        "Glands that touch are one piece, so a box may hold several.",
    ),
    survey=_survey_ebhi,
    ask=ask_glands,
)
