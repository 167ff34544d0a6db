"""Detection without confidences: overlap, matching, and four figures made from it.

A language model lists boxes; it gives no scores. So "AP50" needs a definition, and three are kept here:

- `ap_tie` treats all boxes as tied: the precision-recall curve is one point and its area is precision times
  recall. It does not depend on the order, and each false positive lowers it. The headline.
- `ap_emit` takes the order of the list as the ranking and averages over 101 recalls, as COCO does. Junk and
  duplicates after the last hit cost nothing, so as a reward it invites endless lists.
- `ap_paper` ranks alike and takes the area under the curve, as SmartPath-R1 writes it (eq. 12).
- `f1` stands beside them.

Duplicates are false positives. Nothing to find and nothing listed is 1, but 0 for `ap_paper`, where a curve
without a true box has no area; one of the two empty is 0.

Legend: n predicted boxes, m true boxes; boxes_n4: float64 (x0, y0, x1, y1), all in one frame.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from malpighi.geometry import Box

THRESHOLDS = (0.3, 0.5, 0.7)
_RECALLS_101 = np.linspace(0.0, 1.0, 101)

Floats = NDArray[np.float64]
Pairs = list[tuple[int, int, float]]


def corners_of(boxes: Iterable[Box]) -> Floats:
    """Corners of boxes of one frame as boxes_n4."""
    return np.array([box.corners for box in boxes], dtype=np.float64).reshape(-1, 4)


def iou_matrix(predicted_n4: Floats, truth_m4: Floats) -> Floats:
    """Intersection over union of every pair.

    Reversed and degenerate boxes have no area and overlap nothing.

    Returns:
        iou_nm: float64, 0 to 1.
    """
    low_nm2 = np.maximum(predicted_n4[:, None, :2], truth_m4[None, :, :2])
    high_nm2 = np.minimum(predicted_n4[:, None, 2:], truth_m4[None, :, 2:])
    side_nm2 = np.maximum(high_nm2 - low_nm2, 0.0)
    shared_nm = side_nm2[..., 0] * side_nm2[..., 1]
    union_nm = _areas(predicted_n4)[:, None] + _areas(truth_m4)[None, :] - shared_nm
    iou_nm: Floats = np.divide(shared_nm, union_nm, out=np.zeros_like(shared_nm), where=shared_nm > 0)
    return iou_nm


def detection_parts(
    predicted_n4: Floats, truth_m4: Floats, thresholds: Sequence[float] = THRESHOLDS
) -> dict[str, float]:
    """All figures of one image: `ap_tie50`, `ap_emit50`, `ap_paper50`, `f1_50`, and at the other thresholds.

    Returns:
        Figures from 0 to 1, named by the threshold in percent.
    """
    predicted, truths = len(predicted_n4), len(truth_m4)
    if not predicted or not truths:
        agreed = float(predicted == truths)
        return {name: agreed * (not name.startswith("ap_paper")) for name in part_names(thresholds)}
    pairs = _candidates(iou_matrix(predicted_n4, truth_m4), min(thresholds))
    parts: dict[str, float] = {}
    for name, threshold in zip(_suffixes(thresholds), thresholds, strict=True):
        near = [pair for pair in pairs if pair[2] >= threshold]
        hits = _maximum_matches(near)
        parts[f"ap_tie{name}"] = (hits / predicted) * (hits / truths)
        hits_n = _greedy_hits(near, predicted)
        parts[f"ap_emit{name}"] = ap_by_rank(hits_n, truths)
        parts[f"ap_paper{name}"] = area_by_rank(hits_n, truths)
        parts[f"f1_{name}"] = 2 * hits / (predicted + truths)
    return parts


def part_names(thresholds: Sequence[float] = THRESHOLDS) -> tuple[str, ...]:
    """Names of the figures of `detection_parts`.

    Example:
        >>> part_names((0.5,))
        ('ap_tie50', 'ap_emit50', 'ap_paper50', 'f1_50')
    """
    kinds = ("ap_tie", "ap_emit", "ap_paper", "f1_")
    return tuple(f"{kind}{name}" for name in _suffixes(thresholds) for kind in kinds)


def greedy_hits(iou_nm: Floats, threshold: float) -> NDArray[np.bool_]:
    """Which predictions find a truth when each in turn takes the best truth that is still free.

    Truths taken at a higher threshold are, at every rank, among those taken at a lower one (each prediction
    has the same preferences, fewer of them allowed), so hits never rise with the threshold.

    Source: COCO evaluation: highest IoU first, threshold inclusive, of equal overlaps the later truth.

    Returns:
        hits_n: bool, in the order of the list.
    """
    return _greedy_hits(_candidates(iou_nm, threshold), len(iou_nm))


def maximum_matches(iou_nm: Floats, threshold: float) -> int:
    """The largest number of one-to-one pairs with IoU >= threshold; does not depend on any order."""
    return _maximum_matches(_candidates(iou_nm, threshold))


def ap_by_rank(hits_n: NDArray[np.bool_], truths: int) -> float:
    """Average precision of a ranked list: mean over 101 recalls of the best precision at or above each.

    Recalls are compared in floating point as COCO does, so that values equal pycocotools' up to 100 boxes.

    Source: COCO evaluation (101-point interpolation).
    Departs: no limit on the number of boxes; COCO drops all after the hundredth.

    Args:
        hits_n: bool, best rank first.
        truths: number of true boxes, at least 1.

    Example:
        >>> ap_by_rank(np.array([True, False, False]), 1)
        1.0
    """
    hit_counts_n = np.cumsum(hits_n)
    rank_101 = np.searchsorted(hit_counts_n / truths, _RECALLS_101)
    return float(np.append(_envelope(hit_counts_n), 0.0)[rank_101].mean())


def area_by_rank(hits_n: NDArray[np.bool_], truths: int) -> float:
    """Average precision of a ranked list: area under the envelope of its precision-recall curve.

    Source: SmartPath-R1 eq. 12; the envelope is that of Pascal VOC 2010 and of the open replica of its scorer
    in PathoMLLM.

    Args:
        hits_n: bool, best rank first.
        truths: number of true boxes, at least 1.

    Example:
        >>> area_by_rank(np.array([False, True, True, False]), 5)
        0.26666666666666666
    """
    return float(_envelope(np.cumsum(hits_n))[hits_n].sum() / truths)


def _envelope(hit_counts_n: NDArray[Any]) -> Floats:
    """At each rank the best precision from there on."""
    precision_n = hit_counts_n / np.arange(1, len(hit_counts_n) + 1)
    envelope_n: Floats = np.maximum.accumulate(precision_n[::-1])[::-1]
    return envelope_n


def _areas(boxes_n4: Floats) -> Floats:
    sides_n2 = np.maximum(boxes_n4[:, 2:] - boxes_n4[:, :2], 0.0)
    area_n: Floats = sides_n2[:, 0] * sides_n2[:, 1]
    return area_n


def _suffixes(thresholds: Sequence[float]) -> list[str]:
    return [f"{threshold * 100:g}" for threshold in thresholds]


def _candidates(iou_nm: Floats, threshold: float) -> Pairs:
    """Pairs (prediction, truth, IoU) from the threshold up: by prediction, best first, later truth first."""
    rows, columns = np.nonzero(iou_nm >= threshold)
    values = iou_nm[rows, columns]
    order = np.lexsort((-columns, -values, rows))
    return list(zip(rows[order].tolist(), columns[order].tolist(), values[order].tolist(), strict=True))


def _greedy_hits(pairs: Pairs, predicted: int) -> NDArray[np.bool_]:
    hits_n = np.zeros(predicted, dtype=np.bool_)
    taken: set[int] = set()
    last = -1
    for prediction, truth, _ in pairs:
        if prediction != last and truth not in taken:
            taken.add(truth)
            hits_n[prediction] = True
            last = prediction
    return hits_n


def _maximum_matches(pairs: Pairs) -> int:
    reach: dict[int, list[int]] = {}
    for prediction, truth, _ in pairs:
        reach.setdefault(prediction, []).append(truth)
    owner: dict[int, int] = {}
    held: dict[int, int] = {}
    # Truths seen in a search that failed can never be freed again, so later searches pass them by: this keeps
    # thousands of duplicates cheap.
    closed: set[int] = set()
    for prediction in reach:
        came: dict[int, int] = {}
        free = _free_truth(prediction, reach, owner, came, closed)
        if free is None:
            closed |= came.keys()
        while free is not None:
            finder = came[free]
            owner[free] = finder
            previous = held.get(finder)
            held[finder] = free
            free = previous
    return len(owner)


def _free_truth(
    start: int, reach: dict[int, list[int]], owner: dict[int, int], came: dict[int, int], closed: set[int]
) -> int | None:
    """Breadth-first along alternating paths to an unowned truth; `came` notes who reached each truth."""
    queue = [start]
    for prediction in queue:
        for truth in reach[prediction]:
            if truth in came or truth in closed:
                continue
            came[truth] = prediction
            if truth not in owner:
                return truth
            queue.append(owner[truth])
    return None
