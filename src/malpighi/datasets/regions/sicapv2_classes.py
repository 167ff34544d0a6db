"""SICAPv2 as patches of one Gleason grade each. Patho-R1's zero-shot exam SICAPv2 (Table 2)."""

from pathlib import Path, PurePosixPath

from malpighi.datasets.adapter import Adapter, Entry, Survey
from malpighi.datasets.class_folders import ask_class
from malpighi.datasets.listing import root_of
from malpighi.datasets.sicapv2_patients import TABLE, patients
from malpighi.datasets.whole_slides.sheet import read_sheet
from malpighi.errors import DataError
from malpighi.records import Scale, Split

TOP = "SICAPv2"
IMAGES = "images"
LISTS = {"partition/Test/Train.xlsx": Split.TRAIN, "partition/Test/Test.xlsx": Split.TEST}
CLASSES = {
    "NC": "Non-cancerous",
    "G3": "Gleason grade 3",
    "G4": "Gleason grade 4",
    "G5": "Gleason grade 5",
}


def survey_patches(folder: Path) -> Survey:
    """Survey by the official partition; images that it does not name have no grade and are passed over.

    Raises:
        DataError: no folder of images, or a list that is missing or lacks a column.
    """
    root = root_of(folder, TOP, (IMAGES,))
    patient = patients(root)
    entries: list[Entry] = []
    failures: list[tuple[str, str]] = []
    for index, split in LISTS.items():
        for row in _rows(root / index):
            name = row["image_name"]
            stem, path = PurePosixPath(name).stem, root / IMAGES / name
            graded = [label for label in CLASSES if row[label] not in ("", "0")]
            if len(graded) != 1:
                failures.append((stem, f"{index} gives it {len(graded)} grades; expected one"))
            elif not path.is_file():
                failures.append((stem, f"{index} names {name}, which is not there"))
            else:
                entries.append(Entry(stem, path, patient(stem) or stem, graded[0], split))
    return Survey(entries, failures)


def _rows(path: Path) -> list[dict[str, str]]:
    rows = read_sheet(path)
    missing = [name for name in ("image_name", *CLASSES) if rows and name not in rows[0]]
    if missing:
        raise DataError(f"{path}: no column {', '.join(missing)}; found {', '.join(rows[0])}")
    return [row for row in rows if row["image_name"]]


sicapv2_patches = Adapter(
    name="sicapv2_patches",
    title="SICAPv2: Gleason grade of prostate patches",
    licence="CC BY-NC (assumed, not verified)",
    use="research",
    source="https://data.mendeley.com/datasets/9xxm58dvs3/1",
    layout=f"{TOP}/{{{IMAGES}/*.jpg, {', '.join(LISTS)}}}",
    scale=Scale.ROI,
    organ="prostate",
    stain="H&E",
    counts={"train": 9959, "test": 2122},
    split_rule=(
        "the official partition/Test by patient, train 9,959 and test 2,122; groups are patients where "
        f"{TABLE} names them, else slides"
    ),
    traps=(
        "Of 18,783 images 12,081 have a grade in the partition; the others are passed over.",
        "partition/Validation/Val1 to Val4 divide the training part; their Test.xlsx is a validation fold, "
        "not the test, and they are not used.",
        "The column G4C marks cribriform patches among grade 4; it is no class.",
        "The lists are .xlsx workbooks with one-hot columns.",
        f"Slides come from fewer patients than there are slides; who is whose stands in {TABLE} (its columns "
        "slide_id and patient_id are assumed).",
        "Patches of one slide may be named with and without the letter of a block (18B0005478J).",
        "PathMMU's PathCLS was made from this set among others.",
    ),
    survey=survey_patches,
    ask=ask_class(CLASSES, "What is the Gleason grade of this prostate tissue?"),
)
