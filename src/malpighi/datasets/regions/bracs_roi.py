"""BRACS, regions of interest: seven lesions of the breast. SmartPath-R1's exam BRACS is of whole slides."""

import re
from pathlib import Path, PurePosixPath

from malpighi.datasets.adapter import Adapter, Survey
from malpighi.datasets.class_folders import ask_class
from malpighi.datasets.listing import Place, absent, joined, one_of, root_of, survey_places
from malpighi.records import Scale, Split

TOP = "BRACS_RoI/latest_version"
SPLITS = {"train": Split.TRAIN, "val": Split.VALIDATION, "test": Split.TEST}
CLASSES = {
    "0_N": "Normal",
    "1_PB": "Pathological benign",
    "2_UDH": "Usual ductal hyperplasia",
    "3_FEA": "Flat epithelial atypia",
    "4_ADH": "Atypical ductal hyperplasia",
    "5_DCIS": "Ductal carcinoma in situ",
    "6_IC": "Invasive carcinoma",
}
_NAME = re.compile(r"(?P<slide>BRACS_\d+)_(?P<code>[A-Z]+)_\d+")


def survey_bracs(folder: Path) -> Survey:
    """Survey of `{train,val,test}/<n>_<code>/BRACS_<slide>_<code>_<n>.png`, grouped by slide.

    Raises:
        DataError: none of the three folders.
    """
    root = root_of(folder, TOP, tuple(SPLITS))
    parts = [f"{split}/{label}" for split in SPLITS for label in CLASSES]
    return joined((survey_places(root, _place, split) for split in SPLITS), absent(root, parts))


def _place(path: PurePosixPath) -> Place | str:
    split, label = path.parts[:2]
    name = _NAME.fullmatch(path.stem)
    if label not in CLASSES:
        return f"lies in {one_of(label, CLASSES)}"
    if name is None:
        return "not named like BRACS_280_N_2"
    if not label.endswith(f"_{name['code']}"):
        return f"lies in {label}, but is named {name['code']}"
    return Place(label, name["slide"], SPLITS[split])


bracs_roi = Adapter(
    name="bracs_roi",
    title="BRACS, regions of interest: seven lesions of the breast",
    licence="CC BY-NC 4.0",
    use="research",
    source="https://www.bracs.icar.cnr.it/download/",
    layout=f"{TOP}/{{train,val,test}}/{{{','.join(CLASSES)}}}/BRACS_280_N_2.png",
    scale=Scale.ROI,
    organ="breast",
    stain="H&E",
    counts=dict(zip(CLASSES.values(), (484, 836, 517, 756, 507, 790, 649), strict=True)),
    split_rule="the official folders, 3,657, 312 and 570; groups are slides",
    traps=(
        "Patient 67 has slides in train and in another official part, and patients are known only from "
        "BRACS.xlsx: groups here are slides, of which a patient may have several (about 189 patients, 547 "
        "slides).",
        "Regions differ much in size, some beyond 4,000 px: the size may tell the lesion.",
        "The folder previous_version holds an older release; it is not used.",
        "SmartPath-R1 tests on 545 of the 547 whole slides, not on these regions.",
    ),
    survey=survey_bracs,
    ask=ask_class(CLASSES, "Which lesion of the breast is this?"),
    access="registration",
)
