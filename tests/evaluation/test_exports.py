"""Tables outside of the page: read back as they were, whatever the names hold."""

import csv
import io
import re

import pytest

from malpighi.errors import UserError
from malpighi.evaluation.exports import Sheet, sheet_of, sheets, to_csv, to_latex, write_tables
from malpighi.evaluation.statistics import Bootstrap
from malpighi.evaluation.tables import results
from malpighi.records import Grade, Prediction, Status, TaskKind

HOSTILE = '=HYPERLINK("x"), \\input{/etc/passwd} & 5% of $a_b^c$ ~{#}'


def rows(model, right):
    return [
        Prediction(
            model=model, exam="d/e", sample=str(n), group=f"g{n}", task=TaskKind.CLASSIFICATION, text="",
            grade=Grade(float(n < right), Status.OK, (n + (n >= right)) % 2, {"exact": float(n < right)}),
            truth={"index": n % 2, "options": ["a", "b"]},
        )
        for n in range(40)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def table():
    names = ("first", "second", HOSTILE)
    found = [row for name, right in zip(names, (10, 20, 30), strict=True) for row in rows(name, right)]
    return results(found, [("first", "second"), ("second", HOSTILE)], Bootstrap(draws=100))


def test_the_figures_of_the_result_are_in_the_sheets(table):
    found = {sheet.name: sheet for sheet in sheets(table)}
    assert list(found) == ["scores", "metrics", "comparisons", "ranks"]
    scores = [dict(zip(found["scores"].columns, row, strict=True)) for row in found["scores"].rows]
    assert [row["score"] for row in scores] == [0.25, 0.5, 0.75]
    assert all(row["low"] <= row["score"] <= row["high"] for row in scores)
    gains = [dict(zip(found["comparisons"].columns, row, strict=True)) for row in found["comparisons"].rows]
    assert [row["difference"] for row in gains if row["scope"] == "exam"] == [0.25, 0.25]
    assert [rank for _, rank in found["ranks"].rows] == [3, 2, 1]


def test_csv_reads_back_and_is_no_formula(table):
    for sheet in sheets(table):
        text = to_csv(sheet)
        read = list(csv.reader(io.StringIO(text, newline="")))
        assert read[0] == list(sheet.columns)
        assert len(read) == len(sheet.rows) + 1
        assert not any(cell.startswith(("=", "@")) for row in read for cell in row)
    scores = next(sheet for sheet in sheets(table) if sheet.name == "scores")
    read = list(csv.reader(io.StringIO(to_csv(scores), newline="")))
    assert [float(row[6]) for row in read[1:]] == [0.25, 0.5, 0.75]


def test_latex_holds_no_command_of_a_name(table):
    for sheet in sheets(table):
        text = to_latex(sheet)
        assert "\\input" not in text
        layout = "usepackage begin caption label toprule midrule endfirsthead endhead bottomrule end"
        commands = {*layout.split(), "textbackslash", "textasciitilde", "textasciicircum"}
        assert set(re.findall(r"\\([a-z]+)", text)) <= commands
        body = text.split("\\endhead\n")[1].split("\\bottomrule")[0].splitlines()
        assert len(body) == len(sheet.rows)
        cells = [len(re.findall(r"(?<!\\)&", line)) + 1 for line in body]
        assert set(cells) == {len(sheet.columns)}
        assert not re.search(r"(?<!\\)[%#_](?!.*needs)", text.split("\n", 1)[1].replace("tab:", ""))


def test_negative_and_missing_numbers_are_set_as_such():
    text = to_latex(Sheet("s", "c", ("a", "b"), [(-0.25, None)]))
    assert "$-$0.250 & -- \\\\" in text
    assert "{rr}" in text
    assert to_csv(Sheet("s", "c", ("a", "b"), [(-0.25, None)])) == "a,b\r\n-0.25,\r\n"


def test_the_files_are_written_and_more_can_be_added(table, tmp_path):
    more = sheet_of("leakage", "Leaks.", [{"exam": "d/e", "share": 0.1}, {"exam": "d/f", "pairs": 3}])
    written = write_tables(table, tmp_path / "tables", [more])
    assert {path.name for path in written} == {
        f"{name}{suffix}"
        for name in ("scores", "metrics", "comparisons", "ranks", "leakage")
        for suffix in (".csv", ".tex")
    }
    lines = (tmp_path / "tables/leakage.csv").read_text().splitlines()
    assert lines == ["exam,share,pairs", "d/e,0.1,", "d/f,,3"]
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError):
        write_tables(table, tmp_path / "file" / "tables")
