"""Metrics from prediction rows and nothing else: rates, confusion matrices and what is read off them.

An answer that could not be read is wrong everywhere. In a confusion matrix it falls into a last column of its
own, `invalid`, which is a prediction but never a class.

Shapes: K classes; a confusion matrix is K x (K+1), rows truth, columns prediction, the last column invalid.
Functions of a matrix take any number of leading axes, so that the bootstrap can pass thousands at once.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from malpighi.errors import DataError
from malpighi.records import Prediction, Status

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

CEILING = "dice_ceiling"
"""The part of a grade that is the sample's, not the answer's: the Dice of the right boxes."""


@dataclass(frozen=True)
class Confusion:
    """Truth against prediction.

    Attributes:
        options: names of the K classes.
        counts: K x (K+1); the last column counts answers that could not be read.
    """

    options: tuple[str, ...]
    counts: Counts


def confusion(rows: Sequence[Prediction]) -> Confusion | None:
    """The confusion matrix of an exam whose rows all offer the same options; None for any other exam.

    Raises:
        DataError: a row's truth is an index outside its options.
    """
    options = shared_options(rows)
    if options is None:
        return None
    counts = np.zeros((len(options), len(options) + 1), np.int64)
    truth, predicted = cells(rows, len(options))
    np.add.at(counts, (truth, predicted), 1)
    return Confusion(options, counts)


def shared_options(rows: Sequence[Prediction]) -> tuple[str, ...] | None:
    """The options that every row offers in the same order; None where they differ or there are none."""
    found: set[tuple[str, ...]] = {_options(row.truth) for row in rows}
    return found.pop() if len(found) == 1 and () not in found else None


def cells(rows: Sequence[Prediction], classes: int) -> tuple[Counts, Counts]:
    """Row and column of each prediction in the confusion matrix.

    Returns:
        truth (N,) in 0..K-1 and predicted (N,) in 0..K, where K stands for invalid.
    """
    for row in rows:
        if not 0 <= row.truth["index"] < classes:
            index = row.truth["index"]
            raise DataError(f"sample {row.sample!r}: the truth is option {index} of {classes} options")
    truth = np.array([row.truth["index"] for row in rows], np.int64)
    predicted = np.array([_chosen(row, classes) for row in rows], np.int64)
    return truth, predicted


def accuracy(counts: NDArray[Any]) -> Floats:
    """Right answers over all answers; (..., K, K+1) to (...)."""
    right = np.trace(counts[..., :-1], axis1=-2, axis2=-1)
    return _ratio(right, counts.sum(axis=(-2, -1)))


def balanced_accuracy(counts: NDArray[Any]) -> Floats:
    """Mean recall over the classes that occur in the truth; (..., K, K+1) to (...)."""
    right = np.diagonal(counts[..., :-1], axis1=-2, axis2=-1)
    asked = counts.sum(axis=-1)
    return _ratio(_ratio(right, asked).sum(axis=-1), (asked > 0).sum(axis=-1))


def macro_f1(counts: NDArray[Any]) -> Floats:
    """Mean F1 over the classes that occur in the truth; (..., K, K+1) to (...).

    An invalid answer is a false negative of the true class and a false positive of none, as with a sentinel
    label outside scikit-learn's `labels`. Where every answer is one of the K classes that occur, each error
    counts once as false negative and once as false positive, and with accuracy a it follows that
    F1 <= (K - 2 + 2a) / K (for two classes: F1 <= a). With invalid answers only the weaker
    F1 <= (K - 1 + 2a / (1 + a)) / K holds.
    """
    right = np.diagonal(counts[..., :-1], axis1=-2, axis2=-1)
    asked, answered = counts.sum(axis=-1), counts[..., :-1].sum(axis=-2)
    f1 = np.where(asked > 0, _ratio(2 * right, asked + answered), 0.0)
    return _ratio(f1.sum(axis=-1), (asked > 0).sum(axis=-1))


def kappa(counts: NDArray[Any]) -> Floats:
    """Cohen's kappa, agreement beyond chance; (..., K, K+1) to (...).

    An invalid answer agrees with no class. Where chance alone explains everything (one class, always named)
    kappa is undefined and 0 is given: nothing beyond chance was shown.

    Source: Cohen, A coefficient of agreement for nominal scales, Educ. Psychol. Meas. 20 (1960).
    """
    return _agreement(counts, 1.0 - np.eye(*counts.shape[-2:]))


def quadratic_kappa(counts: NDArray[Any]) -> Floats:
    """Kappa that forgives near misses, for options that are in order (grades); (..., K, K+1) to (...).

    A miss weighs the square of its distance; an invalid answer weighs as much as the farthest miss.

    Source: Cohen, Weighted kappa, Psychol. Bull. 70 (1968), with squared distances.
    """
    classes = counts.shape[-2]
    steps = np.arange(classes)
    costs = np.full((classes, classes + 1), float((classes - 1) ** 2))
    costs[:, :-1] = (steps[:, None] - steps) ** 2
    return _agreement(counts, costs)


def _agreement(counts: NDArray[Any], costs: Floats) -> Floats:
    found = (counts * costs).sum(axis=(-2, -1)) * counts.sum(axis=(-2, -1))
    by_chance = np.einsum("...i,ij,...j->...", counts.sum(axis=-1), costs, counts.sum(axis=-2))
    return np.where(by_chance > 0, 1.0 - _ratio(found, by_chance), 0.0)


def invalid_counts(rows: Sequence[Prediction]) -> dict[str, int]:
    """How many answers could not be read, by status; statuses that do not occur are left out."""
    found = Counter(row.grade.status for row in rows)
    return {str(status): found[status] for status in Status if status is not Status.OK and found[status]}


def invalid_rate(rows: Sequence[Prediction]) -> float:
    """Share of answers that could not be read."""
    return sum(row.grade.status is not Status.OK for row in rows) / len(rows)


def part_means(rows: Sequence[Prediction]) -> dict[str, float]:
    """Mean of each grade part over the rows that are graded by it.

    A row without any parts is a failed sample and counts as 0 in all; a row with other parts only is another
    kind of question in the same exam and does not count.
    """
    names = sorted({name for row in rows for name in row.grade.parts})
    means = {}
    for name in names:
        found = [
            row.grade.parts.get(name, 0.0) for row in rows if name in row.grade.parts or not row.grade.parts
        ]
        means[name] = sum(found) / len(found)
    return means


def ceiling(rows: Sequence[Prediction]) -> float | None:
    """Mean Dice of the right boxes over the rows that were graded; None where no row tells it."""
    found = [row.grade.parts[CEILING] for row in rows if CEILING in row.grade.parts]
    return sum(found) / len(found) if found else None


def collapse(rows: Sequence[Prediction], *, margin: float = 0.2) -> str:
    """A warning where one answer is given suspiciously often; "" where not.

    An answer is suspicious if it makes up more than 90 % of all answers and exceeds the share of the most
    frequent truth by more than `margin`.
    """
    if len(rows) < 10:
        return ""
    (answer, count), *_ = Counter(_key(row.grade.parsed) for row in rows).most_common(1)
    common = Counter(_key(_plain_truth(row.truth)) for row in rows).most_common(1)[0][1]
    share, expected = count / len(rows), common / len(rows)
    if answer == _key(None) or share <= 0.9 or share - expected <= margin:
        return ""
    name = _name(rows, answer)
    return f"{share:.0%} of the answers are {name}; the commonest truth is {expected:.0%} of all"


def blindness(rows: Sequence[Prediction], *, least: float = 0.02) -> str:
    """A warning where masks reach a Dice that the whole picture reaches too; "" where not.

    What is left above the whole picture (`dice_gain`) is then below `least`, however high the Dice.
    """
    graded = [row.grade.parts for row in rows if "dice_gain" in row.grade.parts]
    if len(graded) < 10:
        return ""
    dice, gain = (sum(parts[name] for parts in graded) / len(graded) for name in ("dice", "dice_gain"))
    if gain >= least or dice < 0.1:
        return ""
    return f"a Dice of {dice:.2f} says nothing: above the whole picture as the answer it gains {gain:.3f}"


def _options(truth: Any) -> tuple[str, ...]:
    return tuple(truth["options"]) if isinstance(truth, dict) and "index" in truth else ()


def _chosen(row: Prediction, classes: int) -> int:
    parsed = row.grade.parsed
    valid = row.grade.status is Status.OK and isinstance(parsed, int) and 0 <= parsed < classes
    return parsed if valid else classes


def _plain_truth(truth: Any) -> Any:
    return truth["index"] if isinstance(truth, dict) and "index" in truth else truth


def _key(value: Any) -> str:
    return repr(value)


def _name(rows: Sequence[Prediction], answer: str) -> str:
    options = shared_options(rows)
    known = options is not None and answer.isdigit() and int(answer) < len(options)
    return options[int(answer)] if options and known else answer[:80]


def _ratio(top: NDArray[Any], bottom: NDArray[Any]) -> Floats:
    """Quotient with 0 where the denominator is 0."""
    top, bottom = np.asarray(top, float), np.asarray(bottom, float)
    zeros = np.zeros(np.broadcast_shapes(top.shape, bottom.shape))
    np.divide(top, bottom, out=zeros, where=bottom > 0)
    return zeros
