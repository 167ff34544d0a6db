"""Every rule on the papers as they are, on a clean part of them, and on that part with one figure changed."""

from collections import Counter
from dataclasses import replace

import pytest

from malpighi.evaluation.published import contradictions as rules
from malpighi.evaluation.published.contradictions import contradictions


def test_all_of_smartpath(smartpath):
    assert Counter(each.kind for each in contradictions(smartpath)) == {
        "average": 6,
        "mixed_average": 1,
        "ap_not_monotone": 2,
        "value_outside_interval": 5,
        "macro_f1_impossible": 11,
        "other_sample_size": 10,
        "interval_cut_short": 3,
        "twin_columns": 1,
        "constant_answer": 2,
        "second_best_mark": 9,
    }


def test_all_of_patho_and_singpath(patho, singpath):
    found = Counter(each.kind for each in contradictions(patho))
    assert found == {"average": 4, "recall_not_monotone": 2, "twin_rows": 1}
    assert Counter(each.kind for each in contradictions(singpath)) == {"no_such_share": 38}


def cells(paper, kind):
    return {(each.column, each.method) for each in contradictions(paper) if each.kind == kind}


def test_the_rows_by_name(smartpath):
    assert cells(smartpath, "ap_not_monotone") == {
        ("DigestPath2019-Cell", "Qwen2.5-VL"),
        ("DigestPath2019-Cell", "BiomedParse"),
    }
    assert cells(smartpath, "value_outside_interval") == {
        ("CRC-MSI", "LLaVA-Med"),
        ("PanCancer-TIL", "SmartPath-R1"),
        ("BreakHis", "SmartPath-R1"),
        ("TCGA-COAD", "Qwen2.5-VL"),
        ("TCGA-COAD", "SmartPath-R1"),
    }
    impossible = cells(smartpath, "macro_f1_impossible")
    assert ("TCGA-COAD", "SmartPath-R1") in impossible
    assert Counter(column for column, _ in impossible) == {
        "CRC-MSI": 2, "PanCancer-TIL": 3, "BreakHis": 1, "CAMELYON": 2, "CPTAC-NSCLC": 2, "TCGA-COAD": 1,
    }  # fmt: skip


def test_reasons_say_what_and_why(smartpath, patho):
    told = {
        (each.kind, each.column, each.method): each
        for each in contradictions(smartpath) + contradictions(patho)
    }
    copied = told["average", "AVERAGE", "SmartPath-SFT"]
    assert "the same cell stands in Table 14 for BCSS" in copied.reason
    assert copied.found == "0.247 (0.140, 0.354)"
    assert "2,213 of the running text does" in told["other_sample_size", "CPTAC-NSCLC", ""].reason
    assert told["other_sample_size", "PathMMU-PathCLS", ""].reason.endswith("imply 165 + 90 = 255")
    assert "557 of 898" in told["constant_answer", "CAMELYON", "SmartPath-R1"].reason
    assert "BCNB-Tumor Type" in told["twin_columns", "BCNB-HER2 Type", "LLaVA-Med"].reason
    assert "7 of 8" in told["twin_rows", "Archive", "PLIP, PubmedCLIP"].reason
    assert told["average", "PathMMU-Overall/test", "LLaVA-Onevision-7B"].found == "21.66"


R1 = "SmartPath-R1"
PLANTED = [
    ("averages_off", (28, 29, 30), {"table": 28, "method": R1}, {"value": 0.45}),
    ("averages_off", (28, 29, 30), {"table": 28, "method": R1}, {"low": 0.1}),
    ("averages_off", (28, 29, 30), {"table": 29, "dataset": "Rings", "method": R1}, {"value": 0.1}),
    ("ap_not_monotone", (14,), {"method": R1, "metric": "ap30"}, {"value": 0.0}),
    ("ap_not_monotone", (14,), {"method": R1, "metric": "ap70"}, {"value": 1.0}),
    ("value_outside_interval", (14,), {"method": R1, "metric": "ap50"}, {"high": 0.1}),
    ("macro_f1_impossible", (4,), {"method": "LLaVA-Med", "metric": "macro_f1"}, {"value": 0.99}),
    ("macro_f1_impossible", (4,), {"method": R1, "metric": "accuracy"}, {"value": 0.0}),
    ("second_best_mark", (4,), {"method": "LLaVA-Med", "metric": "accuracy"}, {"underlined": True}),
]


