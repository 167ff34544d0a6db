"""YOLO label files: one line for each object, numbers as shares of a picture's width and height.

    <class> <middle x> <middle y> <width> <height> [score]      a box
    <class> <x> <y> <x> <y> <x> <y> ...                         an outline

Classes are numbers; their names are the lines of `classes.txt` beside the labels, or `names` in `data.yaml`.

Source: Ultralytics' documentation of detection and segmentation labels, as of version 8.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import shapely
import yaml
from shapely.geometry.base import BaseGeometry

from malpighi.durable import mending, replacing
from malpighi.errors import DataError
from malpighi.geometry import Affine, Frame
from malpighi.records import Failure
from malpighi.slides.annotations import (
    UNLABELLED,
    Annotation,
    Found,
    Kind,
    Tally,
    Written,
    is_areal,
    mend,
    moved,
    parts,
    seamed,
)
from malpighi.slides.exchange.page import Page, on_page

_DIGITS = 9  # of a share: 0.0002 px on a slide of 200k px


def write_yolo(path: Path, page: Page, *, outlines: bool = False, scores: bool = False) -> Written:
    """Write the labels of one picture, and `classes.txt` beside them; names already in it stay.

    Args:
        path: the `.txt` file, named like the picture.
        page: the picture.
        outlines: whether to write outlines rather than boxes.
        scores: whether to write scores behind boxes, as predictions have them; training refuses them.
    """
    tally, lines = Tally(), []
    listed = path.with_name("classes.txt")
    names = class_names(path) if listed.exists() else []
    share = Affine(1 / page.view.image_size[0], 1 / page.view.image_size[1], 0.0, 0.0)
    for mark, shape in zip(*on_page(page, tally), strict=True):
        label = " ".join(mark.label.split()) or UNLABELLED
        tally.add("spaces or line breaks in a class name made one space", label != (mark.label or UNLABELLED))
        numbers = _numbers(mark, shape, share, tally, outlines=outlines, scores=scores)
        for row in numbers:
            if label not in names:
                names.append(label)
            lines.append(" ".join([str(names.index(label)), *(f"{number:.{_DIGITS}f}" for number in row)]))
    with mending(path.parent):
        with replacing(path) as file:
            file.write("".join(f"{line}\n" for line in lines).encode())
        with replacing(listed) as file:
            file.write("".join(f"{name}\n" for name in names).encode())
    return Written(path, len(lines), tally.notes)


def read_yolo(path: Path, page: Page) -> Found:
    """All labels of one picture, in level-0 px.

    Args:
        path: the `.txt` file; `classes.txt` or `data.yaml` lies beside it or one folder up.
        page: the picture that it describes.

    Raises:
        DataError: no such file, or the class names are not found.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        raise DataError(f"cannot read {path}: {error}; check the path") from error
    names = class_names(path) if "".join(lines).strip() else []
    here = page.view.affine(Frame.IMAGE, Frame.SLIDE)
    width, height = page.view.image_size
    to_slide = Affine(here.scale_x * width, here.scale_y * height, here.shift_x, here.shift_y)
    annotations, failures, tally = [], [], Tally()
    for number, line in enumerate(lines, 1):
        try:
            if line.strip():
                annotations.append(_annotation(line, names, to_slide, tally))
        except DataError as error:
            failures.append(Failure(f"{path.name}#{number}", "read", f"line {number}: {error}"))
    return Found(annotations, tuple(failures), tally.notes)


def class_names(labels: Path) -> list[str]:
    """The names of the classes, by number, for a label file.

    Raises:
        DataError: neither `classes.txt` nor `data.yaml` beside it or one folder up.
    """
    for folder in (labels.parent, labels.parent.parent):
        listed, described = folder / "classes.txt", folder / "data.yaml"
        if listed.exists():
            return [
                name.rstrip("\r") for name in listed.read_text(encoding="utf-8").split("\n") if name.strip()
            ]
        if described.exists():
            try:
                names = yaml.safe_load(described.read_text(encoding="utf-8"))["names"]
                return [str(name) for name in (names.values() if isinstance(names, dict) else names)]
            except (yaml.YAMLError, KeyError, TypeError) as error:
                raise DataError(f"{described} has no readable list `names`: {error}") from error
    raise DataError(f"{labels}: no classes.txt or data.yaml beside it or one folder up; put one there")


def _numbers(
    mark: Annotation, shape: BaseGeometry, share: Affine, tally: Tally, *, outlines: bool, scores: bool
) -> Iterable[list[float]]:
    """The numbers of each line that an annotation becomes."""
    if not is_areal(np.array([shape], dtype=object))[0]:
        tally.add(f"{shape.geom_type} left out: YOLO holds boxes and outlines")
        return []
    tally.add("score left out", mark.score is not None and (outlines or not scores))
    tally.add("measurements, id, name or colour left out", _has_more(mark))
    tally.add("outline of a nucleus left out", mark.nucleus is not None)
    relative: BaseGeometry = moved(np.array([shape], dtype=object), share)[0]
    if outlines:
        pieces = parts(relative)
        tally.add("outline of several parts split", len(pieces) > 1)
        tally.add("hole cut in through a seam: YOLO has none", sum(len(p.interiors) for p in pieces))
        return [seamed(piece)[:-1].ravel().tolist() for piece in pieces]
    tally.add("outline reduced to its box", not mark.is_box)
    x0, y0, x1, y1 = relative.bounds
    score = [mark.score] if scores and mark.score is not None else []
    return [[(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0, *score]]


def _has_more(mark: Annotation) -> bool:
    return bool(mark.measurements or mark.id or mark.name or mark.color or mark.locked)


def _annotation(line: str, names: list[str], to_slide: Affine, tally: Tally) -> Annotation:
    try:
        number, *rest = line.split()
        values = np.array(rest, dtype=float)
        label = names[int(number)] if int(number) >= 0 else ""
    except (ValueError, IndexError) as error:
        raise DataError(f"{line[:60]!r}; expected a class below {len(names)} and numbers") from error
    if not label or not np.isfinite(values).all():
        raise DataError(f"{line[:60]!r}; expected a class from 0 on and finite numbers")
    score, reason = None, ""
    if len(values) in (4, 5):
        x, y, width, height = values[:4]
        if min(width, height) <= 0:
            raise DataError(f"a box of {width} x {height}; expected a width and a height above 0")
        shape: BaseGeometry = shapely.box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        score = float(values[4]) if len(values) == 5 else None
    elif len(values) >= 6 and len(values) % 2 == 0:
        fixed, (reason,) = mend(np.array([shapely.Polygon(values.reshape(-1, 2))], dtype=object))
        if fixed[0] is None:
            raise DataError(reason)
        shape = fixed[0]
    else:
        raise DataError(f"{len(values)} numbers; expected 4, 5 with a score, or 6 and more in pairs")
    low, high = np.array(shape.bounds[:2]), np.array(shape.bounds[2:])
    tally.add("object reaches over the edge of the picture", bool((low < -0.01).any() or (high > 1.01).any()))
    tally.add("outline mended", bool(reason))
    found: BaseGeometry = moved(np.array([shape], dtype=object), to_slide)[0]
    return Annotation(
        geometry=found,
        label="" if label == UNLABELLED else label,
        score=score,
        kind=Kind.DETECTION,
        notes=(reason,) if reason else (),
    )
