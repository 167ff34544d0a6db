"""Pixels of tiles: in order, the right ones, with bounded memory, and counted where they cannot be read."""

import threading

import numpy as np
import pytest
from PIL import Image

from malpighi.errors import DataError
from malpighi.geometry import Region
from malpighi.slides.choices import Edges
from malpighi.slides.grid import GridSettings, make_grid, tiles_of
from malpighi.slides.opening import open_slide
from malpighi.slides.picture_slide import PictureSlide
from malpighi.slides.slide import Level, Slide, SlideFacts
from malpighi.slides.tiles import damage_under, in_order, iterate_tiles, read_tile


@pytest.mark.parametrize("mpp", [0.5, 0.83, 1.0])
def test_pixels_are_those_of_the_place_in_the_order_given(phantom, mpp):
    with open_slide(phantom[0]) as slide:
        grid = make_grid(slide, GridSettings(mpp=mpp, size=192, overlap=16, edges=Edges.PAD))
        wanted = list(tiles_of(grid.boxes(), grid.picture))
        found = list(iterate_tiles(slide, wanted, threads=3, ahead=5))
        assert [tile for tile, _ in found] == wanted
        for tile, rgb in found:
            region = Region(tile.x, tile.y, tile.width, tile.height, slide.mpp)
            straight = slide.read(region, (192, 192))
            assert rgb.shape == (192, 192, 3)
            assert np.abs(rgb.astype(int) - straight).mean() < 0.5


def test_whole_tiles_put_together_are_the_slide(phantom):
    with open_slide(phantom[0]) as slide:
        grid = make_grid(slide, GridSettings(mpp=None, size=256))
        canvas = np.zeros((1024, 1536, 3), np.uint8)
        for tile, rgb in iterate_tiles(slide, tiles_of(grid.boxes(), grid.picture)):
            canvas[tile.y : tile.y + 256, tile.x : tile.x + 256] = rgb
        assert (canvas == slide.read_level(0, (0, 0), (1536, 1024))).all()


def test_no_more_is_read_ahead_than_allowed():
    begun, lock, most = 0, threading.Lock(), 0

    def work(thing):
        nonlocal begun
        with lock:
            begun += 1
        return thing

    for done, (thing, result) in enumerate(in_order(work, range(500), threads=4, ahead=10)):
        assert thing == result == done
        with lock:
            most = max(most, begun - done)
    assert most <= 11


def test_leaving_early_ends_the_threads(phantom):
    before = threading.active_count()
    with open_slide(phantom[0]) as slide:
        grid = make_grid(slide, GridSettings(mpp=None, size=64))
        for _ in iterate_tiles(slide, tiles_of(grid.boxes(), grid.picture)):
            break
    assert threading.active_count() == before


def test_what_goes_wrong_reaches_the_caller():
    def work(thing):
        if thing == 7:
            raise DataError("gone")
        return thing

    done = in_order(work, range(20), threads=3)
    assert [next(done) for _ in range(7)] == [(thing, thing) for thing in range(7)]
    with pytest.raises(DataError, match="gone"):
        next(done)


class Stored(Slide):
    """A slide of 1000 x 800 px in stored tiles of 100 x 80 px."""

    def __init__(self):
        level = Level((1000, 800), 1.0, (100, 80))
        super().__init__(
            "stored", SlideFacts(reader="stored", levels=(level, Level((250, 200), 4.0, (50, 50))))
        )

    _decode = close = __reduce__ = None


Stored.__abstractmethods__ = frozenset()


@pytest.mark.parametrize("size", [40, 100, 256])
def test_damage_is_counted_per_tile(size):
    slide = Stored()
    rng = np.random.default_rng(size)
    for column, row in rng.integers(0, 10, (25, 2)).tolist():
        slide.damage.mark(0, column, row, "cut short")
    slide.damage.mark(1, 2, 1, "cut short")
    grid = make_grid(slide, GridSettings(mpp=None, size=size, edges=Edges.PAD))
    boxes = grid.boxes()[::2]
    slow = []
    for x0, y0, x1, y1 in boxes.tolist():
        count = 0
        for (level, column, row), _ in slide.damage:
            w, h = (100, 80) if level == 0 else (200, 200)
            count += column * w < x1 and (column + 1) * w > x0 and row * h < y1 and (row + 1) * h > y0
        slow.append(count)
    assert damage_under(slide, boxes).tolist() == slow
    assert max(slow) > 0


def test_no_damage_is_none(phantom, tmp_path):
    with open_slide(phantom[0]) as slide:
        assert damage_under(slide, np.array([[0, 0, 10, 10]])).tolist() == [0]
        assert damage_under(slide, np.zeros((0, 4), np.int64)).tolist() == []


def test_a_tile_over_the_edge_is_padded_with_background(tmp_path):
    Image.new("RGB", (70, 50), "black").save(tmp_path / "a.png")
    slide = PictureSlide(tmp_path / "a.png")
    grid = make_grid(slide, GridSettings(mpp=None, size=64, edges=Edges.PAD))
    last = list(tiles_of(grid.boxes(), grid.picture))[-1]
    rgb = read_tile(slide, last)
    assert (rgb[:50, :6] == 0).all()
    assert (rgb[50:] == 255).all()
    assert (rgb[:, 6:] == 255).all()
