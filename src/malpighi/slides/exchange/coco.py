"""COCO detection files: images, categories, and annotations as boxes and polygons in a picture's px.

A box is (left, top, width, height) of the half-open rectangle; a polygon is a flat list x, y, x, y. COCO has
no holes in polygons: they are cut in through a seam (see `annotations.seamed`), which tools that fill
polygons draw rightly and `read_coco` opens again. Run lengths are read, plain and compressed.

Source: https://cocodataset.org/#format-data; run lengths as pycocotools' `maskApi.c` packs them.
Departs: what COCO has no field for (id, kind, name, measurements) is under `attributes`, as CVAT does.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from malpighi.durable import mending, replacing
from malpighi.errors import DataError, UserError
from malpighi.geometry import Affine, Frame, View
from malpighi.records import Failure
from malpighi.slides.annotations import (
    UNLABELLED,
    Annotation,
    Found,
    Kind,
    Tally,
    Written,
    checked_numbers,
    is_areal,
    mend,
    moved,
    parts,
    seamed,
)
from malpighi.slides.exchange.page import Page, on_page

_DECIMALS = 3


def write_coco(path: Path, pages: Sequence[Page]) -> Written:
    """Write one file for one or several pictures.

    Args:
        path: the `.json` file; appears whole or not at all.
        pages: the pictures; a whole slide is a page too (`whole_slide`).
    """
    tally = Tally()
    labels = sorted({mark.label or UNLABELLED for page in pages for mark in page.annotations})
    numbers = {label: number for number, label in enumerate(labels, 1)}
    images: list[dict[str, Any]] = []
    entries: list[dict[str, Any]] = []
    for image, page in enumerate(pages, 1):
        width, height = page.view.image_size
        images.append({"id": image, "file_name": page.name, "width": width, "height": height})
        for mark, shape in zip(*on_page(page, tally), strict=True):
            entry = _entry(mark, shape, tally)
            if entry is not None:
                names = {"id": len(entries) + 1, "image_id": image}
                entries.append({**names, "category_id": numbers[mark.label or UNLABELLED], **entry})
    categories = [{"id": number, "name": label, "supercategory": ""} for label, number in numbers.items()]
    whole = {"info": {}, "licenses": [], "images": images, "categories": categories, "annotations": entries}
    with mending(path.parent), replacing(path) as file:
        file.write(msgspec.json.encode(whole))
    return Written(path, len(entries), tally.notes)


def read_coco(path: Path, views: View | Mapping[str, View]) -> Found:
    """All annotations of a COCO file, in level-0 px.

    Args:
        path: the `.json` file.
        views: where each picture lies on the slide, by its `file_name`; or one View.

    Raises:
        DataError: no COCO file, or its pictures are not those of `views`.
    """
    whole = _load(path)
    places, others = _places(path, whole, views)
    labels = {
        entry["id"]: str(entry.get("name", "")) for entry in _dicts(whole, "categories") if "id" in entry
    }
    annotations: list[Annotation] = []
    failures: list[Failure] = []
    tally = Tally()
    for index, entry in enumerate(whole.get("annotations") or ()):
        try:
            if isinstance(entry, dict) and entry.get("image_id") in others:
                tally.add("annotation on another picture left out")
                continue
            annotations.append(_annotation(entry, places, labels, tally))
        except (UserError, TypeError) as error:  # TypeError: an id that is a list
            failures.append(Failure(f"{path.name}#{index}", "read", str(error)))
    return Found(annotations, tuple(failures), tally.notes)


def run_lengths(counts: str) -> list[int]:
    """Run lengths out of their packed form: five bits and a flag a character, later ones as differences.

    Example:
        >>> run_lengths("52203")
        [5, 2, 2, 2, 5]
    """
    found: list[int] = []
    at = 0
    while at < len(counts):
        value, shift, more = 0, 0, True
        while more:
            if at >= len(counts):
                raise DataError("packed run lengths end in the middle of a number")
            digit = ord(counts[at]) - 48
            value |= (digit & 31) << shift
            at, shift, more = at + 1, shift + 5, bool(digit & 32)
            if not more and digit & 16:
                value -= 1 << shift
        found.append(value + found[-2] if len(found) > 2 else value)
    return found


def _entry(mark: Annotation, shape: BaseGeometry, tally: Tally) -> dict[str, Any] | None:
    """The fields of an annotation beside its numbers; None where COCO cannot hold it."""
    areal = bool(is_areal(np.array([shape], dtype=object))[0])
    if not areal and shape.geom_type != "Point":
        tally.add(f"{shape.geom_type} left out: COCO holds polygons, boxes and points")
        return None
    tally.add("outline of a nucleus left out", mark.nucleus is not None)
    holes = sum(len(part.interiors) for part in parts(shape) if areal)
    tally.add("hole cut in through a seam: COCO has none", holes)
    x0, y0, x1, y1 = (round(edge, _DECIMALS) for edge in shape.bounds)
    rings = [np.round(seamed(part)[:-1], _DECIMALS).ravel().tolist() for part in parts(shape) if areal]
    entry: dict[str, Any] = {
        "bbox": [x0, y0, round(x1 - x0, _DECIMALS), round(y1 - y0, _DECIMALS)],
        "area": round(shape.area, _DECIMALS),
        "segmentation": rings,
        "iscrowd": 0,
        "attributes": _attributes(mark),
    }
    if mark.score is not None:
        entry["score"] = mark.score
    return entry


def _attributes(mark: Annotation) -> dict[str, Any]:
    told: dict[str, Any] = {"kind": mark.kind.value}
    told |= {name: getattr(mark, name) for name in ("id", "name", "color", "locked") if getattr(mark, name)}
    if mark.measurements:
        told["measurements"] = {
            name: number if math.isfinite(number) else str(number)
            for name, number in mark.measurements.items()
        }
    return told


def _load(path: Path) -> dict[str, Any]:
    try:
        whole = msgspec.json.decode(path.read_bytes())
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; check the path") from error
    except (msgspec.DecodeError, UnicodeError) as error:
        raise DataError(f"{path} is not JSON: {error}; copy it again") from error
    if not isinstance(whole, dict) or not isinstance(whole.get("annotations"), list):
        raise DataError(f"{path} is no COCO file: expected an object with images and a list of annotations")
    return whole


def _dicts(whole: dict[str, Any], name: str) -> list[dict[str, Any]]:
    found = whole.get(name)
    """The entries of a list that are objects with an id."""
    entries = found if isinstance(found, list) else []
    return [entry for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), int | str)]


def _places(
    path: Path, whole: dict[str, Any], views: View | Mapping[str, View]
) -> tuple[dict[Any, Affine], dict[Any, str]]:
    """By image id, how to get to level 0; and the names, by id, of images that were not asked for."""
    images = _dicts(whole, "images")
    if isinstance(views, View):
        if len(images) != 1:
            raise DataError(
                f"{path} has {len(images)} images; say where each lies on the slide, by file_name"
            )
        views = {str(images[0].get("file_name")): views}
    places: dict[Any, Affine] = {}
    others: dict[Any, str] = {}
    for image in images:
        name, number = str(image.get("file_name")), image.get("id")
        if name not in views:
            others[number] = name
            continue
        size = (image.get("width"), image.get("height"))
        if size != views[name].image_size:
            raise DataError(
                f"{path}: image {name!r} is {size[0]} x {size[1]} px; its view on the slide says "
                f"{views[name].image_size}: give the region that was cut out and the size it was saved at"
            )
        places[number] = views[name].affine(Frame.IMAGE, Frame.SLIDE)
    if not places:
        raise DataError(f"{path} has none of the images {sorted(views)}; it has {sorted(others.values())}")
    return places, others


def _annotation(entry: Any, places: dict[Any, Affine], labels: dict[Any, str], tally: Tally) -> Annotation:
    if not isinstance(entry, dict):
        raise DataError(f"found {str(entry)[:40]!r}; expected an object")
    if entry.get("image_id") not in places:
        raise DataError(f"image_id {entry.get('image_id')!r} is not among the images")
    if entry.get("category_id") not in labels:
        raise DataError(f"category_id {entry.get('category_id')!r} is not among the categories")
    shape, reason = _geometry(entry)
    tally.add("outline mended", bool(reason))
    label = labels[entry["category_id"]]
    told = entry.get("attributes")
    told = told if isinstance(told, dict) else {}
    color, kinds = told.get("color"), [kind.value for kind in Kind]
    found: BaseGeometry = moved(np.array([shape], dtype=object), places[entry["image_id"]])[0]
    score = entry.get("score")
    return Annotation(
        geometry=found,
        label="" if label == UNLABELLED else label,
        score=None if score is None else checked_numbers({"score": score})["score"],
        measurements=checked_numbers(told.get("measurements") or {}),
        id=str(told.get("id", "")),
        kind=Kind(told["kind"]) if told.get("kind") in kinds else Kind.ANNOTATION,
        color=(color[0], color[1], color[2]) if isinstance(color, list) and len(color) == 3 else None,
        name=str(told.get("name", "")),
        locked=told.get("locked") is True,
        notes=(reason,) if reason else (),
    )


def _geometry(entry: dict[str, Any]) -> tuple[BaseGeometry, str]:
    """The outline where there is one, else the box (a point where it has no extent), and what was mended."""
    outline = entry.get("segmentation")
    if isinstance(outline, dict):
        return _from_runs(outline), ""
    if not outline:
        return _from_box(entry.get("bbox")), ""
    rings = []
    for ring in outline:
        try:
            points = np.array(ring, dtype=float).reshape(-1, 2)
        except (ValueError, TypeError) as error:
            raise DataError(f"segmentation {str(ring)[:40]!r}; expected x, y, x, y, ...") from error
        if len(points) < 3 or not np.isfinite(points).all():
            raise DataError(f"segmentation of {len(points)} points; expected three or more, all finite")
        rings.append(shapely.Polygon(points))
    fixed, reasons = mend(np.array(rings, dtype=object))
    kept = [shape for shape in fixed if shape is not None]
    if not kept:
        raise DataError(f"segmentation: {reasons[0]}")
    return kept[0] if len(kept) == len(rings) == 1 else _together(kept), "; ".join(filter(None, reasons))


def _together(pieces: list[BaseGeometry]) -> BaseGeometry:
    polygons = [part for piece in pieces for part in parts(piece)]
    several: BaseGeometry = shapely.MultiPolygon(polygons)
    return several if several.is_valid else shapely.union_all(polygons)


def _from_box(bbox: Any) -> BaseGeometry:
    try:
        x, y, width, height = (float(value) for value in bbox)
    except (TypeError, ValueError) as error:
        raise DataError(f"bbox is {bbox!r}; expected left, top, width, height") from error
    if not all(map(math.isfinite, (x, y, width, height))) or min(width, height) < 0:
        raise DataError(f"bbox {bbox!r} is not finite, or has a negative width or height")
    if width == height == 0:
        return shapely.Point(x, y)
    if min(width, height) == 0:
        raise DataError(f"bbox {bbox!r} has no area")
    return shapely.box(x, y, x + width, y + height)


def _from_runs(outline: dict[str, Any]) -> BaseGeometry:
    """The outline, along pixel edges, of run lengths down the columns of a picture."""
    try:
        height, width = (int(side) for side in outline["size"])
        counts = outline["counts"]
        lengths = np.array(run_lengths(counts) if isinstance(counts, str) else counts, dtype=np.int64)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"run lengths {str(outline)[:60]}; expected size and counts") from error
    if (lengths < 0).any() or lengths.sum() != height * width or height * width == 0:
        raise DataError(f"run lengths cover {lengths.sum()} px; size says {height} x {width}")
    ends = np.cumsum(lengths)
    firsts, ends = (ends - lengths)[1::2], ends[1::2]
    firsts, ends = firsts[ends > firsts], ends[ends > firsts]
    if not len(firsts):
        raise DataError("run lengths hold no pixel")
    spread = (ends - 1) // height - firsts // height + 1  # a run may go over several columns
    column = np.repeat(firsts // height, spread) + np.arange(spread.sum())
    column -= np.repeat(np.cumsum(spread) - spread, spread)
    top = np.maximum(np.repeat(firsts, spread) - column * height, 0)
    bottom = np.minimum(np.repeat(ends, spread) - column * height, height)
    found: BaseGeometry = shapely.union_all(shapely.box(column, top, column + 1, bottom))
    return found
