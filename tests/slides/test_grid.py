"""Where tiles lie: exact, reproducible, nothing lost and nothing twice."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from malpighi.errors import ConfigError, DataError, MissingScaleError
from malpighi.geometry import on_level
from malpighi.slides.choices import Edges
from malpighi.slides.grid import GridSettings, make_grid, select, starts, tiles_of
from malpighi.slides.opening import open_slide
from malpighi.slides.picture_slide import PictureSlide
from malpighi.slides.slide import Level, Slide, SlideFacts


class Blank(Slide):
    """A slide of any size without pixels."""

    def __init__(self, size, mpp=0.25, downsamples=(1.0,)):
        levels = tuple(Level((round(size[0] / d), round(size[1] / d)), d) for d in downsamples)
        super().__init__(Path("blank"), SlideFacts(reader="blank", levels=levels, mpp=mpp))

    _decode = close = __reduce__ = None


Blank.__abstractmethods__ = frozenset()


@given(
    extent=st.integers(1, 5000),
    side=st.integers(1, 700),
    stride=st.integers(1, 700),
    edges=st.sampled_from(Edges),
)
def test_along_a_side_tiles_cover_what_the_policy_says(extent, side, stride, edges):
    found = starts(extent, side, min(stride, side), edges)
    assert found == sorted(set(found))
    assert all(start >= 0 for start in found)
    whole = [start for start in found if start + side <= extent]
    assert whole[: len(range(0, extent - side + 1, min(stride, side)))] == list(
        range(0, extent - side + 1, min(stride, side))
    )
    if edges is Edges.DROP:
        assert found == whole
    else:
        assert found[-1] + side >= extent  # covered to the end
    if edges is Edges.SHIFT:
        assert found == whole or found == [0]


@given(
    width=st.integers(300, 100_000),
    height=st.integers(300, 100_000),
    mpp=st.floats(0.1, 0.6),
    target=st.floats(0.7, 8),
    edges=st.sampled_from(Edges),
)
def test_neighbours_touch_exactly_and_the_scale_is_true(width, height, mpp, target, edges):
    slide = Blank((width, height), mpp, (1.0, 4.0003))
    grid = make_grid(slide, GridSettings(mpp=target, edges=edges))
    boxes = grid.boxes()
    assert boxes.dtype == np.int64
    assert len(boxes) == len(grid)
    if grid.picture.resampled:
        assert grid.picture.mpp == pytest.approx(target, rel=0.5 / grid.extent + 1e-9)
        steps = np.diff(np.asarray(grid.lefts))
        assert (steps[:-1] == grid.extent).all()
    else:
        assert grid.picture.mpp == pytest.approx(target, rel=0.031)
    assert slide.levels[grid.picture.level].downsample <= grid.extent / grid.picture.size * 1.0001
    assert (make_grid(slide, GridSettings(mpp=target, edges=edges)).boxes() == boxes).all()


@given(steps=st.lists(st.integers(0, 400_000), min_size=1, max_size=9), downsample=st.floats(1, 64))
def test_a_corner_on_its_level_is_found_back_exactly(steps, downsample):
    slide = Blank((500_000, 500_000), downsamples=(1.0, downsample))
    from_level = [on_slide_corner(step, downsample) for step in steps]
    boxes = np.array([[x, x, x + 256, x + 256] for x in from_level])
    grid = make_grid(slide, GridSettings(mpp=None))
    picture = type(grid.picture)(256, 1, downsample, resampled=False, mpp=None)
    assert [tile.corner for tile in tiles_of(boxes, picture)] == [(step, step) for step in steps]


def on_slide_corner(step, downsample):
    return int(np.floor(step * downsample + 0.5))


def test_a_stored_level_of_the_scale_is_cut_along_its_own_pixels(phantom):
    with open_slide(phantom[0]) as slide:  # 0.5 um/px, levels 1, 2, 4
        grid = make_grid(slide, GridSettings(mpp=1.01, size=128))
        assert (grid.picture.level, grid.picture.resampled, grid.extent) == (1, False, 256)
        assert grid.picture.mpp == pytest.approx(1.0, rel=1e-3)
        exact = make_grid(slide, GridSettings(mpp=1.01, size=128, tolerance=0.0))
        assert (exact.picture.level, exact.picture.resampled, exact.extent) == (1, True, 259)


def test_level_0_needs_no_scale_but_a_scale_does(tmp_path):
    Image.new("RGB", (700, 300)).save(tmp_path / "a.png")
    slide = PictureSlide(tmp_path / "a.png")
    grid = make_grid(slide, GridSettings(mpp=None, size=100))
    assert (len(grid), grid.picture.mpp, grid.extent) == (21, None, 100)
    with pytest.raises(MissingScaleError, match="--mpp-csv"):
        make_grid(slide, GridSettings(mpp=0.5))


def test_nothing_is_made_up_and_nothing_is_boundless():
    with pytest.raises(DataError, match="finer than the slide"):
        make_grid(Blank((5000, 5000), 0.5), GridSettings(mpp=0.25))
    with pytest.raises(DataError, match="more than"):
        make_grid(Blank((200_000, 200_000)), GridSettings(mpp=None, size=1))
    for wrong in ({"size": 0}, {"overlap": 256}, {"mpp": 0.0}, {"tissue": 1.2}, {"mpp": float("inf")}):
        with pytest.raises(ConfigError):
            GridSettings(**wrong)


def test_the_smallest_slide_has_one_tile_or_none():
    assert len(make_grid(Blank((1, 1)), GridSettings(mpp=None, edges=Edges.PAD))) == 1
    assert len(make_grid(Blank((1, 1)), GridSettings(mpp=None, edges=Edges.DROP))) == 0


def test_tiles_are_chosen_by_tissue_in_pieces_of_any_length(monkeypatch):
    grid = make_grid(Blank((10_000, 6000)), GridSettings(mpp=None, size=100))
    truth = np.random.default_rng(0).random((60, 100)).astype(np.float32)

    def fractions(boxes):
        return truth[boxes[:, 1] // 100, boxes[:, 0] // 100]

    indices, parts = select(grid, fractions, 0.5)
    assert (indices == np.flatnonzero(truth.ravel() >= 0.5)).all()
    assert (parts == truth.ravel()[indices]).all()
    monkeypatch.setattr("malpighi.slides.grid._AT_ONCE", 37)
    assert (select(grid, fractions, 0.5)[0] == indices).all()
    assert len(select(grid, fractions, 0.0)[0]) == len(grid)


def test_corners_match_the_level_they_are_read_from(phantom):
    with open_slide(phantom[0]) as slide:
        grid = make_grid(slide, GridSettings(mpp=2.0, size=64))
        for tile in tiles_of(grid.boxes(), grid.picture):
            region = type(slide.whole)(tile.x, tile.y, tile.width, tile.height)
            assert on_level(region, tile.downsample)[:2] == pytest.approx(tile.corner, abs=0.5)
