"""BreaKHis: benign and malignant tumours of the breast. SmartPath-R1's external exam BreakHis (Table 10)."""

import re
from pathlib import Path, PurePosixPath

from malpighi.datasets.adapter import Adapter, Survey
from malpighi.datasets.class_folders import ask_class
from malpighi.datasets.listing import Place, absent, joined, root_of, survey_places
from malpighi.datasets.split import rule_text
from malpighi.records import Scale

TOP = "BreaKHis_v1/histology_slides/breast"
CLASSES = {"benign": "Benign tumor", "malignant": "Malignant tumor"}
_NAME = re.compile(
    r"SOB_(?P<kind>[BM])_(?:A|F|PT|TA|DC|LC|MC|PC)-(?P<case>\d+-\d+)[A-Z]*-(?:40|100|200|400)-\d+"
)
_KINDS = {"B": "benign", "M": "malignant"}


def survey_breakhis(folder: Path) -> Survey:
    """Survey of `{benign,malignant}/SOB/<subtype>/<slide>/<magnification>/<image>`, at whatever depth.

    Raises:
        DataError: neither class folder.
    """
    root = root_of(folder, TOP, tuple(CLASSES))
    return joined((survey_places(root, _place, label) for label in CLASSES), absent(root, CLASSES))


def _place(path: PurePosixPath) -> Place | str:
    name = _NAME.fullmatch(path.stem)
    if name is None:
        return "not named like SOB_B_TA-14-13200-40-001"
    label = path.parts[0]
    if label != _KINDS[name["kind"]]:
        return f"lies in {label}, but is named {_KINDS[name['kind']]}"
    return Place(label, name["case"], name=path.stem)


breakhis = Adapter(
    name="breakhis",
    title="BreaKHis: benign and malignant breast tumours, four magnifications",
    licence="CC BY 4.0",
    use="any",
    source="Spanhol et al. 2016, http://www.inf.ufpr.br/vri/databases/BreaKHis_v1.tar.gz",
    layout=f"{TOP}/{{benign,malignant}}/SOB/<subtype>/<slide>/{{40X,100X,200X,400X}}/SOB_B_TA-14-13200-40-001.png",
    scale=Scale.ROI,
    organ="breast",
    stain="H&E",
    counts=dict(zip(CLASSES.values(), (2480, 5429), strict=True)),
    split_rule=rule_text("case (year and slide number, without the letters of its blocks)"),
    traps=(
        "SmartPath-R1 tests on the last fifth of each shuffled class, 1,582 of 7,909 images: patients and "
        "fields are on both sides. That is harmless for a model that never trains here, and no split to "
        "train by. Its intervals fit about 1,000 images.",
        "Another public exam takes 40X alone and four subtypes, by patient (1,132 and 339 images).",
        "Case 14-13412 is filed under ductal and under lobular carcinoma; slides 14-22549AB, CD and G are "
        "one case.",
        "One field is photographed at four magnifications; 40X to 400X are of the objective, not of a "
        "scanner.",
        "The Kaggle copy adds Folds.csv: five random divisions, not one; it is not used.",
        "69% of the images are malignant.",
    ),
    survey=survey_breakhis,
    ask=ask_class(CLASSES, "Is this breast tumor benign or malignant?"),
)
