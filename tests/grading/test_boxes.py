import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from malpighi.errors import DataError
from malpighi.geometry import Frame, View
from malpighi.grading.boxes import read_boxes, to_image
from malpighi.records import Status

ONE = ((10.0, 20.0, 30.0, 40.0),)
TWO = (*ONE, (1.0, 2.0, 3.5, 4.0))

four = st.lists(st.integers(0, 1000), min_size=4, max_size=4)


@pytest.mark.parametrize(
    ("text", "corners"),
    [
        ("[[10, 20, 30, 40]]", ONE),
        ("[10,20,30,40]", ONE),
        ("[[10, 20, 30, 40], [1, 2, 3.5, 4]]", TWO),
        ("[10, 20, 30, 40], [1, 2, 3.5, 4]", TWO),
        ("[10 20 30 40]", ONE),
        ("[[1e1, 2.0e1, +30, 40.]]", ONE),
        ('["10", "20", "30", "40"]', ONE),
        ("(10, 20, 30, 40) and (1, 2, 3.5, 4)", TWO),
        ("<|box_start|>(10,20),(30,40)<|box_end|>", ONE),
        ("10, 20, 30, 40", ONE),
        ("<bbox>10, 20, 30, 40</bbox><bbox>1,2,3.5,4</bbox>", TWO),
        ("<region>[10, 20, 30, 40]</region>", ONE),
        ("<box>10 20 30 40</box>", ONE),
        ('{"bbox": [10, 20, 30, 40]}', ONE),
        ('{"bboxes": [[10, 20, 30, 40], [1, 2, 3.5, 4]]}', TWO),
        ("[{'box': [10, 20, 30, 40], 'label': 'cell'}]", ONE),
        ('```json\n[{"bbox_2d": [10, 20, 30, 40], "label": "x (1)"}]\n```', ONE),
        ("First [0,0,9,9].\n```json\n[[10, 20, 30, 40]]\n```\nDone.", ONE),
        ("```\n[[10, 20, 30, 40]]", ONE),
        ("<bbox_2d>10, 20, 30, 40</bbox_2d>", ONE),
        ('{"x0": 10, "y0": 20, "x1": 30, "y1": 40}', ONE),
        ('{"x1": 10, "y1": 20, "x2": 30, "y2": 40, "label": "cell"}', ONE),
        ("[{'xmin': '10', 'ymin': '20', 'xmax': '30', 'ymax': '40'}]", ONE),
        ('{"boxes": [{"x_min": 10, "y_min": 20, "x_max": 30, "y_max": 40}]}', ONE),
        ('{"left": 10, "top": 20, "right": 30, "bottom": 40}', ONE),
        ('{"x": 10, "y": 20, "width": 20, "height": 20}', ONE),
        ("{x=10, y=20, w=20, h=20}", ONE),
        ('[{"box": {"x0": 10, "y0": 20, "x1": 30, "y1": 40}}, [1, 2, 3.5, 4]]', TWO),
        ('[[10, 20, 30, 40], {"x0": 1, "y0": 2}]', (*ONE, (0.0,) * 4)),
        ('[[10, 20, 30, 40], {"x0": 1, "y0": 2, "x1": "far", "y1": 4}]', (*ONE, (0.0,) * 4)),
        ('{"count": 2, "boxes": [[10, 20, 30, 40], [1, 2, 3.5, 4]]}', TWO),
        ("[[10,\u200b20, 30, 40]]", ONE),
        ("I found 2 cells [1]: [[10, 20, 30, 40], [1, 2, 3.5, 4]] (see (2)).", TWO),
        ("［［10，20，30，40］］", ONE),
        ("[[10, 20, 30, 40],]", ONE),
        ("[[10, 20, 30, 40,], [1, 2, 3.5, 4]", TWO),
        ("[[10, 20, 30, 40], []]", ONE),
        ("[[30, 40, 10, 20]]", ((30.0, 40.0, 10.0, 20.0),)),
        ("[[-5, 20, 30, 4000]]", ((-5.0, 20.0, 30.0, 4000.0),)),
        ("[[10, 20, 30, 40], [10, 20, 30, 40]]", ONE * 2),
        ("[[10, 20, 30, 40], [1, 2, 3]]", (*ONE, (0.0,) * 4)),
        ("[[10, 20, 30, 40], [NaN, 1, 2, 3]]", (*ONE, (0.0,) * 4)),
        ("[[10, 20, 30, 40], [5, 6", (*ONE, (0.0,) * 4)),
        ('[{"x0": 10, "y0": 20, "x1": 30, "y1": 40}', ONE),
        ('[{"x0": 10, "y0": 20, "x1": 30, "y1": 40}, {"x0": 5', (*ONE, (0.0,) * 4)),
    ],
)
def test_forms_that_hold_boxes(text, corners):
    assert read_boxes(text) == (corners, Status.OK)


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("[]", Status.OK),
        ("[[]]", Status.OK),
        ('{"bbox_2d": []}', Status.OK),
        ("None.", Status.OK),
        ("```json\n[]\n```", Status.OK),
        ("no boxes", Status.OK),
        ("", Status.NO_ANSWER),
        ("There is a cell in the middle.", Status.NO_ANSWER),
        ("none of the 3 cells", Status.NO_ANSWER),
        ("(see 3)", Status.NO_ANSWER),
        ("[[1, 2, 3]]", Status.MALFORMED),
        ("[[1, 2, 3, 4, 5]]", Status.MALFORMED),
        ("[[a, b, c, d]]", Status.MALFORMED),
        ("[[1e999, NaN, 3, 4]]", Status.MALFORMED),
        ("[[Infinity, 0, 1, 1]]", Status.MALFORMED),
        ("[[1, 2", Status.MALFORMED),
        ("{", Status.MALFORMED),
        ('{"bbox": null}', Status.MALFORMED),
        ('{"x": 10, "y": 20}', Status.MALFORMED),
        ('{"label": "cell", "count": 3}', Status.MALFORMED),
    ],
)
def test_forms_without_boxes(text, status):
    assert read_boxes(text) == ((), status)


