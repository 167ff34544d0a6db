"""GlaS: glands of colorectal adenocarcinoma. SmartPath-R1: `GlaS` (external, Tables 26 and 30)."""

import csv
import re
from collections.abc import Iterator
from pathlib import Path

from malpighi.datasets.adapter import Adapter, Asked, Entry, Picture, Survey, read_text
from malpighi.datasets.objects.exams import Theme
from malpighi.datasets.objects.folders import labels_for, pairs, root_of
from malpighi.errors import DataError
from malpighi.records import Scale, Split

_ROOTS = ("Warwick QU Dataset (Released 2016_07_08)", "Warwick_QU_Dataset")
_NAME = re.compile(r"(train|testA|testB)_\d+")
_SPLITS = {"train": Split.TRAIN, "testA": Split.TEST, "testB": Split.TEST}
_PATIENT = "patient ID"
_GLANDS = Theme("glands", "colon")


def survey_glas(folder: Path) -> Survey:
    """Survey of `{train,testA,testB}_<n>.bmp`, `<the same>_anno.bmp` and `Grade.csv`.

    Raises:
        DataError: `Grade.csv` is missing or has no column for the patient.
    """
    root = root_of(folder, *_ROOTS)
    patients = _patients(root / "Grade.csv")
    found, failures = pairs(root, root, "_anno")
    entries = []
    for pair in found:
        match = _NAME.fullmatch(pair.name)
        if match is None:
            failures.append((pair.name, "expected a name like train_1, testA_1 or testB_1"))
            continue
        split = _SPLITS[match[1]]
        # A patient may be in both official lists; named apart, the lists stay as they are.
        patient = patients.get(pair.name)
        group = f"{split}: patient {patient}" if patient else pair.name
        entries.append(Entry(pair.name, pair.image, group, split=split, detail={"marks": pair.marks}))
    for name in sorted(set(patients) - {pair.name for pair in found} - {name for name, _ in failures}):
        failures.append((name, "Grade.csv names it, but there is no such image"))
    return Survey(entries, failures)


def ask_glas(entry: Entry, picture: Picture) -> Iterator[Asked]:
    """Where the glands are; 0 is background, each other value the number of a gland.

    Raises:
        DataError: the annotation is damaged or of another size.
    """
    yield from _GLANDS.by_labels(labels_for(entry.detail["marks"], picture))


def _patients(path: Path) -> dict[str, str]:
    """Patient by image; the headers of `Grade.csv` begin with spaces."""
    reader = csv.DictReader(read_text(path).splitlines(), skipinitialspace=True)
    columns = [name.strip() for name in reader.fieldnames or ()]
    if "name" not in columns or _PATIENT not in columns:
        raise DataError(f"{path}: no column name or {_PATIENT}; found {columns}")
    reader.fieldnames = columns
    return {row["name"].strip(): (row[_PATIENT] or "").strip() for row in reader if row["name"]}


glas = Adapter(
    name="glas",
    title="GlaS: glands of colorectal adenocarcinoma (Warwick-QU)",
    licence="research, terms of the challenge (not verified)",
    use="research",
    source="Sirinukunwattana et al. 2017, https://warwick.ac.uk/fac/cross_fac/tia/data/glascontest/",
    layout="Warwick QU Dataset (Released 2016_07_08)/Grade.csv, <name>.bmp and <name>_anno.bmp",
    scale=Scale.ROI,
    organ="colon",
    stain="H&E",
    counts={"images": 165},
    split_rule="the official lists: train, and testA with testB; intervals by patient within them",
    traps=(
        "The 165 images come from 16 slides: a patient may be in train and in test. The official split is "
        "kept, so a model trained on train has seen some patients of the test.",
        "The same hospital's tissue is in CRAG and CoNIC: not an external test for models trained there.",
    ),
    survey=survey_glas,
    ask=ask_glas,
    access="open form",
)
