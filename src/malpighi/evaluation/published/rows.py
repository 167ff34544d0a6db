"""The published tables as data: one row per printed figure, and how many samples the papers state.

The files beside this one hold facts (figures, names of methods and data sets) and nothing else of the papers.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from importlib.resources import files
from typing import NamedTuple

from malpighi.errors import ConfigError

AVERAGE = "AVERAGE"


class Row(NamedTuple):
    """One printed figure.

    Attributes:
        table: number of the table in the paper.
        group: kind of task, e.g. `roi_detection`.
        dataset: as the paper calls it; `AVERAGE` (or `PathMMU-Overall`) where it is an average.
        split: part of the data set, e.g. `test_tiny`, `closed`; "" where the paper has none.
        direction: `i2t` or `t2i` of retrieval; "" elsewhere.
        metric: `accuracy`, `macro_f1`, `ap50`, `dice`, `bleu4`, `recall@5` and so on.
        method: the model.
        value: fraction of 1.
        low: lower end of the printed 95% interval; None where none is printed.
        high: upper end; None likewise.
        printed: the cell as it stands in the paper.
        averages: how many rows it is said to average; 0 for a row of its own.
        classes: options of a classification; 0 elsewhere.
        external: whether the paper calls the data external to its training; None where it does not say.
        underlined: whether the cell is marked as second best.
    """

    table: int
    group: str
    dataset: str
    split: str
    direction: str
    metric: str
    method: str
    value: float
    low: float | None
    high: float | None
    printed: str
    averages: int
    classes: int
    external: bool | None
    underlined: bool

    @property
    def column(self) -> str:
        """Data set and split in one word, e.g. `PathMMU-Atlas/val`."""
        return "/".join(part for part in (self.dataset, self.split, self.direction) if part)

    @property
    def decimals(self) -> int:
        """Decimals of the printed value."""
        return len(self.printed.partition(" ")[0].partition(".")[2])

    @property
    def unit(self) -> float:
        """One unit of the last printed digit, as a fraction of 1: 0.001 for 0.842 and for 84.2 per cent."""
        return 10.0 ** -(self.decimals + 2 * self.percent)

    @property
    def percent(self) -> bool:
        """Whether the paper prints percentages."""
        return self.decimals < 3

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What makes a column of a table: data set, split, direction, metric."""
        return self.dataset, self.split, self.direction, self.metric


class Stated(NamedTuple):
    """A number of test samples as a paper states it.

    Attributes:
        table: where.
        covers: patterns of `Row.column` or data sets that share it.
        samples: the number.
        largest_class: samples of the most frequent class among them; 0 where not stated.
    """

    table: int
    covers: str
    samples: int
    largest_class: int

    def holds(self, row: Row) -> bool:
        """Whether a row is among those that the count is for."""
        return fnmatchcase(row.dataset, self.covers) or fnmatchcase(row.column, self.covers)


@dataclass(frozen=True)
class Paper:
    """One paper's tables.

    Attributes:
        name: as the command line takes it, e.g. `smartpath-r1`.
        title: of the paper.
        system: the name of its model, whose rows are its claims.
        rows: every figure, in the order printed.
        stated: how many test samples it states.
    """

    name: str
    title: str
    system: str
    rows: tuple[Row, ...]
    stated: tuple[Stated, ...]

    @property
    def own(self) -> list[Row]:
        """The rows that are no averages."""
        return [row for row in self.rows if not row.averages]

    @property
    def averages(self) -> list[Row]:
        """The rows that are averages."""
        return [row for row in self.rows if row.averages]

    def find(self, **wanted: object) -> list[Row]:
        """Rows that have these values.

        Example:
            >>> [row.printed for row in paper("smartpath-r1").find(dataset="CCRCC", metric="accuracy",
            ...     method="SmartPath-R1")]
            ['0.928 (0.917, 0.939)']
        """
        return [
            row for row in self.rows if all(getattr(row, name) == value for name, value in wanted.items())
        ]

    def stated_for(self, row: Row) -> Stated | None:
        """The stated count that a row falls under; None where the paper gives none."""
        return next((count for count in self.stated if count.holds(row)), None)


_PAPERS = {
    "smartpath-r1": ("smartpath_r1.csv", "SmartPath-R1"),
    "patho-r1": ("patho_r1.csv", "Patho-R1-7B"),
    "singpath-vl": ("singpath_vl.csv", "Singpath-VL"),
}
NAMES = tuple(_PAPERS)


@lru_cache
def paper(name: str) -> Paper:
    """The tables of a paper.

    Args:
        name: one of `NAMES`.

    Raises:
        ConfigError: no such paper; the message lists those known.
    """
    if name not in _PAPERS:
        raise ConfigError(f"no published numbers of {name!r}; known: {', '.join(NAMES)}")
    file, system = _PAPERS[name]
    heading, rows = read_table(file)
    stated = tuple(
        Stated(int(row["table"]), row["covers"], int(row["samples"]), int(row["largest_class"] or 0))
        for row in read_table("counts.csv")[1]
        if row["paper"] == name
    )
    return Paper(name, heading[0], system, tuple(_row(row) for row in rows), stated)


def read_table(file: str) -> tuple[list[str], list[dict[str, str]]]:
    """A data file of this folder: its lines of heading, and its rows by column name."""
    lines = files("malpighi.evaluation.published").joinpath(file).read_text("utf-8").splitlines()
    heading = [line.removeprefix("# ") for line in lines if line.startswith("#")]
    return heading, list(csv.DictReader(line for line in lines if not line.startswith("#")))


def by_column(rows: list[Row]) -> Iterator[tuple[tuple[str, str, str, str], list[Row]]]:
    """Rows by column (data set, split, direction, metric), in the order printed."""
    columns: dict[tuple[str, str, str, str], list[Row]] = {}
    for row in rows:
        columns.setdefault(row.key, []).append(row)
    yield from columns.items()


def _row(cells: dict[str, str]) -> Row:
    return Row(
        table=int(cells["table"]),
        group=cells["group"],
        dataset=cells["dataset"],
        split=cells["split"],
        direction=cells["direction"],
        metric=cells["metric"],
        method=cells["method"],
        value=float(cells["value"]),
        low=_number(cells["low"]),
        high=_number(cells["high"]),
        printed=cells["printed"],
        averages=int(cells["averages"] or 0),
        classes=int(cells["classes"] or 0),
        external={"yes": True, "no": False}.get(cells["external"]),
        underlined=cells["underlined"] == "yes",
    )


def _number(text: str) -> float | None:
    return float(text) if text else None