@given(st.lists(four, min_size=1, max_size=12), st.integers(0, 9))
def test_right_boxes_are_found_in_any_wrapper(boxes, form):
    listed = json.dumps(boxes)
    text = (
        listed,
        f"Here they are:\n```json\n{listed}\n```\nThat is all.",
        json.dumps([{"bbox_2d": box, "label": "cell [a]"} for box in boxes]),
        "".join(f"<bbox>{', '.join(map(str, box))}</bbox>" for box in boxes),
        json.dumps({"boxes": boxes}, indent=2),
        " ".join(f"({a}, {b}), ({c}, {d})" for a, b, c, d in boxes),
        f"There are {len(boxes)} cells (of 40): {listed}.",
        json.dumps([dict(zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)) for box in boxes]),
        "\n".join(f"<region>{' '.join(map(str, box))}</region>" for box in boxes),
        json.dumps([[value + 0.0 for value in box] for box in boxes], indent=1),
    )[form]
    assert read_boxes(text) == (tuple(tuple(map(float, box)) for box in boxes), Status.OK)


@given(st.text(max_size=300) | st.text(alphabet='[](){}<>0123456789.,-e \n`"bx', max_size=300))
def test_no_string_makes_it_fail(text):
    corners, status = read_boxes(text)
    assert status is Status.OK or not corners
    assert all(abs(value) < float("inf") for four in corners for value in four)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "[(" * 50_000,
        "9" * 100_000,
        "[" + "9" * 100_000,
        "[[1, 2, 3, 4], " * 7_000,
        "(1,2)," * 20_000,
        "<bbox>" * 16_000,
        "```" * 33_000,
        "[1" * 50_000,
        "[" + "1," * 50_000,
        "[] " * 33_000,
        "{" * 100_000,
        "{x1: 1, " * 12_000,
        '{"x1": 1}' * 11_000,
        "{" + "x1:" * 33_000,
        "{" + "a b_" * 25_000 + "}",
        "1 " * 50_000,
    ],
    ids=lambda text: repr(text[:12]),
)
def test_long_replies_are_read(text):
    """A reading whose time grew with the square of the length would not come back from these."""
    assert isinstance(read_boxes(text)[1], Status)


def test_boxes_reach_image_pixels_and_are_clipped():
    view = View((200, 100), (112, 56))
    read = read_boxes("[[0, 0, 56, 28], [100, 40, 150, 70], [300, 300, 400, 400]]")
    boxes = [box.corners for box in to_image(read.corners, view, Frame.RESIZED)]
    assert boxes[0] == (0.0, 0.0, 100.0, 50.0)
    assert boxes[1] == pytest.approx((100 / 112 * 200, 40 / 56 * 100, 200.0, 100.0))
    assert boxes[2] == (200.0, 100.0, 200.0, 100.0)
    relative = to_image(((500.0, 500.0, 1000.0, 1000.0),), view, Frame.RELATIVE1000)
    assert relative[0].corners == (100.0, 50.0, 200.0, 100.0)


def test_enormous_numbers_stay_finite():
    boxes = to_image(((-1e308, -1e308, 1e308, 1e308),), View((200, 100), (2, 2)), Frame.RESIZED)
    assert boxes[0].corners == (0.0, 0.0, 200.0, 100.0)


def test_a_frame_that_the_view_does_not_know_is_refused():
    with pytest.raises(DataError, match="resized_size"):
        to_image(ONE, View((200, 100)), Frame.RESIZED)
