"""PanCancer-TCGA (TCGA-UT): which of 32 cancers. SmartPath-R1's external exam PanCancer-TCGA (Table 11)."""

from pathlib import Path, PurePosixPath

from malpighi.datasets.adapter import Adapter, Survey
from malpighi.datasets.class_folders import ask_class
from malpighi.datasets.listing import Place, absent, joined, one_of, root_of, survey_places, tcga_patient
from malpighi.datasets.split import rule_text
from malpighi.records import Scale

FINEST = "0"
"""The folder of tiles at 0.5 micrometres per px; 1 to 5 show the same fields, coarser."""
FOLDERS = (
    "Adrenocortical_carcinoma",
    "Bladder_Urothelial_Carcinoma",
    "Brain_Lower_Grade_Glioma",
    "Breast_invasive_carcinoma",
    "Cervical_squamous_cell_carcinoma_and_endocervical_adenocarcinoma",
    "Cholangiocarcinoma",
    "Colon_adenocarcinoma",
    "Esophageal_carcinoma",
    "Glioblastoma_multiforme",
    "Head_and_Neck_squamous_cell_carcinoma",
    "Kidney_Chromophobe",
    "Kidney_renal_clear_cell_carcinoma",
    "Kidney_renal_papillary_cell_carcinoma",
    "Liver_hepatocellular_carcinoma",
    "Lung_adenocarcinoma",
    "Lung_squamous_cell_carcinoma",
    "Lymphoid_Neoplasm_Diffuse_Large_B-cell_Lymphoma",
    "Mesothelioma",
    "Ovarian_serous_cystadenocarcinoma",
    "Pancreatic_adenocarcinoma",
    "Pheochromocytoma_and_Paraganglioma",
    "Prostate_adenocarcinoma",
    "Rectum_adenocarcinoma",
    "Sarcoma",
    "Skin_Cutaneous_Melanoma",
    "Stomach_adenocarcinoma",
    "Testicular_Germ_Cell_Tumors",
    "Thymoma",
    "Thyroid_carcinoma",
    "Uterine_Carcinosarcoma",
    "Uterine_Corpus_Endometrial_Carcinoma",
    "Uveal_Melanoma",
)
CLASSES = {name: name.replace("_", " ") for name in FOLDERS}


def survey_pancancer(folder: Path) -> Survey:
    """Survey of `<Class>/0/<slide>/<tile>`, grouped by TCGA patient; coarser resolutions are never listed.

    Raises:
        DataError: no class folder.
    """
    root = root_of(folder, "TCGA-UT", FOLDERS)
    parts = [f"{label}/{FINEST}" for label in FOLDERS]
    strange = (path.name for path in sorted(root.iterdir()) if path.is_dir() and path.name not in CLASSES)
    failures = absent(root, parts) + [
        (name, f"a folder {one_of(name, ('the 32 classes',))}") for name in strange if name[0] != "."
    ]
    return joined((survey_places(root, _place, part) for part in parts), failures)


def _place(path: PurePosixPath) -> Place | str:
    patient = tcga_patient(str(path))
    return Place(path.parts[0], patient) if patient else "no TCGA barcode in the name of the slide's folder"


pancancer_tcga = Adapter(
    name="pancancer_tcga",
    title="PanCancer-TCGA (TCGA-UT): tiles of 32 cancers",
    licence="not verified; as on the Zenodo record",
    use="research",
    source="Komura et al. 2022, https://zenodo.org/records/5889558",
    layout="<Class_Name>/0/<TCGA-XX-XXXX-...>/<tile>.jpg, e.g. Thymoma/0/...",
    scale=Scale.ROI,
    organ="",
    stain="H&E",
    counts={"images": 271710},
    split_rule=rule_text("patient"),
    traps=(
        "Six resolutions of the same fields lie side by side; only folder 0 (271,710 tiles of 256 px at 0.5 "
        "micrometres per px) is used, or the same tissue would be asked six times.",
        "SmartPath-R1 tests on 2,000 stratified images whose names are not published.",
        "All of it is TCGA: models trained on TCGA slides have seen these patients.",
        "Public loaders number the classes in the order of the file system; here they are sorted by name.",
        "A later release of 31 classes joins colon and rectum; it is another data set.",
        "32 options run beyond the letter Z: AA to AF.",
    ),
    survey=survey_pancancer,
    ask=ask_class(CLASSES, "Which cancer is this?"),
    access="open, one archive per class",
)
