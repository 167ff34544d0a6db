"""Views: never over the budget, one scale, and every box leads back to its place on the slide."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_dilation

from malpighi.errors import ConfigError, DataError
from malpighi.geometry import Box, Frame, Region, View, box_of
from malpighi.models.families import FAMILIES
from malpighi.slides.opening import open_slide
from malpighi.slides.pieces import TissueMap, tissue_pieces
from malpighi.slides.slide import Level, Slide, SlideFacts
from malpighi.slides.view import ViewSettings, view

MARK = (200, 0, 0)


class MarkedSlide(Slide):
    """White glass of any size with red rectangles on it, drawn when asked for."""

    def __init__(self, size, marks=(), mpp=0.25, levels=(1, 4, 16, 64, 256)):
        kept = [Level((math.ceil(size[0] / f), math.ceil(size[1] / f)), float(f)) for f in levels]
        super().__init__(Path("marked"), SlideFacts(reader="test", levels=tuple(kept), mpp=mpp))
        self.marks = marks

    def _decode(self, level, corner, size, shrink):
        step = self.levels[level].downsample * shrink
        share = np.zeros((size[1], size[0]))
        for mark in self.marks:
            x, y = (
                np.clip((np.minimum(e + step, high) - np.maximum(e, low)) / step, 0, 1)
                for e, low, high in (
                    ((corner[0] + np.arange(size[0])) * step, mark.x0, mark.x1),
                    ((corner[1] + np.arange(size[1])) * step, mark.y0, mark.y1),
                )
            )
            share = np.maximum(share, y[:, None] * x[None, :])
        return (255 + share[..., None] * (np.array(MARK) - 255) + 0.5).astype(np.uint8)

    def close(self):
        pass

    def __reduce__(self):
        return (MarkedSlide, (self.size, self.marks, self.mpp))


class BlankSlide(MarkedSlide):
    """The same without pixels: what is read is blank and costs nothing."""

    def read(self, region, size):
        assert region.width >= size[0] * (1 - 1e-9), "a level was enlarged"
        assert region.height >= size[1] * (1 - 1e-9), "a level was enlarged"
        return np.broadcast_to(np.uint8(255), (size[1], size[0], 3))


def fast(example, budget, family, *, pack=True):
    slide, tissue = example
    return view(slide, family_settings(family, tokens=budget, pack=pack), tissue=tissue)


def family_settings(family, **changes):
    return ViewSettings(pixels_per_token=family[0], frame=family[1], **changes)


SIDES = st.one_of(st.integers(1, 300), st.integers(1, 200_000))


@st.composite
def slides(draw):
    """A blank slide of random size with or without a random map of tissue."""
    slide = BlankSlide((draw(SIDES), draw(SIDES)), mpp=draw(st.sampled_from([None, 0.25, 1.0])))
    if draw(st.booleans()):
        return slide, None
    shape = (draw(st.integers(1, 24)), draw(st.integers(1, 24)))
    mask = np.zeros(shape, dtype=bool)
    for _ in range(draw(st.integers(0, 5))):
        y, x = draw(st.integers(0, shape[0] - 1)), draw(st.integers(0, shape[1] - 1))
        mask[y : y + draw(st.integers(1, 6)), x : x + draw(st.integers(1, 6))] = True
    return slide, TissueMap(mask, slide.whole)


KNOWN = [(family.pixels_per_token, family.frame) for family in FAMILIES.values()]
FAMILY = st.sampled_from([*KNOWN, *((side, frame) for side, _ in KNOWN for _, frame in KNOWN)])
BUDGETS = st.integers(1, 4096)


@settings(max_examples=150, deadline=None)
@given(slides(), BUDGETS, FAMILY, st.booleans())
def test_tokens_never_exceed_the_budget(example, budget, family, pack):
    found = fast(example, budget, family, pack=pack)
    side = family[0]
    width, height = found.map.size
    assert found.rgb.shape == (height, width, 3)
    assert (width % side, height % side) == (0, 0)
    assert found.tokens == width * height // side**2 <= budget
    assert found.map.step >= 1


@settings(max_examples=150, deadline=None)
@given(slides(), BUDGETS, FAMILY, st.booleans(), st.data())
def test_a_box_drawn_on_a_view_lands_within_one_view_pixel(example, budget, family, pack, data):
    """From level 0 to the integers that a model writes and back, in any piece of any view."""
    found = fast(example, budget, family, pack=pack).map
    piece = data.draw(st.sampled_from(found.pieces))
    region = piece.region
    x = sorted(data.draw(st.floats(0, 1)) for _ in range(2))
    y = sorted(data.draw(st.floats(0, 1)) for _ in range(2))
    box = Box(
        region.x + x[0] * region.width,
        region.y + y[0] * region.height,
        region.x + x[1] * region.width,
        region.y + y[1] * region.height,
        Frame.SLIDE,
    )
    picture, here = View(found.size, found.size), piece.from_slide(box)
    back = found.to_slide(picture.convert(here, found.frame))
    assert np.abs(np.subtract(back.corners, box.corners)).max() <= 1e-6 * max(*found.size) * found.step
    spoken = Box(*map(float, picture.spoken(here, found.frame)), found.frame)
    there = found.to_slide(spoken)
    # Integers cannot hold a box thinner than their unit, 2 px at most; it is widened by one.
    pixels = 1 if min(here.x1 - here.x0, here.y1 - here.y0) > 2 else 3
    assert np.abs(np.subtract(there.corners, box.corners)).max() <= pixels * found.step * (1 + 1e-6)


@settings(max_examples=60, deadline=None)
@given(slides(), BUDGETS, FAMILY)
def test_pieces_lie_in_the_picture_and_apart(example, budget, family):
    found = fast(example, budget, family).map
    taken = np.zeros(found.size[::-1], dtype=np.uint8)
    for piece in found.pieces:
        x0, y0, x1, y1 = (round(v) for v in piece.place.corners)
        assert 0 <= x0 < x1 <= found.size[0]
        assert 0 <= y0 < y1 <= found.size[1]
        assert piece.region.width / (x1 - x0) == pytest.approx(found.step)
        assert piece.region.height / (y1 - y0) == pytest.approx(found.step)
        taken[y0:y1, x0:x1] += 1
    assert taken.max() == 1


@settings(max_examples=40, deadline=None)
@given(
    st.integers(100, 200_000),
    st.floats(0.25, 4),
    st.integers(4, 64),
    FAMILY,
    st.tuples(*[st.floats(0, 0.9)] * 2),
)
def test_what_is_shown_at_a_box_is_what_lies_there(width, aspect, budget, family, corner):
    """A rectangle painted on the slide is found in the picture where the map says it is."""
    size = (width, math.ceil(width * aspect))
    step = fast((BlankSlide(size), None), budget, family).map.step
    side = math.ceil(4 * step)
    x, y = (math.floor(c * max(s - side, 0)) for c, s in zip(corner, size, strict=True))
    mark = Box(x, y, x + side, y + side, Frame.SLIDE)
    found = view(MarkedSlide(size, (mark,), mpp=None), family_settings(family, tokens=budget))
    rows, columns = np.nonzero(found.rgb[..., 1] < 128)
    seen = Box(columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    expected = found.map.from_slide(mark, Frame.IMAGE)
    assert np.abs(np.subtract(seen.corners, expected.corners)).max() <= 1 + 1e-6
    assert np.abs(np.subtract(found.map.to_slide(seen).corners, mark.corners)).max() <= found.map.step * 1.001


def test_every_piece_of_a_packed_view_shows_its_own_place():
    marks = tuple(
        Box(x, y, x + w, y + h, Frame.SLIDE)
        for x, y, w, h in ((1000, 2000, 9000, 7000), (90_000, 80_000, 6000, 8000), (40_000, 5000, 4000, 4000))
    )
    slide = MarkedSlide((100_000, 90_000), marks)
    mask = np.zeros((90, 100), dtype=bool)
    for mark in marks:
        x0, y0, x1, y1 = (round(v / 1000) for v in mark.corners)
        mask[y0:y1, x0:x1] = True
    found = view(slide, ViewSettings(tokens=256, bar=False), tissue=TissueMap(mask, slide.whole))
    whole = view(slide, ViewSettings(tokens=256, pack=False), tissue=TissueMap(mask, slide.whole))
    assert len(found.map.pieces) == 3
    assert found.map.step < whole.map.step / 4
    assert "3 parts of the slide side by side" in found.prompt_line
    red = (found.rgb[..., 1] < 128).sum()
    assert red == pytest.approx(sum(mark.area for mark in marks) / found.map.step**2, rel=0.02)
    for mark in marks:
        x0, y0, x1, y1 = found.map.spoken(mark)
        box = found.map.from_slide(mark, Frame.IMAGE)
        inside = found.rgb[round(box.y0) + 1 : round(box.y1) - 1, round(box.x0) + 1 : round(box.x1) - 1]
        assert (inside == MARK).all()
        back = found.map.to_slide(Box(x0, y0, x1, y1, Frame.RELATIVE1000))
        assert np.abs(np.subtract(back.corners, mark.corners)).max() <= found.map.step


def test_pieces_of_a_fine_mask_are_those_of_the_tissue():
    """A mask too fine to be searched as it is gives the same boxes, larger by a coarse pixel at most."""
    mask = np.zeros((3001, 2500), dtype=bool)
    mask[100:700, 50:900] = mask[2000:2999, 1500:2499] = True
    found = tissue_pieces(TissueMap(mask, Region(0, 0, 25_000, 30_010)), 12, 0.002)
    expected = [(500, 1000, 9000, 7000), (15_000, 20_000, 24_990, 29_990)]
    assert len(found) == 2
    for region, corners in zip(found, expected, strict=True):
        inner, outer = np.array(corners), np.array(box_of(region).corners)
        assert (np.abs(outer - inner) <= 30).all()
        assert (outer[:2] <= inner[:2]).all()
        assert (outer[2:] >= inner[2:]).all()


def test_a_long_core_is_cut_into_strips():
    slide = BlankSlide((80_000, 4000))
    tissue = TissueMap(np.ones((4, 80), dtype=bool), slide.whole)
    whole, cut = (view(slide, ViewSettings(pack=pack), tissue=tissue).map for pack in (False, True))
    assert len(cut.pieces) == 5
    assert cut.step < whole.step / 2
    covered = sum(piece.region.width for piece in cut.pieces)
    assert covered == pytest.approx(80_000, rel=0.01)


def test_the_scale_is_stated_and_drawn_or_neither():
    known = view(MarkedSlide((20_000, 16_000), mpp=0.5), ViewSettings(tokens=256))
    assert known.map.mpp == pytest.approx(0.5 * known.map.step)
    bar_px = (known.rgb == 0).all(axis=2).sum(axis=1).max()
    words = known.prompt_line.split("the bar is ")[1].removesuffix(".")
    microns = {"mm": 1000, "micrometres": 1}[words.split()[1]] * float(words.split()[0])
    assert bar_px * known.map.mpp == pytest.approx(microns, rel=0.02)
    unknown = view(MarkedSlide((20_000, 16_000), mpp=None), ViewSettings(tokens=256))
    assert unknown.prompt_line == "Whole slide, scale unknown."
    assert (unknown.rgb == 255).all()


def test_a_slide_within_the_budget_is_shown_pixel_by_pixel(phantom):
    path, _ = phantom
    with open_slide(path) as slide:
        found = view(slide, ViewSettings(tokens=4096, bar=False))
        assert found.map.step == 1
        piece = found.map.pieces[0]
        x, y = round(-piece.region.x), round(-piece.region.y)
        stored = slide.read_level(0, (0, 0), slide.size)
    assert (found.rgb[y : y + 1024, x : x + 1536] == stored).all()


def test_the_picture_is_cropped_to_the_tissue_of_the_phantom(phantom):
    path, truth = phantom
    with open_slide(path) as slide:
        found = view(slide, ViewSettings(tokens=64), tissue=lambda s: TissueMap(truth.tissue, s.whole))
    rows, columns = np.nonzero(truth.tissue)
    box = Box(columns.min(), rows.min(), columns.max() + 1, rows.max() + 1, Frame.SLIDE)
    shown = box_of(found.map.pieces[0].region)
    assert shown.x0 <= box.x0 + 1
    assert shown.x1 >= box.x1 - 1
    assert shown.area < 1.6 * box.area
    assert found.prompt_line.startswith("The tissue of the slide, ")


def test_a_map_without_tissue_shows_the_whole_slide():
    slide = BlankSlide((5000, 4000))
    found = view(slide, tissue=TissueMap(np.zeros((4, 5), dtype=bool), slide.whole))
    assert found.prompt_line.startswith("Whole slide")
    shown = box_of(found.map.pieces[0].region)
    assert (shown.x0 <= 0, shown.y0 <= 0, shown.x1 >= 5000, shown.y1 >= 4000) == (True,) * 4


def test_a_region_is_shown_at_the_finest_scale_that_fits():
    found = view(BlankSlide((50_000, 50_000)), ViewSettings(tokens=64), region=Region(100, 200, 256, 256))
    assert (found.map.step, found.map.size) == (1, (256, 256))
    assert found.prompt_line.startswith("A region of the slide, 0.25 micrometres per pixel")


def test_a_box_on_the_background_between_pieces_is_nowhere():
    slide = BlankSlide((100_000, 100_000))
    mask = np.zeros((100, 100), dtype=bool)
    mask[:10, :10] = mask[90:, 70:] = True
    found = view(slide, ViewSettings(tokens=256), tissue=TissueMap(mask, slide.whole)).map
    used = np.zeros(found.size[::-1], dtype=bool)
    for piece in found.pieces:
        x0, y0, x1, y1 = (round(v) for v in piece.place.corners)
        used[y0:y1, x0:x1] = True
    used = binary_dilation(used, iterations=3)
    y, x = (int(v[0]) for v in np.nonzero(~used))
    assert found.to_slide(Box(x + 0.2, y + 0.2, x + 0.8, y + 0.8)) is None
    assert found.from_slide(Box(50_000, 50_000, 50_100, 50_100, Frame.SLIDE)) is None
    with pytest.raises(DataError, match="already"):
        found.to_slide(Box(0, 0, 1, 1, Frame.SLIDE))
    with pytest.raises(DataError, match="level-0"):
        found.from_slide(Box(0, 0, 1, 1, Frame.IMAGE))


@pytest.mark.parametrize("wrong", [{"tokens": 0}, {"pack_gain": 0.5}, {"margin": -1.0}, {"least_piece": 1.0}])
def test_settings_that_mean_nothing_are_refused(wrong):
    with pytest.raises(ConfigError, match="view:"):
        ViewSettings(**wrong)


def test_a_mask_of_the_wrong_shape_is_refused():
    slide = BlankSlide((500, 400))
    with pytest.raises(DataError, match="rows x columns"):
        view(slide, tissue=TissueMap(np.ones((3, 4, 3), dtype=bool), slide.whole))
