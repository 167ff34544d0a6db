import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from malpighi.errors import DataError
from malpighi.geometry import Box
from malpighi.models.classical_segmenter import ClassicalSegmenter, colour_codes

PINK, BLUE = (225, 170, 200), (90, 60, 140)


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def dice(mask, truth):
    return 2 * np.count_nonzero(mask & truth) / (np.count_nonzero(mask) + np.count_nonzero(truth))


def union(boxes, size):
    """Pixels whose centre lies in a box, one by one."""
    rows, columns = np.mgrid[0 : size[1], 0 : size[0]] + 0.5
    covered = np.zeros(rows.shape, bool)
    for box in boxes:
        covered |= (columns >= box.x0) & (columns < box.x1) & (rows >= box.y0) & (rows < box.y1)
    return covered


def around(shape, margin=0.0):
    """The box of a mask."""
    rows, columns = np.nonzero(shape)
    x0, y0, x1, y1 = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    return Box(x0 - margin, y0 - margin, x1 + margin, y1 + margin)


def picture(shape, ink=BLUE, ground=PINK, noise=6):
    pixels = np.where(shape[..., None], ink, ground) + np.random.default_rng(0).normal(
        0, noise, (*shape.shape, 3)
    )
    return png(np.clip(pixels, 0, 255).astype(np.uint8))


ROWS, COLUMNS = np.mgrid[0:80, 0:100]
SHAPES = {
    "disc": (ROWS - 40) ** 2 + (COLUMNS - 50) ** 2 < 20**2,
    "bean": ((ROWS - 40) ** 2 + (COLUMNS - 50) ** 2 < 22**2)
    & ((ROWS - 60) ** 2 + (COLUMNS - 50) ** 2 > 14**2),
    "cut by the edge": (ROWS - 2) ** 2 + (COLUMNS - 50) ** 2 < 20**2,
}
SLANTED = ((ROWS - 40 + (COLUMNS - 50)) / 9) ** 2 + ((ROWS - 40 - (COLUMNS - 50)) / 36) ** 2 < 1
INKS = {
    "H&E": (BLUE, PINK),
    "pale": (PINK, BLUE),
    "grey": ((90,) * 3, (200,) * 3),
    "Pap": ((120, 190, 180), (240,) * 3),
}


@pytest.fixture(scope="module")
def segmenter():
    return ClassicalSegmenter()


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("inks", INKS.values(), ids=INKS)
def test_a_shape_is_found_in_its_box_whatever_the_stain(segmenter, shape, inks):
    box = around(shape)
    found = segmenter.segment(picture(shape, *inks), [box])
    assert dice(found, shape) > max(0.9, dice(union([box], (100, 80)), shape))


@pytest.mark.parametrize("inks", INKS.values(), ids=INKS)
def test_a_thin_slanted_shape_keeps_much_of_its_ellipse_and_is_still_better_than_its_box(segmenter, inks):
    box = around(SLANTED)
    found = dice(segmenter.segment(picture(SLANTED, *inks), [box]), SLANTED)
    assert dice(union([box], (100, 80)), SLANTED) + 0.1 < found < 0.9


def test_a_loose_box_is_corrected(segmenter):
    shape = SHAPES["disc"]
    loose = around(shape, margin=5)
    assert (
        dice(segmenter.segment(picture(shape), [loose]), shape) > dice(union([loose], (100, 80)), shape) + 0.2
    )


def test_a_wrong_box_finds_nothing_of_it(segmenter):
    shape = SHAPES["disc"]
    assert dice(segmenter.segment(picture(shape), [Box(0, 0, 25, 18)]), shape) == 0


def test_where_colours_say_nothing_the_ellipse_is_left(segmenter):
    box = Box(20, 10, 60, 70)
    found = segmenter.segment(png(np.full((80, 100, 3), 128, np.uint8)), [box])
    ellipse = ((ROWS + 0.5 - 40) / 30) ** 2 + ((COLUMNS + 0.5 - 40) / 20) ** 2 < 1
    assert (found == ellipse).all()


def test_neighbours_do_not_count_as_background(segmenter):
    left, right = ((ROWS - 40) ** 2 + (COLUMNS - middle) ** 2 < 18**2 for middle in (30, 68))
    both = left | right
    assert dice(segmenter.segment(picture(both), [around(left), around(right)]), both) > 0.97


def test_the_same_call_gives_the_same_mask(segmenter):
    data, boxes = picture(SHAPES["bean"]), [Box(20, 10, 70, 66), Box(5, 5, 20, 30)]
    first = segmenter.segment(data, boxes)
    assert (first == ClassicalSegmenter().segment(data, boxes)).all()
    assert (first == segmenter.segment(data, boxes[::-1])).all()


def test_a_picture_is_coded_once_and_known_by_its_bytes(monkeypatch):
    coded = []
    monkeypatch.setattr(
        "malpighi.models.classical_segmenter.colour_codes",
        lambda image: coded.append(image) or colour_codes(image),
    )
    segmenter, data = ClassicalSegmenter(), picture(SHAPES["disc"])
    for boxes in ([], [Box(1, 1, 40, 40)], [Box(1, 1, 40, 40)] * 2):
        segmenter.segment(bytes(bytearray(data)), boxes)
    assert len(coded) == 1
    segmenter.segment(picture(SHAPES["bean"]), [])
    assert len(coded) == 2


def test_a_damaged_picture_is_refused(segmenter):
    with pytest.raises(DataError):
        segmenter.segment(picture(SHAPES["disc"])[:100], [])


numbers = st.floats(-40, 80) | st.sampled_from([0.0, 0.5, 17.0, 1e300, -1e300, float("inf"), float("nan")])
sizes = st.tuples(st.integers(1, 24), st.integers(1, 24))


@settings(max_examples=150, deadline=None)
@given(sizes.flatmap(lambda hw: arrays(np.uint8, (*hw, 3))), st.lists(st.tuples(*[numbers] * 4), max_size=4))
def test_no_picture_and_no_box_makes_it_fail(pixels, corners):
    boxes = [Box(*four) for four in corners]
    mask = ClassicalSegmenter().segment(png(pixels), boxes)
    assert (mask.dtype, mask.shape) == (np.bool_, pixels.shape[:2])
    assert not (mask & ~union(boxes, pixels.shape[1::-1])).any()
