"""CoNIC 2022: six kinds of nuclei of the colon. SmartPath-R1: `CoNIC2022` (Tables 17 and 29)."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from malpighi.datasets.adapter import Adapter, Asked, Entry, Picture, Survey
from malpighi.datasets.class_folders import read_index
from malpighi.datasets.objects.arrays import picture_of
from malpighi.datasets.objects.exams import Theme
from malpighi.datasets.objects.folders import root_of
from malpighi.datasets.objects.stratified import stratified_shuffle
from malpighi.errors import DataError
from malpighi.records import Scale, Split

SEED = 5
TEST = 0.2

_CLASSES = {
    1: "neutrophils",
    2: "epithelial cells",
    3: "lymphocytes",
    4: "plasma cells",
    5: "eosinophils",
    6: "connective tissue cells",
}


def survey_conic(folder: Path) -> Survey:
    """Survey of `images.npy`, `labels.npy` and `patch_info.csv`; the arrays stay on disk.

    Raises:
        DataError: one of the files is missing, damaged or of another shape.
    """
    root = root_of(folder, "data")
    images, labels = (_array(root / f"{name}.npy", depth) for name, depth in (("images", 3), ("labels", 2)))
    if images.shape[:3] != labels.shape[:3]:
        raise DataError(
            f"{root}: images.npy is {images.shape} and labels.npy {labels.shape}; expected one length"
        )
    names = [row["patch_info"] for row in read_index(root / "patch_info.csv", ("patch_info",))]
    splits = official_splits(names)
    entries = []
    for row, name in enumerate(names[: len(images)]):
        source = name.split("-")[0]
        detail = {"labels": labels, "row": row}
        load = partial(_load, images, row)
        entries.append(
            Entry(name, root / "images.npy", source, source.split("_")[0], splits[source], detail, load=load)
        )
    failures = [(name, f"images.npy holds {len(images)} images only") for name in names[len(images) :]]
    failures += [
        (f"images.npy#{row}", "patch_info.csv does not name it") for row in range(len(names), len(images))
    ]
    return Survey(entries, failures)


def official_splits(names: list[str]) -> dict[str, Split | None]:
    """The split of each source image: the first fold of the baseline, whose validation is our test.

    Source: hover_net, branch conic, generate_split.py: source images shuffled, stratified by cohort.

    Args:
        names: of all patches, `<cohort>_<image>-<number>`.

    Returns:
        None for all where a cohort has a single image: such a part of the data has no official split.
    """
    sources = sorted({name.split("-")[0] for name in names})
    cohorts = [source.split("_")[0] for source in sources]
    if min(map(cohorts.count, cohorts), default=0) < 2 or len(sources) * TEST < len(set(cohorts)):
        return dict.fromkeys(sources)
    train, test = stratified_shuffle(cohorts, TEST, SEED)
    parts = ((train, Split.TRAIN), (test, Split.TEST))
    return {sources[index]: split for indices, split in parts for index in indices}


def ask_conic(entry: Entry, _: Picture) -> Iterator[Asked]:
    """Where each kind of nucleus is; channel 0 numbers the nuclei, channel 1 gives their class."""
    numbers_hw, classes_hw = np.moveaxis(
        np.asarray(entry.detail["labels"][entry.detail["row"]], np.int32), 2, 0
    )
    for code, name in _CLASSES.items():
        yield from Theme(name, "colon").by_labels(np.where(classes_hw == code, numbers_hw, 0))


def _array(path: Path, depth: int) -> np.ndarray:
    if not path.is_file():
        raise DataError(f"no file {path}")
    try:
        array: np.ndarray = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    if array.ndim != 4 or array.shape[3] != depth:
        raise DataError(f"{path} is of shape {array.shape}; expected (images, height, width, {depth})")
    return array


def _load(images: np.ndarray, row: int) -> Picture:
    return picture_of(images[row])


conic2022 = Adapter(
    name="conic2022",
    title="CoNIC 2022: six kinds of nuclei of the colon (Lizard)",
    licence="CC BY-NC-SA 4.0 (not verified)",
    use="research",
    source="Graham et al. 2024, https://conic-challenge.grand-challenge.org/",
    layout="data/images.npy, data/labels.npy and data/patch_info.csv",
    scale=Scale.ROI,
    organ="colon",
    stain="H&E",
    counts={"images": 4981},
    split_rule=(
        "by source image: the first of the challenge baseline's ten folds, recomputed (seed 5, 80:20, "
        "stratified by cohort); its validation is the test; where too few images are there, by source image, "
        "balanced over cohorts, seeded"
    ),
    traps=(
        "A patch may hold more than 100 nuclei: an evaluation with COCO's limit of 100 boxes cuts them off.",
        "counts.csv counts otherwise and is not used.",
        "The source images are those of GlaS, CRAG, CoNSeP, PanNuke and DigestPath: no external test "
        "for these.",
        "Masks were made half by machine.",
    ),
    survey=survey_conic,
    ask=ask_conic,
    access="registration",
)
