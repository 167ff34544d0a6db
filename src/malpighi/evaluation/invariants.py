"""What no table of results can break: laws between its figures, tested before it is written.

Every function takes plain values and returns "" where the law is kept, or what breaks it in words, so that
a report can refuse or flag a row and an auditor can list it. `slack` is what rounding allows: for printed
figures up to a unit of the last digit, for our own next to nothing.
"""

import re
from collections.abc import Mapping

from malpighi.evaluation.statistics import Estimate

_EXACT = 1e-9
_THRESHOLD = re.compile(r"(?P<stem>ap\w*?|f1_)(?P<percent>\d+)")
_RECALL = re.compile(r"(?P<stem>.*)recall@(?P<k>\d+)")


def macro_f1_bound(accuracy: float, classes: int, *, all_answered: bool = True) -> float:
    """The largest macro-F1 that an accuracy allows.

    F1_c = 2 T_c / (2 T_c + e_c), where the shares T_c of right answers sum to the accuracy a; each error is
    counted once for the class missed and once for the class named. F1_c is convex in e_c: the best case puts
    all errors between two classes and leaves the other K - 2 at 1, and the two share at most 2a. So macro-F1
    is at most (K - 2 + 2a) / K; for two classes at most a. An answer that names none of the K classes is an
    error of the class missed alone, and only (K - 1 + 2a / (1 + a)) / K holds.

    Args:
        accuracy: right answers over all answers, 0 to 1.
        classes: K, the classes that F1 is averaged over; 2 or more for a bound below 1.
        all_answered: whether every answer named one of these K classes.

    Example:
        >>> macro_f1_bound(0.6, 2), round(macro_f1_bound(0.6, 2, all_answered=False), 3)
        (0.6, 0.875)
    """
    if classes < 2:
        return 1.0
    rest = 2 * accuracy if all_answered else 1 + 2 * accuracy / (1 + accuracy)
    return (classes - 2 + rest) / classes


def f1_against_accuracy(
    macro_f1: float, accuracy: float, classes: int, *, all_answered: bool = True, slack: float = _EXACT
) -> str:
    """Whether a macro-F1 is possible beside an accuracy of the same predictions; see `macro_f1_bound`.

    Example:
        >>> f1_against_accuracy(0.478, 0.188, 2)
        'macro-F1 0.478 with accuracy 0.188: of 2 classes at most 0.188 is possible'
    """
    bound = macro_f1_bound(accuracy, classes, all_answered=all_answered)
    if macro_f1 <= bound + slack:
        return ""
    return (
        f"macro-F1 {macro_f1:.3f} with accuracy {accuracy:.3f}: "
        f"of {classes} classes at most {bound:.3f} is possible"
    )


def ap_order(by_threshold: Mapping[float, float], slack: float = _EXACT) -> str:
    """Whether average precision falls, or stays, as the IoU threshold rises.

    Args:
        by_threshold: IoU threshold -> AP of the same boxes.
        slack: what rounding allows.

    Example:
        >>> ap_order({0.3: 0.0, 0.5: 0.014, 0.7: 0.004})
        '0.000 at IoU 0.3 is below 0.014 at 0.5: a looser threshold cannot score less'
    """
    ordered = sorted(by_threshold.items())
    for place, (loose, low) in enumerate(ordered):
        tight, high = max(ordered[place:], key=lambda pair: pair[1])
        if high > low + slack:
            return (
                f"{low:.3f} at IoU {loose:g} is below {high:.3f} at {tight:g}: "
                "a looser threshold cannot score less"
            )
    return ""


def recall_order(by_k: Mapping[int, float], slack: float = _EXACT) -> str:
    """Whether Recall@k rises, or stays, with k.

    Example:
        >>> recall_order({1: 0.0204, 5: 0.0019})
        'Recall@1 0.0204 is above Recall@5 0.0019: a longer list cannot find less'
    """
    ordered = sorted(by_k.items())
    for place, (short, high) in enumerate(ordered):
        long, low = min(ordered[place:], key=lambda pair: pair[1])
        if low < high - slack:
            return (
                f"Recall@{short} {high:.4f} is above Recall@{long} {low:.4f}: a longer list cannot find less"
            )
    return ""


def point_inside(value: float, low: float | None, high: float | None, slack: float = _EXACT) -> str:
    """Whether a figure lies inside its own interval; an end that is None says nothing.

    Example:
        >>> point_inside(0.889, 0.849, 0.888)
        '0.889 lies outside its own interval (0.849, 0.888)'
    """
    below = low is not None and value < low - slack
    above = high is not None and value > high + slack
    if not below and not above:
        return ""
    ends = ", ".join("none" if end is None else f"{end:.3f}" for end in (low, high))
    return f"{value:.3f} lies outside its own interval ({ends})"


def on_grid(percent: float, n: int, decimals: int) -> bool:
    """Whether a percentage can be k right answers out of n, to the decimals printed.

    Example:
        >>> on_grid(91.2, 153, 1), on_grid(90.8, 153, 1)
        (False, True)
    """
    nearest = round(percent * n / 100)
    half = 0.5 * 10**-decimals + _EXACT
    return any(
        0 <= k <= n and abs(100 * k / n - percent) <= half for k in (nearest - 1, nearest, nearest + 1)
    )


def exam_faults(
    figures: Mapping[str, Estimate], *, accuracy: float | None = None, classes: int = 0
) -> list[str]:
    """Every law that one row of our own tables breaks; empty for a sound row.

    Args:
        figures: all figures of the row by metric, the score among them: `macro-F1`, `ap_tie50`, `recall@5`.
        accuracy: share of right answers, where macro-F1 is among the figures; None leaves that law untested.
        classes: K of macro-F1: the classes that occur in the truth; 0 leaves that law untested.

    Example:
        >>> exam_faults({"ap_tie30": Estimate(0.2), "ap_tie50": Estimate(0.3, 0.2, 0.4)})
        ['ap_tie: 0.200 at IoU 0.3 is below 0.300 at 0.5: a looser threshold cannot score less']
    """
    found = [(name, point_inside(figure.value, figure.low, figure.high)) for name, figure in figures.items()]
    found += [(stem, ap_order(curve)) for stem, curve in _curves(_THRESHOLD, "percent", figures, 100).items()]
    found += [
        (f"{stem}recall", recall_order({int(k): value for k, value in curve.items()}))
        for stem, curve in _curves(_RECALL, "k", figures, 1).items()
    ]
    if accuracy is not None and classes and "macro-F1" in figures:
        # Ours counts unread answers as errors of the true class alone, so the weaker bound is the law here.
        score = figures["macro-F1"].value
        found.append(("macro-F1", f1_against_accuracy(score, accuracy, classes, all_answered=False)))
    return [f"{name}: {fault}" for name, fault in found if fault]


def _curves(
    pattern: re.Pattern[str], key: str, metrics: Mapping[str, Estimate], unit: int
) -> dict[str, dict[float, float]]:
    """The metrics that are one curve: stem of the name -> (threshold or k -> value)."""
    curves: dict[str, dict[float, float]] = {}
    for name, metric in metrics.items():
        match = pattern.fullmatch(name)
        if match:
            curves.setdefault(match["stem"], {})[int(match[key]) / unit] = metric.value
    return curves
