"""Where the tissue of a slide lies, and where something is wrong with it.

Shape legend: H x W = rows x columns of the working picture (some 8 micrometres per pixel), h x w = blocks of
`_BLOCK` x `_BLOCK` px of it, 3 = red, green, blue, N = boxes.
"""

import math
from functools import cached_property
from typing import Any, NamedTuple

import cv2
import msgspec
import numpy as np
import shapely
from numpy.typing import NDArray

from malpighi.config import Settings
from malpighi.errors import ConfigError
from malpighi.geometry import Region, Size, boxes_on_level, coarser, shrinkage, to_pixels
from malpighi.slides import focus
from malpighi.slides.artefacts import INKS, STEP, disc, find_folds, large, pen_marks
from malpighi.slides.bubbles import find_bubbles
from malpighi.slides.foreground import METHODS, Foreground, find_foreground
from malpighi.slides.glass import Colour, Floats, Glass, Mask, density, find_glass, scanned
from malpighi.slides.outlines import outlines
from malpighi.slides.slide import Pixels, Slide

FILTERS = ("pen", "blur", "folds", "bubbles")
"""Artefacts that can be taken out of the tissue."""

_BLOCK = 8  # px of the working picture over which sharpness is measured
_READ = 16  # blocks read at once, along a side
_LEAST_SUBJECT = 0.1  # of a block is tissue, or its sharpness says nothing
_LEAST_DETAIL = 2  # px of level 0 per working px, along a side, for sharpness to be seen
_OUT_OF_FOCUS = 0.5
_JOINED = 3  # px; gaps as narrow are closed


class TissueSettings(Settings, frozen=True):
    """How tissue is looked for.

    Attributes:
        method: `otsu` on saturation, `hsv` with fixed thresholds, or `entropy` of the grey values.
        mpp: micrometres per pixel of the working picture.
        longest: most px of its longer side; a larger slide is worked at in a coarser picture.
        longest_unscaled: the same for a slide whose scale is unknown.
        least_piece: smaller pieces are dropped, µm² (a small squamous cell has 800); without a scale, a
            working px counts for 8 µm.
        least_hole: smaller holes are filled, µm².
        without: which of `FILTERS` are taken out of the mask.
        most_removed: a filter that would take out a larger share of the tissue is set aside, with a note.
        focus: whether sharpness is measured, which takes reading the tissue at 1 micrometre per pixel.
    """

    method: str = "otsu"
    mpp: float = STEP
    longest: int = 1536
    longest_unscaled: int = 1024
    least_piece: float = 800.0
    least_hole: float = 4000.0
    without: tuple[str, ...] = ("pen",)
    most_removed: float = 0.95
    focus: bool = True


