"""DICOM Microscopy Bulk Simple Annotations: thousands of cells in one object.

Coordinates are image coordinates relative to the total pixel matrix: (0, 0) is the upper left corner of the
upper left pixel, as here. They are float32 where that keeps them within 0.005 px, else float64. Measurements
are float32, as the standard has it.

Groups hold one label, kind, colour and type of graphic each. Holes are cut in through a seam; what has
several parts becomes several annotations.

Source: DICOM PS3.3 A.87 and C.37.1 (annotations), C.10.5 (the corner convention), through highdicom.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import highdicom
import numpy as np
import shapely
from highdicom.ann import (
    AnnotationGroup,
    Measurements,
    MicroscopyBulkSimpleAnnotations,
)
from highdicom.color import CIELabColor
from highdicom.sr.coding import CodedConcept
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError
from pydicom.uid import generate_uid
from shapely.geometry.base import BaseGeometry

from malpighi.durable import mending, replacing
from malpighi.errors import DataError
from malpighi.geometry import Affine
from malpighi.records import Failure
from malpighi.slides.annotations import (
    UNLABELLED,
    Annotation,
    Found,
    Geometries,
    Kind,
    Tally,
    Written,
    is_box,
    mend,
    moved,
    parts,
    seamed,
)
from malpighi.slides.exchange.dicom_codes import (
    NO_UNITS,
    PROBABILITY,
    measured,
    plain,
    property_of,
)
from malpighi.slides.exchange.dicom_source import level_affine, same_maker, source_image
from malpighi.slides.slide import Slide

SINGLE_PRECISION = 0.005
"""By how many px float32 may be off before float64 is taken."""

_ELLIPSE_ERROR = 0.1  # px, of a polygon in place of an ellipse
_BY_HAND = (Kind.ANNOTATION, Kind.TILE, Kind.CORE)


class _Graphic(NamedTuple):
    """One simple shape of an annotation.

    Attributes:
        points: its coordinates (M x 2), px.
        mark: the annotation that it is a part of.
    """

    points: NDArray[np.float64]
    mark: Annotation


class _GroupKey(NamedTuple):
    """What the annotations of a group have in common."""

    label: str
    kind: Kind
    color: tuple[int, int, int] | None
    graphic: str


def write_dicom_annotations(
    path: Path, annotations: Iterable[Annotation], slide: Slide, algorithm: str = ""
) -> Written:
    """Write a Microscopy Bulk Simple Annotations object.

    Args:
        path: the `.dcm` file; appears whole or not at all.
        annotations: level-0 px of `slide`.
        slide: what they are on; a DICOM slide is referred to, another one described (`dicom_source`).
        algorithm: what made those that have a score or are detections or cells; "" for not stated.

    Raises:
        DataError: there is no annotation; DICOM has no empty group.
    """
    tally = Tally()
    grouped = _grouped(annotations, tally)
    if not grouped:
        raise DataError(f"{path}: no annotation to write; a DICOM annotation object holds one or more")
    groups = [
        _group(number, key, graphics, algorithm, tally)
        for number, (key, graphics) in enumerate(grouped.items(), 1)
    ]
    source = source_image(slide)
    whole = MicroscopyBulkSimpleAnnotations(
        source_images=[source],
        annotation_coordinate_type="2D",
        annotation_groups=groups,
        series_instance_uid=generate_uid(),
        series_number=100,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        content_label="ANNOTATIONS",
        content_description=plain(source.get("SeriesDescription") or "Annotations"),
        **same_maker(),
    )
    with mending(path.parent), replacing(path) as file:
        whole.save_as(file, enforce_file_format=True)
    return Written(path, sum(len(graphics) for graphics in grouped.values()), tally.notes)


def read_dicom_annotations(path: Path, slide: Slide | None = None) -> Found:
    """All annotations of a Microscopy Bulk Simple Annotations object, in level-0 px.

    Args:
        path: the `.dcm` file.
        slide: what they are on: annotations on one of its coarser levels are brought to level 0. Without it
            they are taken to be on level 0.

    Raises:
        DataError: no such object, one in millimetres of the glass, or one on another slide.
    """
    whole = _load(path)
    if whole.AnnotationCoordinateType != "2D":
        raise DataError(
            f"{path}: coordinates are {whole.AnnotationCoordinateType}, in millimetres on the glass; only "
            "those in px of the image (2D) are read: have them exported so"
        )
    here = _affine(path, whole, slide)
    annotations: list[Annotation] = []
    failures: list[Failure] = []
    tally = Tally()
    for number, group in enumerate(whole.AnnotationGroupSequence, 1):
        place = f"{path.name}#group {number}"
        try:
            for found in _annotations(place, group, here, tally):
                if isinstance(found, Failure):
                    failures.append(found)
                else:
                    annotations.append(found)
        except (DataError, ValueError, TypeError, IndexError, KeyError, AttributeError) as error:
            failures.append(Failure(place, "read", f"the group cannot be read: {error}"))
    return Found(annotations, tuple(failures), tally.notes)


def _grouped(annotations: Iterable[Annotation], tally: Tally) -> dict[_GroupKey, list[_Graphic]]:
    grouped: dict[_GroupKey, list[_Graphic]] = defaultdict(list)
    for mark in annotations:
        pieces = parts(mark.geometry)
        tally.add("annotation of several parts split", len(pieces) > 1)
        tally.add("id, name or lock left out", bool(mark.id or mark.name or mark.locked))
        tally.add("outline of a nucleus left out", mark.nucleus is not None)
        for piece in pieces:
            graphic, points = _graphic(piece, tally)
            grouped[_GroupKey(mark.label, mark.kind, mark.color, graphic)].append(_Graphic(points, mark))
    return grouped


def _graphic(piece: BaseGeometry, tally: Tally) -> tuple[str, NDArray[np.float64]]:
    """DICOM's type of a simple geometry, and its points."""
    if piece.geom_type == "Polygon":
        if is_box(np.array([piece], dtype=object))[0]:
            x0, y0, x1, y1 = piece.bounds
            return "RECTANGLE", np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
        tally.add("hole cut in through a seam: DICOM annotations have none", len(piece.interiors))
        return "POLYGON", seamed(piece)[:-1] if piece.interiors else shapely.get_coordinates(piece)[:-1]
    kind = "POINT" if piece.geom_type == "Point" else "POLYLINE"
    return kind, shapely.get_coordinates(piece)


