import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from malpighi.geometry import Box
from malpighi.grading.match import (
    average_precisions,
    corners_of,
    detection_parts,
    greedy_ranks,
    iou_matrix,
    maximum_matches,
    part_names,
    soft_f1,
)


@st.composite
def box_lists(draw, min_size=0, max_size=12):
    rows = draw(st.lists(st.tuples(*[st.integers(0, 12)] * 2, *[st.integers(1, 8)] * 2), min_size=min_size,
                         max_size=max_size))  # fmt: skip
    corners = [(x, y, x + w, y + h) for x, y, w, h in rows]
    return np.array(corners, dtype=np.float64).reshape(-1, 4)


JUNK = np.array([[500.0, 500.0, 510.0, 510.0]])


def grid(count):
    return np.array([[20.0 * i, 0.0, 20.0 * i + 10, 10.0] for i in range(count)]).reshape(-1, 4)


def test_iou_by_hand():
    boxes = corners_of([Box(0, 0, 2, 2), Box(1, 1, 3, 3), Box(3, 3, 1, 1), Box(1, 1, 1, 1)])
    assert iou_matrix(boxes, boxes[:2]) == pytest.approx(np.array([[1, 1 / 7], [1 / 7, 1], [0, 0], [0, 0]]))


@given(box_lists(), box_lists())
def test_figures_are_between_0_and_1_and_fall_with_the_threshold(predicted, truth):
    parts = detection_parts(predicted, truth)
    assert set(parts) == set(part_names())
    assert all(0 <= value <= 1 for value in parts.values())
    for kind in ("ap_tie", "ap_emit", "ap_paper", "f1_"):
        assert parts[f"{kind}30"] >= parts[f"{kind}50"] >= parts[f"{kind}70"]
    assert parts["ap_tie50"] <= parts["f1_50"]


@given(box_lists(), box_lists(), st.randoms(use_true_random=False))
def test_order_does_not_matter_to_ap_tie_and_f1(predicted, truth, random):
    order = list(range(len(predicted)))
    random.shuffle(order)
    before, after = detection_parts(predicted, truth), detection_parts(predicted[order], truth)
    for name in before:
        if "emit" not in name and "paper" not in name:
            assert before[name] == after[name]


@given(box_lists(max_size=8), box_lists(min_size=1), st.integers(0, 8))
def test_junk_never_helps(predicted, truth, place):
    before = detection_parts(predicted, truth)
    after = detection_parts(np.insert(predicted, min(place, len(predicted)), JUNK, axis=0), truth)
    for name in before:
        if "emit" not in name and "paper" not in name:
            assert after[name] < before[name] or after[name] == before[name] == 0
        else:
            assert after[name] <= before[name]


@pytest.mark.parametrize("count", [1, 2, 40, 500])
def test_a_perfect_answer_is_1_and_duplicates_lower_it(count):
    truth = grid(count)
    assert set(detection_parts(truth, truth).values()) == {1.0}
    doubled = detection_parts(np.concatenate([truth, truth]), truth)
    assert doubled["ap_tie50"] == 0.5
    assert doubled["f1_50"] == pytest.approx(2 / 3)
    assert doubled["ap_emit50"] == 1.0, "trailing duplicates are free here: why it is not the headline"


def test_the_published_reward_can_be_gamed_and_ours_not():
    truth = grid(5)
    junk = grid(50) + 1000
    after, before = np.concatenate([truth, junk]), np.concatenate([junk, truth])
    for published in ("ap_emit50", "ap_paper50"):
        assert detection_parts(after, truth)[published] == 1.0
        assert detection_parts(before, truth)[published] == pytest.approx(5 / 55)
    assert detection_parts(after, truth)["ap_tie50"] == pytest.approx(5 / 55)


def test_nothing_to_find():
    none, some = grid(0), grid(3)
    both = detection_parts(none, none)
    assert {name for name, value in both.items() if value == 1} == set(part_names()) - {
        f"ap_paper{t}" for t in (30, 50, 70)
    }
    assert both["ap_paper50"] == 0.0
    assert set(detection_parts(some, none).values()) == {0.0}
    assert set(detection_parts(none, some).values()) == {0.0}


