"""Data sets whose folders are classes: Herlev, LBC cytology, CRC-VAL-HE-7K, LC25000."""

import csv
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath

from malpighi.datasets.adapter import Adapter, Asked, Entry, Picture, Survey, image_files, read_text
from malpighi.datasets.split import rule_text
from malpighi.errors import DataError
from malpighi.records import Choice, Scale, TaskKind

_HERLEV = {
    "normal_superficiel": "normal superficial",
    "normal_intermediate": "normal intermediate",
    "normal_columnar": "normal columnar",
    "light_dysplastic": "mild dysplasia",
    "moderate_dysplastic": "moderate dysplasia",
    "severe_dysplastic": "severe dysplasia",
    "carcinoma_in_situ": "carcinoma in situ",
}
_LBC = {"NL": "NILM", "LSIL": "LSIL", "HSIL": "HSIL", "SCC": "SCC"}
_CRC = {
    "ADI": "adipose tissue",
    "LYM": "lymphocytes",
    "MUC": "mucus",
    "MUS": "smooth muscle",
    "NORM": "normal colon mucosa",
    "STR": "cancer-associated stroma",
    "TUM": "colorectal adenocarcinoma epithelium",
}
_LC25000 = {
    "colon_aca": "colon adenocarcinoma",
    "colon_n": "benign colon tissue",
    "lung_aca": "lung adenocarcinoma",
    "lung_n": "benign lung tissue",
    "lung_scc": "lung squamous cell carcinoma",
}


def survey_folders(classes: Mapping[str, str], above: Collection[str] = ()) -> Callable[[Path], Survey]:
    """Survey of `<class>/<image>`, each image a group of its own.

    Args:
        classes: folder name to readable name.
        above: folders that class folders may lie in; ids do not name them.
    """

    def survey(folder: Path) -> Survey:
        entries, failures = [], []
        for name, path in image_files(folder).items():
            within = PurePosixPath(*itertools.dropwhile(above.__contains__, PurePosixPath(name).parts))
            label = within.parts[0]
            stem = _stem(str(within))
            if label in classes:
                entries.append(Entry(stem, path, stem, label))
            else:
                failures.append((stem, f"lies in {label!r}; expected one of {', '.join(classes)}"))
        return Survey(entries, failures)

    return survey


def survey_indexed(classes: Mapping[str, str]) -> Callable[[Path], Survey]:
    """Survey by `index.csv` with the columns file, label and group.

    An image that the index does not name has no known group, and so cannot be used.

    Args:
        classes: label in the index to readable name.
    """

    def survey(folder: Path) -> Survey:
        files = image_files(folder)
        entries, failures = [], []
        for row in read_index(folder / "index.csv", ("file", "label", "group")):
            path = files.pop(row["file"], None)
            stem = _stem(row["file"])
            if path is None:
                failures.append((stem, f"index.csv names {row['file']}, which is not there or named twice"))
            elif row["label"] not in classes:
                failures.append((stem, f"label {row['label']!r}; expected one of {', '.join(classes)}"))
            elif not row["group"]:
                failures.append((stem, "index.csv gives no group; without it no split is safe"))
            else:
                entries.append(Entry(stem, path, row["group"], row["label"]))
        failures.extend((_stem(name), "not in index.csv, so its group is unknown") for name in files)
        return Survey(entries, failures)

    return survey


