import math

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from malpighi.errors import DataError, MissingScaleError
from malpighi.geometry import Box, Frame, Region, View, coarser, to_microns, to_pixels

SIDES = st.integers(1, 4000)
REGIONS = st.builds(
    Region,
    *(st.floats(-1e5, 1e5) for _ in "xy"),
    *(st.floats(1, 1e5) for _ in ("width", "height")),
)
VIEWS = st.builds(View, st.tuples(SIDES, SIDES), st.tuples(SIDES, SIDES), REGIONS)
FRAMES = st.sampled_from(Frame)
FULL = View((200, 100), (112, 56), Region(1000.0, 2000.0, 400.0, 200.0, mpp=0.25))


@st.composite
def boxes_in(draw, view: View, frame: Frame, beyond: float = 0.0):
    """A box in a frame of the view, reaching outside it by `beyond` of its extent at most."""
    left, top, *_ = view.convert(Box(0, 0, 1000, 1000, Frame.RELATIVE1000), frame).corners
    width, height = view.extent(frame)
    x = sorted(draw(st.floats(-beyond, 1 + beyond)) for _ in range(2))
    y = sorted(draw(st.floats(-beyond, 1 + beyond)) for _ in range(2))
    return Box(left + x[0] * width, top + y[0] * height, left + x[1] * width, top + y[1] * height, frame)


def close(a: Box, b: Box, view: View, relative: float = 1e-9) -> bool:
    """Equal, but for floating-point rounding at the largest number involved."""
    largest = max(abs(v) for v in (*a.corners, *b.corners, *view.extent(a.frame), 1.0))
    near = all(
        math.isclose(p, q, abs_tol=relative * largest) for p, q in zip(a.corners, b.corners, strict=True)
    )
    return a.frame is b.frame and near


@given(st.data(), VIEWS, FRAMES, FRAMES)
def test_there_and_back_is_the_same_box(data, view, start, other):
    box = data.draw(boxes_in(view, start, beyond=0.5))
    # A small part of a slide far from its corner keeps fewer digits: 1e5 px away, 1e-11 px are left.
    assert close(view.convert(view.convert(box, other), start), box, view, relative=1e-6)


@given(st.data(), VIEWS, FRAMES, FRAMES, FRAMES)
def test_a_detour_changes_nothing(data, view, start, through, end):
    box = data.draw(boxes_in(view, start))
    detour = view.convert(view.convert(box, through), end)
    assert close(detour, view.convert(box, end), view, relative=1e-6)


@given(VIEWS, FRAMES, FRAMES)
def test_the_whole_image_is_the_whole_image_in_every_frame(view, start, end):
    whole = view.convert(Box(0, 0, 1000, 1000, Frame.RELATIVE1000), start)
    width, height = view.extent(end)
    there = view.convert(whole, end)
    assert math.isclose(there.x1 - there.x0, width, rel_tol=1e-6)
    assert math.isclose(there.y1 - there.y0, height, rel_tol=1e-6)


@pytest.mark.parametrize(
    ("frame", "corners"),
    [
        (Frame.IMAGE, (50, 25, 100, 75)),
        (Frame.RESIZED, (28, 14, 56, 42)),
        (Frame.RELATIVE1000, (250, 250, 500, 750)),
        (Frame.RELATIVE1, (0.25, 0.25, 0.5, 0.75)),
        (Frame.BINS1024, (256, 256, 512, 768)),
        (Frame.SLIDE, (1100, 2050, 1200, 2150)),
    ],
)
def test_one_box_in_six_frames(frame, corners):
    box = Box(50.0, 25.0, 100.0, 75.0)
    assert close(FULL.convert(box, frame), Box(*corners, frame), FULL)
    assert close(FULL.convert(Box(*corners, frame), Frame.IMAGE), box, FULL)


SPOKEN = st.sampled_from([Frame.IMAGE, Frame.RESIZED, Frame.RELATIVE1000])


