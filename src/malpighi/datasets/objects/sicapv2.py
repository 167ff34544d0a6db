"""SICAPv2: cancer of the prostate. SmartPath-R1: `SICAPv2` (Tables 23 and 29), a single class."""

from collections.abc import Iterator
from pathlib import Path

from malpighi.datasets.adapter import Adapter, Asked, Entry, Picture, Survey
from malpighi.datasets.objects.exams import Theme
from malpighi.datasets.objects.folders import grey_for, pairs, require, root_of
from malpighi.datasets.sicapv2_patients import TABLE, patients, slide_of
from malpighi.datasets.whole_slides.sheet import read_sheet
from malpighi.errors import DataError
from malpighi.records import Scale, Split

THRESHOLD = 100
MIN_AREA = 256

_GRADES = ("NC", "G3", "G4", "G5")
_CANCER = Theme("prostate cancer", "prostate")


def survey_sicapv2(folder: Path) -> Survey:
    """Survey of `images`, `masks` and the lists `partition/Test/{Train,Test}.xlsx`.

    Raises:
        DataError: a folder or a list is missing or unreadable.
    """
    root = root_of(folder, "SICAPv2")
    require(root, "images", "masks", "partition/Test")
    unlisted: tuple[str, Split | None] = ("", None)
    listed: dict[str, tuple[str, Split | None]] = {}
    for part, official in (("Train", Split.TRAIN), ("Test", Split.TEST)):
        for row in _rows(root / f"partition/Test/{part}.xlsx"):
            listed[Path(row["image_name"]).stem] = (_grade(row), official)
    found, failures = pairs(root / "images", root / "masks")
    patient = patients(root)
    entries = []
    for pair in found:
        if not slide_of(pair.name):
            failures.append((pair.name, "expected a name that begins with the slide, e.g. 16B0001851"))
            continue
        grade, split = listed.get(pair.name, unlisted)
        entries.append(Entry(pair.name, pair.image, patient(pair.name), grade, split, {"marks": pair.marks}))
    present = {pair.name for pair in found} | {name for name, _ in failures}
    failures.extend(
        (name, f"the {listed[name][1]} list names it, but there is no such image")
        for name in sorted(set(listed) - present)
    )
    return Survey(entries, failures)


def ask_sicapv2(entry: Entry, picture: Picture) -> Iterator[Asked]:
    """Where the cancer is, or that there is none.

    Raises:
        DataError: the mask is damaged, of another size, or marks nothing where the lists give a pattern.
    """
    marks = entry.detail["marks"]
    grey_hw = grey_for(marks, picture)
    # Copies turned into PNG hold the patterns 3, 4 and 5 themselves; the JPEG ones are bright or dark.
    mask_hw = grey_hw >= 3 if marks.suffix.lower() == ".png" and grey_hw.max() <= 5 else grey_hw > THRESHOLD
    if entry.label in ("G3", "G4", "G5") and not mask_hw.any():
        raise DataError(f"the list says {entry.label}, but the mask marks nothing")
    yield from _CANCER.by_mask(mask_hw, MIN_AREA)


def _rows(path: Path) -> list[dict[str, str]]:
    rows = read_sheet(path)
    missing = [name for name in ("image_name", *_GRADES) if not rows or name not in rows[0]]
    if missing:
        raise DataError(
            f"{path}: no column {', '.join(missing)}; found {list(rows[0]) if rows else 'no row'}"
        )
    return [row for row in rows if row["image_name"]]


def _grade(row: dict[str, str]) -> str:
    """The one pattern of a row; "" where it is none or several."""
    marked = [grade for grade in _GRADES if row[grade] not in ("", "0")]
    return marked[0] if len(marked) == 1 else ""


sicapv2 = Adapter(
    name="sicapv2",
    title="SICAPv2: cancer of the prostate",
    licence="CC BY-NC (not verified)",
    use="research",
    source="Silva-Rodríguez et al. 2020, https://data.mendeley.com/datasets/9xxm58dvs3/1",
    layout="SICAPv2/{images,masks}/<name>.jpg and SICAPv2/partition/Test/{Train,Test}.xlsx, wsi_labels.xlsx",
    scale=Scale.ROI,
    organ="prostate",
    stain="H&E",
    counts={"images": 18783},
    split_rule=(
        "the official partition/Test, by patient; what it leaves out goes with its patient, or with its "
        f"slide where {TABLE} does not name the patient"
    ),
    traps=(
        f"Masks are lossy JPEG: grey above {THRESHOLD} is cancer, whose pattern cannot be told; pieces under "
        f"{MIN_AREA} px are noise.",
        "The files Test.xlsx below partition/Validation are validation folds, and are not used.",
        f"File names tell the slide, of which a patient may have several; the patient stands in {TABLE} "
        "(its columns slide_id and patient_id are assumed): keep it beside the images.",
        "Boxes frame connected regions of cancer, which are not single things.",
        "The paper's 23,924 samples are more than there are images: they come from another tiling.",
        "PathMMU's PathCLS holds images of this set, and sicapv2_patches asks for their Gleason patterns.",
    ),
    survey=survey_sicapv2,
    ask=ask_sicapv2,
)
