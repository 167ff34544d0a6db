"""Metastases in lymph nodes, CAMELYON16 and 17 together; SmartPath-R1, Table 37: CAMELYON."""

import csv
from collections.abc import Iterator
from pathlib import Path

from malpighi.datasets.adapter import Adapter, Entry, Survey, read_text
from malpighi.datasets.class_folders import ask_class
from malpighi.datasets.split import rule_text
from malpighi.datasets.whole_slides.slide_folder import SlideFolder
from malpighi.errors import DataError
from malpighi.records import Scale, Split

CLASSES = {"normal": "Normal", "tumor": "Tumor"}
STAGES = {"negative": "normal", "itc": "tumor", "micro": "tumor", "macro": "tumor"}
FIRST, SECOND = "CAMELYON16", "CAMELYON17"
IMAGES, REFERENCE, LABELS = "testing/images", "testing/reference.csv", "training/stage_labels.csv"


def _survey(folder: Path) -> Survey:
    """Either part may be missing, but not both."""
    readers = {FIRST: _first, SECOND: _second}
    parts = [name for name in readers if (folder / name).is_dir()]
    if not parts:
        raise DataError(f"{folder} holds neither {FIRST} nor {SECOND}")
    found = [one for name in parts for one in readers[name](SlideFolder(folder, name))]
    entries = [one for one in found if isinstance(one, Entry)]
    return Survey(entries, [one for one in found if not isinstance(one, Entry)])


def _first(slides: SlideFolder) -> Iterator[Entry | tuple[str, str]]:
    """CAMELYON16: training by folder, testing by a table without a header. A slide is its own group."""
    training = slides.part / "training"
    kinds = {path.stem: kind for kind in CLASSES for path in sorted((training / kind).glob("*.tif"))}
    missing = [kind for kind in CLASSES if not (training / kind).is_dir()]
    if missing:
        raise DataError(f"{training} lacks the folder {missing[0]}; expected {' and '.join(CLASSES)}")
    tests = {Path(name).stem: label for name, label in _table(slides.part / REFERENCE)}
    unnamed = {path.stem for path in (slides.part / IMAGES).glob("*.tif")} - set(tests)
    yield from ((name, f"{REFERENCE} gives it no label") for name in sorted(unnamed))
    for name, kind in kinds.items():
        yield _entry(slides, name, name, kind, Split.TRAIN)
    for name, kind in tests.items():
        yield _entry(slides, name, name, kind, Split.TEST)


def _second(slides: SlideFolder) -> Iterator[Entry | tuple[str, str]]:
    """CAMELYON17: the table names patients (`.zip`) and nodes (`.tif`); only nodes are slides."""
    beside = slides.part / Path(LABELS).name
    for name, stage in _table(beside if beside.is_file() else slides.part / LABELS):
        node = Path(name)
        if node.suffix == ".tif":
            patient = node.stem.partition("_node_")[0]
            yield _entry(slides, node.stem, patient, STAGES.get(stage, stage), Split.TRAIN)


def _table(path: Path) -> Iterator[tuple[str, str]]:
    """The first two cells of every row, the second in small letters."""
    for row in csv.reader(read_text(path).splitlines()):
        if len(row) >= 2:
            yield row[0].strip(), row[1].strip().lower()


def _entry(slides: SlideFolder, name: str, group: str, kind: str, split: Split) -> Entry | tuple[str, str]:
    if kind not in CLASSES:
        return name, f"label {kind!r}; expected one of {', '.join((*CLASSES, *STAGES))}"
    try:
        return slides.entry(name, slides.find(name), group, kind, split)
    except DataError as error:
        return name, str(error)


camelyon = Adapter(
    name="camelyon",
    title="CAMELYON16 and CAMELYON17: metastases of breast cancer in lymph nodes",
    licence="CC0 1.0 (not verified)",
    use="research",
    source="Bejnordi et al. 2017, Bandi et al. 2019, https://camelyon17.grand-challenge.org/Data/",
    layout="CAMELYON16/{training/{normal,tumor}/<slide>.tif, testing/{images/<slide>.tif, reference.csv}} "
    "and "
    "CAMELYON17/training/{center_<n>/patient_<n>_node_<n>.tif, stage_labels.csv}, either or both",
    scale=Scale.SLIDE,
    organ="lymph node",
    stain="H&E",
    counts={"Normal": 557, "Tumor": 341},
    split_rule=rule_text("patient (of CAMELYON16 slide, patients are not known)", official=True),
    traps=(
        "557 of 898 slides are normal: a constant answer reaches 62 percent, what SmartPath-R1 reports.",
        "Isolated tumour cells (itc) count as tumour; they are the hardest slides.",
        "One normal slide of CAMELYON17 is corrupt at the source and is reported; 898 slides remain.",
        "Test slides of CAMELYON16 that reference.csv does not name are duplicates of others and are left "
        "out.",
        "The labels of CAMELYON17's own test patients are not public.",
    ),
    survey=_survey,
    ask=ask_class(CLASSES, "Does this lymph node hold a metastasis?"),
)
