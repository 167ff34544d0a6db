"""CCRCC: tissue of clear cell renal carcinoma. SmartPath-R1's exam CCRCC (Table 4)."""

from pathlib import Path, PurePosixPath

from malpighi.datasets.adapter import Adapter, Survey
from malpighi.datasets.class_folders import ask_class
from malpighi.datasets.listing import Place, absent, one_of, root_of, survey_places, tcga_patient
from malpighi.records import Scale, Split

TOP = "tissue_classification"
CLASSES = {
    "cancer": "Renal cancer",
    "normal": "Normal renal",
    "stroma": "Stromal, including smooth muscle, fibrous stroma and blood vessels",
    "blood": "Red blood cells",
}
PASSED_OVER = ("empty", "other")


def survey_ccrcc(folder: Path) -> Survey:
    """Survey of `<class>/<tile>`; a tile without a TCGA barcode is Helsinki's, and test.

    Raises:
        DataError: no class folder.
    """
    root = root_of(folder, TOP, tuple(CLASSES))
    survey = survey_places(root, _place)
    return Survey(survey.entries, absent(root, CLASSES) + survey.failures)


def _place(path: PurePosixPath) -> Place | str | None:
    label = path.parts[0]
    if label in PASSED_OVER:
        return None
    if label not in CLASSES:
        return f"lies in {one_of(label, (*CLASSES, *PASSED_OVER))}"
    patient = tcga_patient(path.name)
    return Place(label, patient) if patient else Place(label, split=Split.TEST)


ccrcc = Adapter(
    name="ccrcc",
    title="CCRCC: tissue types of clear cell renal cell carcinoma, TCGA-KIRC and Helsinki",
    licence="not verified; as on the Zenodo record",
    use="research",
    source="https://zenodo.org/records/7898308",
    layout=f"{TOP}/{{cancer,normal,stroma,blood,empty,other}}/<tile>.png",
    scale=Scale.ROI,
    organ="kidney",
    stain="H&E",
    counts=dict(zip(CLASSES.values(), (13057, 8652, 5460, 996), strict=True)),
    split_rule=(
        "Helsinki tiles are test; TCGA tiles by patient, balanced over classes, seeded; a patient is never "
        "in two splits"
    ),
    traps=(
        "Two published protocols, neither of them this one. SmartPath-R1 shuffles the tiles of each class "
        "(22,530 and 5,635), which puts tiles of one patient on both sides. UNI and THUNDER train on TCGA "
        "and test on Helsinki, without the class of red blood cells (21,095 and 6,074).",
        "SmartPath-R1 prints a test of 5,635 tiles; its intervals fit about 2,000.",
        "TCGA tiles are 300 px and Helsinki's 256 px, so the size of an image tells its source.",
        "No patient is known of Helsinki's tiles: each is a group of its own, so intervals by group are too "
        "narrow.",
        "The folders 'empty' (16,026 tiles) and 'other' (8,522) are no classes of the exam and are passed "
        "over.",
    ),
    survey=survey_ccrcc,
    ask=ask_class(CLASSES, "What type of tissue is this?"),
)