def test_two_of_five_found():
    parts = detection_parts(grid(2), grid(5))
    assert parts["ap_tie50"] == 0.4
    assert parts["f1_50"] == pytest.approx(4 / 7)
    assert parts["ap_emit50"] == pytest.approx(41 / 101)
    assert parts["ap_paper50"] == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("predicted", "value"),
    [
        ([*range(5)], 1.0),
        ([*range(5), *range(100, 150)], 1.0),
        ([*range(5)] * 5, 1.0),
        ([*range(100, 150), *range(5)], 5 / 55),
        ([100, 0, 101, 1, 102, 2, 103, 3, 104, 4], 0.5),
        ([0, 1], 0.4),
        ([0, *range(100, 150)], 0.2),
    ],
)
def test_the_published_ap_of_five_boxes(predicted, value):
    """Values worked out by hand from the definition; 100 and more are junk."""
    boxes = grid(150)
    assert detection_parts(boxes[predicted], boxes[:5])["ap_paper50"] == pytest.approx(value)


def test_greedy_takes_the_best_and_the_maximum_may_do_better():
    iou = np.array([[0.6, 0.55], [0.6, 0.0]])
    assert greedy_ranks(iou, 0.5) == [0]
    assert maximum_matches(iou, 0.5) == 2
    assert greedy_ranks(np.array([[0.5]]), 0.5) == [0], "the threshold is inclusive"
    assert greedy_ranks(np.array([[0.6, 0.6], [0.0, 0.6]]), 0.5) == [0]
    assert greedy_ranks(np.array([[0.6, 0.6], [0.6, 0.0]]), 0.5) == [0, 1], "of equals the later truth"


@given(
    arrays(
        np.float64, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.sampled_from([0.0, 0.4, 0.6])
    )
)
def test_maximum_matching_against_scipy(iou):
    matched = maximum_bipartite_matching(csr_array(iou >= 0.5), perm_type="column")
    assert maximum_matches(iou, 0.5) == int((matched >= 0).sum())
    greedy = len(greedy_ranks(iou, 0.5))
    assert greedy <= maximum_matches(iou, 0.5) <= 2 * greedy


def ap_by_definition(hits, truths):
    """(101-point, area) from the curve's definition, rank by rank."""
    found, curve = 0, []
    for rank, hit in enumerate(hits, start=1):
        found += hit
        curve.append((found / truths, found / rank))

    def best(recall):
        return max((p for r, p in curve if r >= recall), default=0.0)

    coco = np.mean([best(recall) for recall in np.linspace(0.0, 1.0, 101)])
    return coco, sum(best(k / truths) for k in range(1, found + 1)) / truths


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(0, 12))
def test_average_precision_is_its_definition(hits, missed):
    truths = max(1, sum(hits) + missed)
    ranks = [rank for rank, hit in enumerate(hits) if hit]
    assert average_precisions(ranks, truths) == pytest.approx(ap_by_definition(hits, truths), abs=1e-12)


@given(st.lists(st.booleans(), min_size=1, max_size=7))
def test_hits_first_is_the_best_order(hits):
    best = average_precisions(range(sum(hits)), len(hits))
    for order in itertools.islice(itertools.permutations(hits), 200):
        ranks = [rank for rank, hit in enumerate(order) if hit]
        assert all(a <= b + 1e-12 for a, b in zip(average_precisions(ranks, len(hits)), best, strict=True))


@given(box_lists(min_size=1), box_lists(min_size=1), st.sampled_from([0.25, 2.0, 64.0]))
def test_scale_does_not_matter(predicted, truth, scale):
    assert detection_parts(predicted * scale, truth * scale) == detection_parts(predicted, truth)


def test_thousands_of_duplicates_are_counted():
    truth = grid(50)
    parts = detection_parts(np.tile(truth[:1], (9_000, 1)), truth)
    assert parts["ap_tie50"] == pytest.approx(1 / 9_000 / 50)


@given(box_lists(max_size=5), box_lists(max_size=5))
def test_soft_f1_is_the_best_pairing_of_all(predicted, truth):
    """Against every one-to-one pairing there is."""
    iou = iou_matrix(predicted, truth)
    few, many = sorted(iou.shape)
    wide = iou if iou.shape[0] <= iou.shape[1] else iou.T
    best = max(
        sum(wide[i, j] for i, j in enumerate(chosen)) for chosen in itertools.permutations(range(many), few)
    )
    expected = 2 * best / (few + many) if few + many else 1.0
    assert soft_f1(predicted, truth) == pytest.approx(expected)
    assert soft_f1(truth, predicted) == pytest.approx(expected)


@pytest.mark.parametrize("count", [1, 3])
def test_soft_f1_falls_with_every_surplus_box(count):
    truth = grid(count)
    assert soft_f1(truth, truth) == 1
    assert soft_f1(np.concatenate([truth, JUNK]), truth) < 1
    assert soft_f1(np.concatenate([truth, truth]), truth) == pytest.approx(2 / 3)
    assert soft_f1(truth + 1, truth) < 1
