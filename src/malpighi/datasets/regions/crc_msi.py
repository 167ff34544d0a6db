"""TCGA-CRC-MSI: microsatellite status of colorectal cancer. SmartPath-R1's exam CRC-MSI (Table 6)."""

from pathlib import Path, PurePosixPath

from malpighi.datasets.adapter import Adapter, Survey
from malpighi.datasets.class_folders import ask_class
from malpighi.datasets.listing import Place, absent, joined, one_of, root_of, survey_places, tcga_patient
from malpighi.records import Scale, Split

SPLITS = {"TRAIN": Split.TRAIN, "TEST": Split.TEST}
CLASSES = {
    "MSIH": "MSIH, high microsatellite instability",
    "nonMSIH": "nonMSIH, either low microsatellite instability or microsatellite stable",
}


def survey_crc_msi(folder: Path) -> Survey:
    """Survey of `{TRAIN,TEST}/{MSIH,nonMSIH}/<tile>`, grouped by TCGA patient.

    Raises:
        DataError: neither TRAIN nor TEST.
    """
    root = root_of(folder, "TCGA-CRC-MSI", tuple(SPLITS))
    parts = [f"{split}/{label}" for split in SPLITS for label in CLASSES]
    return joined((survey_places(root, _place, split) for split in SPLITS), absent(root, parts))


def _place(path: PurePosixPath) -> Place | str:
    split, label = path.parts[:2]
    if label not in CLASSES:
        return f"lies in {one_of(label, CLASSES)}"
    patient = tcga_patient(path.name)
    return Place(label, patient, SPLITS[split]) if patient else "no TCGA barcode in the file name"


crc_msi = Adapter(
    name="crc_msi",
    title="TCGA-CRC-MSI: microsatellite instability of colorectal cancer, from H&E",
    licence="not verified; as on the Zenodo record",
    use="research",
    source="Kather 2020, https://zenodo.org/records/3832231",
    layout="{TRAIN,TEST}/{MSIH,nonMSIH}/<...TCGA-XX-XXXX...>.png",
    scale=Scale.ROI,
    organ="colon",
    stain="H&E",
    counts={"train": 19557, "test": 32361},
    split_rule="the official folders, TRAIN 19,557 and TEST 32,361; a patient in both would be test",
    traps=(
        "Not the record 2530835 of 2019 (folders CRC_DX_TRAIN and CRC_DX_TEST, MSIMUT and MSS, 224 px): "
        "other tiles, folders and labels.",
        "The label is the patient's, not the tile's: a tile need not show it, and intervals must be by "
        "patient.",
        "SmartPath-R1 prints a test of 32,361 tiles; its intervals fit about 2,000.",
        "There is no official validation part; take it from the patients of TRAIN.",
    ),
    survey=survey_crc_msi,
    ask=ask_class(CLASSES, "What is the microsatellite status of this colorectal cancer?"),
)
