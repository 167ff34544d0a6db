"""DICOM Segmentation: masks of the whole slide, tiled, at the slide's resolution or a coarser one.

Shape legend: H x W = rows x columns of a mask, S = segments.
"""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import highdicom
import msgspec
import numpy as np
import shapely
from highdicom.color import CIELabColor
from highdicom.seg import Segmentation, SegmentDescription
from highdicom.sr.coding import CodedConcept
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import ExplicitVRLittleEndian, RLELossless, generate_uid

from malpighi.durable import mending, replacing
from malpighi.errors import DataError
from malpighi.geometry import Affine, Region, Size, View, coarser, shrinkage, to_microns
from malpighi.slides.annotations import (
    UNLABELLED,
    Annotation,
    Tally,
    Written,
    geometries,
    is_areal,
    moved,
)
from malpighi.slides.exchange.dicom_codes import plain, property_of
from malpighi.slides.exchange.dicom_source import same_maker, source_image
from malpighi.slides.exchange.rasters import paint
from malpighi.slides.slide import Slide

TILE = 512
_MOST_PIXELS = 16_000_000  # of one mask: what is held in memory
_FRACTIONS = 255


class Masks(msgspec.Struct, frozen=True):
    """Masks of one slide.

    Attributes:
        labels: name of each segment.
        masks: by segment (H x W): bool, or float32 from 0 to 1.
        mpp: micrometres per px.
        view: which part of the slide they show, where the slide is known.
    """

    labels: tuple[str, ...]
    masks: tuple[Any, ...]
    mpp: float
    view: View | None = None


def fitting_step(size: Size) -> int:
    """The least power of two by which a slide must shrink so that its masks fit into memory.

    Example:
        >>> fitting_step((100_000, 80_000))
        32
    """
    return int(2 ** math.ceil(math.log2(max(math.sqrt(size[0] * size[1] / _MOST_PIXELS), 1))))


