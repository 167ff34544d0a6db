"""ESCA: tissue of oesophageal cancer from four hospitals. SmartPath-R1's exam ESCA (Table 7)."""

from pathlib import Path, PurePosixPath

from malpighi.datasets.adapter import Adapter, Survey
from malpighi.datasets.class_folders import ask_class
from malpighi.datasets.listing import Place, absent, joined, one_of, root_of, survey_places
from malpighi.records import Scale, Split

CENTRES = {
    "VALSET1_UKK": Split.TEST,
    "VALSET2_WNS": Split.TEST,
    "VALSET3_TCGA": Split.TEST,
    "VALSET4_CHA_FULL": Split.TRAIN,
}
CLASSES = {
    "ADVENT": "Adventitia",
    "LAM_PROP": "Lamina propria mucosae",
    "MUSC_MUC": "Muscularis mucosae",
    "MUSC_PROP": "Muscularis propria",
    "REGR_TU": "Regression tissue",
    "SH_MAG": "Mucosa gastric",
    "SH_OES": "Mucosa oesophagus",
    "SUB_GL": "Submucosal glands",
    "SUBMUC": "Submucosa",
    "TUMOR": "Tumor",
    "ULCUS": "Ulceration",
}
_COUNTS = (71131, 2173, 2951, 83358, 56490, 44416, 18561, 1516, 22117, 63863, 753)


def survey_esca(folder: Path) -> Survey:
    """Survey of `<centre>/<class>/<tile>`; the centre decides the split.

    Raises:
        DataError: no centre's folder.
    """
    root = root_of(folder, "ESCA", tuple(CENTRES))
    there = [centre for centre in CENTRES if (root / centre).is_dir()]
    parts = [f"{centre}/{label}" for centre in there for label in CLASSES]
    return joined(
        (survey_places(root, _place, centre) for centre in there), absent(root, CENTRES) + absent(root, parts)
    )


def _place(path: PurePosixPath) -> Place | str:
    centre, label = path.parts[:2]
    if label not in CLASSES:
        return f"lies in {one_of(label, CLASSES)}"
    return Place(label, split=CENTRES[centre])


esca = Adapter(
    name="esca",
    title="ESCA: tissue types of oesophageal adenocarcinoma, four centres",
    licence="not verified; as on the Zenodo record",
    use="research",
    source="Tolkach et al. 2023, https://zenodo.org/records/7548828",
    layout="{VALSET1_UKK,VALSET2_WNS,VALSET3_TCGA,VALSET4_CHA_FULL}/<CLASS>/<class>.<n>.jpg",
    scale=Scale.ROI,
    organ="oesophagus",
    stain="H&E",
    counts=dict(zip(CLASSES.values(), _COUNTS, strict=True)),
    split_rule="by centre, as SmartPath-R1: train CHA (178,187), test UKK, WNS and TCGA (189,142)",
    traps=(
        "The direction of the split differs between papers: SmartPath-R1 trains on CHA and tests on the "
        "three others, UNI and THUNDER the reverse (test CHA, validation UKK). Numbers of the two must not "
        "be compared.",
        "One public loader forgets all centres but the last, so its test is TCGA alone.",
        "SmartPath-R1 prints a test of 189,142 tiles; its intervals fit 2,000.",
        "File names carry neither slide nor patient (320 slides in all): each tile is a group of its own, so "
        "intervals by group are far too narrow.",
        "VALSET2_WNS/SH_MAG holds a hidden file '._sh_mag.0.jpg' that is no image; hidden files are passed "
        "over.",
        "Classes are very uneven, 753 tiles of ulceration against 83,358 of muscularis propria: read "
        "macro-F1 or balanced accuracy.",
    ),
    survey=survey_esca,
    ask=ask_class(CLASSES, "What type of tissue is this?"),
)
