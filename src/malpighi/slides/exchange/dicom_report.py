"""DICOM structured reports of measurements (TID 1500): how many and how large, and single regions.

For each label there is one group with the count, the summed area and the mean score. The largest outlines
follow as planar regions with their own measurements; thousands of cells belong into annotations
(`dicom_annotations`).

Source: DICOM PS3.16 TID 1500, 1501 and 1410, through highdicom. Coordinates as in `dicom_annotations`, but
always float32: at 200k px they are 0.008 px off.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from highdicom import sr
from highdicom.sr.coding import CodedConcept
from pydicom.errors import InvalidDicomError
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid

from malpighi.durable import mending, replacing
from malpighi.errors import DataError
from malpighi.geometry import to_square_microns
from malpighi.records import Failure
from malpighi.slides.annotations import (
    UNLABELLED,
    Annotation,
    Found,
    Tally,
    Written,
    is_areal,
    mend,
    parts,
    seamed,
)
from malpighi.slides.exchange.dicom_codes import (
    AREA,
    NO_UNITS,
    PIXELS,
    PROBABILITY,
    SQUARE_MICROMETRE,
    measured,
    plain,
    private,
    property_of,
)
from malpighi.slides.exchange.dicom_source import MAKER, same_maker, source_image
from malpighi.slides.slide import Slide

COUNT = private("Number of annotations")
_TITLE = Code("126000", "DCM", "Imaging Measurement Report")
_PROCEDURE = Code("112703", "DCM", "Whole Slide Imaging")
_DEVICE = Code("121007", "DCM", "Device")


def write_dicom_report(
    path: Path, annotations: Iterable[Annotation], slide: Slide, regions: int = 100
) -> Written:
    """Write a measurement report.

    Args:
        path: the `.dcm` file; appears whole or not at all.
        annotations: level-0 px of `slide`.
        slide: what they are on; areas are in square micrometres where it states a scale, else in px.
        regions: how many outlines, largest first, are written one by one.

    Raises:
        DataError: there is no annotation.
    """
    marks = list(annotations)
    if not marks:
        raise DataError(f"{path}: no annotation to report on")
    tally, source = Tally(), source_image(slide)
    outlined = sorted(
        (mark for mark in marks if is_areal(np.array([mark.geometry], dtype=object))[0]),
        key=lambda mark: -mark.geometry.area,
    )
    shown = outlined[:regions]
    tally.add("annotation only counted, not shown by itself", len(marks) - len(shown))
    groups: list[Any] = _summaries(marks, slide)
    for mark in shown:
        groups += _regions(mark, slide, source, tally)
    report = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=_observer()),
        procedure_reported=_concept(_PROCEDURE),
        imaging_measurements=groups,
        title=_concept(_TITLE),
        referenced_images=None,
    )
    whole = sr.ComprehensiveSR(
        evidence=[source],
        content=report,
        series_instance_uid=generate_uid(),
        series_number=102,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        series_description=plain(source.get("SeriesDescription") or "Measurements"),
        **same_maker(),
    )
    with mending(path.parent), replacing(path) as file:
        whole.save_as(file, enforce_file_format=True)
    return Written(path, len(shown), tally.notes)


def read_dicom_report(path: Path) -> Found:
    """The regions of a measurement report, in px of the image that it refers to; counts are in the notes.

    Raises:
        DataError: no such report.
    """
    try:
        content: Any = sr.srread(path).content
        groups = content.get_planar_roi_measurement_groups()
        summaries = content.get_image_measurement_groups()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; check the path") from error
    except (InvalidDicomError, ValueError, TypeError, AttributeError, KeyError, EOFError) as error:
        raise DataError(f"{path} is no DICOM measurement report (TID 1500): {error}") from error
    annotations, failures = [], []
    for number, group in enumerate(groups, 1):
        try:
            annotations.append(_annotation(group))
        except (DataError, ValueError, TypeError, AttributeError) as error:
            failures.append(Failure(f"{path.name}#region {number}", "read", str(error)))
    return Found(annotations, tuple(failures), tuple(map(_note, summaries)))


def _summaries(marks: Sequence[Annotation], slide: Slide) -> list[Any]:
    by_label: dict[str, list[Annotation]] = defaultdict(list)
    for mark in marks:
        by_label[mark.label or UNLABELLED].append(mark)
    return [
        sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=_tracking(label),
            finding_type=_concept(property_of(label).type),
            finding_category=_concept(property_of(label).category),
            measurements=_sums(group, slide),
        )
        for label, group in sorted(by_label.items())
    ]


def _sums(group: Sequence[Annotation], slide: Slide) -> list[Any]:
    found = [_measurement(COUNT, len(group), NO_UNITS), _area(sum(m.geometry.area for m in group), slide)]
    scores = [mark.score for mark in group if mark.score is not None]
    if scores:
        found.append(_measurement(PROBABILITY, sum(scores) / len(scores), NO_UNITS))
    return found


def _regions(mark: Annotation, slide: Slide, source: Any, tally: Tally) -> list[Any]:
    label = mark.label or UNLABELLED
    numbers = []
    for name, number in mark.measurements.items():
        if math.isfinite(number):
            numbers.append(sr.Measurement(measured(name)[0], number, measured(name)[1]))
        else:
            tally.add("measurement that is not finite left out")
    if mark.score is not None:
        numbers.append(_measurement(PROBABILITY, mark.score, NO_UNITS))
    pieces = parts(mark.geometry)
    tally.add("outline of several parts split", len(pieces) > 1)
    tally.add("hole cut in through a seam", sum(len(piece.interiors) for piece in pieces))
    return [
        sr.PlanarROIMeasurementsAndQualitativeEvaluations(
            tracking_identifier=_tracking(mark.id or label),
            referenced_region=sr.ImageRegion(
                graphic_type="POLYLINE",
                graphic_data=seamed(piece),
                source_image=sr.SourceImageForRegion.from_source_image(source),
                pixel_origin_interpretation="VOLUME",
            ),
            finding_type=_concept(property_of(label).type),
            finding_category=_concept(property_of(label).category),
            measurements=[_area(piece.area, slide), *numbers],
        )
        for piece in pieces
    ]


def _area(square_pixels: float, slide: Slide) -> Any:
    if slide.mpp is None:
        return _measurement(AREA, square_pixels, PIXELS)
    return _measurement(AREA, to_square_microns(square_pixels, slide.mpp), SQUARE_MICROMETRE)


def _measurement(name: Code, value: float, unit: Code) -> Any:
    return sr.Measurement(_concept(name), float(f"{value:.9g}"), _concept(unit))


def _tracking(identifier: str) -> Any:
    return sr.TrackingIdentifier(uid=generate_uid(), identifier=plain(identifier))


def _observer() -> Any:
    return sr.ObserverContext(
        observer_type=_concept(_DEVICE),
        observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
            uid=generate_uid(entropy_srcs=[MAKER]), manufacturer_name=MAKER, model_name=MAKER
        ),
    )


def _concept(code: Code) -> CodedConcept:
    return CodedConcept.from_code(code)


def _annotation(group: Any) -> Annotation:
    region = group.roi
    if not isinstance(region, sr.ImageRegion):
        raise DataError(f"the region is a {type(region).__name__}; expected an outline in px of the image")
    kind = region.graphic_type.value
    points = np.asarray(region.value, dtype=float)
    if kind != "POLYLINE" or len(points) < 4:
        raise DataError(f"the region is a {kind} of {len(points)} points; expected a closed POLYLINE")
    (shape,), (reason,) = mend(np.array([shapely.Polygon(points)], dtype=object))
    if shape is None:
        raise DataError(f"region: {reason}")
    numbers = {one.name.meaning: float(one.value) for one in group.get_measurements()}
    score = numbers.pop(PROBABILITY.meaning, None)
    label = group.finding_type.meaning if group.finding_type is not None else UNLABELLED
    return Annotation(
        geometry=shape,
        label="" if label == UNLABELLED else label,
        score=score,
        measurements=numbers,
        notes=(reason,) if reason else (),
    )


def _note(group: Any) -> str:
    label = group.finding_type.meaning if group.finding_type is not None else UNLABELLED
    told = ", ".join(f"{one.name.meaning} {one.value:g}" for one in group.get_measurements())
    return f"{label}: {told}"
