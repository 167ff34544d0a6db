"""A run of ours beside the published rows: the right rows and figures, and the differences in words."""

import fnmatch
import io
import json
from collections import Counter

import msgspec
import pytest
from rich.console import Console

from malpighi.errors import ConfigError
from malpighi.evaluation.published.beside import Beside, beside, exam_key, published_exams
from malpighi.evaluation.published.rows import NAMES, paper, read_table
from malpighi.evaluation.published.show import beside_tables
from malpighi.evaluation.statistics import Bootstrap
from malpighi.evaluation.tables import results
from malpighi.records import Grade, Prediction, Status, TaskKind


def a_row(exam, number, task, parts, **fields) -> Prediction:
    score = next(iter(parts.values()))
    status = Status.NO_ANSWER if number % 10 == 9 else Status.OK
    grade = Grade(score, status, int(score < 1) if status is Status.OK else None, parts)
    return Prediction(
        model="ours", exam=exam, sample=f"{exam}/{number}", group=f"g{number // 2}", task=task, text="",
        grade=grade,
        **fields,
    )  # fmt: skip


def a_run(*exams) -> list[Prediction]:
    rows = []
    for exam in exams:
        for number in range(40):
            right = float(number % 4 != 0 and number % 10 != 9)
            if exam.endswith("detection"):
                parts = {
                    "ap_tie50": 0.2,
                    "ap_tie30": 0.3,
                    "ap_tie70": 0.1,
                    "ap_paper30": 0.5,
                    "ap_paper50": 0.4,
                }
                rows.append(a_row(exam, number, TaskKind.DETECTION, parts, truth=[]))
            elif exam.endswith("open"):
                rows.append(
                    a_row(exam, number, TaskKind.VQA, {"bleu4": 0.3, "bleu4_paper": 0.25}, truth="yes")
                )
            else:
                truth = {"index": number % 4 // 3, "options": ["a", "b"]}
                rows.append(a_row(exam, number, TaskKind.CLASSIFICATION, {"exact": right}, truth=truth))
    return rows


def table_of(*exams):
    return results(a_run(*exams), bootstrap=Bootstrap(draws=50))


@pytest.fixture(scope="module")
def found():
    exams = (
        "esca/class",
        "bcss/detection",
        "pathvqa/open",
        "toy/class",
        "crc_msi/class",
        "slidebench/risk_factors",
    )
    return beside(table_of(*exams), "smartpath-r1")


def row_of(found, exam, metric):
    (row,) = (row for row in found.rows if (row.exam, row.metric) == (exam, metric))
    return row


def test_every_figure_of_ours_meets_its_published_rows(found):
    assert Counter(row.exam for row in found.rows) == {
        "esca/class": 2,
        "crc_msi/class": 2,
        "bcss/detection": 3,
        "pathvqa/open": 1,
        "slidebench/risk_factors": 1,
    }
    row = row_of(found, "esca/class", "accuracy")
    published = {each.method: each for each in row.published}
    esca = {r.method: r for r in paper("smartpath-r1").find(dataset="ESCA", metric="accuracy")}
    assert {name: each.printed for name, each in published.items()} == {n: r.printed for n, r in esca.items()}
    for name, each in published.items():
        assert each.difference == pytest.approx(row.ours.value - esca[name].value)
        assert each.apart is (row.ours.low > esca[name].high or row.ours.high < esca[name].low)
    assert (row.n, row.groups, row.n_stated, row.n_implied) == (40, 20, 189_142, [2000])
    assert row.invalid == pytest.approx(0.1)


def test_the_figure_nearest_in_meaning_is_taken(found):
    detection = {
        row.metric: (row.ours_is, row.ours.value) for row in found.rows if row.exam == "bcss/detection"
    }
    assert {metric: name for metric, (name, _) in detection.items()} == {
        "ap30": "AP30 (paper)",
        "ap50": "AP50 (paper)",
        "ap70": "AP70 tie",
    }
    assert [value for _, value in detection.values()] == pytest.approx([0.5, 0.4, 0.1])
    assert row_of(found, "pathvqa/open", "bleu4").ours_is == "BLEU-4 (paper)"
    assert row_of(found, "esca/class", "macro_f1").ours_is == "macro-F1"


def test_the_score_itself_stands_in_where_nothing_nearer_is_there():
    rows = [
        msgspec.structs.replace(row, grade=msgspec.structs.replace(row.grade, parts={"ap_tie50": 0.2}))
        for row in a_run("bcss/detection")
    ]
    (row,) = beside(results(rows, bootstrap=Bootstrap(draws=50)), "smartpath-r1").rows
    assert (row.metric, row.ours_is, row.ours.value) == ("ap50", "AP50 tie", pytest.approx(0.2))


def test_the_protocols_differ_in_words(found):
    words = " | ".join(row_of(found, "esca/class", "accuracy").protocol)
    assert "40 here; 189,142 stated, but the paper's intervals imply 2,000" in words
    assert "over 20 groups" in words
    assert "unread answers: 10.0% here" in words
    assert "resolution: images of 256 px are made 224" in words
    assert "CAMELYON" not in words
    words = " | ".join(row_of(found, "bcss/detection", "ap50").protocol)
    assert "1,870 in the paper" in words
    assert "how the paper ranks boxes without confidences" in words
    assert "absent are never asked" in words
    assert "which BLEU" in " | ".join(row_of(found, "pathvqa/open", "bleu4").protocol)
    assert "11 by the paper's figures" in " | ".join(
        row_of(found, "slidebench/risk_factors", "accuracy").protocol
    )


def test_doubtful_figures_say_why(found):
    doubts = {each.method: each.doubts for each in row_of(found, "crc_msi/class", "macro_f1").published}
    assert len(doubts["LLaVA-Med"]) == 2
    assert doubts["SmartPath-R1"] == []
    accuracy = {each.method: each.doubts for each in row_of(found, "crc_msi/class", "accuracy").published}
    assert "at most 0.188" in accuracy["LLaVA-Med"][0]
    assert row_of(found, "esca/class", "accuracy").published[0].doubts == []


def test_what_is_missing_on_either_side_is_told(found):
    assert found.unmatched == ["toy/class"]
    assert "ccrcc/class" in found.absent
    assert len(found.absent) == 72 - 5


def test_a_run_without_a_shared_exam_is_refused():
    with pytest.raises(ConfigError, match=r"no figures for toy/class; it has: .*ccrcc/class"):
        beside(table_of("toy/class"), "smartpath-r1")
    with pytest.raises(ConfigError, match="known: smartpath-r1"):
        beside(table_of("toy/class"), "nature")


def test_patho_and_singpath():
    (row,) = beside(table_of("pathmmu/Atlas-val"), "patho-r1").rows
    assert (row.n_implied, row.n_stated, len(row.published)) == ([80], None, 18)
    (row,) = beside(table_of("cytocell_bench/class"), "singpath-vl").rows
    assert row.ours_is == "balanced accuracy"
    assert {each.method: each.printed for each in row.published}["Singpath-VL"] == "80.2"
    assert any("balanced accuracy" in words for words in row.protocol)


def test_names_are_compared_without_signs():
    assert exam_key("bcnb/HER2 Type") == exam_key("bcnb/her2_type") == exam_key("BCNB/her2-type")
    assert exam_key("pathmmu/Atlas-val") != exam_key("pathmmu/Atlas-test")


@pytest.mark.parametrize(("name", "exams"), [("smartpath-r1", 72), ("patho-r1", 24), ("singpath-vl", 10)])
def test_every_mapped_exam_has_figures(name, exams):
    mapped = [row for row in read_table("exams.csv")[1] if row["paper"] == name]
    assert len(published_exams(name)) == len({exam_key(row["exam"]) for row in mapped}) == exams
    for row in mapped:
        assert paper(name).find(
            group=row["group"], dataset=row["dataset"], split=row["split"], direction=row["direction"]
        ), row


def test_every_note_is_about_some_row():
    for note in read_table("protocol.csv")[1]:
        names = {
            name
            for row in paper(note["paper"]).rows
            for name in (row.group, row.dataset, row.column, f"{row.group}:{row.dataset}")
        }
        assert fnmatch.filter(names, note["covers"]), note
        assert note["topic"] in {"resolution", "sampling", "metric", "labels", "split", "invalid"}


@pytest.mark.parametrize("name", NAMES)
def test_every_column_has_its_exam(name):
    rows = paper(name).own
    mapped = {
        (r["group"], r["dataset"], r["split"]) for r in read_table("exams.csv")[1] if r["paper"] == name
    }
    left = {row.dataset for row in rows if (row.group, row.dataset, row.split) not in mapped}
    assert {each.partition("/")[0] for each in left} == {
        "smartpath-r1": set(),
        "patho-r1": {"Archive"},  # not public
        "singpath-vl": {"CytoCell-Bench"},  # by class; its average stands beside ours
    }[name]


def test_it_travels_and_prints(found):
    assert msgspec.json.decode(json.dumps(msgspec.to_builtins(found)), type=Beside) == found
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(beside_tables(found))
    text = console.export_text()
    for words in (
        "esca/class",
        "SmartPath-R1",
        "189,142 stated",
        "67 exams published, not in this run",
        "toy/class",
    ):
        assert words in text
