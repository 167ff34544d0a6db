"""How far annotators agree with each other: the ceiling that a model's accuracy is read against.

Shapes: N items, R raters, K categories. Labels are a matrix (N, R) of category indices, `MISSING` where a
rater gave none. All coefficients are computed from counts per item, so raters need not be the same persons on
every item, except for Cohen's kappa, which compares two of them.

Source: Gwet, Handbook of Inter-Rater Reliability, 4th ed. (2014), for missing labels.
"""

import csv
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from malpighi.errors import DataError
from malpighi.evaluation.statistics import Bootstrap, Estimate, group_sums, interval, kinds_of

MISSING = -1
Floats = NDArray[np.float64]


class Labels(NamedTuple):
    """What raters said.

    Attributes:
        matrix: (N, R) category indices, int64; `MISSING` where a rater gave none.
        categories: K names, in the order of the indices.
    """

    matrix: NDArray[np.int64]
    categories: tuple[Hashable, ...]


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """Agreement among raters with intervals that draw whole groups.

    Attributes:
        items: with at least two labels; the others say nothing of agreement.
        raters: columns of the table.
        groups: patients or slides among the items.
        percent: share of pairs of raters who agree, averaged over items.
        kappa: Fleiss' kappa; for two raters with all labels it is Scott's pi.
        ac1: Gwet's AC1, which does not fall where one category is frequent.
        pairs: (first rater, second rater, percent, Cohen's kappa) for every two columns, by number.
    """

    items: int
    raters: int
    groups: int
    percent: Estimate
    kappa: Estimate
    ac1: Estimate
    pairs: tuple[tuple[int, int, Estimate, Estimate], ...]


class LabelTable(NamedTuple):
    """A table of labels as people write it.

    Attributes:
        raters: names of the annotators' columns.
        rows: labels by item and annotator; "" where there is none.
        groups: patient or slide of each item.
    """

    raters: tuple[str, ...]
    rows: list[list[str]]
    groups: list[str]


def read_labels(path: Path) -> LabelTable:
    """A CSV file with the columns `item`, `group` and one per annotator.

    Raises:
        DataError: missing, unreadable, without these columns or two annotators, or an item that repeats.
    """
    try:
        reader = csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    columns = list(reader.fieldnames or ())
    raters = tuple(column for column in columns if column not in ("item", "group"))
    if not {"item", "group"} <= set(columns) or len(raters) < 2:
        raise DataError(
            f"{path}: expected the columns item, group and two annotators or more; found {columns}"
        )
    found = list(reader)
    items = [row["item"] for row in found]
    if len(set(items)) < len(items):
        twice = next(item for item in items if items.count(item) > 1)
        raise DataError(f"{path}: item {twice!r} occurs twice; give each one row")
    rows = [[(row[rater] or "").strip() for rater in raters] for row in found]
    return LabelTable(raters, rows, [row["group"] or row["item"] for row in found])


def label_matrix(table: Sequence[Sequence[Hashable | None]]) -> Labels:
    """Labels by item and rater as indices; None and "" are missing.

    Args:
        table: one row per item, one cell per rater.

    Raises:
        DataError: rows of different length, or no label at all.

    Example:
        >>> made = label_matrix([["yes", "no"], ["no", None]])
        >>> made.matrix.tolist(), made.categories
        ([[1, 0], [0, -1]], ('no', 'yes'))
    """
    lengths = {len(row) for row in table}
    if len(lengths) != 1:
        raise DataError(
            f"a table of labels needs rows of one length; found lengths {sorted(lengths) or 'none'}"
        )
    given = {label for row in table for label in row if label is not None and label != ""}
    if not given:
        raise DataError("a table of labels without any label")
    categories = tuple(sorted(given, key=lambda label: (str(type(label)), str(label))))
    index = {label: number for number, label in enumerate(categories)}
    rows = [[MISSING if label is None or label == "" else index[label] for label in row] for row in table]
    return Labels(np.array(rows, np.int64), categories)


def agreement(
    labels: Labels, groups: Sequence[str] | None = None, bootstrap: Bootstrap | None = None
) -> Agreement:
    """All coefficients with their intervals.

    Args:
        labels: what raters said.
        groups: N names of patients or slides, of which whole ones are drawn; every item its own where None.
        bootstrap: draws, seed, level.

    Raises:
        DataError: no item with two labels, or a number of groups that differs from that of items.
    """
    options = bootstrap or Bootstrap()
    counts_NK = item_counts(labels)
    names = np.arange(len(counts_NK)).astype(str) if groups is None else np.asarray(groups)
    if len(names) != len(counts_NK):
        raise DataError(f"{len(names)} groups for {len(counts_NK)} items; give one per item")
    rated, k = counts_NK.sum(1) >= 2, counts_NK.shape[1]
    if not rated.any():
        raise DataError("no item has two labels; agreement needs at least one")
    labelled = counts_NK.sum(1) > 0
    kinds = kinds_of(group_sums(_moments(counts_NK[labelled]), names[labelled].tolist()))
    return Agreement(
        items=int(rated.sum()),
        raters=labels.matrix.shape[1],
        groups=len(np.unique(names[rated])),
        percent=interval(kinds, _percent, options),
        kappa=interval(kinds, _fleiss, options),
        ac1=interval(kinds, lambda totals: _gwet(totals, k), options),
        pairs=tuple(_pairs(labels, names, options)),
    )


