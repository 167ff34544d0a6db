"""TNBC: nuclei of breast cancer and of brain. SmartPath-R1: `TNBC` (Tables 24 and 29), seven classes."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from scipy import ndimage

from malpighi.datasets.adapter import Adapter, Asked, Entry, Picture, Survey, image_files, read_bytes
from malpighi.datasets.class_folders import read_index
from malpighi.datasets.masks import pieces_of
from malpighi.datasets.objects.arrays import picture_of
from malpighi.datasets.objects.exams import Theme
from malpighi.datasets.objects.folders import labels_for
from malpighi.datasets.split import rule_text
from malpighi.errors import DataError
from malpighi.pixels import decode_opaque
from malpighi.records import Scale

MIN_NUCLEUS = 16

_IMAGES = ("TNBC_and_Brain_dataset", "TNBC_NucleiSegmentation")
_KINDS = "TNBC_and_Brain_dataset_celltype_integer"
_CODES = "classes.csv"
_BRAIN_FROM = 12


def survey_tnbc(folder: Path) -> Survey:
    """Survey of `Slide_<n>/<image>.png` and `GT_<n>/<image>.png`, of either release.

    With the folder of cell types the masks are class codes, named by `classes.csv` (code, name), which a user
    writes from the record's description; without it there is one class, nuclei.

    Raises:
        DataError: the images, or the names of the cell types, are missing.
    """
    images = next((folder / name for name in _IMAGES if (folder / name).is_dir()), None)
    if images is None:
        raise DataError(
            f"{folder}: no folder {_IMAGES[0]} or {_IMAGES[1]}; expected one with Slide_<n> in it"
        )
    typed = folder / _KINDS
    classes = _classes(folder / _CODES) if typed.is_dir() else {}
    marks = {
        _place(path): path for path in image_files(typed if classes else images).values() if _is_mask(path)
    }
    survey = Survey([], [])
    pictures = {_place(path): path for path in image_files(images).values() if _is_image(path)}
    for place, path in pictures.items():
        if place not in marks:
            survey.failures.append(("/".join(place), f"no GT_{place[0]}/{place[1]}.png"))
            continue
        detail = {"marks": marks[place], "classes": classes}
        slide = f"slide {place[0]}"
        survey.entries.append(Entry("/".join(place), path, slide, detail=detail, load=partial(_load, path)))
    lone = sorted(set(marks) - set(pictures))
    survey.failures.extend(("/".join(place), "a mask without an image") for place in lone)
    return survey


def ask_tnbc(entry: Entry, picture: Picture) -> Iterator[Asked]:
    """Where each kind of nucleus is, or that it is not there.

    Raises:
        DataError: the mask is damaged, of another size, or has a code that `classes.csv` does not name.
    """
    codes_hw = labels_for(entry.detail["marks"], picture)
    where = _organ(entry.name.split("/")[0])
    classes = entry.detail["classes"]
    if not classes:
        yield from Theme("nuclei", where).by_labels(_nuclei(codes_hw > 0))
        return
    strange = set(np.unique(codes_hw).tolist()) - {0, *classes}
    if strange:
        raise DataError(
            f"{entry.detail['marks'].name} has the codes {sorted(strange)}; {_CODES} does not name them"
        )
    for code, name in classes.items():
        yield from Theme(name, where).by_labels(_nuclei(codes_hw == code))


def _organ(slide: str) -> str:
    """What is on a slide, by its number; some copies write it without the leading zero."""
    return "brain" if slide.isdigit() and int(slide) >= _BRAIN_FROM else "breast"


def _nuclei(mask_hw: np.ndarray) -> np.ndarray:
    """Single nuclei of a mask; annotation left holes of a pixel and specks."""
    return pieces_of(ndimage.binary_fill_holes(mask_hw), MIN_NUCLEUS)


def _classes(path: Path) -> dict[int, str]:
    if not path.is_file():
        raise DataError(
            f"{path} is missing: the cell types of {_KINDS} are numbers whose names stand in the record's "
            "description; write them there as a table with the columns code and name"
        )
    try:
        return {
            int(row["code"]): row["name"] for row in read_index(path, ("code", "name")) if row["code"] != "0"
        }
    except ValueError as error:
        raise DataError(f"{path}: codes must be whole numbers: {error}") from error


def _place(path: Path) -> tuple[str, str]:
    """(number of the slide, name of the image)."""
    return path.parent.name.partition("_")[2], path.stem


def _is_image(path: Path) -> bool:
    return path.parent.name.startswith("Slide_")


def _is_mask(path: Path) -> bool:
    return path.parent.name.startswith("GT_")


def _load(path: Path) -> Picture:
    return picture_of(np.asarray(decode_opaque(read_bytes(path))))


tnbc = Adapter(
    name="tnbc",
    title="TNBC: nuclei of triple-negative breast cancer, and of brain",
    licence="CC BY 4.0",
    use="any",
    source="Naylor et al. 2018, https://zenodo.org/records/3552674 (with cell types and brain)",
    layout=f"{_IMAGES[0]}/Slide_<n>/<name>.png, {_KINDS}/GT_<n>/<name>.png and {_CODES} (code, name)",
    scale=Scale.ROI,
    organ="",
    stain="H&E",
    counts={"images": 68},
    split_rule=rule_text("slide"),
    traps=(
        "The paper's link (record 1175282) has no cell types; its seven classes are in record 3552674, whose "
        f"numbers are named in no public code that we found: write {_CODES} from the record's description.",
        "The alpha channel means nothing and is dropped.",
        "Nuclei of one kind that touch are one piece, so a box may hold several.",
        "50 images of breast (slides 1 to 11) and 18 of brain (12 to 14): few slides, wide intervals.",
    ),
    survey=survey_tnbc,
    ask=ask_tnbc,
)
