"""RINGS: glands and tumour of the prostate. SmartPath-R1: `Rings` (Tables 22 and 29)."""

from collections.abc import Iterator
from pathlib import Path

from malpighi.datasets.adapter import Adapter, Asked, Entry, Picture, Survey, image_files
from malpighi.datasets.objects.exams import MIN_AREA, Theme
from malpighi.datasets.objects.folders import grey_for, require, root_of
from malpighi.records import Scale, Split

_PARTS = {"TRAIN": Split.TRAIN, "TEST": Split.TEST}
_KINDS = {
    "MANUAL GLANDS": Theme("healthy glands", "prostate"),
    "MANUAL TUMOR": Theme("tumor", "prostate"),
}


def survey_rings(folder: Path) -> Survey:
    """Survey of `{TRAIN,TEST}/{IMAGES,MANUAL GLANDS,MANUAL TUMOR}`, the same names in the three folders.

    Raises:
        DataError: one of the folders is missing, e.g. because TRAIN.zip was not unpacked.
    """
    root = root_of(folder, "RINGS algorithm dataset")
    require(root, *(f"{part}/{kind}" for part in _PARTS for kind in ("IMAGES", *_KINDS)))
    survey = Survey([], [])
    for part, split in _PARTS.items():
        marks = {kind: {p.stem: p for p in image_files(root / part / kind).values()} for kind in _KINDS}
        images = {path.stem: path for path in image_files(root / part / "IMAGES").values()}
        for stem, path in images.items():
            detail = {kind: found[stem] for kind, found in marks.items() if stem in found}
            # Whether the patients of TEST are numbered on or anew is not stated, so they are named apart.
            group = f"{part}: {stem.split('_')[0]}"
            survey.entries.append(Entry(f"{part}/{stem}", path, group, split=split, detail=detail))
        lone = sorted({stem for found in marks.values() for stem in found} - set(images))
        survey.failures.extend((f"{part}/{stem}", "a mask without an image") for stem in lone)
    return survey


def ask_rings(entry: Entry, picture: Picture) -> Iterator[Asked | tuple[str, str]]:
    """Where healthy glands and where tumour is, or that there is none.

    Raises:
        DataError: a mask is damaged or of another size.
    """
    for kind, theme in _KINDS.items():
        if kind in entry.detail:
            yield from theme.by_mask(grey_for(entry.detail[kind], picture) > 0)
        else:
            yield (f":{theme.key}", f"no mask of that name in {kind}")


rings = Adapter(
    name="rings",
    title="RINGS: healthy glands and tumour of the prostate",
    licence="not verified",
    use="research",
    source="Salvi et al. 2021, https://data.mendeley.com/datasets/h8bdwrtnr5/1",
    layout="RINGS algorithm dataset/{TRAIN,TEST}/{IMAGES,MANUAL GLANDS,MANUAL TUMOR}/<name>.png",
    scale=Scale.ROI,
    organ="prostate",
    stain="H&E",
    counts={"images": 1500},
    split_rule="the official folders; intervals by patient (P number of the file name) within them",
    traps=(
        "TRAIN and TEST come as archives within the archive: unpack both.",
        "Patients are known by the P number of the file name alone, and whether the two folders count on or "
        "anew is not stated: the official folders are kept, and a shared patient would not be noticed.",
        f"Tumour is marked by region, glands by outline; pieces under {MIN_AREA} px are left out.",
        "The paper's 43,739 samples come from a tiling that is not published.",
    ),
    survey=survey_rings,
    ask=ask_rings,
    window=1024,
)
