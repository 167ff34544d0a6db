"""QuPath's GeoJSON: features with an object type, a classification and measurements, in full-resolution px.

QuPath's plane begins at the bounds of the scanned part where OpenSlide states them (MRXS, some NDPI and BIF),
not at level 0's corner; `qupath_origin` says by how much, and reading and writing shift by it.

Source: what QuPath 0.2 to 0.6 read and write, `qupath.lib.io.QuPathTypeAdapters`, `ROITypeAdapters` and
    `OpenslideImageServer`; RFC 7946.
Departs: QuPath rounds to two decimals, here to three. A score is the measurement `score`.
"""

import gzip
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import msgspec
import numpy as np
import shapely
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from malpighi.durable import mending, replacing
from malpighi.errors import DataError, UserError
from malpighi.geometry import Affine
from malpighi.records import Failure
from malpighi.slides.annotations import (
    Annotation,
    Found,
    Geometries,
    Kind,
    Tally,
    Written,
    checked_numbers,
    geometries,
    mend,
    moved,
)
from malpighi.slides.exchange.json_stream import Element, JsonStream, opened_text
from malpighi.slides.slide import Slide

SCORE = "score"
_BATCH = 1024
_DECIMALS = 3
_FEATURE = re.compile(r'\{\s*"type"\s*:\s*"Feature"')
_BOUNDS = tuple(f"openslide.bounds-{side}" for side in ("x", "y", "width", "height"))
_KINDS: dict[str, Kind] = {
    **{kind.value: kind for kind in Kind},
    "unknown": Kind.ANNOTATION,
    "tma_core": Kind.CORE,
    # QuPath 0.2 wrote the kind as the feature's id.
    "PathAnnotationObject": Kind.ANNOTATION,
    "PathDetectionObject": Kind.DETECTION,
    "PathCellObject": Kind.CELL,
    "PathTileObject": Kind.TILE,
    "TMACoreObject": Kind.CORE,
}
_ROOTS = ("root", "PathRootObject")


class _Feature(NamedTuple):
    """A feature on its way to an annotation: its place in the file and what it says."""

    place: str
    value: dict[str, Any]


def qupath_origin(slide: Slide | None) -> tuple[float, float]:
    """Where QuPath's (0, 0) lies, level-0 px: the corner of the bounds, where all four of them are stated.

    QuPath ignores the bounds where its preference "Use bounding boxes" is off; pass (0, 0) then.
    """
    stated = slide.facts.properties if slide is not None else {}
    try:
        x, y, _, _ = (int(stated[name]) for name in _BOUNDS)
    except (KeyError, ValueError):
        return (0.0, 0.0)
    return (float(x), float(y))


def read_geojson(path: Path, origin: tuple[float, float] = (0.0, 0.0)) -> Found:
    """All annotations of a GeoJSON file.

    Args:
        path: a FeatureCollection, a list of features or one feature; gzipped or not.
        origin: where the file's (0, 0) lies, level-0 px; `qupath_origin(slide)` for files of QuPath.

    Raises:
        DataError: no such file, or no GeoJSON at all.
    """
    annotations: list[Annotation] = []
    failures: list[Failure] = []
    tally = Tally()
    for found in iterate_geojson(path, origin, tally):
        if isinstance(found, Failure):
            failures.append(found)
        else:
            annotations.append(found)
    return Found(annotations, tuple(failures), tally.notes)


def iterate_geojson(
    path: Path, origin: tuple[float, float] = (0.0, 0.0), tally: Tally | None = None
) -> Iterator[Annotation | Failure]:
    """The annotations of a GeoJSON file one after the other, in the memory of a few thousand.

    Args:
        path: as for `read_geojson`.
        origin: as for `read_geojson`.
        tally: is told what was mended or could not be kept.

    Yields:
        an annotation, or a Failure in its place.

    Raises:
        DataError: as `read_geojson`.
    """
    tally = tally or Tally()
    with opened_text(path) as text:
        try:
            elements = JsonStream(text, _FEATURE).elements("features")
            while batch := list(islice(elements, _BATCH)):
                yield from _annotations(path, batch, origin, tally)
        except DataError as error:
            raise DataError(f"{path}: {error}") from error


def write_geojson(
    path: Path, annotations: Iterable[Annotation], origin: tuple[float, float] = (0.0, 0.0)
) -> Written:
    """Write a FeatureCollection that QuPath opens; gzipped where the name ends in `.gz`.

    Args:
        path: the file; appears whole or not at all.
        annotations: may be an iterator; a few thousand are held at a time.
        origin: as for `read_geojson`.
    """
    tally, count = Tally(), 0
    source = iter(annotations)
    with mending(path.parent), replacing(path) as raw:
        file: BinaryIO | gzip.GzipFile = (
            gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=4, mtime=0)
            if path.suffix == ".gz"
            else raw
        )
        file.write(b'{"type":"FeatureCollection","features":[')
        while batch := list(islice(source, _BATCH)):
            file.write(b",\n" if count else b"\n")
            file.write(b",\n".join(_features(batch, origin, tally)))
            count += len(batch)
        file.write(b"\n]}\n")
        if isinstance(file, gzip.GzipFile):
            file.close()
    return Written(path, count, tally.notes)


