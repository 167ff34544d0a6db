"""MorphoPercept-Bench: nine observations of cervical cells, each yes or no. Singpath-VL's exam (Table 3).

The set is not released; the layout here is our proposal: `labels.csv` with the columns id, criterion and
label (1 where the observation holds, 0 where not; columns of single raters may follow) and
`images/<id>.<ending>`. One image may be asked about under several criteria. Exams are named for the
criteria, e.g. `morphopercept_bench/NA`.
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from malpighi.datasets.adapter import Adapter, Asked, Entry, Picture, Survey, image_files
from malpighi.datasets.class_folders import read_index
from malpighi.datasets.listing import one_of, root_of
from malpighi.datasets.split import rule_text
from malpighi.records import Choice, Scale, TaskKind

INDEX = "labels.csv"
IMAGES = "images"


class Criterion(NamedTuple):
    """What is asked, and the two answers: for label 0 and for label 1."""

    question: str
    options: tuple[str, str]


CRITERIA = {
    "NE": Criterion("Is the nucleus enlarged?", ("not enlarged", "enlarged")),
    "NA": Criterion("Is there nuclear atypia?", ("absent", "present")),
    "NH": Criterion("Is the nucleus hyperchromatic?", ("not hyperchromatic", "hyperchromatic")),
    "Koilocyte": Criterion("Is this a koilocyte?", ("not a koilocyte", "koilocyte")),
    "CT": Criterion("Is the chromatin texture normal?", ("normal", "abnormal")),
    "Nucleolus": Criterion("Is a nucleolus visible?", ("not visible", "visible")),
    "NC": Criterion("How many nuclei does the cell have?", ("one", "two or more")),
    "NCR": Criterion("Is the nuclear-to-cytoplasmic ratio raised?", ("not raised", "raised")),
    "NM": Criterion("Is the nuclear membrane regular?", ("regular", "irregular")),
}
_LABELS = {"0": 0, "1": 1}


def survey_morphopercept(folder: Path) -> Survey:
    """Survey of `images/` by `labels.csv`: one entry per image, with its labels by criterion.

    Raises:
        DataError: no folder of images, or no `labels.csv` with the columns.
    """
    root = root_of(folder, "MorphoPercept-Bench", (IMAGES,))
    files = {path.stem: path for path in image_files(root / IMAGES).values()}
    labels: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for row in read_index(root / INDEX, ("id", "criterion", "label")):
        labels[row["id"]].append((row["criterion"], row["label"]))
    entries = [
        Entry(name, files[name], name, detail={"rows": labels[name]}) for name in labels if name in files
    ]
    failures = [
        (name, f"{INDEX} names {name}, of which there is no image") for name in labels if name not in files
    ]
    failures += [(name, f"not in {INDEX}") for name in files if name not in labels]
    return Survey(entries, failures)


def ask_criteria(entry: Entry, _: Picture) -> Iterator[Asked | tuple[str, str]]:
    """One question per criterion; a row that is faulty or repeats a criterion is a failure of its own."""
    asked: set[str] = set()
    for criterion, label in entry.detail["rows"]:
        if criterion not in CRITERIA:
            yield f":{criterion}", f"criterion {one_of(criterion, CRITERIA)}"
        elif criterion in asked:
            yield f":{criterion}#{label}", "the criterion is named twice for this image; the first row counts"
        elif label not in _LABELS:
            yield f":{criterion}", f"label {one_of(label, _LABELS)}"
        else:
            asked.add(criterion)
            question, options = CRITERIA[criterion]
            yield Asked(
                what=criterion,
                task=TaskKind.CLASSIFICATION,
                text=question,
                answer=Choice(_LABELS[label]),
                options=options,
                suffix=f":{criterion}",
            )


morphopercept_bench = Adapter(
    name="morphopercept_bench",
    title="MorphoPercept-Bench: nine yes-or-no observations of cervical cells",
    licence="none stated; not released",
    use="research",
    source="Singpath-VL, arXiv:2602.09523",
    layout=f"{IMAGES}/<id>.png and {INDEX} (id, criterion, label[, annotator_1...]) (proposed here)",
    scale=Scale.CELL,
    organ="cervix",
    stain="Pap",
    counts=dict(zip(CRITERIA, (153, 151, 146, 393, 131, 360, 396, 231, 108), strict=True)),
    split_rule=rule_text("image (slides are not known)"),
    traps=(
        "The set is not released and its layout is proposed here; so are the two words of each answer.",
        "Items differ from criterion to criterion, 2,069 in all: the nine accuracies rest on 108 (NM) to 396 "
        "(NC) of them.",
        "The criterion NA is nuclear atypia; programs that take 'NA' for a missing value lose it.",
        "How often each observation holds is not published: report balanced accuracy and the constant answer "
        "beside accuracy.",
        "The published 'Avg' is the plain mean of the nine accuracies; raters agree with each other in 58.6% "
        "(NM) to 96.2% (Koilocyte).",
    ),
    survey=survey_morphopercept,
    ask=ask_criteria,
    access="not released",
)