def _group(
    number: int, key: _GroupKey, graphics: Sequence[_Graphic], algorithm: str, tally: Tally
) -> AnnotationGroup:
    label = key.label or UNLABELLED
    codes = property_of(label)
    points = [graphic.points for graphic in graphics]
    single = [array.astype(np.float32) for array in points]
    error = np.abs(np.concatenate(points) - np.concatenate(single)).max()
    manual = key.kind in _BY_HAND and not any(graphic.mark.score is not None for graphic in graphics)
    maker = highdicom.AlgorithmIdentificationSequence(
        name=plain(algorithm) if algorithm else "not stated",
        family=CodedConcept("123109", "DCM", "Manual Processing")
        if manual
        else CodedConcept("123110", "DCM", "Artificial Intelligence"),
        version="not stated",
    )
    told = f"kind: {key.kind.value}"
    if plain(label) != label:
        told += f"\nlabel: {json.dumps(label)}"
    return AnnotationGroup(
        number=number,
        uid=generate_uid(),
        label=plain(label),
        annotated_property_category=CodedConcept.from_code(codes.category),
        annotated_property_type=CodedConcept.from_code(codes.type),
        graphic_type=key.graphic,
        graphic_data=points if error > SINGLE_PRECISION else single,
        algorithm_type="MANUAL" if manual else "AUTOMATIC",
        algorithm_identification=None if manual else maker,
        measurements=_measurements([graphic.mark for graphic in graphics], tally) or None,
        description=told,
        display_color=CIELabColor.from_rgb(*key.color) if key.color else None,
    )


def _measurements(marks: Sequence[Annotation], tally: Tally) -> list[Measurements]:
    found = []
    scores = np.array([np.nan if mark.score is None else mark.score for mark in marks])
    if np.isfinite(scores).any():
        unit = CodedConcept.from_code(NO_UNITS)
        found.append(Measurements(CodedConcept.from_code(PROBABILITY), scores, unit))
    for name in dict.fromkeys(name for mark in marks for name in mark.measurements):
        values = np.array([mark.measurements.get(name, np.nan) for mark in marks], dtype=float)
        usable = np.isfinite(values) & (np.abs(values) <= np.finfo(np.float32).max)
        lost = sum(name in mark.measurements for mark in marks) - int(usable.sum())
        tally.add("measurement that is not a finite float32 left out", lost)
        tally.add("name of a measurement cut or cleaned", plain(name) != name)
        if usable.any():
            found.append(Measurements(measured(name)[0], np.where(usable, values, np.nan), measured(name)[1]))
    return found


def _load(path: Path) -> MicroscopyBulkSimpleAnnotations:
    try:
        return highdicom.ann.annread(path)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; check the path") from error
    except (InvalidDicomError, ValueError, AttributeError, KeyError, EOFError) as error:
        raise DataError(f"{path} is no DICOM annotation object (ANN): {error}") from error