def color_of(value: Any) -> tuple[int, int, int] | None:
    """Red, green, blue of what QuPath writes: a list of three, or 32 bits packed as alpha, r, g, b.

    Example:
        >>> color_of(-3670016)
        (200, 0, 0)
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return (value >> 16 & 255, value >> 8 & 255, value & 255)
    if isinstance(value, list) and len(value) >= 3 and all(isinstance(part, int) for part in value):
        red, green, blue = (min(max(part, 0), 255) for part in value[:3])
        return (red, green, blue)
    return None


def _features(batch: Sequence[Annotation], origin: tuple[float, float], tally: Tally) -> Iterator[bytes]:
    away = Affine(1.0, 1.0, -origin[0], -origin[1])
    outlines = shapely.to_geojson(moved(geometries(batch), away, _DECIMALS))
    for annotation, outline in zip(batch, outlines, strict=True):
        feature: dict[str, Any] = {"type": "Feature"}
        if annotation.id:
            feature["id"] = annotation.id
        feature["geometry"] = msgspec.Raw(outline.encode())
        if annotation.nucleus is not None:
            nucleus = moved(np.array([annotation.nucleus], dtype=object), away, _DECIMALS)
            feature["nucleusGeometry"] = msgspec.Raw(shapely.to_geojson(nucleus)[0].encode())
        feature["properties"] = _properties(annotation, tally)
        yield msgspec.json.encode(feature)


def _properties(annotation: Annotation, tally: Tally) -> dict[str, Any]:
    properties: dict[str, Any] = {"objectType": annotation.kind.value}
    if annotation.name:
        properties["name"] = annotation.name
    if annotation.label:
        properties["classification"] = {"name": annotation.label}
        if annotation.color:
            properties["classification"]["color"] = annotation.color
    elif annotation.color:
        properties["color"] = annotation.color
    if annotation.locked:
        properties["isLocked"] = True
    numbers = dict(annotation.measurements)
    if annotation.score is not None:
        tally.add(f"measurement {SCORE!r} left out for the score of that name", SCORE in numbers)
        numbers[SCORE] = annotation.score
    if numbers:
        properties["measurements"] = {name: _spoken(number) for name, number in numbers.items()}
    return properties


def _spoken(number: float) -> float | str:
    """As QuPath writes since 0.5: JSON has no number for these."""
    if math.isnan(number):
        return "NaN"
    return number if math.isfinite(number) else ("Infinity" if number > 0 else "-Infinity")


def _annotations(
    path: Path, batch: list[Element], origin: tuple[float, float], tally: Tally
) -> Iterator[Annotation | Failure]:
    """The annotations of a batch of elements, with a Failure for each that is none."""
    features: list[_Feature] = []
    failures: list[Failure] = []
    for element in batch:
        place = f"{path.name}#{element.place}"
        if element.error:
            failures.append(Failure(place, "read", element.error))
        else:
            _unfold(place, element.value, features, failures, tally)
    shapes, reasons = _outlines([feature.value.get("geometry") for feature in features])
    here = Affine(1.0, 1.0, *origin)
    placed = [index for index, found in enumerate(shapes) if found is not None]
    shapes[placed] = moved(shapes[placed], here)
    for feature, found, reason in zip(features, shapes, reasons, strict=True):
        try:
            if found is None:
                raise DataError(f"{reason}; expected a geometry as GeoJSON has it")
            tally.add("outline mended", bool(reason))
            yield _annotation(feature.value, found, (reason,) if reason else (), here)
        except UserError as error:
            yield Failure(feature.place, "read", str(error))
    yield from failures


def _unfold(place: str, value: Any, features: list[_Feature], failures: list[Failure], tally: Tally) -> None:
    """A feature, and those that QuPath puts inside of it as its children."""
    if not isinstance(value, dict) or value.get("type") != "Feature":
        kind = value.get("type") if isinstance(value, dict) else type(value).__name__
        failures.append(Failure(place, "read", f"found {kind!r}; expected an object of type 'Feature'"))
        return
    properties = value.get("properties") or {}
    if not isinstance(properties, dict):
        failures.append(Failure(place, "read", f"properties are {properties!r}; expected an object"))
        return
    geometry = value.get("geometry")
    if isinstance(geometry, dict):
        tally.add("ellipse kept as its outline", bool(geometry.get("isEllipse")))
        tally.add("plane (z, t, channel) left out", "plane" in geometry)
    tally.add("metadata of QuPath left out", bool(properties.get("metadata")))
    if not ({properties.get("objectType"), value.get("id")} & set(_ROOTS)):
        features.append(_Feature(place, value))
    children = properties.get("childObjects", properties.get("children"))
    for number, child in enumerate(children if isinstance(children, list) else ()):
        _unfold(f"{place}/{number}", child, features, failures, tally)


def _annotation(
    feature: dict[str, Any], geometry: BaseGeometry, notes: tuple[str, ...], here: Affine
) -> Annotation:
    properties = feature.get("properties") or {}
    label, color = _class(properties.get("classification"))
    numbers = _measurements(properties.get("measurements"))
    score = numbers.pop(SCORE, None)
    named = feature.get("id")
    legacy = _KINDS.get(named) if isinstance(named, str) else None
    said = properties.get("objectType", properties.get("object_type", properties.get("type", "")))
    return Annotation(
        geometry=geometry,
        label=label,
        score=score,
        measurements=numbers,
        id="" if named is None or legacy else str(named),
        kind=_KINDS.get(str(said)) or legacy or Kind.ANNOTATION,
        nucleus=_nucleus(feature.get("nucleusGeometry"), here),
        color=color or color_of(properties.get("color")),
        name=str(properties.get("name") or ""),
        locked=properties.get("isLocked") is True,
        notes=notes,
    )


def _nucleus(value: Any, here: Affine) -> BaseGeometry | None:
    if value is None:
        return None
    shapes, reasons = _outlines([value])
    if shapes[0] is None:
        raise DataError(f"nucleusGeometry: {reasons[0]}; expected a geometry as GeoJSON has it")
    found: BaseGeometry = moved(shapes, here)[0]
    return found


def _class(value: Any) -> tuple[str, tuple[int, int, int] | None]:
    if value is None or isinstance(value, str):
        return (value or "", None)
    if not isinstance(value, dict):
        raise DataError(f"classification is {value!r}; expected an object with a name")
    names = value.get("names")  # a class with sub-classes, e.g. Tumor: Positive
    label = ": ".join(map(str, names)) if isinstance(names, list) else value.get("name")
    return (str(label or ""), color_of(value.get("color", value.get("colorRGB"))))


def _measurements(value: Any) -> dict[str, float]:
    """QuPath writes an object since 0.4, and wrote a list of names and values before."""
    if value is None:
        return {}
    if isinstance(value, list):
        if not all(isinstance(item, dict) and "name" in item for item in value):
            raise DataError(f"measurements are {str(value)[:60]}; expected names and values")
        return checked_numbers({item["name"]: item.get("value") for item in value})
    if not isinstance(value, dict):
        raise DataError(f"measurements are {value!r}; expected an object or a list")
    return checked_numbers(value)


def _outlines(values: Sequence[Any]) -> tuple[Geometries, list[str]]:
    """Geometries (None where there is none) and what was wrong with each.

    Polygons, which nearly all of them are, are built together; where that fails, each by itself.
    """
    together = [index for index, value in enumerate(values) if _is_polygon(value)]
    shapes = np.full(len(values), None, dtype=object)
    reasons = [""] * len(values)
    alone = set(range(len(values)))
    try:
        shapes[together] = _polygons([values[index]["coordinates"] for index in together])
        alone -= set(together)
    except (ValueError, TypeError, shapely.errors.ShapelyError):
        pass  # one of them is bad; below it is found out which
    for index in sorted(alone):
        try:
            shapes[index] = _single(values[index])
        except DataError as error:
            reasons[index] = str(error)
    good = [index for index, found in enumerate(shapes) if found is not None]
    shapes[good], mended = mend(shapes[good])
    for index, reason in zip(good, mended, strict=True):
        reasons[index] = reason
    return shapes, reasons


def _is_polygon(value: Any) -> bool:
    return isinstance(value, dict) and value.get("type") == "Polygon" and bool(value.get("coordinates"))


def _polygons(outlines: list[Any]) -> Geometries:
    """Polygons of lists of rings of (x, y).

    Raises:
        ValueError, TypeError, GEOSException: one is not such a list.
    """
    if not outlines:
        return np.empty(0, dtype=object)
    rings = list(chain.from_iterable(outlines))
    points = np.array(list(chain.from_iterable(rings)), dtype=float)
    if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise ValueError
    owner_of_point = np.repeat(np.arange(len(rings)), [len(ring) for ring in rings])
    linear = shapely.linearrings(points, indices=owner_of_point)
    counts = np.array([len(outline) for outline in outlines])
    inner = np.ones(len(rings), dtype=bool)
    inner[np.cumsum(counts) - counts] = False
    holder = np.repeat(np.arange(len(outlines)), counts)[inner]
    return np.asarray(shapely.polygons(linear[~inner], holes=linear[inner], indices=holder), dtype=object)


def _single(value: Any) -> BaseGeometry:
    if not isinstance(value, dict):
        raise DataError(f"geometry is {value!r}")
    try:
        found: BaseGeometry = shape(value)
    except (
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        shapely.errors.ShapelyError,
    ) as error:
        raise DataError(f"geometry of type {value.get('type')!r} cannot be built ({error})") from error
    if not np.isfinite(shapely.get_coordinates(found)).all():
        raise DataError("a coordinate is not finite")
    return found
