"""CytoCell-Bench: six Bethesda categories of single cells. Singpath-VL's exam CytoCell-Bench (Table 4).

The report prints counts and no layout. The data set's page lists a file `CytoCell-Bench.json` whose form is
not stated. Both layouts here are our proposal: that file as a list of records with `image_name` and `label`,
as in its sister Singpath-CytoText, or a folder per category.
"""

from pathlib import Path, PurePosixPath

from malpighi.datasets.adapter import Adapter, Survey
from malpighi.datasets.cells.singpath_records import CATEGORIES, label_of, slide_of, survey_records
from malpighi.datasets.class_folders import ask_class
from malpighi.datasets.listing import Place, one_of, root_of, survey_places
from malpighi.datasets.split import rule_text
from malpighi.records import Scale

INDEX = "CytoCell-Bench.json"
_COUNTS = (10413, 4157, 2340, 5987, 4786, 1419)


def survey_cytocell(folder: Path) -> Survey:
    """Survey of `CytoCell-Bench.json` and the images it names; of `<category>/<image>` where there is none.

    Raises:
        DataError: neither the list nor a folder of a category.
    """
    root = root_of(folder, "CytoCell-Bench", (INDEX, *CATEGORIES))
    if not (root / INDEX).is_file():
        return survey_places(root, _place)
    return survey_records(root, INDEX, lambda record: {"label": label_of(record)})


def _place(path: PurePosixPath) -> Place | str:
    label = path.parts[0]
    if label not in CATEGORIES:
        return f"lies in {one_of(label, CATEGORIES)}"
    return Place(label, slide_of(path.stem))


cytocell_bench = Adapter(
    name="cytocell_bench",
    title="CytoCell-Bench: six Bethesda categories of cervical cells",
    licence="Apache-2.0, as on the dataset card",
    use="any",
    source="Singpath-VL, arXiv:2602.09523; https://huggingface.co/datasets/zqiu96/Singpath_CytoText",
    layout=f"{INDEX} and the images it names, or {{{','.join(CATEGORIES)}}}/<image> (both proposed here)",
    scale=Scale.CELL,
    organ="cervix",
    stain="Pap",
    counts=dict(zip(CATEGORIES, _COUNTS, strict=True)),
    split_rule=rule_text("slide (first part of the image's name; the image itself where it has none)"),
    traps=(
        "The layout is proposed here: neither report nor data set page states one, and which cells were "
        "trained on is not published.",
        "The published 'accuracy' of a category is its recall, and 'Avg' their mean: compare balanced "
        "accuracy.",
        "Two models reach 100.0 for NILM, as if something other than the cell told them: read the confusion "
        "matrix.",
        "Models that answer one category always get 16.7: look at the distribution of answers.",
    ),
    survey=survey_cytocell,
    ask=ask_class({name: name for name in CATEGORIES}, "What is the Bethesda category of this cell?"),
)