@pytest.mark.parametrize(("kind", "tables", "match", "new"), PLANTED)
def test_a_planted_figure_is_found_and_a_clean_table_is_not_blamed(
    smartpath, part, changed, kind, tables, match, new
):
    rule = getattr(rules, {"second_best_mark": "second_best_marks"}.get(kind, kind))
    clean = part(smartpath, tables)
    assert list(rule(clean)) == []
    (found,) = rule(changed(clean, match, **new))
    assert found.kind == {"averages_off": "average"}.get(kind, kind)
    assert match.get("method") in found.method.split(", ")
    assert found.reason


def test_mixed_metrics(smartpath, part, changed):
    clean = part(smartpath, (28, 29, 30))
    assert list(rules.mixed_averages(clean)) == []
    mixed = changed(clean, {"table": 28}, metric="mean_acc_bleu4_bertscore")
    mixed = changed(mixed, {"dataset": "Rings"}, metric="bleu4")
    (found,) = rules.mixed_averages(mixed)
    assert "bleu4, dice" in found.reason


def test_recall(patho, part, changed):
    clean = part(patho, (1,), dataset="Archive", direction="i2t")
    assert list(rules.recall_not_monotone(clean)) == []
    (found,) = rules.recall_not_monotone(
        changed(clean, {"method": "PLIP", "metric": "recall@20"}, value=0.0001)
    )
    assert (found.method, found.column) == ("PLIP", "Archive/i2t")


def test_sample_size(smartpath, part):
    clean = part(smartpath, (36,))
    assert list(rules.other_sample_size(clean)) == []
    stated = tuple(s._replace(samples=500) if s.covers == "BRACS" else s for s in clean.stated)
    (found,) = rules.other_sample_size(replace(clean, stated=stated))
    assert (found.printed, found.found) == ("n = 500", "n = 545")


def test_shared_sample_size(smartpath, part):
    clean = part(smartpath, (32,), dataset="PathMMU-Atlas")
    assert list(rules.other_sample_size(clean)) == []
    stated = tuple(s._replace(samples=290) if s.covers == "PathMMU-Atlas" else s for s in clean.stated)
    (found,) = rules.other_sample_size(replace(clean, stated=stated))
    assert found.reason.endswith("imply 208 + 80 = 288")


def test_cut_intervals(smartpath, part):
    assert list(rules.interval_cut_short(part(smartpath, (36, 40, 41)))) == []
    found = rules.interval_cut_short(part(smartpath, (42,)))
    assert [(each.method, each.found) for each in found] == [
        ("PathoR1", "low 0.413"),
        ("SmartPath-SFT", "low 0.707"),
        (R1, "low 0.707"),
    ]


def test_twin_columns(smartpath, part, changed):
    clean = part(smartpath, (43,), method="PathoR1")
    assert list(rules.twin_columns(clean)) == []
    source = clean.find(dataset="BCNB-Grading")[0]
    copied = changed(
        clean, {"dataset": "BCNB-HER2 Type"}, **{k: getattr(source, k) for k in ("value", "printed")}
    )
    (found,) = rules.twin_columns(copied)
    assert "BCNB-HER2 Type" in found.reason


def test_zeros_are_no_twins(smartpath, part):
    zeros = [row for row in part(smartpath, (24,)).rows if row.value == 0]
    assert len(zeros) > 1
    assert list(rules.twin_columns(part(smartpath, (24,)))) == []


def test_twin_rows(patho, part):
    clean = part(patho, (1,), dataset="ARCH")
    assert list(rules.twin_rows(clean)) == []
    lines = clean.find(method="PLIP")
    rows = [row for row in clean.rows if row.method != "CONCH"] + [
        row._replace(method="CONCH") for row in lines
    ]
    (found,) = rules.twin_rows(replace(clean, rows=tuple(rows)))
    assert set(found.method.split(", ")) == {"PLIP", "CONCH"}


def test_constant_answer(smartpath, part, changed):
    clean = part(smartpath, (37,), method="LLaVA-Med")
    assert list(rules.constant_answer(clean)) == []
    (found,) = rules.constant_answer(changed(clean, {"metric": "accuracy"}, value=0.620))
    assert found.method == "LLaVA-Med"


def test_no_such_share(singpath, part, changed):
    clean = part(singpath, (4,))
    assert list(rules.no_such_share(clean)) == []
    match = {"dataset": "CytoCell-Bench/AGC", "method": "Singpath-VL"}
    stated = tuple(s._replace(samples=7) if s.covers.endswith("AGC") else s for s in clean.stated)
    found = list(rules.no_such_share(replace(clean, stated=stated)))
    assert match["method"] in {each.method for each in found}
    assert {each.column for each in found} == {"CytoCell-Bench/AGC"}
