"""Every table of a result as CSV, for a spreadsheet, and as LaTeX, for a paper."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from malpighi.durable import mending, replacing
from malpighi.evaluation.statistics import Estimate
from malpighi.evaluation.tables import Results, metric_label

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "−": "$-$",
}

Value = str | float | int | None


class Sheet(NamedTuple):
    """A table of plain values.

    Attributes:
        name: of its files.
        caption: one sentence on what it holds.
        columns: names.
        rows: values, None where there is none.
    """

    name: str
    caption: str
    columns: tuple[str, ...]
    rows: list[tuple[Value, ...]]


def sheets(results: Results) -> list[Sheet]:
    """Scores, metrics, comparisons and ranks; a sheet without rows is left out."""
    level = f"{100 * results.level:g}\\,%".replace("\\,", " ")
    found = [
        Sheet(
            "scores",
            f"Mean score with its {level} interval over groups; unread answers count as wrong.",
            ("exam", "task", "kind", "model", "n", "groups", "score", "low", "high", "interval", "unread"),
            [
                (r.exam, str(r.task), r.score_name, r.model, r.n, r.groups, *_values(r.score), r.invalid)
                for r in results.rows
            ],
        ),
        Sheet(
            "metrics",
            f"Further metrics with their {level} intervals where they have one.",
            ("exam", "model", "metric", "value", "low", "high", "interval"),
            [
                (row.exam, row.model, metric_label(name), *_values(value))
                for row in results.rows
                for name, value in row.metrics.items()
            ],
        ),
        Sheet(
            "comparisons",
            "Paired differences, second minus first; p adjusted by Holm within a pair and scope.",
            ("first", "second", "scope", "where", "difference", "low", "high", "interval", "p", "p (Holm)",
             "test", "pairs", "groups"),
            [
                (c.first, c.second, c.scope, c.name, *_values(c.difference.estimate), c.difference.p,
                 c.p_holm, c.difference.test, c.difference.n, c.difference.groups)
                for c in results.comparisons
            ],
        ),
        Sheet(
            "ranks",
            f"Mean rank over {results.ranked_exams} exams that all models took; ties share their ranks.",
            ("model", "mean rank"),
            [(model, rank) for model, rank in results.ranks.items()],
        ),
    ]  # fmt: skip
    return [sheet for sheet in found if sheet.rows]


def write_tables(results: Results, folder: Path, more: Iterable[Sheet] = ()) -> list[Path]:
    """Write each table as `<name>.csv` and `<name>.tex`; gives the files back.

    Raises:
        UserError: the folder cannot be written.
    """
    written = []
    with mending(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for sheet in [*sheets(results), *more]:
            for suffix, text in ((".csv", to_csv(sheet)), (".tex", to_latex(sheet))):
                path = folder / f"{sheet.name}{suffix}"
                with replacing(path) as file:
                    file.write(text.encode())
                written.append(path)
    return written


def to_csv(sheet: Sheet) -> str:
    """The sheet as RFC 4180 text with full precision; a missing value is an empty field.

    A cell that a spreadsheet would take for a formula gets an apostrophe: names of models come from outside.

    Example:
        >>> to_csv(Sheet("s", "", ("model", "score"), [("=a", 0.5), ("b", None)])).splitlines()
        ['model,score', "'=a,0.5", 'b,']
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(sheet.columns)
    writer.writerows([_cell(value) for value in row] for row in sheet.rows)
    return out.getvalue()


def to_latex(sheet: Sheet) -> str:
    r"""The sheet as a `longtable` with booktabs rules; numbers with three decimals.

    Example:
        >>> print(to_latex(Sheet("s", "All.", ("model", "score"), [("a_b", 0.5)])).splitlines()[9])
        a\_b & 0.500 \\
    """
    kinds = [
        all(isinstance(row[place], int | float | None) for row in sheet.rows)
        for place in range(len(sheet.columns))
    ]
    lines = [
        "% needs \\usepackage{booktabs,longtable}",
        f"\\begin{{longtable}}{{{''.join('r' if number else 'l' for number in kinds)}}}",
        f"\\caption{{{_latex(sheet.caption)}}}\\label{{tab:{sheet.name}}}\\\\",
        "\\toprule",
        " & ".join(map(_latex, sheet.columns)) + r" \\",
        "\\midrule",
        "\\endfirsthead",
        "\\midrule",
        "\\endhead",
    ]
    lines += [" & ".join(_latex(_shown(value)) for value in row) + r" \\" for row in sheet.rows]
    return "\n".join([*lines, "\\bottomrule", "\\end{longtable}", ""])


def sheet_of(name: str, caption: str, rows: Sequence[Mapping[str, object]]) -> Sheet:
    """A sheet of rows that name their columns; columns in the order they are met."""
    columns = tuple(dict.fromkeys(column for row in rows for column in row))
    return Sheet(name, caption, columns, [tuple(_plain(row.get(c)) for c in columns) for row in rows])


def _plain(value: object) -> Value:
    return value if isinstance(value, str | float | int | None) else str(value)


def _values(estimate: Estimate) -> tuple[Value, ...]:
    return estimate.value, estimate.low, estimate.high, estimate.method


def _cell(value: Value) -> Value:
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{value}"
    return value


def _shown(value: Value) -> str:
    if value is None:
        return "--"
    if isinstance(value, float):
        return f"{value:.3f}".replace("-", "−")
    return str(value)


def _latex(text: str) -> str:
    return "".join(_ESCAPES.get(letter, letter) for letter in text)
