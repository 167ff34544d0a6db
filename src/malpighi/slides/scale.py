"""Micrometres per pixel of a slide: the first source, in a fixed order, that states a usable one.

The order: what the user gives; a table of the user's; the scanner's own key; OME-XML; DICOM; the resolution
tags of a TIFF, which are believed only where they name a unit and state what is plausible for a microscope
(72 dpi in a file says nothing of its slide). A scale is never assumed, a magnification never made into one.
"""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from malpighi.errors import ConfigError, DataError
from malpighi.geometry import Size, mpp_of_extent

PLAUSIBLE = (0.05, 20.0)
_POSSIBLE = (0.001, 1000.0)
_UNEQUAL = 0.01
_MICRONS_PER_UNIT = {2: 25_400.0, 3: 10_000.0}
_MICRONS = {"nm": 1e-3, "µm": 1.0, "μm": 1.0, "um": 1.0, "mm": 1e3, "cm": 1e4}
_KEYS = (
    ("aperio.MPP", "aperio.MPP"),
    ("openslide.mpp-x", "openslide.mpp-y"),
)


class Stated(NamedTuple):
    """A scale that a source states.

    Attributes:
        source: where it stands, e.g. `aperio.MPP`.
        x: micrometres per pixel along x.
        y: the same along y.
        trusted: whether a scanner wrote it; otherwise it must also be plausible.
    """

    source: str
    x: float
    y: float
    trusted: bool = True


class Scale(NamedTuple):
    """The scale of a slide.

    Attributes:
        mpp: micrometres per level-0 pixel; None where no source states a usable one.
        source: where it comes from; "" where there is none.
        notes: what a user should know: sources that were refused, sides that differ.
    """

    mpp: float | None = None
    source: str = ""
    notes: tuple[str, ...] = ()


def given_scale(path: Path, mpp: float | None, listed: Mapping[str, float] | None) -> Scale:
    """What the user says of a slide: an mpp for it, or a table that names it.

    Args:
        path: the slide.
        mpp: micrometres per level-0 pixel; goes before the table.
        listed: mpp by the file's name, its path or its name without the ending, as `read_scales` reads it.

    Raises:
        ConfigError: an mpp that is not above 0.
    """
    if mpp is not None:
        return Scale(_checked(mpp, f"mpp of {path.name}"), "given")
    for name in (str(path), path.name, path.stem) if listed else ():
        if listed and name in listed:
            return Scale(_checked(listed[name], f"mpp of {name}"), "table")
    return Scale()


def scale_of(given: Scale, stated: Iterable[Stated]) -> Scale:
    """The scale of the first usable source.

    Args:
        given: what the user says; taken if it has an mpp.
        stated: what the file says, the most reliable first.
    """
    if given.mpp is not None:
        return given
    refused: list[str] = []
    for one in stated:
        low, high = _POSSIBLE if one.trusted else PLAUSIBLE
        if not all(math.isfinite(side) and low <= side <= high for side in (one.x, one.y)):
            refused.append(f"{one.source} states {one.x:.6g} x {one.y:.6g} um/px, which is not believed")
            continue
        unequal = abs(one.x - one.y) > _UNEQUAL * max(one.x, one.y)
        notes = (f"pixels are not square: {one.x:.6g} x {one.y:.6g} um",) if unequal else ()
        return Scale((one.x + one.y) / 2, one.source, (*refused, *notes))
    return Scale(notes=tuple(refused))


def from_properties(properties: Mapping[str, str]) -> list[Stated]:
    """What a scanner's own keys state; a generic TIFF's OpenSlide key is only its resolution tags."""
    found = []
    generic = properties.get("openslide.vendor") == "generic-tiff"
    for across, down in _KEYS:
        try:
            x, y = (float(properties[name].replace(",", ".")) for name in (across, down))
        except (KeyError, ValueError):
            continue
        tags = generic and across.startswith("openslide")
        found.append(Stated("tiff.XResolution" if tags else across, x, y, trusted=not tags))
    return found


