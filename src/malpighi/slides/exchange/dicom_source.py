"""The image that a DICOM annotation, segmentation or report refers to.

For a DICOM slide it is the slide's own finest level. Any other slide is described as if it had been
converted: the description says so, its identifiers follow from file name and size, and no such image exists.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID, generate_uid

from malpighi import __version__
from malpighi.errors import DataError
from malpighi.geometry import Affine, Size, to_microns
from malpighi.slides.exchange.dicom_codes import plain
from malpighi.slides.slide import Slide

VL_WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
MAKER = "Malpighi"
_TILE = 512
# Attributes that the standard wants present, if only empty, and that files in the wild lack.
_MAY_BE_EMPTY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
    "StudyTime", "ReferringPhysicianName",
)  # fmt: skip


def source_image(slide: Slide) -> Dataset:
    """The header of the slide's finest level, without pixels; missing attributes that may be empty are empty.

    Raises:
        DataError: a DICOM slide whose finest level is not among its files.
    """
    files = _dicom_files(slide.path)
    if not files:
        return _described(slide)
    for header in _headers(files):
        if _size(header) == slide.size and _kind(header) == "VOLUME":
            for name in _MAY_BE_EMPTY:
                if name not in header:
                    setattr(header, name, "")
            return header
    raise DataError(f"{slide.path}: no level of {slide.size[0]} x {slide.size[1]} px among its DICOM files")


def level_affine(slide: Slide, uid: str) -> Affine | None:
    """From px of the slide's image `uid`, its total pixel matrix, to level-0 px; None where it has none."""
    files = _dicom_files(slide.path)
    headers = _headers(files) if files else iter([_described(slide)])
    for header in headers:
        if header.SOPInstanceUID == uid:
            width, height = _size(header)
            return Affine(slide.size[0] / width, slide.size[1] / height, 0.0, 0.0)
    return None


def same_maker() -> dict[str, Any]:
    """Who wrote the object, for highdicom's constructors."""
    return {
        "manufacturer": MAKER,
        "manufacturer_model_name": MAKER,
        "software_versions": __version__,
        "device_serial_number": "0",
        "specific_character_set": "ISO_IR 192",
    }


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM files do."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _dicom_files(path: Path) -> list[Path]:
    folder = path if path.is_dir() else path.parent
    if not path.is_dir() and not is_dicom(path):
        return []
    return [file for file in sorted(folder.iterdir()) if file.is_file() and is_dicom(file)]


def _headers(files: list[Path]) -> Iterator[Dataset]:
    for file in files:
        try:
            header = pydicom.dcmread(file, stop_before_pixels=True)
        except (InvalidDicomError, OSError, EOFError):
            continue
        if header.get("SOPClassUID") == VL_WHOLE_SLIDE:
            yield header


def _size(header: Dataset) -> Size:
    return (int(header.get("TotalPixelMatrixColumns", 0)), int(header.get("TotalPixelMatrixRows", 0)))


def _kind(header: Dataset) -> str:
    kinds = header.get("ImageType") or []
    return str(kinds[2]) if len(kinds) > 2 else ""


def _described(slide: Slide) -> Dataset:
    """A header for a slide that is no DICOM file; without a scale it has none either."""
    seeds = [slide.path.name, str(slide.size)]
    header = Dataset()
    for name in _MAY_BE_EMPTY:
        setattr(header, name, "")
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"):
        setattr(header, name, generate_uid(entropy_srcs=[*seeds, name]))
    header.SOPClassUID = UID(VL_WHOLE_SLIDE)
    header.SpecificCharacterSet = "ISO_IR 192"
    header.Modality = "SM"
    header.SeriesDescription = plain(f"Description of {slide.path.name}; no such DICOM image exists")
    header.PositionReferenceIndicator = "SLIDE_CORNER"
    header.ImageType = ["DERIVED", "PRIMARY", "VOLUME", "NONE"]
    header.ContainerIdentifier = plain(re.sub(r"\.\w+$", "", slide.path.name))
    header.IssuerOfTheContainerIdentifierSequence = []
    header.ContainerTypeCodeSequence = []
    header.SpecimenDescriptionSequence = [_specimen(header)]
    header.Rows = header.Columns = _TILE
    header.TotalPixelMatrixColumns, header.TotalPixelMatrixRows = slide.size
    across, down = (-(-side // _TILE) for side in slide.size)
    header.NumberOfFrames = across * down
    header.NumberOfOpticalPaths = header.TotalPixelMatrixFocalPlanes = 1
    header.DimensionOrganizationType = "TILED_FULL"
    header.ImageOrientationSlide = [0.0, -1.0, 0.0, -1.0, 0.0, 0.0]
    origin = Dataset()
    origin.XOffsetInSlideCoordinateSystem = origin.YOffsetInSlideCoordinateSystem = 0.0
    header.TotalPixelMatrixOriginSequence = [origin]
    path = Dataset()
    path.OpticalPathIdentifier = "1"
    header.OpticalPathSequence = [path]
    if slide.mpp is not None:
        _add_scale(header, slide)
    return header


def _add_scale(header: Dataset, slide: Slide) -> None:
    measures, shared = Dataset(), Dataset()
    millimetres = to_microns(1.0, slide.mpp) / 1000
    measures.PixelSpacing = [f"{millimetres:.10g}"] * 2
    measures.SliceThickness = 0.001
    shared.PixelMeasuresSequence = [measures]
    header.SharedFunctionalGroupsSequence = [shared]
    header.ImagedVolumeWidth, header.ImagedVolumeHeight = (side * millimetres for side in slide.size)


def _specimen(header: Dataset) -> Dataset:
    specimen = Dataset()
    specimen.SpecimenIdentifier = header.ContainerIdentifier
    specimen.SpecimenUID = generate_uid(entropy_srcs=[header.SOPInstanceUID, "specimen"])
    specimen.IssuerOfTheSpecimenIdentifierSequence = []
    specimen.SpecimenPreparationSequence = []
    return specimen
