"""CoCaHis: colon cancer in the liver. SmartPath-R1: `CoCaHis` (Tables 16 and 29)."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from malpighi.datasets.adapter import Adapter, Asked, Entry, Picture, Survey
from malpighi.datasets.objects.arrays import picture_of
from malpighi.datasets.objects.exams import MIN_AREA, Theme
from malpighi.datasets.split import rule_text
from malpighi.errors import DataError
from malpighi.records import Scale, Split

try:
    import h5py
except ImportError:  # the extra `slides` is not installed; only this data set needs it
    h5py = None

_FILE = "CoCaHis.hdf5"
_PIXELS, _MARKS = "HE/raw", "GT/GT_majority_vote"
_SPLITS = {"train": Split.TRAIN, "test": Split.TEST}
_CANCER = Theme("metastatic colon cancer", "liver")


def survey_cocahis(folder: Path) -> Survey:
    """Survey of `CoCaHis.hdf5`: images by number, with patient and split from the attributes of `HE`.

    Raises:
        DataError: the file is missing, damaged or lacks a part.
    """
    path = folder / _FILE
    with _reading(path) as file:
        shape, marked = file[_PIXELS].shape, file[_MARKS].shape
        attributes = {name: _words(file["HE"].attrs[f"{name}_num"]) for name in ("patient", "image")}
        splits = _words(file["HE"].attrs["train_test_split"])
    lengths = {shape[0], marked[0], len(splits), *map(len, attributes.values())}
    if len(lengths) != 1:
        raise DataError(
            f"{path}: images, masks and attributes are of lengths {sorted(lengths)}; expected one"
        )
    survey = Survey([], [])
    for row, (patient, image, split) in enumerate(zip(*attributes.values(), splits, strict=True)):
        name = f"{patient}_{image}_{row}"
        if split not in _SPLITS:
            survey.failures.append((name, f"split {split!r}; expected one of {', '.join(_SPLITS)}"))
            continue
        load = partial(_load, path, row)
        survey.entries.append(
            Entry(name, path, f"patient {patient}", split=_SPLITS[split], detail={"row": row}, load=load)
        )
    return survey


def ask_cocahis(entry: Entry, picture: Picture) -> Iterator[Asked]:
    """Where most of seven annotators saw cancer.

    Raises:
        DataError: the mask is of another size than the image.
    """
    with _reading(entry.path) as file:
        mask_hw = np.asarray(file[_MARKS][entry.detail["row"]]) > 0
    if mask_hw.shape[::-1] != picture.ref.size:
        raise DataError(f"the mask is {mask_hw.shape[::-1]} px; the image is {picture.ref.size}")
    yield from _CANCER.by_mask(mask_hw)


@contextmanager
def _reading(path: Path) -> Iterator[Any]:
    if h5py is None:
        raise DataError(f"{path} is HDF5, which needs h5py: install malpighi[slides]")
    if not path.is_file():
        raise DataError(f"no file {path}")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, KeyError) as error:
        raise DataError(f"cannot read {path}: {error}") from error


def _words(values: Any) -> list[str]:
    """An attribute of words or numbers; copies differ in whether words are bytes or text."""
    return [
        value.decode() if isinstance(value, bytes) else str(value) for value in np.asarray(values).tolist()
    ]


def _load(path: Path, row: int) -> Picture:
    with _reading(path) as file:
        return picture_of(file[_PIXELS][row])


cocahis = Adapter(
    name="cocahis",
    title="CoCaHis: colon cancer metastases in frozen sections of the liver",
    licence="not verified",
    use="research",
    source="Sitnik et al. 2021, https://cocahis.irb.hr/",
    layout=_FILE,
    scale=Scale.ROI,
    organ="liver",
    stain="H&E",
    counts={"images": 82},
    split_rule=rule_text("patient", official=True),
    traps=(
        "Images are 1,388 x 1,037 px; the paper squeezes them to a square, which changes the shape of boxes.",
        f"The truth is the vote of seven annotators; its pieces are ragged, and those under {MIN_AREA} px "
        "are left out of boxes and masks.",
        "The file also holds each annotator's own mask (GT/GT1 to GT7): how far they agree with each other "
        "is the ceiling of any score here.",
        "24 test images of few patients: intervals are wide.",
    ),
    survey=survey_cocahis,
    ask=ask_cocahis,
)