def objective_of(properties: Mapping[str, str]) -> float | None:
    """The nominal magnification of the objective; None where none is stated."""
    for name in ("aperio.AppMag", "openslide.objective-power"):
        try:
            power = float(properties[name])
        except (KeyError, ValueError):
            continue
        if math.isfinite(power) and power > 0:
            return power
    return None


def from_ome(description: str) -> list[Stated]:
    """The physical size of a pixel from the XML of an OME-TIFF; none where there is none.

    Source: OME schema 2016-06: the unit is micrometre where none is named.
    """
    if "<OME" not in description or "<!DOCTYPE" in description or "<!ENTITY" in description:
        return []
    try:
        root = ElementTree.fromstring(description.encode())
    except ElementTree.ParseError:
        return []
    pixels = next((node for node in root.iter() if node.tag.rpartition("}")[2] == "Pixels"), None)
    if pixels is None:
        return []
    try:
        x, y = (
            float(pixels.attrib[f"PhysicalSize{side}"])
            * _MICRONS[pixels.attrib.get(f"PhysicalSize{side}Unit", "µm")]
            for side in "XY"
        )
    except (KeyError, ValueError):
        return []
    return [Stated("ome.PhysicalSizeX", x, y)]


def from_resolution(resolution: tuple[float, float, int] | None) -> list[Stated]:
    """What the resolution tags of a TIFF state; none without a unit.

    Args:
        resolution: pixels per unit (x, y), and the unit: 2 inch, 3 centimetre.
    """
    if resolution is None or resolution[2] not in _MICRONS_PER_UNIT:
        return []
    microns = _MICRONS_PER_UNIT[resolution[2]]
    x, y = (mpp_of_extent(microns, pixels) for pixels in resolution[:2])
    return [Stated("tiff.XResolution", x, y, trusted=False)]


def from_pixel_spacing(x: float, y: float) -> list[Stated]:
    """What DICOM's PixelSpacing states.

    Args:
        x: millimetres from column to column.
        y: millimetres from row to row.
    """
    return [Stated("dicom.PixelSpacing", x * _MICRONS["mm"], y * _MICRONS["mm"])]


def from_imaged_volume(extent: Sequence[float], size: Size) -> list[Stated]:
    """What DICOM's ImagedVolumeWidth and ImagedVolumeHeight state.

    Args:
        extent: (width, height) of what level 0 shows, millimetres.
        size: (width, height) of level 0, px.
    """
    x, y = (mpp_of_extent(float(side) * _MICRONS["mm"], px) for side, px in zip(extent, size, strict=True))
    return [Stated("dicom.ImagedVolumeWidth", x, y)]


def read_scales(path: Path) -> dict[str, float]:
    """A table of scales.

    Args:
        path: a CSV whose head names a column `mpp`; the first other column names slides.

    Returns:
        mpp by name.

    Raises:
        DataError: no such columns, or a row whose mpp is not a number above 0; the row is named.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            rows = list(csv.DictReader(lines))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a readable table of scales: {error}") from error
    names = [name for name in (rows[0] if rows else ()) if name and name.strip() != "mpp"]
    if not names or "mpp" not in rows[0]:
        raise DataError(f"{path}: expected a head such as `slide,mpp` and rows below it")
    found = {}
    for number, row in enumerate(rows, start=2):
        try:
            found[row[names[0]].strip()] = _checked(float(row["mpp"]), "mpp")
        except (TypeError, ValueError, AttributeError, ConfigError) as error:
            raise DataError(f"{path}, line {number}: {dict(row)} has no usable mpp ({error})") from error
    return found


def _checked(mpp: float, what: str) -> float:
    if not (math.isfinite(mpp) and mpp > 0):
        raise ConfigError(f"{what} is {mpp}; give micrometres per pixel, above 0 (40x is often near 0.25)")
    return mpp
