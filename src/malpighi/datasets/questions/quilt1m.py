"""Quilt-1M: captions of video frames, posts and figures to train on (Ikezogwo et al. 2023).

SmartPath-R1 (Table 45) and Patho-R1 train on it. The columns of the table were seen in use; that image names
are unique over the parts and that those of videos begin with the video's id is assumed.
"""

import csv
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from malpighi.datasets.adapter import Adapter, Asked, Entry, Picture, Survey
from malpighi.errors import DataError
from malpighi.records import Scale, Split, TaskKind, Text

_TABLE = "quilt_1M_lookup.csv"
_NEEDED = ("caption", "image_path", "subset", "split")
_SPLITS = {"train": Split.TRAIN, "val": Split.VALIDATION, "validation": Split.VALIDATION, "test": Split.TEST}
_VIDEO = re.compile(r"([\w-]{11})_(?:image|roi)_")


@dataclass
class _Image:
    split: str
    subset: str
    captions: list[str] = field(default_factory=list)


def survey_quilt1m(folder: Path) -> Survey:
    """Survey of the table; an image that several rows name is one entry with several captions.

    Raises:
        DataError: the table or all images are missing, or the table lacks a column.
    """
    places = _image_folders(folder)
    failures: list[tuple[str, str]] = []
    images = _read_table(folder / _TABLE, failures)
    entries: list[Entry] = []
    for name, image in images.items():
        if name not in places:
            failures.append((name, f"no image {name} in images_part_*/quilt_1m"))
        elif image.split not in _SPLITS:
            failures.append((name, f"split {image.split!r}; expected one of {', '.join(_SPLITS)}"))
        else:
            detail = {"captions": tuple(image.captions), "subset": image.subset}
            path = places[name] / name
            split = _SPLITS[image.split]
            entries.append(Entry(name, path, source_of(name), split=split, detail=detail))
    return Survey(entries, failures)


def source_of(name: str) -> str:
    """The video that an image is from, where its name tells; else the image itself.

    Example:
        >>> source_of("04ktJuzyNfk_image_0b1c.jpg"), source_of("PMC12_fig1.jpg")
        ('04ktJuzyNfk', 'PMC12_fig1.jpg')
    """
    found = _VIDEO.match(name)
    return found.group(1) if found else name


def ask_captions(entry: Entry, _: Picture) -> Iterator[Asked]:
    """One question per caption of the image."""
    for place, caption in enumerate(entry.detail["captions"]):
        yield Asked(
            what="caption",
            task=TaskKind.CAPTION,
            text="Describe this image.",
            answer=Text(caption),
            suffix=f":{place}",
            facts={"subset": entry.detail["subset"]},
        )


def _image_folders(folder: Path) -> dict[str, Path]:
    """The folder of every image by its name; 650,000 names would be slow to look up one by one."""
    parts = [*sorted(folder.glob("images_part_*/quilt_1m")), folder / "quilt_1m"]
    found = {entry.name: part for part in reversed(parts) if part.is_dir() for entry in os.scandir(part)}
    if not found:
        raise DataError(f"{folder}: no images in folders images_part_<k>/quilt_1m")
    return found


def _read_table(path: Path, failures: list[tuple[str, str]]) -> dict[str, _Image]:
    images: dict[str, _Image] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            places = _columns(path, next(reader, []))
            for number, row in enumerate(reader, 1):
                _take(row, places, number, images, failures)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    return images


def _columns(path: Path, header: Sequence[str]) -> dict[str, int]:
    places = {name: place for place, name in enumerate(header)}
    missing = [name for name in _NEEDED if name not in places]
    if missing:
        raise DataError(f"{path}: no column {', '.join(missing)}; found {', '.join(header)}")
    return places


def _take(
    row: Sequence[str],
    places: dict[str, int],
    number: int,
    images: dict[str, _Image],
    failures: list[tuple[str, str]],
) -> None:
    if len(row) <= max(places[name] for name in _NEEDED):
        failures.append((f"{_TABLE}#{number}", f"a row of {len(row)} fields"))
        return
    caption, name, subset, split = (row[places[column]].strip() for column in _NEEDED)
    other = places.get("not_histology", len(row))
    if not name or not caption:
        failures.append((f"{_TABLE}#{number}", "no image_path or no caption"))
    elif other < len(row) and row[other].strip() in ("1", "1.0", "True"):
        failures.append((f"{_TABLE}#{number}", f"{name} is marked as not histology"))
    else:
        image = images.setdefault(name, _Image(sys.intern(split), sys.intern(subset)))
        if caption not in image.captions:
            image.captions.append(caption)


quilt1m = Adapter(
    name="quilt1m",
    title="Quilt-1M: captions from videos, posts, articles and the web",
    licence="research only",
    use="research",
    source="https://zenodo.org/records/8239942 (512 px; the full size by form)",
    layout=f"{_TABLE} and images_part_<k>/quilt_1m/<image_path>",
    scale=Scale.ROI,
    organ="",
    stain="",
    counts={"caption": 1017712},
    split_rule="the table's column split; a video is never in two splits",
    traps=(
        "One image has many captions; for retrieval every one of them is a right find.",
        "Rows marked not_histology are left out and listed.",
        "Captions were transcribed from speech and corrected by a language model.",
        "Quilt-VQA is from the same videos: its images must not be trained on.",
        "That names of frames begin with the video's id is assumed.",
    ),
    survey=survey_quilt1m,
    ask=ask_captions,
    access="restricted: by request on the record's page",
)
