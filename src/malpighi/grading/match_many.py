"""Detection figures of many images at once: the figures of `match.py`, about as fast as numpy allows.

Overlaps are computed for padded stacks of images. What overlaps enough is sparse, so from there on all images
share one list of pairs; pairs that compete with others go through the matching of `match.py`.

Legend: I images; boxes_n4 as in `match.py`.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from malpighi.errors import DataError
from malpighi.grading import match
from malpighi.grading.match import THRESHOLDS, Floats

Counts = NDArray[np.int64]

_CELLS = 100_000  # overlaps computed at once: what stays in a processor's cache


class Pooled(NamedTuple):
    """Figures of a whole set of images at one threshold, every box counted alike.

    Attributes:
        coco: average precision over 101 recalls; the ranking is image after image, each in list order.
        area: area under the envelope of the same curve.
        tie: precision times recall.
        f1: their harmonic mean.
    """

    coco: float
    area: float
    tie: float
    f1: float


class Many(NamedTuple):
    """What `detection_parts_many` finds.

    Attributes:
        parts: name of a figure -> (I,) values, equal to those of `match.detection_parts`.
        pooled: threshold -> figures of the whole set; empty where no image has a true box.
    """

    parts: dict[str, Floats]
    pooled: dict[float, Pooled]


class _Pairs(NamedTuple):
    """Overlapping pairs of all images; boxes are numbered through, image after image."""

    predicted: Counts
    truth: Counts
    iou: Floats

    def where(self, kept: NDArray[np.bool_]) -> "_Pairs":
        return _Pairs(self.predicted[kept], self.truth[kept], self.iou[kept])


class _Hits(NamedTuple):
    """Predictions that found a truth: in turn (rising), and in the largest matching."""

    greedy: Counts
    maximum: Counts


def detection_parts_many(
    predicted: Sequence[Floats], truth: Sequence[Floats], thresholds: Sequence[float] = THRESHOLDS
) -> Many:
    """All figures of `match.detection_parts` for each image, and pooled over the images.

    Source: the pooled `coco` is COCO's average precision of boxes with one constant score.
    Departs: no limit of 100 boxes an image; a reversed box is a false positive, where COCO passes it over.

    Args:
        predicted: I arrays boxes_n4, in list order.
        truth: I arrays boxes_m4.
        thresholds: of IoU, above 0.

    Raises:
        DataError: not as many predictions as truths, or a threshold that is not above 0.
    """
    if len(predicted) != len(truth) or min(thresholds) <= 0:
        raise DataError(
            f"{len(predicted)} lists of boxes against {len(truth)} truths at thresholds {list(thresholds)}; "
            "expected one list per truth and thresholds above 0"
        )
    n_I, m_I = (np.array([len(boxes) for boxes in side], np.int64) for side in (predicted, truth))
    parts = {name: np.zeros(len(n_I)) for name in match.part_names(thresholds)}
    for name, values in parts.items():
        values[(n_I == 0) & (m_I == 0)] = not name.startswith("ap_paper")
    pairs = _sorted(_pairs(predicted, truth, n_I, m_I, min(thresholds)))
    pooled: dict[float, Pooled] = {}
    for suffix, threshold in zip(match.suffixes(thresholds), thresholds, strict=True):
        found = _matched(pairs.where(pairs.iou >= threshold))
        _fill(parts, suffix, found, n_I, m_I)
        if m_I.sum():
            pooled[threshold] = _pool(found, int(n_I.sum()), int(m_I.sum()))
    return Many(parts, pooled)


def _matched(near: _Pairs) -> _Hits:
    """Pairs that compete with no other are settled at once; the rest is walked through."""
    if not len(near.iou):
        return _Hits(near.predicted, near.predicted)
    alone = (np.bincount(near.predicted)[near.predicted] == 1) & (np.bincount(near.truth)[near.truth] == 1)
    rest = match.matched(list(zip(*(column.tolist() for column in near.where(~alone)), strict=True)))
    settled = near.predicted[alone]
    greedy, maximum = (np.concatenate([settled, np.array(some, np.int64)]) for some in rest)
    return _Hits(np.sort(greedy), maximum)


def _fill(parts: dict[str, Floats], suffix: str, found: _Hits, n_I: Counts, m_I: Counts) -> None:
    ends = np.cumsum(n_I)
    full = (n_I > 0) & (m_I > 0)
    image_of_greedy = np.searchsorted(ends, found.greedy, side="right")
    ranks = found.greedy - (ends - n_I)[image_of_greedy]
    emit, paper = _average_precisions(image_of_greedy, ranks, m_I)
    parts[f"ap_emit{suffix}"][full], parts[f"ap_paper{suffix}"][full] = emit[full], paper[full]
    hits = np.bincount(np.searchsorted(ends, found.maximum, side="right"), minlength=len(n_I))[full]
    n, m = n_I[full], m_I[full]
    parts[f"ap_tie{suffix}"][full] = (hits / n) * (hits / m)
    parts[f"f1_{suffix}"][full] = 2 * hits / (n + m)


def _average_precisions(image: Counts, ranks: Counts, m_I: Counts) -> tuple[Floats, Floats]:
    """`match.average_precisions` of every image; sums run hit by hit, as there."""
    hits_I = np.bincount(image, minlength=len(m_I))
    most = max(1, int(hits_I.max(initial=0)))
    number = np.arange(len(image)) - (np.cumsum(hits_I) - hits_I)[image]
    best_IH = np.zeros((len(m_I), most))
    best_IH[image, number] = (number + 1) / (ranks + 1)
    best_IH = np.maximum.accumulate(best_IH[:, ::-1], axis=1)[:, ::-1] * (np.arange(most) < hits_I[:, None])
    sizes, place = np.unique(m_I, return_inverse=True)
    recalls_UH = np.zeros((len(sizes), most))
    for row, size in enumerate(sizes.tolist()):
        counts = match.recalls_of_hit(size)[:most] if size else []
        recalls_UH[row, : len(counts)] = counts
    coco = np.cumsum(best_IH * recalls_UH[place], axis=1)[:, -1] / match.RECALLS
    return coco, np.cumsum(best_IH, axis=1)[:, -1] / np.maximum(m_I, 1)


def _pool(found: _Hits, predicted: int, truths: int) -> Pooled:
    hits = len(found.maximum)
    tie = (hits / predicted) * (hits / truths) if predicted else 0.0
    as_one = np.zeros(len(found.greedy), np.int64)
    coco, area = _average_precisions(as_one, found.greedy, np.array([truths]))
    return Pooled(float(coco[0]), float(area[0]), tie, 2 * hits / (predicted + truths))


def _pairs(
    predicted: Sequence[Floats], truth: Sequence[Floats], n_I: Counts, m_I: Counts, threshold: float
) -> list[_Pairs]:
    first_n, first_m = np.cumsum(n_I) - n_I, np.cumsum(m_I) - m_I
    found = []
    for images in _stacks(n_I, m_I):
        iou_inm = _overlaps(_padded(predicted, images, n_I), _padded(truth, images, m_I))
        place, row, column = np.nonzero(iou_inm >= threshold)
        image = images[place]
        found.append(_Pairs(first_n[image] + row, first_m[image] + column, iou_inm[place, row, column]))
    return found


def _sorted(found: Sequence[_Pairs]) -> _Pairs:
    """As `match` wants them: by prediction, best first, of equal overlaps the later truth first."""
    if not found:
        return _Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    predicted, truth, iou = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.lexsort((-truth, -iou, predicted))
    return _Pairs(predicted[order], truth[order], iou[order])


def _stacks(n_I: Counts, m_I: Counts) -> Iterator[Counts]:
    """Images of like size together, so that padding is small."""
    full = np.flatnonzero((n_I > 0) & (m_I > 0))
    order = full[np.lexsort((m_I[full], n_I[full]))]
    start = 0
    while start < len(order):
        stop, wide, high = start, 0, 0
        while stop < len(order):
            wide, high = max(wide, int(n_I[order[stop]])), max(high, int(m_I[order[stop]]))
            if stop > start and (stop - start + 1) * wide * high > _CELLS:
                break
            stop += 1
        yield order[start:stop]
        start = stop


def _padded(boxes: Sequence[Floats], images: Counts, sizes: Counts) -> Floats:
    """boxes_in4; what is filled up has no area and overlaps nothing."""
    held = np.arange(sizes[images].max()) < sizes[images, None]
    stack = np.zeros((*held.shape, 4))
    stack[held] = np.concatenate([boxes[image] for image in images])
    return stack


def _overlaps(predicted_in4: Floats, truth_im4: Floats) -> Floats:
    """`match.iou_matrix` for a stack: the same steps, hence the same last digit."""
    shared: Floats | None = None
    for axis in (0, 1):
        side = np.minimum(predicted_in4[..., axis + 2, None], truth_im4[:, None, :, axis + 2])
        side -= np.maximum(predicted_in4[..., axis, None], truth_im4[:, None, :, axis])
        np.maximum(side, 0.0, out=side)
        shared = side if shared is None else np.multiply(shared, side, out=shared)
    assert shared is not None
    union = _areas(predicted_in4)[..., None] + _areas(truth_im4)[:, None, :]
    union -= shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)


def _areas(boxes_in4: Floats) -> Floats:
    sides = np.maximum(boxes_in4[..., 2:] - boxes_in4[..., :2], 0.0)
    area: Floats = sides[..., 0] * sides[..., 1]
    return area
