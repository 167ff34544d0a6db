"""What somebody or something marked on a slide: points, boxes and outlines in level-0 px.

Positions are in the continuous plane of level 0: the upper left corner of the first pixel is (0, 0), its
middle (0.5, 0.5).

Shape legend: N = annotations, arrays of shapely geometries.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from malpighi.errors import DataError
from malpighi.geometry import Affine, Box, Frame
from malpighi.records import Failure

Geometries = NDArray[np.object_]

UNLABELLED = "unlabelled"
"""The class, in formats that need one, of annotations that have none; read back it is none again."""

_AREAL = (3, 6)  # shapely's type ids: Polygon, MultiPolygon
_LINE, _COLLECTION = (1, 2, 5), 7
_SEAM_TOLERANCE = 1e-9  # of the area


class Kind(StrEnum):
    """What an annotation stands for; the values are QuPath's."""

    ANNOTATION = "annotation"
    DETECTION = "detection"
    CELL = "cell"
    TILE = "tile"
    CORE = "tmaCore"


class Annotation(msgspec.Struct, frozen=True, kw_only=True):
    """One mark on a slide.

    Attributes:
        geometry: shapely point, line, polygon (with holes) or several of them, level-0 px.
        label: its class; "" where it has none.
        score: 0 to 1; None where there is none.
        measurements: named numbers; NaN where one was not measurable.
        id: as the source names it; "" where it does not.
        kind: what it stands for.
        nucleus: outline of the nucleus of a cell, level-0 px; None where not known.
        color: red, green, blue, 0 to 255; None where the source gives none.
        name: of this one, not of its class.
        locked: whether a viewer should keep it from being changed.
        notes: what was mended while it was read.
    """

    geometry: BaseGeometry
    label: str = ""
    score: float | None = None
    measurements: dict[str, float] = {}
    id: str = ""
    kind: Kind = Kind.ANNOTATION
    nucleus: BaseGeometry | None = None
    color: tuple[int, int, int] | None = None
    name: str = ""
    locked: bool = False
    notes: tuple[str, ...] = ()

    @property
    def bounds(self) -> Box:
        """The smallest upright box around it, level-0 px."""
        x0, y0, x1, y1 = self.geometry.bounds
        return Box(x0, y0, x1, y1, Frame.SLIDE)

    @property
    def is_box(self) -> bool:
        """Whether the geometry is an upright rectangle."""
        return bool(is_box(np.array([self.geometry], dtype=object))[0])


class Found(msgspec.Struct, frozen=True):
    """What a file held.

    Attributes:
        annotations: in the order of the file.
        failures: features that could not be used, each with its place.
        notes: what was mended or could not be kept, with counts.
    """

    annotations: list[Annotation]
    failures: tuple[Failure, ...] = ()
    notes: tuple[str, ...] = ()


class Written(msgspec.Struct, frozen=True):
    """What went into a file.

    Attributes:
        path: the file or folder.
        count: annotations in it.
        notes: what the format could not hold, with counts; nothing is lost without a line here.
    """

    path: Path
    count: int
    notes: tuple[str, ...] = ()


class Tally:
    """Counts how often something happened, for notes."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def add(self, what: str, times: int = 1) -> None:
        """Count `what`; nothing is noted of what happened zero times."""
        if times:
            self._counts[what] += times

    @property
    def notes(self) -> tuple[str, ...]:
        """One line for each thing counted, e.g. `3 x hole left out`."""
        return tuple(f"{count} x {what}" for what, count in self._counts.items())


def annotation_of(box: Box, **facts: Any) -> Annotation:
    """An annotation that is a box.

    Args:
        box: level-0 px.
        facts: the other fields of `Annotation`.

    Raises:
        DataError: the box is in another frame, or has no extent.

    Example:
        >>> annotation_of(Box(0, 0, 4, 2, Frame.SLIDE), label="cell").geometry.area
        8.0
    """
    if box.frame is not Frame.SLIDE or box.area <= 0:
        raise DataError(f"{box} is no box with an extent in level-0 px; convert it with its View first")
    return Annotation(geometry=shapely.box(*box.corners), **facts)


def geometries(annotations: Iterable[Annotation]) -> Geometries:
    """geometries_N of the annotations, for shapely's vectorised functions."""
    found = [annotation.geometry for annotation in annotations]
    array = np.empty(len(found), dtype=object)
    array[:] = found
    return array


def moved(geometries_N: Geometries, affine: Affine, decimals: int | None = None) -> Geometries:
    """The geometries in another frame, without z; rounded where `decimals` says so."""
    scale, shift = np.array(affine[:2]), np.array(affine[2:])

    def move(xy_M2: NDArray[np.float64]) -> NDArray[np.float64]:
        there: NDArray[np.float64] = xy_M2 * scale + shift
        return there if decimals is None else np.round(there, decimals)

    return np.asarray(shapely.transform(shapely.force_2d(geometries_N), move), dtype=object)


