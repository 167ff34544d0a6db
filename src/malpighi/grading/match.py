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
from functools import lru_cache
from itertools import accumulate
from operator import mul
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from malpighi.geometry import Box

THRESHOLDS = (0.3, 0.5, 0.7)
RECALLS = 101
_RECALLS_101 = np.linspace(0.0, 1.0, RECALLS)

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
    shared_nm = _shared(predicted_n4[:, 0::2], truth_m4[:, 0::2]) * _shared(
        predicted_n4[:, 1::2], truth_m4[:, 1::2]
    )
    union_nm = _areas(predicted_n4)[:, None] + _areas(truth_m4) - shared_nm
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
    for name, threshold in zip(suffixes(thresholds), thresholds, strict=True):
        found = matched([pair for pair in pairs if pair[2] >= threshold])
        parts[f"ap_emit{name}"], parts[f"ap_paper{name}"] = average_precisions(found.greedy, truths)
        hits = len(found.maximum)
        parts[f"ap_tie{name}"] = (hits / predicted) * (hits / truths)
        parts[f"f1_{name}"] = 2 * hits / (predicted + truths)
    return parts


def part_names(thresholds: Sequence[float] = THRESHOLDS) -> tuple[str, ...]:
    """Names of the figures of `detection_parts`.

    Example:
        >>> part_names((0.5,))
        ('ap_tie50', 'ap_emit50', 'ap_paper50', 'f1_50')
    """
    kinds = ("ap_tie", "ap_emit", "ap_paper", "f1_")
    return tuple(f"{kind}{name}" for name in suffixes(thresholds) for kind in kinds)


def soft_f1(predicted_n4: Floats, truth_m4: Floats) -> float:
    """Overlap without a threshold: twice the IoU of the best one-to-one pairs over all boxes of both sides.

    It tells a near miss from a far one where average precision is 0 for both, so it is what a model that
    cannot place boxes yet can be rewarded by. Order does not matter, and each surplus box lowers it.

    Example:
        >>> box = np.array([[0.0, 0.0, 4.0, 4.0]])
        >>> soft_f1(box + 2, box), soft_f1(np.concatenate([box, box]), box)
        (0.14285714285714285, 0.6666666666666666)
    """
    boxes = len(predicted_n4) + len(truth_m4)
    if not len(predicted_n4) or not len(truth_m4):
        return float(boxes == 0)
    iou_nm = iou_matrix(predicted_n4, truth_m4)
    return float(2 * iou_nm[linear_sum_assignment(iou_nm, maximize=True)].sum() / boxes)


def greedy_ranks(iou_nm: Floats, threshold: float) -> list[int]:
    """Which predictions find a truth when each in turn takes the best truth that is still free.

    Truths taken at a higher threshold are, at every rank, among those taken at a lower one (each prediction
    has the same preferences, fewer of them allowed), so hits never rise with the threshold.

    Source: COCO evaluation: highest IoU first, threshold inclusive, of equal overlaps the later truth.

    Returns:
        Their places in the list, rising from 0.
    """
    return list(_greedy_owners(_candidates(iou_nm, threshold)).values())


def maximum_matches(iou_nm: Floats, threshold: float) -> int:
    """The largest number of one-to-one pairs with IoU >= threshold; does not depend on any order."""
    pairs = _candidates(iou_nm, threshold)
    return _maximum_matches(pairs, _greedy_owners(pairs))


class Matched(NamedTuple):
    """Which predictions found a truth.

    Attributes:
        greedy: each in turn takes the best truth that is still free; rising.
        maximum: of the largest set of one-to-one pairs, in no order.
    """

    greedy: list[int]
    maximum: list[int]


def matched(pairs: Pairs) -> Matched:
    """Matching of (prediction, truth, IoU) that overlap enough.

    Args:
        pairs: by prediction, best first, of equal overlaps the later truth first.
    """
    owner = _greedy_owners(pairs)
    greedy = list(owner.values())
    _maximum_matches(pairs, owner)
    return Matched(greedy, list(owner.values()))


