"""What the probabilities of options are worth: calibration, discrimination, and knowing when to be silent.

The answer judged here is the option of the highest probability (the first of several), which can differ from
the one the model wrote; its probability is the confidence.

Shapes: N samples, K options; chances_NK holds probabilities, filled up with 0 where a question has fewer.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy import stats

from malpighi.records import Prediction

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

BINS = 15
_CURVE_POINTS = 100


class Bin(msgspec.Struct, frozen=True):
    """One row of a reliability table.

    Attributes:
        n: samples in it, at least 1.
        confidence: their mean confidence.
        accuracy: the share of them that is right.
    """

    n: int
    confidence: float
    accuracy: float


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """All figures of one model in one exam.

    Attributes:
        n: samples whose probabilities are known; the others are left out of every figure here.
        missing: samples without probabilities.
        ece: expected calibration error over bins of equal width.
        ece_mass: the same over bins of equal numbers of samples.
        brier: Brier score, 0 (best) to 2.
        auroc: one class against the rest, mean over classes; None where options differ or one class occurs.
        aurc: area under the risk-coverage curve: the mean error rate over all coverages.
        reliability: the bins of equal width that hold samples, by confidence.
        curve: (coverage, risk) at up to 100 coverages.
    """

    n: int
    missing: int
    ece: float
    ece_mass: float
    brier: float
    auroc: float | None
    aurc: float
    reliability: list[Bin]
    curve: list[tuple[float, float]]


def calibration(rows: Sequence[Prediction]) -> Calibration | None:
    """The figures of prediction rows; None where no row carries probabilities.

    A row counts if it has one probability per option and its truth is one of them. AUROC needs the same
    options in every row.
    """
    known = [row for row in rows if _usable(row)]
    if not known:
        return None
    truth = np.array([row.truth["index"] for row in known], np.int64)
    chances_NK = np.zeros((len(known), max(len(row.chances) for row in known)))
    for place, row in enumerate(known):
        chances_NK[place, : len(row.chances)] = row.chances
    alike = len({tuple(row.truth["options"]) for row in known}) == 1
    confidence, right = judged(chances_NK, truth)
    risks = risk_coverage(confidence, right)
    return Calibration(
        n=len(known),
        missing=len(rows) - len(known),
        ece=ece(confidence, right),
        ece_mass=ece(confidence, right, equal_mass=True),
        brier=brier(chances_NK, truth),
        auroc=auroc(chances_NK, truth) if alike else None,
        aurc=float(risks.mean()),
        reliability=reliability(confidence, right),
        curve=_thinned(risks),
    )


def judged(chances_NK: Floats, truth: Counts) -> tuple[Floats, Floats]:
    """Confidence of each answer, and 1 where it is right: two (N,) arrays."""
    answer = chances_NK.argmax(axis=1)
    return chances_NK.max(axis=1), (answer == truth).astype(float)


def reliability(
    confidence: Floats, right: Floats, bins: int = BINS, *, equal_mass: bool = False
) -> list[Bin]:
    """Confidence against accuracy, bin by bin; empty bins are left out.

    Bins of equal width hold their lower edge, the last one its upper edge too. Bins of equal mass keep equal
    confidences together, so that the order of samples does not matter.

    Args:
        confidence: (N,) from 0 to 1.
        right: (N,) 0 or 1.
        bins: number of bins.
        equal_mass: whether bins hold equal numbers of samples instead of having equal width.
    """
    if equal_mass:
        below = np.searchsorted(np.sort(confidence), confidence, side="left")
        place = below * bins // max(len(confidence), 1)
    else:
        inner = np.linspace(0.0, 1.0, bins + 1)[1:-1]
        place = np.searchsorted(inner, confidence, side="right")
    counts = np.bincount(place, minlength=bins)
    sums = (np.bincount(place, values, minlength=bins) for values in (confidence, right))
    rows = zip(counts, *sums, strict=True)
    return [Bin(int(n), float(c / n), float(r / n)) for n, c, r in rows if n]


def ece(confidence: Floats, right: Floats, bins: int = BINS, *, equal_mass: bool = False) -> float:
    """Expected calibration error: mean distance of confidence and accuracy over bins, weighted by samples.

    Source: Naeini et al., Obtaining well calibrated probabilities using Bayesian binning, AAAI 2015, eq. 3;
    equal mass: Nguyen and O'Connor, Posterior calibration and exploratory analysis, EMNLP 2015.
    """
    table = reliability(confidence, right, bins, equal_mass=equal_mass)
    return sum(row.n * abs(row.confidence - row.accuracy) for row in table) / len(confidence)


def brier(chances_NK: Floats, truth: Counts) -> float:
    """Squared distance of the probabilities from the truth, summed over options, mean over samples; 0 to 2.

    Source: Brier, Verification of forecasts expressed in terms of probability, Mon. Weather Rev. 78 (1950).
    """
    wanted = np.zeros_like(chances_NK)
    wanted[np.arange(len(truth)), truth] = 1.0
    return float(((chances_NK - wanted) ** 2).sum(axis=1).mean())


def auroc(chances_NK: Floats, truth: Counts) -> float | None:
    """Area under the ROC curve: of option 1 for two options, else each against the rest, plain mean.

    Departs: classes that never occur, or always, have no curve and are left out of the mean; scikit-learn
    refuses such input.

    Returns:
        0 to 1; None where no class has a curve.
    """
    classes = [1] if chances_NK.shape[1] == 2 else range(chances_NK.shape[1])
    areas = [_area(chances_NK[:, k], truth == k) for k in classes]
    found = [area for area in areas if area is not None]
    return sum(found) / len(found) if found else None


def risk_coverage(confidence: Floats, right: Floats) -> Floats:
    """Error rate among the k most confident answers, for k = 1 to N; equal confidences count as in any order.

    Source: Geifman and El-Yaniv, Selective classification for deep neural networks, NeurIPS 2017; the mean of
    the curve is the AURC of Geifman, Uziel and El-Yaniv, ICLR 2019.
    Departs: within a tie each answer has the tie's mean error, the expectation over its orders.
    """
    _, block, counts = np.unique(-confidence, return_inverse=True, return_counts=True)
    means = np.bincount(block, 1.0 - right) / counts
    errors: Floats = np.cumsum(np.repeat(means, counts)) / np.arange(1, len(confidence) + 1)
    return errors


def _area(scores: Floats, positive: NDArray[np.bool_]) -> float | None:
    """Mann and Whitney's statistic over its maximum, ties counted half."""
    yes = int(positive.sum())
    no = len(positive) - yes
    if not yes or not no:
        return None
    ranks = stats.rankdata(scores)
    return float((ranks[positive].sum() - yes * (yes + 1) / 2) / (yes * no))


def _usable(row: Prediction) -> bool:
    truth: Any = row.truth
    if not row.chances or not isinstance(truth, dict) or "index" not in truth:
        return False
    return len(row.chances) == len(truth["options"]) and 0 <= truth["index"] < len(row.chances)


def _thinned(risks: Floats) -> list[tuple[float, float]]:
    n = len(risks)
    kept = np.unique(np.linspace(1, n, min(n, _CURVE_POINTS)).round().astype(int))
    return [(float(k / n), float(risks[k - 1])) for k in kept]