def draw_masks(
    annotations: Iterable[Annotation], size: Size, step: int
) -> tuple[dict[str, NDArray[np.bool_]], tuple[str, ...]]:
    """One mask for each label, of a slide of `size` level-0 px shrunk by `step`.

    Returns:
        masks_HW by label, and notes on what has no area and so is on no mask.
    """
    tally = Tally()
    marks = list(annotations)
    shapes = moved(geometries(marks), Affine(1 / step, 1 / step, 0.0, 0.0))
    areal = is_areal(shapes)
    tally.add("annotation without an area left out", int((~areal).sum()))
    tally.add("score, measurements, id or name left out", sum(_has_more(mark) for mark in marks))
    shape = (-(-size[1] // step), -(-size[0] // step))
    masks: dict[str, NDArray[np.bool_]] = {}
    for label in sorted({mark.label for mark, good in zip(marks, areal, strict=True) if good}):
        mine = np.array([mark.label == label for mark in marks]) & areal
        masks[label] = np.zeros(shape, dtype=bool)
        paint(masks[label], shapes[mine], np.ones(int(mine.sum()), dtype=bool))
        small = int((shapely.area(shapes[mine]) < 1).sum())
        tally.add(f"outline smaller than a px of the mask (step {step})", small)
    return masks, tally.notes


def write_dicom_segmentation(
    path: Path, masks: Mapping[str, NDArray[Any]], step: int, slide: Slide, algorithm: str = ""
) -> Written:
    """Write masks as a tiled Segmentation.

    Args:
        path: the `.dcm` file; appears whole or not at all.
        masks: by label (H x W): bool, or float 0 to 1 (all alike) for a fractional segmentation.
        step: level-0 px per px of a mask.
        slide: what they are of; its scale is needed.
        algorithm: what made them; "" for not stated, and then they are said to be made by hand.

    Raises:
        DataError: no mask, or one that is not of the slide's size at that step.
        MissingScaleError: the slide states no scale.
    """
    expected = (-(-slide.size[1] // step), -(-slide.size[0] // step))
    for label, mask in masks.items():
        if mask.shape != expected:
            raise DataError(f"mask {label!r} is {mask.shape}; the slide at step {step} is {expected}")
    if not masks or not any(np.any(mask) for mask in masks.values()):
        raise DataError(f"{path}: the masks are empty; a DICOM segmentation holds at least one px")
    source, tally = source_image(slide), Tally()
    _complete(source, tally)
    fractional = any(mask.dtype.kind == "f" for mask in masks.values())
    stack = np.stack(list(masks.values()), axis=-1)[None]
    whole = Segmentation(
        source_images=[source],
        pixel_array=stack if fractional else stack.astype(np.uint8),
        segmentation_type="FRACTIONAL" if fractional else "BINARY",
        max_fractional_value=_FRACTIONS,
        segment_descriptions=[_segment(number, label, algorithm) for number, label in enumerate(masks, 1)],
        series_instance_uid=generate_uid(),
        series_number=101,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        content_label="SEGMENTATION",
        content_description=plain(source.get("SeriesDescription") or "Masks"),
        transfer_syntax_uid=RLELossless if fractional else ExplicitVRLittleEndian,
        tile_pixel_array=True,
        tile_size=(TILE, TILE),
        **_placement(source, slide, step),
        **same_maker(),
    )
    with mending(path.parent), replacing(path) as file:
        whole.save_as(file, enforce_file_format=True)
    return Written(path, len(masks), tally.notes)


def read_dicom_segmentation(path: Path, slide: Slide | None = None) -> Masks:
    """The masks of a tiled Segmentation.

    Args:
        path: the `.dcm` file.
        slide: what they are of, to know where they lie on it.

    Raises:
        DataError: no such object, or it is not tiled.
        MissingScaleError: the slide states no scale.
    """
    try:
        whole = highdicom.seg.segread(path)
        numbers = list(whole.segment_numbers)
        found = whole.get_total_pixel_matrix(
            segment_numbers=numbers, combine_segments=False, rescale_fractional=True
        )
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; check the path") from error
    except (InvalidDicomError, ValueError, AttributeError, KeyError, RuntimeError, EOFError) as error:
        raise DataError(f"{path} is no tiled DICOM segmentation (SEG): {error}") from error
    fractional = whole.SegmentationType == "FRACTIONAL"
    masks = [found[..., index] for index in range(len(numbers))]
    labels = tuple(_label(whole.get_segment_description(number).segment_label) for number in numbers)
    measures = whole.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    mpp = float(measures.PixelSpacing[0]) * 1000
    view = None
    if slide is not None:
        factor = shrinkage(slide.mpp, mpp)
        rows, columns = found.shape[:2]
        view = View((columns, rows), region=Region(0, 0, columns * factor, rows * factor, slide.mpp))
    kind: Any = np.float32 if fractional else bool
    return Masks(labels, tuple(mask.astype(kind) for mask in masks), mpp, view)


def _segment(number: int, label: str, algorithm: str) -> SegmentDescription:
    name = label or UNLABELLED
    codes = property_of(name)
    identification = highdicom.AlgorithmIdentificationSequence(
        name=plain(algorithm),
        family=CodedConcept("123110", "DCM", "Artificial Intelligence"),
        version="not stated",
    )
    return SegmentDescription(
        segment_number=number,
        segment_label=plain(name),
        segmented_property_category=CodedConcept.from_code(codes.category),
        segmented_property_type=CodedConcept.from_code(codes.type),
        algorithm_type="AUTOMATIC" if algorithm else "MANUAL",
        algorithm_identification=identification if algorithm else None,
        display_color=CIELabColor.from_rgb(*_COLORS[(number - 1) % len(_COLORS)]),
    )


# Okabe & Ito 2008: told apart by the colour-blind.
_COLORS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0))


def _placement(source: Dataset, slide: Slide, step: int) -> dict[str, Any]:
    """Spacing and place of a mask whose px are `step` px of the slide: its first px lies further in."""
    orientation = [float(value) for value in source.ImageOrientationSlide]
    fine = to_microns(1.0, slide.mpp) / 1000
    spacing = (coarser(slide.mpp, step) or 0.0) / 1000
    inwards = (spacing - fine) / 2
    origin = source.TotalPixelMatrixOriginSequence[0]
    x, y = float(origin.XOffsetInSlideCoordinateSystem), float(origin.YOffsetInSlideCoordinateSystem)
    right, down = orientation[:3], orientation[3:]
    return {
        "pixel_measures": highdicom.PixelMeasuresSequence(
            pixel_spacing=(spacing, spacing), slice_thickness=0.001
        ),
        "plane_orientation": highdicom.PlaneOrientationSequence("SLIDE", orientation),
        "plane_positions": [
            highdicom.PlanePositionSequence(
                "SLIDE",
                image_position=(
                    x + inwards * (right[0] + down[0]),
                    y + inwards * (right[1] + down[1]),
                    inwards * (right[2] + down[2]),
                ),
                pixel_matrix_position=(1, 1),
            )
        ],
    }


def _complete(source: Dataset, tally: Tally) -> None:
    """What a tiled segmentation needs of its image and old files lack."""
    if not source.get("TotalPixelMatrixOriginSequence"):
        origin = Dataset()
        origin.XOffsetInSlideCoordinateSystem = origin.YOffsetInSlideCoordinateSystem = 0.0
        source.TotalPixelMatrixOriginSequence = [origin]
        tally.add("place of the image on the glass not stated: its corner is taken")


def _label(found: str) -> str:
    return "" if found == UNLABELLED else found


def _has_more(mark: Annotation) -> bool:
    return bool(mark.measurements or mark.id or mark.name or mark.score is not None)
