"""Which regions of a slide are worth a closer look: interchangeable ways to score candidates.

Shape legend: N = candidates, 4 = (x, y, width, height) in level-0 px, D = features of an embedding.
"""

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from malpighi.errors import DataError
from malpighi.geometry import Box, Frame, Region, Size
from malpighi.slides.slide import Slide
from malpighi.slides.stain_density import brightest, haematoxylin, optical_density
from malpighi.slides.view_map import ViewMap

Floats = NDArray[np.float64]
Embed = Callable[[NDArray[np.uint8]], NDArray]

_DENSITY_PIXELS = 2_000_000
_STAINED = 0.15
_INK = 0.35
"""More haematoxylin than a nucleus holds (folds, pen) counts no more than this."""


class Context(NamedTuple):
    """What a selector may know beside the slide.

    Attributes:
        overview: the map of the picture that the regions are chosen from.
        size: (width, height) of the picture that is made of each chosen region, px.
    """

    overview: ViewMap
    size: Size


class Selector(Protocol):
    """Scores candidates; the best that do not overlap are shown."""

    def __call__(self, slide: Slide, candidates_N4: Floats, context: Context) -> Floats:
        """A score per candidate, higher is better; -inf for never."""
        ...


def by_density(slide: Slide, candidates_N4: Floats, context: Context) -> Floats:
    """Tissue share times mean haematoxylin: cellular tissue first, glass last.

    Each piece of the overview is read once, at two million px at most.
    """
    scores_N = np.full(len(candidates_N4), -np.inf)
    pieces = context.overview.pieces
    for piece in pieces:
        inside_N = _inside(candidates_N4, piece.region)
        if inside_N.any():
            scores_N[inside_N] = _densities(
                slide, piece.region, candidates_N4[inside_N], _DENSITY_PIXELS // len(pieces)
            )
    return scores_N


class Novelty:
    """Regions that look least alike: the farthest point first (k-centre), from the one in the middle on.

    Args:
        embed: from pixels_NHW3 (uint8, RGB) to features_ND.
        pixels: side of what it is shown, px.
        batch: pictures at once.
        most: candidates looked at; of more, evenly spaced ones.

    Source: Gonzalez 1985, clustering to minimise the maximum distance between clusters.
    """

    def __init__(self, embed: Embed, pixels: int = 112, batch: int = 32, most: int = 512) -> None:
        self._embed, self._pixels, self._batch, self._most = embed, pixels, batch, most

    def __call__(self, slide: Slide, candidates_N4: Floats, context: Context) -> Floats:
        """The order of choice as a score: N for the first, falling by one."""
        del context
        count = len(candidates_N4)
        looked = np.unique(np.linspace(0, count - 1, min(count, self._most)).round().astype(int))
        features = np.concatenate(
            [self._features(slide, candidates_N4[looked[i : i + self._batch]]) for i in self._starts(looked)]
        )
        scores_N = np.full(count, -np.inf)
        scores_N[looked[_farthest_first(features)]] = count - np.arange(len(looked))
        return scores_N

    def _starts(self, looked: NDArray) -> range:
        return range(0, len(looked), self._batch)

    def _features(self, slide: Slide, candidates_N4: Floats) -> Floats:
        pictures_NHW3 = np.stack(
            [slide.read(region_at(row, slide), (self._pixels,) * 2) for row in candidates_N4]
        )
        features_ND = np.asarray(self._embed(pictures_NHW3), dtype=np.float64)
        if features_ND.ndim != 2 or len(features_ND) != len(pictures_NHW3):
            raise DataError(
                f"the embedding gave shape {features_ND.shape} for {len(pictures_NHW3)} pictures; "
                "expected one row of features each"
            )
        return features_ND


class Outside:
    """Scores that come from elsewhere, e.g. a model's answers about the candidates.

    Args:
        score: from candidates_N4 to scores_N.
    """

    def __init__(self, score: Callable[[Floats], NDArray]) -> None:
        self._score = score

    def __call__(self, slide: Slide, candidates_N4: Floats, context: Context) -> Floats:
        """What `score` says.

        Raises:
            DataError: not one score per candidate.
        """
        del slide, context
        scores_N = np.asarray(self._score(candidates_N4), dtype=np.float64)
        if scores_N.shape != (len(candidates_N4),):
            raise DataError(f"{len(candidates_N4)} candidates were given scores of shape {scores_N.shape}")
        return scores_N