def is_box(geometries_N: Geometries) -> NDArray[np.bool_]:
    """Which geometries are upright rectangles."""
    areal: NDArray[np.bool_] = (shapely.get_type_id(geometries_N) == _AREAL[0]) & (
        shapely.get_num_coordinates(geometries_N) == 5
    )
    boxes = shapely.envelope(geometries_N)
    return np.asarray(areal & (shapely.area(geometries_N) > 0) & shapely.equals(geometries_N, boxes))


def is_areal(geometries_N: Geometries) -> NDArray[np.bool_]:
    """Which geometries are polygons."""
    return np.isin(shapely.get_type_id(geometries_N), _AREAL)


def mend(geometries_N: Geometries) -> tuple[Geometries, list[str]]:
    """Usable geometries, and what was wrong with each ("" where nothing was).

    A crossing outline is mended by shapely's `make_valid`; a hole that was cut in through a seam (how formats
    without holes write one) is opened again and is nothing wrong.

    Returns:
        geometries_N (None where nothing usable is left), reasons of length N.
    """
    reasons = [""] * len(geometries_N)
    fixed = geometries_N.copy()
    for index in np.flatnonzero(shapely.is_empty(geometries_N)):
        fixed[index], reasons[index] = None, "the geometry is empty"
    for index in np.flatnonzero(~shapely.is_valid(geometries_N)):
        fixed[index], reasons[index] = _mended(geometries_N[index])
    return fixed, reasons


def seamed(polygon: shapely.Polygon) -> NDArray[np.float64]:
    """One closed ring that runs into each hole and out again by the same way, for formats without holes.

    Returns:
        ring_M2: (x, y), first point repeated at the end.
    """
    turned = shapely.orient_polygons(polygon)  # holes run against the outline: their area is taken away
    ring: NDArray[np.float64] = shapely.get_coordinates(turned.exterior)
    for interior in sorted(turned.interiors, key=lambda hole: hole.bounds):
        ring = _spliced(ring, shapely.get_coordinates(interior), polygon)
    return ring


def parts(geometry: BaseGeometry) -> list[BaseGeometry]:
    """The single points, lines and polygons that a geometry is made of."""
    if hasattr(geometry, "geoms"):
        return [part for piece in geometry.geoms for part in parts(piece)]
    return [geometry]


def checked_numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Measurements as floats; null is NaN.

    Raises:
        DataError: a value that is no number.
    """
    numbers = {}
    for name, value in values.items():
        try:
            numbers[str(name)] = float("nan") if value is None else float(value)
        except (TypeError, ValueError) as error:
            raise DataError(f"measurement {name!r} is {value!r}; expected a number") from error
    return numbers


def outside(geometries_N: Geometries, size: Sequence[float]) -> int:
    """How many geometries reach over the edge of a slide of (width, height) px by more than one px."""
    bounds_N4 = shapely.bounds(geometries_N)
    low, high = bounds_N4[:, :2] < -1, bounds_N4[:, 2:] > np.array(size, dtype=float) + 1
    return int((low | high).any(axis=1).sum())


def _mended(geometry: BaseGeometry) -> tuple[BaseGeometry | None, str]:
    reason = shapely.is_valid_reason(geometry)
    whole = shapely.make_valid(geometry, method="structure", keep_collapsed=False)
    if is_areal(np.array([geometry], dtype=object))[0]:
        if not whole.area:
            return None, f"the outline encloses no area ({reason})"
        if abs(whole.area - geometry.area) <= _SEAM_TOLERANCE * max(geometry.area, 1) and _has_hole(whole):
            return whole, ""
    if whole.is_empty:
        return None, f"nothing is left of it ({reason})"
    return whole, f"mended: {reason}"


def _has_hole(geometry: BaseGeometry) -> bool:
    return any(len(part.interiors) for part in parts(geometry) if isinstance(part, shapely.Polygon))


def _spliced(
    ring_M2: NDArray[np.float64], hole_K2: NDArray[np.float64], polygon: shapely.Polygon
) -> NDArray[np.float64]:
    """The ring with a hole joined by the shortest straight seam that stays inside of the polygon."""
    start = int(np.argmin(hole_K2[:-1, 0]))
    distances = np.hypot(*(ring_M2[:-1] - hole_K2[start]).T)
    order = np.argsort(distances, kind="stable")
    seams = shapely.linestrings(np.stack([ring_M2[order], np.tile(hole_K2[start], (len(order), 1))], axis=1))
    clear = shapely.covers(polygon, seams)
    at = int(order[int(np.argmax(clear))])  # the nearest one where none is clear: still within the box
    turned = np.concatenate([hole_K2[start:-1], hole_K2[: start + 1]])
    return np.concatenate([ring_M2[: at + 1], turned, ring_M2[at:]])
