import io
import json
import re

import msgspec
import pytest
from rich.console import Console

from malpighi.errors import ConfigError
from malpighi.evaluation.published.check import CheckReport, check
from malpighi.evaluation.published.rows import NAMES, paper
from malpighi.evaluation.published.show import check_tables, tables


@pytest.fixture(scope="module")
def reports():
    return {name: check(name) for name in NAMES}


TALLIES = {
    "smartpath-r1": {
        "averages": (48, 52),
        "intervals of averages": (46, 52),
        "intervals of accuracies": (258, 258),
        "stated numbers of samples": (7, 15),
        "average precisions at rising IoU": (103, 105),
        "figures with an interval": (811, 816),
        "macro-F1 beside accuracy": (91, 102),
        "marks of the second best": (101, 110),
        "figures of the text": (6, 8),
    },
    "patho-r1": {
        "averages": (11, 12),
        "mean recalls": (46, 48),
        "overalls, unweighted": (0, 54),
        "overalls, weighted": (53, 54),
        "recalls at rising k": (46, 48),
        "figures of the text": (3, 6),
    },
    "singpath-vl": {
        "averages": (12, 12),
        "accuracies of Table 3": (7, 45),
        "accuracies of Table 4": (36, 36),
        "figures of the text": (3, 3),
    },
}


@pytest.mark.parametrize("name", NAMES)
def test_the_counts(reports, name):
    assert {each.subject: (each.holds, each.of) for each in reports[name].tallies} == TALLIES[name]


def test_samples_and_ranks(reports):
    report = reports["smartpath-r1"]
    assert (report.rows, len(report.samples), len(report.ranks)) == (816, 48, 10)
    by_column = {each.column: each for each in report.samples}
    assert (by_column["ESCA"].stated, by_column["ESCA"].n, by_column["ESCA"].agrees) == (189_142, 2000, False)
    assert by_column["BRACS"].agrees
    assert (by_column["TCGA-VQA-*"].stated, by_column["TCGA-VQA-*"].n) == (1501, 1494)
    assert {round(each.ranks["SmartPath-R1"], 3) for each in report.ranks[:6]} == {1.083}
    assert len(reports["patho-r1"].samples) == 17
    assert reports["patho-r1"].ranks == []


def test_claims_that_the_tables_do_not_give(reports):
    wrong = {each.subject for report in reports.values() for each in report.claims if not each.holds}
    assert wrong == {
        "average rank of PathoR1",
        "mean accuracy of SmartPath-R1 in 13 WSI VQA tasks",
        "Patho-R1-7B above PathGen-LLaVA-13B, PathMMU test-tiny, points",
        "Patho-R1-7B above PathGen-LLaVA-13B, PathMMU test, points",
        "data sets on which PathoCLIP-L is best",
    }


@pytest.mark.parametrize("name", NAMES)
def test_the_report_travels_as_json(reports, name):
    text = json.dumps(msgspec.to_builtins(reports[name]))
    assert msgspec.json.decode(text, type=CheckReport) == reports[name]


def printed(renderable, width=220) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(renderable)
    return console.export_text()


def test_the_check_in_words(reports):
    text = printed(check_tables(reports["smartpath-r1"]))
    for words in (
        "48 of 52",
        "46 of 52",
        "258 of 258",
        "1.083",
        "68 first",
        "189,142",
        "0.977 (0.577,0.940)",
    ):
        assert words in text
    assert "50 rows contradict others" in text


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_is_printed_in_its_table(name):
    text = printed(tables(name), width=400)
    assert paper(name).title in text
    numbers = {number for row in paper(name).rows for number in re.findall(r"\d+\.\d+", row.printed)}
    assert numbers <= set(re.findall(r"\d+\.\d+", text))
    for row in paper(name).rows:
        assert row.method in text


def test_doubtful_figures_carry_a_mark():
    text = printed(tables("patho-r1"), width=400)
    assert "75.28!" in text
    assert "76.14!" not in text


def test_unknown_papers_are_refused():
    with pytest.raises(ConfigError, match="known: smartpath-r1"):
        check("nature")
    with pytest.raises(ConfigError, match="known: smartpath-r1"):
        tables("nature")