class Attention:
    """Regions where the model looked on the overview.

    Args:
        weights: what each token of the overview got (rows x columns of tokens), e.g. attention summed over
            heads and layers.
    """

    def __init__(self, weights: NDArray) -> None:
        self._weights = np.asarray(weights, dtype=np.float64)

    def __call__(self, slide: Slide, candidates_N4: Floats, context: Context) -> Floats:
        """Mean weight of the tokens that a candidate covers.

        Raises:
            DataError: the weights have another shape than the overview's tokens.
        """
        del slide
        where, side = context.overview, context.overview.pixels_per_token
        expected = (where.size[1] // side, where.size[0] // side)
        if self._weights.shape != expected:
            raise DataError(
                f"attention of shape {self._weights.shape} over an overview of {expected} tokens "
                "(rows, columns)"
            )
        sums = cv2.integral(self._weights)
        scores_N = np.full(len(candidates_N4), -np.inf)
        for index, (x, y, width, height) in enumerate(candidates_N4.tolist()):
            box = where.from_slide(Box(x, y, x + width, y + height, Frame.SLIDE), Frame.IMAGE)
            if box is not None and box.area > 0:
                scores_N[index] = _mean(sums, np.array(box.corners) / side)
        return scores_N


def best_apart(candidates_N4: Floats, scores_N: Floats, count: int) -> list[int]:
    """The best candidates that do not overlap, best first; ties by place from top left.

    Candidates of score -inf or NaN are never taken.

    Example:
        >>> places = np.array([[0, 0, 10, 10], [5, 0, 10, 10], [20, 0, 10, 10]], dtype=float)
        >>> best_apart(places, np.array([1.0, 3.0, 2.0]), 3)
        [1, 2]
    """
    x0, y0 = candidates_N4[:, 0], candidates_N4[:, 1]
    x1, y1 = x0 + candidates_N4[:, 2], y0 + candidates_N4[:, 3]
    free_N = np.isfinite(scores_N) | (scores_N == np.inf)
    chosen: list[int] = []
    for index in np.lexsort((x0, y0, -np.where(free_N, scores_N, -np.inf))).tolist():
        if len(chosen) == count:
            break
        if free_N[index]:
            chosen.append(index)
            apart = (x0 >= x1[index]) | (x1 <= x0[index]) | (y0 >= y1[index]) | (y1 <= y0[index])
            free_N &= apart
    return chosen


def region_at(candidate_4: Floats, slide: Slide) -> Region:
    """A candidate as a region of the slide."""
    x, y, width, height = candidate_4.tolist()
    return Region(x, y, width, height, slide.mpp)


def _densities(slide: Slide, region: Region, candidates_N4: Floats, pixels: int) -> Floats:
    shrink = max(1.0, math.sqrt(region.width * region.height / pixels))
    size = (max(1, round(region.width / shrink)), max(1, round(region.height / shrink)))
    rgb = slide.read(region, size)
    density = optical_density(rgb, brightest(rgb))
    stained = cv2.integral((density.mean(axis=2) > _STAINED).astype(np.float32))
    nuclear = cv2.integral(np.minimum(haematoxylin(density), _INK))
    scale = np.array([size[0] / region.width, size[1] / region.height] * 2)
    offset = np.array([region.x, region.y] * 2)
    corners_N4 = candidates_N4.copy()
    corners_N4[:, 2:] += corners_N4[:, :2]
    places_N4 = (corners_N4 - offset) * scale
    return np.array([_mean(stained, place) * _mean(nuclear, place) for place in places_N4])


def _inside(candidates_N4: Floats, region: Region) -> NDArray[np.bool_]:
    """Candidates whose middle lies in a region."""
    x = candidates_N4[:, 0] + candidates_N4[:, 2] / 2 - region.x
    y = candidates_N4[:, 1] + candidates_N4[:, 3] / 2 - region.y
    return (x >= 0) & (x < region.width) & (y >= 0) & (y < region.height)


def _mean(sums: NDArray, corners: NDArray) -> float:
    """Mean of an integral image over the pixels that a box (x0, y0, x1, y1) touches, at least one."""
    height, width = sums.shape[0] - 1, sums.shape[1] - 1
    x0, y0 = min(max(math.floor(corners[0]), 0), width - 1), min(max(math.floor(corners[1]), 0), height - 1)
    x1, y1 = min(max(math.ceil(corners[2]), x0 + 1), width), min(max(math.ceil(corners[3]), y0 + 1), height)
    total = sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0]
    return float(total / ((x1 - x0) * (y1 - y0)))


def _farthest_first(features_ND: Floats) -> NDArray[np.intp]:
    """Indices in the order in which each next one is farthest from all before; ties by index."""
    order = [int(np.argmin(((features_ND - features_ND.mean(axis=0)) ** 2).sum(axis=1)))]
    nearest_N = np.full(len(features_ND), np.inf)
    taken_N = np.zeros(len(features_ND), dtype=bool)
    taken_N[order[0]] = True
    while len(order) < len(features_ND):
        gone = ((features_ND - features_ND[order[-1]]) ** 2).sum(axis=1)
        nearest_N = np.minimum(nearest_N, gone)
        order.append(int(np.argmax(np.where(taken_N, -1.0, nearest_N))))
        taken_N[order[-1]] = True
    return np.array(order, dtype=np.intp)