@settings(max_examples=1000)
@given(st.data(), VIEWS, SPOKEN)
@example(None, View((20, 1000), (28, 1008)), Frame.RELATIVE1000)
@example(None, View((20, 1000), (28, 1008)), Frame.RESIZED)
@example(None, View((1, 1), (1, 1)), Frame.RESIZED)
def test_spoken_numbers_lie_in_the_image_and_come_back_within_half_a_unit(data, view, frame):
    if data is None:
        box = Box(view.image_size[0] - 0.3, 3.3, view.image_size[0] + 0.0, 3.4)
    else:
        box = data.draw(boxes_in(view, Frame.IMAGE, beyond=0.2))
    said = view.spoken(box, frame)
    width, height = view.extent(frame)
    assert all(type(number) is int for number in said)
    assert 0 <= said[0] <= said[2] <= width
    assert 0 <= said[1] <= said[3] <= height
    if box.area > 0:
        assert said[0] < said[2]
        assert said[1] < said[3]
    meant = view.clip(box)
    back = view.convert(Box(*said, frame), Frame.IMAGE)
    for low, high, extent, pixels in ((0, 2, width, view.image_size[0]), (1, 3, height, view.image_size[1])):
        unit = pixels / extent
        # An edge that was moved out to keep some area lies up to a unit farther off.
        slack = 0.5 if meant.corners[high] - meant.corners[low] >= unit else 1.5
        for edge in (low, high):
            assert abs(back.corners[edge] - meant.corners[edge]) <= slack * unit * (1 + 1e-9) + 1e-9


@settings(max_examples=500)
@given(st.data(), VIEWS, st.sampled_from([Frame.RELATIVE1, Frame.BINS1024]))
@example(None, View((20, 1000)), Frame.RELATIVE1)
@example(None, View((20, 1000)), Frame.BINS1024)
@example(Box(0.0, 1.0, 1.0, 1.125), View((1, 1)), Frame.BINS1024)
def test_decimals_and_bins_come_back_within_two_units(data, view, frame):
    if isinstance(data, Box):
        box = data
    elif data is None:
        box = Box(view.image_size[0] - 0.3, 3.3, view.image_size[0] + 0.0, 3.4)
    else:
        box = data.draw(boxes_in(view, Frame.IMAGE, beyond=0.2))
    said = view.spoken(box, frame)
    unit, last = (0.001, 1.0) if frame is Frame.RELATIVE1 else (1, 1023)
    assert all(0 <= number <= last for number in said)
    assert all(abs(number / unit - round(number / unit)) < 1e-6 for number in said)
    if box.area > 0:
        assert said[0] < said[2]
        assert said[1] < said[3]
    meant, back = view.clip(box), view.convert(Box(*said, frame), Frame.IMAGE)
    for place, (was, now) in enumerate(zip(meant.corners, back.corners, strict=True)):
        extent = view.extent(frame)[place % 2]
        # Half a unit of rounding and one where an edge keeps area; two where that meets the last bin.
        slack = 1.5 if frame is Frame.RELATIVE1 else 2.0
        assert abs(was - now) <= slack * unit * view.image_size[place % 2] / extent * (1 + 1e-9) + 1e-9


@settings(max_examples=300)
@given(st.data(), VIEWS)
def test_spoken_in_slide_pixels_keeps_area_and_place(data, view):
    box = data.draw(boxes_in(view, Frame.SLIDE))
    region = view.region
    said = view.spoken(box, Frame.SLIDE)
    assert region.x - 1 <= said[0] <= said[2] <= region.x + region.width + 1
    assert region.y - 1 <= said[1] <= said[3] <= region.y + region.height + 1
    assume(box.area > 0)
    assert said[0] < said[2]
    assert said[1] < said[3]


def test_a_sliver_at_the_edge_of_a_fraction_of_a_slide_keeps_its_place():
    view = View((100, 100), region=Region(10.6, 10.6, 10.0, 10.0))
    assert view.spoken(Box(20.55, 12.0, 20.6, 14.0, Frame.SLIDE), Frame.SLIDE) == (20, 12, 21, 14)


