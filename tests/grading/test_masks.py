import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from malpighi.errors import DataError
from malpighi.geometry import Box
from malpighi.grading.masks import dice, dice_gain, filled, mask_iou

masks = arrays(np.bool_, (5, 7))


@given(masks, masks)
def test_dice_and_iou_tell_the_same_story(one, other):
    d, i = dice(one, other), mask_iou(one, other)
    assert 0 <= i <= d <= 1
    assert d == pytest.approx(2 * i / (1 + i))
    assert dice(other, one) == d


@given(masks, masks)
def test_the_gain_counts_from_the_whole_image(one, other):
    gain, whole = dice_gain(one, other), np.ones_like(other)
    assert 0 <= gain <= dice(one, other)
    assert dice_gain(other, other) == 1.0
    assert dice_gain(whole, other) == (1.0 if other.all() else 0.0)


def test_empty_masks():
    none, some = np.zeros((4, 4), bool), np.eye(4, dtype=bool)
    assert dice(none, none) == mask_iou(none, none) == 1.0
    assert dice(none, some) == mask_iou(none, some) == 0.0
    assert dice(some, some) == mask_iou(some, some) == 1.0


def test_masks_of_two_shapes_are_refused():
    with pytest.raises(DataError, match="shape"):
        dice(np.zeros((4, 5), bool), np.zeros((5, 4), bool))


def test_filled_boxes_cover_pixel_centres():
    mask = filled([Box(1, 0, 3, 2), Box(2.5, 1.5, 2.6, 1.6), Box(3, 3, 1, 1), Box(-9, 2.5, 0.6, 99)], (4, 3))
    assert mask.astype(int).tolist() == [[0, 1, 1, 0], [0, 1, 1, 0], [1, 0, 0, 0]]
    assert filled([], (4, 3)).shape == (3, 4)


@given(st.lists(st.floats(-1e6, 1e6), min_size=4, max_size=4))
def test_any_box_can_be_filled(corners):
    mask = filled([Box(*corners)], (6, 4))
    x0, y0, x1, y1 = corners
    rows, columns = np.mgrid[0:4, 0:6] + 0.5
    assert (mask == ((columns >= x0) & (columns < x1) & (rows >= y0) & (rows < y1))).all()


def test_a_disc_in_its_box_has_the_ceiling_that_is_stated():
    rows, columns = np.mgrid[0:400, 0:400] + 0.5
    disc = (rows - 200) ** 2 + (columns - 200) ** 2 < 200**2
    assert dice(filled([Box(0, 0, 400, 400)], (400, 400)), disc) == pytest.approx(0.88, abs=0.005)
