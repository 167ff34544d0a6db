"""Scores of tiles as a pyramidal TIFF that lies on the slide: viewers and OpenSlide open it like one.

One px of its finest level is `step` x `step` level-0 px of the slide, from the slide's corner on; its mpp is
the slide's times `step`. ImageDescription is a JSON object with the region, the step and the legend.

Shape legend: H x W = rows x columns of the map, T = tiles.
"""

import json
import math
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pyarrow as pa
import tifffile
from numpy.typing import NDArray

from malpighi.config import Settings
from malpighi.durable import mending, replacing
from malpighi.errors import ConfigError, DataError
from malpighi.geometry import Size, coarser, to_pixels
from malpighi.slides.slide import Slide

Floats = NDArray[np.float32]

TILE = 256
COLORS = {"viridis": cv2.COLORMAP_VIRIDIS, "cividis": cv2.COLORMAP_CIVIDIS, "magma": cv2.COLORMAP_MAGMA}
"""Maps that are even in lightness and can be told apart by the colour-blind."""

_MOST_PIXELS = 16_000_000
_SHARES = 5  # stops of the legend


class HeatMapSettings(Settings, frozen=True):
    """How scores become a picture.

    Attributes:
        column: name of the scores' column.
        step: level-0 px per px of the map; 0 takes the largest that all tiles' edges lie on.
        low: score at the beginning of the colours; None takes the lowest found.
        high: score at their end; None takes the highest found.
        colors: `viridis`, `cividis` or `magma`.
        form: `rgb` on white, `rgba` with nothing where there is no tile, or `float32` with NaN there.
    """

    column: str = "score"
    step: int = 0
    low: float | None = None
    high: float | None = None
    colors: str = "viridis"
    form: str = "rgb"


class HeatMap(msgspec.Struct, frozen=True):
    """Scores on the grid of a slide.

    Attributes:
        scores: mean score of the tiles over each px (H x W); NaN where there is none.
        step: level-0 px per px.
    """

    scores: Any
    step: int


def lay(tiles: pa.Table, size: Size, settings: HeatMapSettings) -> HeatMap:
    """Lay the scores of tiles on the grid of a slide; where tiles overlap, their mean counts.

    Args:
        tiles: columns `x`, `y`, `width`, `height` (level-0 px) and the scores.
        size: (width, height) of the slide, level-0 px.
        settings: the column and the step.

    Raises:
        DataError: a column is missing, or holds no finite numbers.
        ConfigError: the map would have too many px.
    """
    edges_T4, scores_T = _columns(tiles, settings.column)
    step = settings.step or _step(edges_T4, size)
    shape = tuple(-(-side // step) for side in reversed(size))
    if shape[0] * shape[1] > _MOST_PIXELS:
        raise ConfigError(
            f"a map of {shape[1]} x {shape[0]} px is more than {_MOST_PIXELS}; raise step={step}"
        )
    sums, counts = np.zeros(shape), np.zeros(shape, dtype=np.int32)
    places_T4 = np.rint(edges_T4 / step).astype(np.int64)
    places_T4 = np.clip(places_T4, 0, [shape[1], shape[0]] * 2)
    for (x0, y0, x1, y1), score in zip(places_T4.tolist(), scores_T.tolist(), strict=True):
        if math.isfinite(score):
            sums[y0:y1, x0:x1] += score
            counts[y0:y1, x0:x1] += 1
    with np.errstate(invalid="ignore"):
        return HeatMap((sums / np.where(counts, counts, np.nan)).astype(np.float32), step)


def write_heat_map(path: Path, heat: HeatMap, slide: Slide, settings: HeatMapSettings) -> dict[str, float]:
    """Write the map.

    Args:
        path: the `.tif` file; appears whole or not at all.
        heat: what `lay` returns, or scores of one's own on the same grid.
        slide: what it lies on.
        settings: colours, range and form.

    Returns:
        `low` and `high`: the range of the colours.

    Raises:
        ConfigError: no such colours or form, or a range without extent.
        DataError: the grid is not the slide's, or all scores are missing.
    """
    low, high = _range(heat, slide, settings)
    scores = np.asarray(heat.scores, dtype=np.float32)
    options = {"tile": (TILE, TILE), "compression": "deflate", "metadata": None, **_samples(settings.form)}
    with mending(path.parent), replacing(path) as file, tifffile.TiffWriter(file, bigtiff=False) as writer:
        level, told = 0, _description(heat, slide, settings, (low, high))
        while True:
            writer.write(
                picture(scores, (low, high), settings),
                description=told if level == 0 else None,
                subfiletype=0 if level == 0 else 1,
                **options,
                **_resolution(coarser(slide.mpp, heat.step * 2**level)),
            )
            if max(scores.shape) <= TILE:
                return {"low": low, "high": high}
            scores, level = halved(scores), level + 1


def picture(scores_HW: Floats, limits: tuple[float, float], settings: HeatMapSettings) -> NDArray[Any]:
    """Scores as colours: RGB on white (H x W x 3), RGBA (H x W x 4), or as they are."""
    if settings.form == "float32":
        return scores_HW
    known = np.isfinite(scores_HW)
    share = (np.where(known, scores_HW, limits[0]) - limits[0]) / (limits[1] - limits[0])
    index = np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8)
    colors = palette(settings.colors)[index]
    if settings.form == "rgba":
        return np.dstack([np.where(known[..., None], colors, 0), np.where(known, 255, 0).astype(np.uint8)])
    return np.where(known[..., None], colors, np.uint8(255))


def palette(name: str) -> NDArray[np.uint8]:
    """The 256 colours (256 x 3, red green blue) of a map.

    Raises:
        ConfigError: no such map.
    """
    if name not in COLORS:
        raise ConfigError(f"there are no colours {name!r}; choose from {', '.join(COLORS)}")
    table = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], COLORS[name])
    return np.ascontiguousarray(table[:, 0, ::-1]).astype(np.uint8)