def item_counts(labels: Labels) -> NDArray[np.int64]:
    """How many raters gave each item each category, (N, K)."""
    return np.stack([(labels.matrix == k).sum(1) for k in range(len(labels.categories))], axis=1)


def percent_agreement(counts_NK: NDArray[Any]) -> float:
    """Share of pairs of raters who agree, averaged over items with two labels or more."""
    return float(_percent(_total(counts_NK))[0])


def fleiss_kappa(counts_NK: NDArray[Any]) -> float:
    """Agreement of many raters beyond chance; 1 where all labels are the same.

    Source: Fleiss, Measuring nominal scale agreement among many raters, Psychol. Bull. 76 (1971).
    Departs: items may have different numbers of labels; an item's labels then share a weight of 1 in the
    chances of the categories, also where it has one label only, as Gwet (2014) has it. With equal numbers it
    is Fleiss' own formula.

    Args:
        counts_NK: labels per item and category.

    Example:
        >>> round(fleiss_kappa(np.array([[2, 0], [0, 2], [1, 1]])), 4)
        0.3333
    """
    return float(_fleiss(_total(counts_NK))[0])


def gwet_ac1(counts_NK: NDArray[Any]) -> float:
    """Agreement of many raters beyond chance, where chance is the guessing on items that are hard to tell.

    Source: Gwet, Computing inter-rater reliability in the presence of high agreement, Br. J. Math. Stat.
    Psychol. 61 (2008).

    Args:
        counts_NK: labels per item and category, K the number of categories that could have been given.
    """
    return float(_gwet(_total(counts_NK), np.asarray(counts_NK).shape[1])[0])


def cohen_kappa(matrix_KK: NDArray[Any]) -> float:
    """Agreement of two raters beyond the chance of their own habits; 1 where both give one category only.

    Source: Cohen, A coefficient of agreement for nominal scales, Educ. Psychol. Meas. 20 (1960).

    Args:
        matrix_KK: items by first and second rater's category.

    Example:
        >>> round(cohen_kappa(np.array([[20, 5], [10, 15]])), 4)
        0.4
    """
    matrix = np.asarray(matrix_KK, float)
    return float(_cohen(matrix.reshape(1, -1), len(matrix))[0])


def _total(counts_NK: NDArray[Any]) -> Floats:
    totals: Floats = _moments(np.asarray(counts_NK)).sum(0, keepdims=True)
    if not totals[0, 0]:
        raise DataError("no item has two labels; agreement needs at least one")
    return totals


def _moments(counts_NK: NDArray[Any]) -> Floats:
    """What the coefficients need of an item, to be summed.

    Returns:
        (N, 3 + K): whether it has two labels, the share of its pairs of raters who agree, whether it has a
        label, and the share of each category among its labels.
    """
    counts = np.asarray(counts_NK, float)
    raters = counts.sum(1, keepdims=True)
    pairs = raters * (raters - 1)
    agreeing = (counts * (counts - 1)).sum(1, keepdims=True) / np.maximum(pairs, 1)
    return np.asarray(np.hstack([pairs > 0, agreeing, raters > 0, counts / np.maximum(raters, 1)]))


def _percent(totals: Floats) -> Floats:
    """A draw of groups in which no item has two labels agrees with itself."""
    return np.asarray(np.where(totals[:, 0] > 0, totals[:, 1] / np.maximum(totals[:, 0], 1), 1.0))


def _fleiss(totals: Floats) -> Floats:
    shares = totals[:, 3:] / totals[:, 2:3]
    return _beyond(_percent(totals), (shares**2).sum(1))


def _gwet(totals: Floats, categories: int) -> Floats:
    shares = totals[:, 3:] / totals[:, 2:3]
    return _beyond(_percent(totals), (shares * (1 - shares)).sum(1) / max(categories - 1, 1))


def _cohen(totals: Floats, categories: int) -> Floats:
    cells = totals.reshape(-1, categories, categories)
    cells = cells / cells.sum((1, 2), keepdims=True)
    seen = np.trace(cells, axis1=1, axis2=2)
    return _beyond(seen, (cells.sum(1) * cells.sum(2)).sum(1))


def _beyond(seen: Floats, chance: Floats) -> Floats:
    """(seen - chance) / (1 - chance); 1 where chance alone explains full agreement."""
    room = 1 - chance
    certain = room < 1e-12
    return np.asarray(np.where(certain, 1.0, (seen - chance) / np.where(certain, 1.0, room)))


def _pairs(
    labels: Labels, names: NDArray[Any], options: Bootstrap
) -> list[tuple[int, int, Estimate, Estimate]]:
    """Every two raters on the items that both labelled; pairs without such an item are left out."""
    k, found = len(labels.categories), []
    matrix = labels.matrix
    for first in range(matrix.shape[1]):
        for second in range(first + 1, matrix.shape[1]):
            both = (matrix[:, first] != MISSING) & (matrix[:, second] != MISSING)
            if not both.any():
                continue
            cell = matrix[both, first] * k + matrix[both, second]
            kinds = kinds_of(group_sums(np.eye(k * k)[cell], names[both].tolist()))
            seen = interval(kinds, lambda totals: _same(totals, k), options)
            found.append((first, second, seen, interval(kinds, lambda totals: _cohen(totals, k), options)))
    return found


def _same(totals: Floats, categories: int) -> Floats:
    cells = totals.reshape(-1, categories, categories)
    return np.asarray(np.trace(cells, axis1=1, axis2=2) / cells.sum((1, 2)))