def _affine(path: Path, whole: Any, slide: Slide | None) -> Affine:
    if slide is None:
        return Affine(1.0, 1.0, 0.0, 0.0)
    referred = [item.ReferencedSOPInstanceUID for item in whole.get("ReferencedImageSequence") or ()]
    found = next(filter(None, (level_affine(slide, uid) for uid in referred)), None)
    if found is None:
        raise DataError(
            f"{path} refers to the image {', '.join(referred) or '(none)'}, which is no level of "
            f"{slide.path}; give the slide that was annotated, or none to take coordinates as level-0 px"
        )
    return found


def _annotations(
    place: str, group: AnnotationGroup, here: Affine, tally: Tally
) -> Iterator[Annotation | Failure]:
    told = str(group.get("AnnotationGroupDescription", ""))
    label, kind = _told(told, group.label)
    color = _color(group.get("RecommendedDisplayCIELabValue"))
    shapes, reasons = _geometries(group, tally)
    placed = [index for index, shape in enumerate(shapes) if shape is not None]
    shapes[placed] = moved(shapes[placed], here)
    names, values, _ = group.get_measurements()
    columns = [concept.meaning for concept in names]
    score = next((at for at, concept in enumerate(names) if concept.value == PROBABILITY.value), None)
    for index, (shape, reason) in enumerate(zip(shapes, reasons, strict=True)):
        if shape is None:
            yield Failure(f"{place}, annotation {index + 1}", "read", f"{group.GraphicType}: {reason}")
            continue
        tally.add("outline mended", bool(reason))
        row = values[index].tolist()
        given = None if score is None or np.isnan(row[score]) else row[score]
        numbers = {
            name: number
            for at, (name, number) in enumerate(zip(columns, row, strict=True))
            if at != score and not np.isnan(number)
        }
        yield Annotation(
            geometry=shape,
            label=label,
            score=given,
            measurements=numbers,
            kind=kind,
            color=color,
            notes=(reason,) if reason else (),
        )


def _told(description: str, label: str) -> tuple[str, Kind]:
    kind = Kind.ANNOTATION
    for line in description.splitlines():
        name, _, value = line.partition(": ")
        if name == "kind" and value in [known.value for known in Kind]:
            kind = Kind(value)
        elif name == "label":
            try:
                label = str(json.loads(value))
            except ValueError:
                continue
    return ("" if label == UNLABELLED else label), kind


def _color(lab: Any) -> tuple[int, int, int] | None:
    if not lab:
        return None
    found = CIELabColor.from_dicom_value(tuple(int(value) for value in lab)).to_rgb()
    return (int(found[0]), int(found[1]), int(found[2]))


def _geometries(group: AnnotationGroup, tally: Tally) -> tuple[Geometries, list[str]]:
    graphics = group.get_graphic_data("2D")
    if len(graphics) != group.number_of_annotations:
        raise DataError(f"{len(graphics)} graphics; the group says {group.number_of_annotations}")
    shapes = np.full(len(graphics), None, dtype=object)
    reasons = [""] * len(graphics)
    for index, points in enumerate(graphics):
        if not np.isfinite(points).all():
            reasons[index] = "a coordinate is not finite"
        elif len(points) < _LEAST.get(group.GraphicType, 1):
            reasons[index] = f"{len(points)} points; expected {_LEAST[group.GraphicType]} or more"
        else:
            shapes[index] = _shape(group.GraphicType, points.astype(np.float64))
    tally.add("ellipse kept as its outline", len(graphics) if group.GraphicType == "ELLIPSE" else 0)
    good = [index for index, shape in enumerate(shapes) if shape is not None]
    shapes[good], mended = mend(shapes[good])
    for index, reason in zip(good, mended, strict=True):
        reasons[index] = reason
    return shapes, reasons


_LEAST = {"POINT": 1, "POLYLINE": 2, "POLYGON": 3, "RECTANGLE": 4, "ELLIPSE": 4}


def _shape(graphic: str, points_M2: NDArray[np.float64]) -> BaseGeometry:
    if graphic == "POINT":
        return shapely.Point(points_M2[0])
    if graphic == "POLYLINE":
        return shapely.LineString(points_M2)
    return shapely.Polygon(_ellipse(points_M2) if graphic == "ELLIPSE" else points_M2)


def _ellipse(ends_42: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points around an ellipse given by the ends of its two axes."""
    middle = ends_42.mean(axis=0)
    major, minor = (ends_42[1] - ends_42[0]) / 2, (ends_42[3] - ends_42[2]) / 2
    radius = max(np.hypot(*major), np.hypot(*minor), _ELLIPSE_ERROR)
    count = max(16, int(np.ceil(np.pi / np.arccos(max(1 - _ELLIPSE_ERROR / radius, 0.0)))))
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False)[:, None]
    found: NDArray[np.float64] = middle + np.cos(angles) * major + np.sin(angles) * minor
    return found
