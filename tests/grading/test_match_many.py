import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from malpighi.errors import DataError
from malpighi.grading import match_many
from malpighi.grading.match import THRESHOLDS, detection_parts, part_names
from malpighi.grading.match_many import detection_parts_many


def boxes(most):
    """Boxes on a coarse grid, so that equal overlaps, duplicates, reversed and empty boxes come up."""
    return st.lists(st.tuples(*[st.integers(0, 6)] * 4), max_size=most).map(
        lambda rows: np.array(rows, dtype=np.float64).reshape(-1, 4)
    )


@given(st.lists(st.tuples(boxes(7), boxes(5)), max_size=6), st.sampled_from([9, 60, 100_000]))
def test_many_images_equal_one_after_the_other(images, cells):
    before, match_many._CELLS = match_many._CELLS, cells
    try:
        found = detection_parts_many([p for p, _ in images], [t for _, t in images])
    finally:
        match_many._CELLS = before
    alone = [detection_parts(predicted, truth) for predicted, truth in images]
    for name in part_names(THRESHOLDS):
        assert found.parts[name] == pytest.approx([parts[name] for parts in alone], abs=1e-12)


def jittered(seed, images, count):
    random = np.random.default_rng(seed)
    for _ in range(images):
        corner = random.integers(0, 120, (count, 2))
        truth = np.concatenate([corner, corner + random.integers(20, 60, (count, 2))], axis=1).astype(float)
        yield truth + random.integers(-6, 7, truth.shape), truth


def test_crowded_images_keep_the_largest_matching():
    predicted, truth = map(list, zip(*jittered(0, 40, 30), strict=True))
    found = detection_parts_many(predicted, truth).parts
    alone = [detection_parts(*pair) for pair in zip(predicted, truth, strict=True)]
    for name in part_names(THRESHOLDS):
        assert found[name] == pytest.approx([parts[name] for parts in alone], abs=1e-12)
    assert any(
        parts["f1_50"] * 30 > len(match_many.match.greedy_ranks(match_many.match.iou_matrix(p, t), 0.5))
        for parts, p, t in zip(alone, predicted, truth, strict=True)
    ), "the case must be one that greedy matching gets wrong"


def test_order_of_images_matters_to_the_pooled_ranking_alone():
    predicted, truth = map(list, zip(*jittered(1, 12, 8), strict=True))
    there = detection_parts_many(predicted, truth)
    back = detection_parts_many(predicted[::-1], truth[::-1])
    for name, values in there.parts.items():
        assert (values == back.parts[name][::-1]).all()
    assert there.pooled[0.5].tie == back.pooled[0.5].tie
    assert there.pooled[0.5].f1 == back.pooled[0.5].f1


def test_pooled_figures_of_one_image_are_its_own():
    (predicted, truth), *_ = jittered(2, 1, 9)
    own = detection_parts(predicted, truth)
    found = detection_parts_many([predicted], [truth]).pooled[0.5]
    assert found == pytest.approx(
        tuple(own[f"{name}50"] for name in ("ap_emit", "ap_paper", "ap_tie", "f1_"))
    )


def test_nothing_at_all():
    none = np.zeros((0, 4))
    empty = detection_parts_many([], [])
    assert (empty.pooled, {len(values) for values in empty.parts.values()}) == ({}, {0})
    assert detection_parts_many([none], [none]).parts["ap_tie50"].tolist() == [1.0]
    one = np.array([[0.0, 0, 4, 4]])
    missed = detection_parts_many([none], [one])
    assert missed.pooled[0.5] == (0, 0, 0, 0)
    assert missed.parts["f1_50"].tolist() == [0.0]


def test_wrong_input_is_refused():
    one = np.array([[0.0, 0, 4, 4]])
    with pytest.raises(DataError, match="1 lists of boxes against 2"):
        detection_parts_many([one], [one, one])
    with pytest.raises(DataError, match="above 0"):
        detection_parts_many([one], [one], (0.0, 0.5))