class Tissue(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """Tissue and artefacts of one slide.

    Attributes:
        mask: where usable tissue lies (H x W): what was found, less the filters of the settings.
        maps: further masks (H x W): `pen` and its colours `pen_red`, `pen_green`, `pen_blue`, `pen_black`;
            `blur`, `folds`, `bubbles`; `glass`, where nothing lies; `all`, tissue before the filters.
        downsample: level-0 px per px of the masks, along one side; exactly the same for both.
        size: (width, height) of the slide, level-0 px.
        mpp: micrometres per px of the masks; None where the slide states no scale.
        found: whether there is any tissue in `mask`.
        notes: what a user should know: filters set aside, no tissue, no scale, a coarser working picture.
        figures: what was measured on the way: thresholds, colour of the glass, shares.
    """

    mask: Mask
    maps: dict[str, Mask]
    downsample: float
    size: Size
    mpp: float | None
    found: bool
    notes: tuple[str, ...]
    figures: dict[str, float]

    def fractions(self, boxes_N4: NDArray[Any], name: str = "tissue") -> NDArray[np.float64]:
        """The share of each box that is tissue, or what another map shows; what lies outside counts as not.

        Exact for fractional boxes; four look-ups per box, whatever its size.

        Args:
            boxes_N4: (x0, y0, x1, y1), level-0 px.
            name: `tissue` or one of `maps`.

        Returns:
            fractions_N: 0 to 1; 0 for a box without area.
        """
        if name not in self._sums:
            mask_HW = self.mask if name == "tissue" else self.maps[name]
            self._sums[name] = np.asarray(cv2.integral(mask_HW.astype(np.uint8), sdepth=cv2.CV_64F))
        sums = self._sums[name]
        boxes_N4 = boxes_on_level(np.asarray(boxes_N4, dtype=np.float64).reshape(-1, 4), self.downsample)
        x0, y0, x1, y1 = boxes_N4.T
        inside = _within(sums, x1, y1) - _within(sums, x0, y1) - _within(sums, x1, y0) + _within(sums, x0, y0)
        area = np.maximum(x1 - x0, 0) * np.maximum(y1 - y0, 0)
        return np.where(area > 0, np.clip(inside / np.where(area > 0, area, 1), 0, 1), 0.0)

    def fraction(self, region: Region, name: str = "tissue") -> float:
        """The share of one region, level-0 px; see `fractions`."""
        box = (region.x, region.y, region.x + region.width, region.y + region.height)
        return float(self.fractions(np.array([box]), name)[0])

    @cached_property
    def polygons(self) -> list[shapely.Polygon]:
        """The pieces of tissue with their holes, level-0 px, largest first."""
        return outlines(self.mask, self.downsample)

    @property
    def glass(self) -> Colour:
        """Colour (red, green, blue) of the slide's empty glass, 0 to 255."""
        return (self.figures["glass_red"], self.figures["glass_green"], self.figures["glass_blue"])

    def shares(self) -> dict[str, float]:
        """Tissue, pen and bubbles as shares of what was scanned; blur and folds as shares of the tissue."""
        everything, tissue = self.figures["scanned"] * self.mask.size, max(self.maps["all"].sum(), 1)
        of_slide = {"tissue": self.mask, "pen": self.maps["pen"], "bubbles": self.maps["bubbles"]}
        of_tissue = {name: self.maps[name] & self.maps["all"] for name in ("blur", "folds")}
        return {name: float(mask.sum() / max(everything, 1)) for name, mask in of_slide.items()} | {
            name: float(mask.sum() / tissue) for name, mask in of_tissue.items()
        }

    @cached_property
    def _sums(self) -> dict[str, NDArray[np.float64]]:
        return {}


class _LowPower(NamedTuple):
    """The working picture.

    Attributes:
        rgb: the picture (H x W x 3).
        density: its optical density (H x W x 3).
        glass: the colour of its empty glass.
        scanned: what the scanner saw (H x W).
        step: level-0 px per px.
        pixel: µm² of a px; where there is no scale, as if it were of the usual one.
    """

    rgb: Pixels
    density: Floats
    glass: Glass
    scanned: Mask
    step: float
    pixel: float


def find_tissue(slide: Slide, settings: TissueSettings | None = None) -> Tissue:
    """Find tissue and artefacts. It never empties a slide silently: `found` and `notes` say what happened.

    Memory is bounded by `settings.longest`, whatever the size of the slide.

    Raises:
        ConfigError: a setting out of range.
    """
    settings = settings or TissueSettings()
    _check(settings)
    notes: list[str] = []
    low = _low_power(slide, settings, notes)
    inks = pen_marks(low.density)
    ink_HW = np.logical_or.reduce([inks[ink] for ink in INKS])
    ink_HW = (cv2.dilate(ink_HW.astype(np.uint8), disc(3)) > 0) & low.scanned
    judged_HW = low.scanned & ~ink_HW
    foreground = find_foreground(low.rgb, low.density, low.glass, judged_HW, settings.method)
    all_HW = _cleaned(foreground.mask & low.scanned, low.pixel, settings)
    maps = {f"pen_{ink}": inks[ink] for ink in INKS} | {"pen": ink_HW}
    maps["bubbles"] = find_bubbles(low.density, ink_HW)
    maps["folds"] = find_folds(low.density, all_HW & ~ink_HW & ~maps["bubbles"])
    maps["blur"] = _out_of_focus(slide, low, all_HW & ~ink_HW, settings, notes)
    maps["glass"] = low.scanned & ~all_HW & ~ink_HW & ~maps["bubbles"]
    least = settings.least_piece / low.pixel
    maps["all"] = _without_strokes(all_HW, ink_HW, least)
    mask_HW = large(_filtered(maps, settings, notes), least)
    found = bool(mask_HW.any())
    figures = _figures(low, foreground, mask_HW)
    if not found:
        notes.append(_nothing(figures, maps))
    return Tissue(
        mask=mask_HW,
        maps=maps,
        downsample=low.step,
        size=slide.size,
        mpp=coarser(slide.mpp, low.step),
        found=found,
        notes=tuple(notes),
        figures=figures,
    )


def _check(settings: TissueSettings) -> None:
    if settings.method not in METHODS:
        raise ConfigError(f"tissue: method={settings.method!r}; give one of {', '.join(METHODS)}")
    unknown = set(settings.without) - set(FILTERS)
    if unknown:
        raise ConfigError(f"tissue: without={sorted(unknown)}; give some of {', '.join(FILTERS)}")
    if not (settings.mpp > 0 and min(settings.longest, settings.longest_unscaled) >= _BLOCK):
        raise ConfigError(f"tissue: mpp must be above 0 and longest sides at least {_BLOCK} px")


def _low_power(slide: Slide, settings: TissueSettings, notes: list[str]) -> _LowPower:
    longest = max(slide.size)
    if slide.mpp is None:
        step = max(longest / settings.longest_unscaled, 1.0)
        notes.append(
            f"no scale known: worked at {step:.3g} level-0 px per px; sizes in micrometres are guesses"
        )
        pixel = STEP**2
    else:
        wanted = max(shrinkage(slide.mpp, settings.mpp), 1.0)
        step = max(wanted, longest / settings.longest)
        pixel = 1 / to_pixels(1.0, coarser(slide.mpp, step)) ** 2
        if step > wanted:
            notes.append(
                f"worked at {math.sqrt(pixel):.3g} instead of {settings.mpp:.3g} um/px: a large slide"
            )
    size = (math.ceil(slide.size[0] / step - 1e-9), math.ceil(slide.size[1] / step - 1e-9))
    rgb_HW3 = slide.read(Region(0, 0, size[0] * step, size[1] * step, slide.mpp), size)
    scanned_HW = scanned(rgb_HW3)
    glass = find_glass(rgb_HW3, scanned_HW)
    if not glass.seen:
        notes.append("no empty glass seen: colours are measured against white")
    return _LowPower(rgb_HW3, density(rgb_HW3, glass.colour), glass, scanned_HW, step, pixel)


def _cleaned(mask_HW: Mask, pixel: float, settings: TissueSettings) -> Mask:
    """The mask with narrow gaps closed, without small holes and small pieces."""
    padded = cv2.copyMakeBorder(mask_HW.astype(np.uint8), *(_JOINED,) * 4, cv2.BORDER_REPLICATE)
    closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, disc(_JOINED))
    closed_HW = closed[_JOINED:-_JOINED, _JOINED:-_JOINED] > 0
    closed_HW = ~large(~closed_HW, settings.least_hole / pixel, diagonal=False)
    return large(closed_HW, settings.least_piece / pixel)