@pytest.mark.parametrize(
    ("box", "said"),
    [
        (Box(10.0, 10.0, 20.0, 20.0), (10, 10, 20, 20)),
        (Box(10.5, 10.4, 20.5, 20.6), (11, 10, 21, 21)),
        (Box(50.1, 50.1, 50.2, 50.2), (50, 50, 51, 51)),
        (Box(99.8, 0.0, 99.9, 0.1), (99, 0, 100, 1)),
        (Box(-30.0, -30.0, 200.0, 200.0), (0, 0, 100, 100)),
        (Box(150.0, 150.0, 160.0, 160.0), (99, 99, 100, 100)),
        (Box(50.0, 50.0, 50.0, 50.0), (50, 50, 50, 50)),
    ],
)
def test_spoken_by_hand(box, said):
    assert View((100, 100)).spoken(box, Frame.IMAGE) == said


@given(st.data(), VIEWS, FRAMES)
def test_clip_keeps_what_is_inside_and_only_that(data, view, frame):
    box = data.draw(boxes_in(view, frame, beyond=1.0))
    clipped = view.clip(box)
    assert view.clip(clipped) == clipped
    whole = view.convert(Box(0, 0, 1000, 1000, Frame.RELATIVE1000), frame)
    expected = Box(
        max(box.x0, whole.x0), max(box.y0, whole.y0), min(box.x1, whole.x1), min(box.y1, whole.y1), frame
    )
    if expected.x0 < expected.x1 and expected.y0 < expected.y1:
        assert close(clipped, expected, view)
    else:
        assert clipped.area == pytest.approx(0.0, abs=1e-3)


def test_clip_of_a_box_outside_is_empty_and_at_the_edge():
    clipped = View((100, 50)).clip(Box(120.0, 10.0, 130.0, 20.0))
    assert clipped == Box(100.0, 10.0, 100.0, 20.0)
    assert clipped.area == 0


def test_area():
    assert Box(1.0, 2.0, 4.0, 6.0).area == 12
    assert Box(4.0, 2.0, 1.0, 6.0).area == 0
    assert Box(4.0, 6.0, 1.0, 2.0).area == 0, "two negative sides make no area"


@pytest.mark.parametrize(("frame", "missing"), [(Frame.RESIZED, "resized_size"), (Frame.SLIDE, "region")])
def test_a_missing_frame_is_named(frame, missing):
    view = View((200, 100))
    with pytest.raises(DataError, match=f"without {missing}.*'{frame}'"):
        view.convert(Box(0.0, 0.0, 1.0, 1.0), frame)
    with pytest.raises(DataError, match=missing):
        view.convert(Box(0.0, 0.0, 1.0, 1.0, frame), Frame.IMAGE)
    with pytest.raises(DataError, match=missing):
        view.clip(Box(0.0, 0.0, 1.0, 1.0, frame))
    with pytest.raises(DataError, match=missing):
        view.spoken(Box(0.0, 0.0, 1.0, 1.0), frame)


@given(st.floats(0, 1e6), st.floats(0.01, 100))
def test_microns_and_pixels_are_inverse(length, mpp):
    assert to_microns(to_pixels(length, mpp), mpp) == pytest.approx(length)


@given(st.floats(0.01, 100), st.floats(1, 1024), st.floats(1, 1e6))
def test_a_coarser_image_needs_fewer_pixels_for_the_same_length(mpp, downsample, microns):
    assert to_pixels(microns, coarser(mpp, downsample)) == pytest.approx(to_pixels(microns, mpp) / downsample)


@pytest.mark.parametrize("mpp", [None, 0.0, -0.25, math.nan, math.inf])
def test_a_scale_is_never_assumed(mpp):
    with pytest.raises(MissingScaleError, match="scale"):
        to_pixels(10.0, mpp)
    with pytest.raises(MissingScaleError, match="scale"):
        to_microns(10.0, mpp)


def test_an_unknown_scale_stays_unknown():
    assert coarser(None, 4) is None


def test_geometry_is_immutable():
    with pytest.raises(AttributeError):
        Box(0.0, 0.0, 1.0, 1.0).x0 = 5.0
    with pytest.raises(AttributeError):
        FULL.image_size = (1, 1)