def halved(scores_HW: Floats) -> Floats:
    """The mean of each two by two px that have a score."""
    height, width = scores_HW.shape
    padded = np.pad(scores_HW, ((0, height % 2), (0, width % 2)), constant_values=np.nan)
    blocks = padded.reshape(padded.shape[0] // 2, 2, padded.shape[1] // 2, 2)
    known = np.isfinite(blocks)
    counts = known.sum(axis=(1, 3))
    sums = np.where(known, blocks, 0).sum(axis=(1, 3))
    return np.where(counts, sums / np.maximum(counts, 1), np.nan).astype(np.float32)


def _columns(tiles: pa.Table, column: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    names = ("x", "y", "width", "height", column)
    missing = [name for name in names if name not in tiles.column_names]
    if missing:
        raise DataError(f"the table has no column {missing[0]!r}; it has {', '.join(tiles.column_names)}")
    try:
        x, y, width, height, scores = (
            tiles[name].cast(pa.float64()).to_numpy(zero_copy_only=False) for name in names
        )
    except pa.ArrowInvalid as error:
        raise DataError(f"a column of {names} is not of numbers: {error}") from error
    edges_T4 = np.stack([x, y, x + width, y + height], axis=1)
    if not len(scores) or not np.isfinite(edges_T4).all() or not np.isfinite(scores).any():
        raise DataError(f"the table's {len(scores)} rows hold no finite places with a finite {column!r}")
    return edges_T4, scores


def _step(edges_T4: NDArray[np.float64], size: Size) -> int:
    """The largest step that all edges inside of the slide lie on, but no finer than the map may have px."""
    whole = np.rint(edges_T4).astype(np.int64)
    inside = whole[(whole > 0) & (whole < np.array([*size, *size]))]
    common = int(np.gcd.reduce(inside)) if inside.size else min(size)
    smallest = math.ceil(math.sqrt(size[0] * size[1] / _MOST_PIXELS))
    return max(common, smallest, 1)


def _range(heat: HeatMap, slide: Slide, settings: HeatMapSettings) -> tuple[float, float]:
    if settings.form not in ("rgb", "rgba", "float32"):
        raise ConfigError(f"form is {settings.form!r}; choose rgb, rgba or float32")
    shape = tuple(-(-side // heat.step) for side in reversed(slide.size))
    if np.shape(heat.scores) != shape:
        raise DataError(f"the scores are {np.shape(heat.scores)}; the slide at step {heat.step} is {shape}")
    if not np.isfinite(heat.scores).any():
        raise DataError("every score of the map is missing; nothing to show")
    low = float(np.nanmin(heat.scores)) if settings.low is None else settings.low
    high = float(np.nanmax(heat.scores)) if settings.high is None else settings.high
    if settings.low is None and settings.high is None and low == high:
        high = low + 1.0  # all alike: shown as the lowest colour
    if not high > low:
        raise ConfigError(f"the colours begin at {low} and end at {high}; give low below high")
    return low, high


def _resolution(mpp: float | None) -> dict[str, Any]:
    """The tags that state a scale; none where there is none."""
    if mpp is None:
        return {}
    per_centimetre = to_pixels(1e4, mpp)
    return {"resolution": (per_centimetre, per_centimetre), "resolutionunit": "CENTIMETER"}


def _samples(form: str) -> dict[str, Any]:
    if form == "float32":
        return {"photometric": "minisblack"}
    return {"photometric": "rgb", **({"extrasamples": ["unassalpha"]} if form == "rgba" else {})}


def _description(heat: HeatMap, slide: Slide, settings: HeatMapSettings, limits: tuple[float, float]) -> str:
    stops = np.linspace(0, 1, _SHARES)
    colors = palette(settings.colors)[np.rint(stops * 255).astype(int)].tolist()
    legend = [
        {"score": round(limits[0] + share * (limits[1] - limits[0]), 6), "rgb": color}
        for share, color in zip(stops.tolist(), colors, strict=True)
    ]
    told = {
        "malpighi": "heat map",
        "slide": slide.path.name,
        "region": [0, 0, *(side * heat.step for side in reversed(np.shape(heat.scores)))],
        "step": heat.step,
        "mpp": coarser(slide.mpp, heat.step),
        "score": settings.column,
        "colors": settings.colors,
        "legend": legend,
    }
    return json.dumps(told)  # ASCII: TIFF's texts hold nothing else