class Precisions(NamedTuple):
    """Average precision of a ranked list, by two definitions.

    Attributes:
        coco: mean over 101 recalls of the best precision at or above each.
        area: area under the envelope of the precision-recall curve.
    """

    coco: float
    area: float


def average_precisions(ranks: Sequence[int], truths: int) -> Precisions:
    """Average precision of a ranked list.

    Recalls are compared in floating point as COCO does, so that `coco` equals pycocotools' up to 100 boxes.

    Source: `coco`: COCO evaluation. `area`: SmartPath-R1 eq. 12, with the envelope of Pascal VOC 2010 and of
    the open replica of SmartPath-R1's scorer in PathoMLLM.
    Departs: no limit on the number of boxes; COCO drops all after the hundredth.

    Args:
        ranks: places of the hits in the list, rising from 0.
        truths: number of true boxes, at least 1.

    Example:
        >>> average_precisions([0, 1, 9], 3).area
        0.7666666666666666
    """
    # Precision is highest at a hit, so the envelope is known from the hits alone.
    precision = [hit / (rank + 1) for hit, rank in enumerate(ranks, start=1)]
    best = list(accumulate(reversed(precision), max))[::-1]
    coco = float(sum(map(mul, best, recalls_of_hit(truths))) / RECALLS)
    return Precisions(coco, sum(best) / truths)


@lru_cache(maxsize=1024)
def recalls_of_hit(truths: int) -> list[int]:
    """How many of the 101 recalls the first, second... hit is the first to reach."""
    reached_101 = np.searchsorted(np.arange(1, truths + 1) / truths, _RECALLS_101)
    counts: list[int] = np.bincount(reached_101, minlength=truths).tolist()
    return counts


def _shared(predicted_n2: Floats, truth_m2: Floats) -> Floats:
    """Length of the overlap of every two intervals (low, high)."""
    low_nm = np.maximum(predicted_n2[:, :1], truth_m2[:, 0])
    high_nm = np.minimum(predicted_n2[:, 1:], truth_m2[:, 1])
    shared_nm: Floats = np.maximum(high_nm - low_nm, 0.0)
    return shared_nm


def _areas(boxes_n4: Floats) -> Floats:
    sides_n2 = np.maximum(boxes_n4[:, 2:] - boxes_n4[:, :2], 0.0)
    area_n: Floats = sides_n2[:, 0] * sides_n2[:, 1]
    return area_n


def suffixes(thresholds: Sequence[float]) -> list[str]:
    """What the names of figures end in: thresholds in percent."""
    return [f"{threshold * 100:g}" for threshold in thresholds]


def _candidates(iou_nm: Floats, threshold: float) -> Pairs:
    """Pairs (prediction, truth, IoU) from the threshold up: by prediction, best first, later truth first."""
    rows, columns = np.nonzero(iou_nm >= threshold)
    values = iou_nm[rows, columns]
    order = np.lexsort((-columns, -values, rows))
    return list(zip(rows[order].tolist(), columns[order].tolist(), values[order].tolist(), strict=True))


def _greedy_owners(pairs: Pairs) -> dict[int, int]:
    """Truth -> prediction, in the order of the predictions."""
    owner: dict[int, int] = {}
    last = -1
    for prediction, truth, _ in pairs:
        if prediction != last and truth not in owner:
            owner[truth] = last = prediction
    return owner


def _maximum_matches(pairs: Pairs, owner: dict[int, int]) -> int:
    """The size of the largest matching; `owner` is one to begin from, and is used up."""
    if len(owner) == len({prediction for prediction, _, _ in pairs}):
        return len(owner)
    reach: dict[int, list[int]] = {}
    for prediction, truth, _ in pairs:
        reach.setdefault(prediction, []).append(truth)
    held = {prediction: truth for truth, prediction in owner.items()}
    # Truths seen in a search that failed can never be freed again, so later searches pass them by: this keeps
    # thousands of duplicates cheap.
    closed: set[int] = set()
    for prediction in reach.keys() - held.keys():
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
