import pytest
from scipy import stats

from malpighi.evaluation.published.averages import student_interval, unweighted, weighted
from malpighi.evaluation.published.grid import combinations, off_grid, question_counts, sizes_that_fit


def holding(found, **wanted):
    chosen = [
        each for each in found if all(getattr(each.row, name) == value for name, value in wanted.items())
    ]
    return sum(each.mean_holds for each in chosen), len(chosen)


def test_averages_of_smartpath(smartpath):
    found = unweighted(smartpath)
    assert all(each.row.averages == len(each.members) for each in found)
    assert holding(found) == (48, 52)
    assert sum(each.interval_holds for each in found) == 46
    misses = {(each.row.table, each.row.method) for each in found if not each.mean_holds}
    assert misses == {(13, "BiomedParse"), (13, "SmartPath-SFT"), (39, "LLaVA-Med"), (39, "Quilt-LLaVA")}
    only_interval = [each.row.table for each in found if each.mean_holds and not each.interval_holds]
    assert only_interval == [3, 13]


def test_averages_of_singpath_and_patho(singpath, patho):
    assert holding(unweighted(singpath)) == (12, 12)
    found = unweighted(patho)
    assert holding(found, metric="mean_recall") == (46, 48)
    assert holding(found, table=2) == (11, 12)
    assert holding(found, dataset="PathMMU-Overall") == (0, 54)
    assert holding(weighted(patho, question_counts(patho))) == (53, 54)


def test_the_overall_that_fails_is_named(patho):
    misses = [each for each in weighted(patho, question_counts(patho)) if not each.mean_holds]
    assert [(each.row.method, each.row.split) for each in misses] == [("LLaVA-Onevision-7B", "test")]
    assert 100 * misses[0].mean == pytest.approx(21.66, abs=0.005)


def test_student_interval_is_scipys():
    values = [0.31, 0.52, 0.77, 0.41]
    low, high = stats.t.interval(0.95, 3, stats.tmean(values), stats.sem(values))
    assert student_interval(values) == pytest.approx((low, high), abs=1e-12)
    assert student_interval([0.0, 0.0, 0.5])[0] == 0.0


def test_question_counts_follow_from_percentages_and_totals(patho, smartpath):
    found = question_counts(patho)
    by_split = {
        split: [
            found[f"PathMMU-{name}", split]
            for name in ("Atlas", "EduContent", "PathCLS", "PubMed", "SocialPath")
        ]
        for split in ("test_tiny", "test", "val")
    }
    assert by_split == {
        "test_tiny": [208, 255, 177, 281, 218],
        "test": [799, 1683, 1632, 2787, 1553],
        "val": [80, 146, 96, 233, 150],
    }
    assert (found["Quilt-VQA", "closed"], found["PathVQA", "closed"]) == (343, 3362)
    assert len(found) == 17
    assert question_counts(smartpath) == {}


def test_no_combination_or_several_give_nothing(patho, changed):
    assert combinations([[2, 4], [3, 5]], 7) == [(2, 5), (4, 3)]
    assert combinations([[2, 4], []], 7) == []
    broken = changed(patho, {"dataset": "PathMMU-Atlas", "split": "val"}, value=0.12345, printed="12.34")
    assert {split for _, split in question_counts(broken)} == {"test_tiny", "test", "closed"}


def test_granularity(singpath):
    column = singpath.find(dataset="CytoCell-Bench/AGC")
    assert off_grid(column, 1419) == []
    assert 1419 in sizes_that_fit(column, 2000)
    column = singpath.find(dataset="MorphoPercept-Bench/NE", method="Singpath-VL")
    assert off_grid(column, 153) == column
    assert 153 not in sizes_that_fit(column, 200)


def test_the_same_model_in_two_papers(smartpath, patho):
    """How far a baseline moves from one paper to the next, over the nine columns that both have."""

    def moved(theirs, ours):
        gaps = []
        for row in smartpath.find(group="roi_vqa", method=theirs, metric="accuracy", averages=0):
            (other,) = patho.find(dataset=row.dataset, split=row.split, method=ours)
            gaps.append(row.value - other.value)
        assert len(gaps) == 9
        return sum(abs(gap) for gap in gaps) / 9

    assert moved("PathoR1", "Patho-R1-7B") == pytest.approx(0.047, abs=0.0005)
    assert moved("Qwen2.5-VL", "Qwen2.5-VL-7B") == pytest.approx(0.071, abs=0.0005)
