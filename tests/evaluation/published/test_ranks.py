import pytest
from scipy import stats

from malpighi.evaluation.published.ranks import MODELS, rankings, tasks


@pytest.fixture
def by_rule(smartpath):
    return {ranking.rule: ranking for ranking in rankings(smartpath)}


def test_the_72_tasks(smartpath):
    found = tasks(smartpath)
    assert len(found) == 72
    groups = [name.partition(":")[0] for name in found]
    assert {group: groups.count(group) for group in groups} == {
        "roi_classification": 8,
        "roi_detection": 14,
        "roi_segmentation": 14,
        "roi_vqa": 10,
        "wsi_classification": 9,
        "wsi_vqa": 17,
    }
    assert all(set(MODELS) <= set(methods) for methods in found.values())


def test_first_places_and_ranks_hold_under_every_rule_of_ties(by_rule):
    same = [ranking for rule, ranking in by_rule.items() if rule.startswith("ties: ")]
    assert len(same) == 5
    for ranking in same:
        assert ranking.ranks["SmartPath-R1"] == pytest.approx(1.0833, abs=1e-4)
        firsts = ranking.firsts
        assert [firsts[name] for name in ("SmartPath-R1", "PathoR1", "Quilt-LLaVA")] == [68, 3, 1]


@pytest.mark.parametrize(
    ("word", "rank"),
    [
        ("ties: min", 2.708),
        ("ties: average", 2.840),
        ("max", 2.972),
        ("dense", 2.681),
        ("middle too", 2.854),
        ("open task", 2.861),
    ],
)
def test_the_second_models_rank_depends_on_the_rule(by_rule, word, rank):
    (found,) = (ranking for rule, ranking in by_rule.items() if rule.endswith(word))
    assert round(found.ranks["PathoR1"], 3) == rank


@pytest.mark.parametrize(
    ("word", "rank", "firsts"),
    [
        ("classification", 1.153, 66),
        ("BiomedParse", 1.111, 66),
        ("with SmartPath-SFT", 1.201, 62),
        ("both", 1.229, 60),
    ],
)
def test_other_metrics_and_models(by_rule, word, rank, firsts):
    (found,) = (ranking for rule, ranking in by_rule.items() if rule.endswith(word))
    assert (round(found.ranks["SmartPath-R1"], 3), found.firsts["SmartPath-R1"]) == (rank, firsts)


def test_averaged_ties_are_scipys(smartpath, by_rule):
    table = [[-methods[model].value for model in MODELS] for methods in tasks(smartpath).values()]
    means = stats.rankdata(table, axis=1).mean(axis=0)
    (found,) = (ranking for rule, ranking in by_rule.items() if rule == "ties: average")
    assert [found.ranks[model] for model in MODELS] == pytest.approx(means.tolist(), abs=1e-12)