def read_index(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """Rows of a CSV file, with the named columns stripped of spaces; "" where a row is short.

    Raises:
        DataError: the file is missing, unreadable or lacks a column.
    """
    reader = csv.DictReader(read_text(path).splitlines())
    missing = [name for name in columns if name not in (reader.fieldnames or ())]
    if missing:
        raise DataError(f"{path}: no column {', '.join(missing)}; found {reader.fieldnames}")
    return [{name: (row[name] or "").strip() for name in columns} for row in reader]


def ask_class(
    classes: Mapping[str, str], question: str, organs: Mapping[str, str] | None = None
) -> Callable[[Entry, Picture], Iterator[Asked]]:
    """Which class the image belongs to.

    Args:
        classes: label to readable name, in the order of the options.
        question: the words of the question.
        organs: organ by label, where it varies.
    """
    labels = list(classes)

    def ask(entry: Entry, _: Picture) -> Iterator[Asked]:
        yield Asked(
            what="class",
            task=TaskKind.CLASSIFICATION,
            text=question,
            answer=Choice(labels.index(entry.label)),
            options=tuple(classes.values()),
            organ=(organs or {}).get(entry.label, ""),
        )

    return ask


def _ask_organ(entry: Entry, _: Picture) -> Iterator[Asked]:
    """Which of the classes of its organ an image of LC25000 belongs to."""
    organ = entry.label.partition("_")[0]
    labels = [label for label in _LC25000 if label.startswith(organ)]
    yield Asked(
        what=organ,
        task=TaskKind.CLASSIFICATION,
        text=f"What is the diagnosis of this {organ} tissue?",
        answer=Choice(labels.index(entry.label)),
        options=tuple(_LC25000[label] for label in labels),
        organ=organ,
    )


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def _counts(classes: Mapping[str, str], *numbers: int) -> dict[str, int]:
    return dict(zip(classes.values(), numbers, strict=True))


herlev = Adapter(
    name="herlev",
    title="Herlev Pap smear: single cells, conventional smears",
    licence="no explicit licence; public download, research use",
    use="research",
    source="Herlev/DTU Pap-smear database, https://mde-lab.aegean.gr/index.php/downloads/",
    layout="index.csv (file, label, group) and the images it names",
    scale=Scale.CELL,
    organ="cervix",
    stain="Pap",
    counts=_counts(_HERLEV, 74, 70, 98, 182, 146, 197, 150),
    split_rule=rule_text("slide (first number of the file name)"),
    traps=(
        "The split of the source folders (train, test) has the same slides on both sides; it is not used.",
        "Cells were scaled or letterboxed to 200 or 224 px, so the size of a nucleus in pixels says nothing.",
        "The image size differs between the source's train and test folders.",
    ),
    survey=survey_indexed(_HERLEV),
    ask=ask_class(_HERLEV, "What kind of cervical cell is this?"),
)

lbc_cytology = Adapter(
    name="lbc_cytology",
    title="Liquid-based cytology, fields of cervical Pap slides",
    licence="CC BY 4.0",
    use="any",
    source="Hussain et al. 2020, Mendeley Data zddtpgzv63 v4",
    layout="index.csv (file, label, group) and the images it names",
    scale=Scale.ROI,
    organ="cervix",
    stain="Pap",
    counts=_counts(_LBC, 200, 113, 163, 74),
    split_rule=rule_text("slide"),
    traps=(
        "Stain and background differ by class, so a model may read the slide instead of the cells.",
        "LSIL and SCC come from four slides each: their numbers rest on one or two slides per split.",
        "Accuracy from a random split must not be quoted.",
    ),
    survey=survey_indexed(_LBC),
    ask=ask_class(_LBC, "What is the cytological diagnosis of this field?"),
)

crc_val_he_7k = Adapter(
    name="crc_val_he_7k",
    title="CRC-VAL-HE-7K: tissue types of colorectal cancer",
    licence="CC BY 4.0",
    use="any",
    source="Kather et al. 2018, https://zenodo.org/records/1214456",
    layout="<class>/<image>, e.g. TUM/1.jpg",
    scale=Scale.ROI,
    organ="colon",
    stain="H&E",
    counts=dict.fromkeys(_CRC.values(), 10),
    split_rule=rule_text("file (patients are not known)"),
    traps=(
        "Patients are not known, so tiles of one patient may be on both sides of a split.",
        "Background and debris, two of the nine classes, are missing; JPEG was encoded twice.",
    ),
    survey=survey_folders(_CRC),
    ask=ask_class(_CRC, "What type of tissue is this?"),
)

lc25000 = Adapter(
    name="lc25000",
    title="LC25000: lung and colon, benign and malignant",
    licence="free for research, no formal licence",
    use="research",
    source="Borkowski et al. 2019, arXiv:1912.12142",
    layout=(
        "lung_colon_image_set/{lung_image_sets,colon_image_sets}/<class>/<image>, or <class>/<image>, "
        "e.g. lung_scc/1.jpeg"
    ),
    scale=Scale.ROI,
    organ="",
    stain="H&E",
    counts={f"{label.partition('_')[0]}: {name}": 5000 for label, name in _LC25000.items()},
    split_rule=rule_text("file (patients are not known)"),
    traps=(
        "One exam per organ, as Patho-R1 asks; version 1 of this adapter asked all five classes at once.",
        "The 25,000 images were made from 1,250 by rotation and flipping: a near copy of a test image may be "
        "trained on, and patients are not known. High accuracy here means little.",
    ),
    survey=survey_folders(_LC25000, ("lung_colon_image_set", "lung_image_sets", "colon_image_sets")),
    ask=_ask_organ,
    version=2,
)
