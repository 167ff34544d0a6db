"""Histological subtypes in six TCGA cohorts; SmartPath-R1, Table 35: TCGA-BRCA, TCGA-COAD and so on.

The slides are public, the labels of that table are not: `labels.csv` is the user's own, from the reports or
another study, with the option lists of Table 33.
"""

from malpighi.datasets.adapter import Adapter
from malpighi.datasets.class_folders import ask_class
from malpighi.datasets.split import rule_text
from malpighi.datasets.whole_slides.label_table import survey_labels
from malpighi.records import Scale

_TRAPS = (
    "The labels of SmartPath-R1 are not published and probably came out of reports through a language model; "
    "with labels of your own, numbers are not comparable to its table.",
    "Several slides of one case: the case is the group.",
    "The published intervals imply very few slides: 92, 37, 25, 37, 50 and 50 (BRCA to LUSC).",
    "The micrometres per pixel of TCGA slides are 0.25 or 0.5; they are read from each file.",
    "Models trained on TCGA have seen these slides.",
)


def _cohort(code: str, title: str, organ: str, noun: str, *options: str, trap: str = "") -> Adapter:
    classes = {option: option for option in options}
    return Adapter(
        name=f"tcga_{code}",
        title=f"TCGA-{code.upper()}: {title}",
        licence="NIH Genomic Data Commons, open access",
        use="any",
        source="https://portal.gdc.cancer.gov/, slides of the cohort; option list of SmartPath-R1, Table 33",
        layout="labels.csv (dir, case_id, slide_id, label) and <file "
        "uuid>/TCGA-XX-XXXX-01Z-00-DX1.<uuid>.svs",
        scale=Scale.SLIDE,
        organ=organ,
        stain="H&E",
        counts={},
        split_rule=rule_text("case"),
        traps=(*_TRAPS, *filter(None, [trap])),
        survey=survey_labels(classes),
        ask=ask_class(classes, f"What is the histological type of this {noun}?"),
        access="open slides (GDC), labels are your own",
    )


tcga_brca = _cohort(
    "brca",
    "subtypes of breast carcinoma",
    "breast",
    "breast carcinoma",
    "Invasive ductal carcinoma",
    "Invasive lobular carcinoma",
    "Invasive mucinous carcinoma",
    "Invasive papillary carcinoma",
    "Invasive micropapillary carcinoma",
)

tcga_coad = _cohort(
    "coad",
    "subtypes of colon adenocarcinoma",
    "colon",
    "colon carcinoma",
    "Adenocarcinoma, NOS",
    "Mucinous adenocarcinoma",
    "Tubular adenocarcinoma",
    "Serrated adenocarcinoma",
    "Signet ring cell carcinoma",
)

tcga_hnsc = _cohort(
    "hnsc",
    "differentiation of squamous carcinoma of head and neck",
    "head and neck",
    "squamous carcinoma of head and neck",
    "Invasive well-differentiated squamous carcinoma",
    "Invasive moderately differentiated squamous carcinoma",
    "Invasive poorly differentiated squamous carcinoma",
    "Non-invasive squamous carcinoma",
)

tcga_lgg = _cohort(
    "lgg",
    "subtypes of glioma",
    "brain",
    "glioma",
    "Anaplastic astrocytoma",
    "Oligodendroglioma",
    "Diffuse astrocytoma",
    "Glioblastoma multiforme",
    trap="The cohort is of lower grade glioma, yet the option list holds glioblastoma multiforme.",
)

tcga_luad = _cohort(
    "luad",
    "growth patterns of lung adenocarcinoma",
    "lung",
    "lung adenocarcinoma",
    "Lepidic",
    "Acinar",
    "Papillary",
    "Micropapillary",
    "Solid",
)

tcga_lusc = _cohort(
    "lusc",
    "subtypes of squamous cell carcinoma of the lung",
    "lung",
    "squamous cell carcinoma of the lung",
    "Keratinizing squamous cell carcinoma",
    "Non-keratinizing squamous cell carcinoma",
    "Basaloid squamous cell carcinoma",
    "Verrucous squamous cell carcinoma",
)

TCGA_SUBTYPES = (tcga_brca, tcga_coad, tcga_hnsc, tcga_lgg, tcga_luad, tcga_lusc)