def _without_strokes(all_HW: Mask, ink_HW: Mask, least: float) -> Mask:
    """What is not glass, less the ink that lies away from tissue: there was never tissue below it.

    Where there is nothing but what looks like ink, it may be a stain of that colour, and all of it stays.
    """
    other_HW = large(all_HW & ~ink_HW, least)
    if not other_HW.any():
        return all_HW
    near_HW = cv2.dilate(other_HW.astype(np.uint8), disc(2 * _JOINED + 1)) > 0
    return np.asarray(all_HW & (near_HW | ~ink_HW))


def _out_of_focus(
    slide: Slide, low: _LowPower, tissue_HW: Mask, settings: TissueSettings, notes: list[str]
) -> Mask:
    """Blocks of tissue without fine detail, seen at about `focus.STEP` micrometres per pixel."""
    detail = _BLOCK if slide.mpp is None else round(shrinkage(focus.STEP, math.sqrt(low.pixel)))
    detail = min(detail, int(low.step + 1e-6))
    if not settings.focus or detail < _LEAST_DETAIL:
        if settings.focus:
            notes.append("sharpness not measured: the slide is no finer than the working picture")
        return np.zeros(tissue_HW.shape, dtype=np.bool_)
    height, width = tissue_HW.shape
    blurred_hw = np.zeros((-(-height // _BLOCK), -(-width // _BLOCK)), dtype=np.uint8)
    side = _BLOCK * _READ
    for y in range(0, height, side):
        for x in range(0, width, side):
            subject = tissue_HW[y : y + side, x : x + side]
            if subject.any():
                rows, columns = (-(-length // _BLOCK) for length in subject.shape)
                blurred_hw[y // _BLOCK :, x // _BLOCK :][:rows, :columns] = _blurred(
                    slide, low.step, (x, y), subject, detail
                )
    blurred_HW = np.kron(blurred_hw, np.ones((_BLOCK, _BLOCK), np.uint8))[:height, :width] > 0
    return np.asarray(blurred_HW & tissue_HW)


def _blurred(slide: Slide, step: float, corner: tuple[int, int], subject: Mask, detail: int) -> Mask:
    """Which blocks of a part of the working picture are out of focus; `detail` px for one of its px."""
    rows, columns = (-(-length // _BLOCK) * _BLOCK for length in subject.shape)
    x, y = corner
    region = Region(x * step, y * step, columns * step, rows * step, slide.mpp)
    rgb_HW3 = slide.read(region, (columns * detail, rows * detail))
    weight = np.zeros((rows, columns), dtype=np.uint8)
    weight[: subject.shape[0], : subject.shape[1]] = subject
    fine = cv2.resize(weight, (columns * detail, rows * detail), interpolation=cv2.INTER_NEAREST) > 0
    sharp_hw, share_hw = focus.block_sharpness(rgb_HW3, fine, _BLOCK * detail)
    return np.asarray((sharp_hw < _OUT_OF_FOCUS) & (share_hw > _LEAST_SUBJECT))


def _filtered(maps: dict[str, Mask], settings: TissueSettings, notes: list[str]) -> Mask:
    """The tissue without the artefacts of the settings, as far as they leave any."""
    mask_HW = maps["all"]
    for name in settings.without:
        removed = float((mask_HW & maps[name]).sum() / max(mask_HW.sum(), 1))
        if removed > settings.most_removed:
            notes.append(f"filter {name} set aside: it would remove {removed:.1%} of the tissue")
        else:
            mask_HW = mask_HW & ~maps[name]
    return np.asarray(mask_HW)


def _figures(low: _LowPower, foreground: Foreground, mask_HW: Mask) -> dict[str, float]:
    red, green, blue = low.glass.colour
    return {
        "threshold": foreground.threshold,
        "median_measure": foreground.median,
        "glass_red": red,
        "glass_green": green,
        "glass_blue": blue,
        "glass_spread": low.glass.spread,
        "scanned": float(low.scanned.mean()),
        "tissue": float(mask_HW.mean()),
    }


def _nothing(figures: dict[str, float], maps: dict[str, Mask]) -> str:
    return (
        f"no tissue found: nothing of the least size above the threshold {figures['threshold']:.3f} "
        f"(median {figures['median_measure']:.3f}); ink on {maps['pen'].mean():.1%} of the picture, "
        f"air on {maps['bubbles'].mean():.1%}; look at the overlay, or try another method"
    )


def _within(sums: NDArray[np.float64], x: NDArray, y: NDArray) -> NDArray[np.float64]:
    """The integral of a mask from its corner to fractional places, linear between the corners of pixels."""
    x = np.clip(x, 0, sums.shape[1] - 1)
    y = np.clip(y, 0, sums.shape[0] - 1)
    left = np.minimum(x.astype(np.int64), sums.shape[1] - 2)
    top = np.minimum(y.astype(np.int64), sums.shape[0] - 2)
    right_share, lower_share = x - left, y - top
    upper = sums[top, left] * (1 - right_share) + sums[top, left + 1] * right_share
    lower = sums[top + 1, left] * (1 - right_share) + sums[top + 1, left + 1] * right_share
    return np.asarray(upper * (1 - lower_share) + lower * lower_share)
