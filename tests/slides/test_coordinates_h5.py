"""Coordinate files of CLAM and TRIDENT, both ways, and as their own readers would read them."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from malpighi.errors import DataError, MissingScaleError
from malpighi.slides.choices import Edges, Layout
from malpighi.slides.coordinates_h5 import placed, read_coordinates, write_coordinates
from malpighi.slides.grid import GridSettings, make_grid, tiles_of
from malpighi.slides.opening import open_slide
from malpighi.slides.slide import Level, Slide, SlideFacts
from malpighi.slides.tiles import read_tile


class Blank(Slide):
    def __init__(self, size, mpp, objective=None):
        levels = tuple(Level((round(size[0] / d), round(size[1] / d)), d) for d in (1.0, 4.0003, 16.0012))
        super().__init__(
            Path("blank.svs"),
            SlideFacts(reader="blank", levels=levels, mpp=mpp, objective=objective),
        )

    _decode = close = __reduce__ = None


Blank.__abstractmethods__ = frozenset()


@settings(max_examples=40)
@given(
    size=st.tuples(st.integers(2000, 60_000), st.integers(2000, 60_000)),
    mpp=st.floats(0.15, 0.55),
    target=st.floats(0.6, 5),
    px=st.integers(64, 512),
    objective=st.sampled_from([None, 20.0, 40.0]),
    layout=st.sampled_from(Layout),
)
def test_what_is_written_is_read(tmp_path_factory, size, mpp, target, px, objective, layout):
    slide = Blank(size, mpp, objective)
    grid = make_grid(slide, GridSettings(px, target, edges=Edges.PAD))
    path = tmp_path_factory.mktemp("h5") / "c.h5"
    boxes = grid.boxes()[:2000]
    write_coordinates(path, layout, slide, boxes, grid.picture)
    found = read_coordinates(path)
    assert (found.layout, found.name) == (layout, "blank")
    again, picture = placed(found, slide)
    assert (again[:, :2] == boxes[:, :2]).all()
    if layout is Layout.TRIDENT:
        assert (again == boxes).all()
        assert picture.size == px
        assert found.slide_size == slide.size
    else:  # CLAM speaks in whole pixels of a level
        assert np.abs(again - boxes).max() <= picture.downsample / 2 + 1
    if not grid.picture.resampled:
        assert picture.level == grid.picture.level
        assert picture.size == px
        assert not picture.resampled


def as_clam_reads(path, slide, index):
    """CLAM's Whole_Slide_Bag_FP: patch_size px of patch_level at each corner."""
    with h5py.File(path) as file:
        coords = file["coords"]
        size = int(coords.attrs["patch_size"])
        level = int(coords.attrs["patch_level"])
        return slide.read_level(level, corner_on(slide, level, coords[index]), (size, size))


def corner_on(slide, level, corner):
    return tuple(round(int(side) / slide.levels[level].downsample) for side in corner)


@pytest.mark.parametrize("mpp", [0.5, 1.0])
def test_clam_would_see_the_same_pixels(phantom, tmp_path, mpp):
    with open_slide(phantom[0]) as slide:
        grid = make_grid(slide, GridSettings(mpp=mpp, size=128))
        write_coordinates(tmp_path / "c.h5", Layout.CLAM, slide, grid.boxes(), grid.picture)
        for index, tile in enumerate(tiles_of(grid.boxes(), grid.picture)):
            assert (as_clam_reads(tmp_path / "c.h5", slide, index) == read_tile(slide, tile)).all()


def test_trident_would_take_the_same_stretch(phantom, tmp_path):
    with open_slide(phantom[0]) as slide:
        grid = make_grid(slide, GridSettings(mpp=0.83, size=224, overlap=32))
        write_coordinates(tmp_path / "c.h5", Layout.TRIDENT, slide, grid.boxes(), grid.picture, overlap=32)
    with h5py.File(tmp_path / "c.h5") as file:
        attributes = dict(file["coords"].attrs)
        assert file["coords"].dtype == np.int64
    ratio = attributes["level0_magnification"] / attributes["target_magnification"]
    assert round(attributes["patch_size"] * ratio) == attributes["patch_size_level0"] == grid.extent
    assert (attributes["level0_magnification"], attributes["overlap"]) == (20, 32)
    assert {"name", "savetodir", "level0_width", "level0_height"} <= set(attributes)


def write(path, coords, **attributes):
    with h5py.File(path, "w") as file:
        made = file.create_dataset("coords", data=np.asarray(coords))
        made.attrs.update(attributes)


def test_files_as_others_write_them(tmp_path):
    path = tmp_path / "a.h5"
    write(path, [[0, 256], [512, 0]], patch_size=256, patch_level=0)  # older CLAM and Fishing-Rod
    found = read_coordinates(path)
    assert (found.layout, found.extent, found.size, found.level) == (Layout.CLAM, None, 256, 0)
    write(
        path,
        np.array([[0, 1024]], np.int32),
        patch_size=256,
        patch_level=1,
        downsample=(4.0, 4.0),
        level_dim=(500, 400),
        downsampled_level_dim=(500, 400),
        name="s",
        save_path="x",
    )
    found = read_coordinates(path)
    assert (found.extent, found.level, found.corners.dtype) == (1024, 1, np.int64)
    write(path, [[0, 0]], patch_size=256, level0_magnification=40, target_magnification=20, overlap=0)
    assert read_coordinates(path).extent == 512  # TRIDENT before patch_size_level0
    write(path, [], patch_size=256, patch_size_level0=512, name="None")
    assert read_coordinates(path).corners.shape == (0, 2)


def test_what_is_neither_is_refused(tmp_path):
    path = tmp_path / "a.h5"
    path.write_bytes(b"no")
    with pytest.raises(DataError, match="not a file of coordinates"):
        read_coordinates(path)
    with h5py.File(path, "w") as file:
        file["features"] = np.zeros(3)
    with pytest.raises(DataError, match="not a file of coordinates"):
        read_coordinates(path)
    write(path, [[1, 2, 3]], patch_size=256, patch_level=0)
    with pytest.raises(DataError, match="N x 2"):
        read_coordinates(path)
    for attributes in ({}, {"patch_size": 256}, {"patch_size": 0, "patch_level": 0}, {"patch_size": "x"}):
        write(path, [[1, 2]], **attributes)
        with pytest.raises(DataError, match="neither CLAM's"):
            read_coordinates(path)


def test_coordinates_of_another_slide_are_refused(tmp_path):
    slide = Blank((9000, 9000), 0.25)
    grid = make_grid(slide, GridSettings())
    path = tmp_path / "a.h5"
    write_coordinates(path, Layout.TRIDENT, slide, grid.boxes(), grid.picture)
    with pytest.raises(DataError, match="slide of"):
        placed(read_coordinates(path), Blank((9000, 9001), 0.25))
    write(path, [[0, 0]], patch_size=256, patch_level=7)
    with pytest.raises(DataError, match="ask for 7"):
        placed(read_coordinates(path), slide)


def test_trident_needs_a_magnification_and_none_is_made_up(tmp_path):
    slide = Blank((3000, 3000), None)
    grid = make_grid(slide, GridSettings(mpp=None))
    with pytest.raises(MissingScaleError):
        write_coordinates(tmp_path / "a.h5", Layout.TRIDENT, slide, grid.boxes(), grid.picture)
    write_coordinates(tmp_path / "a.h5", Layout.CLAM, slide, grid.boxes(), grid.picture)
    assert placed(read_coordinates(tmp_path / "a.h5"), slide)[1].mpp is None


def test_same_tiles_same_bytes(tmp_path):
    slide = Blank((9000, 9000), 0.25)
    grid = make_grid(slide, GridSettings())
    for name in "ab":
        write_coordinates(tmp_path / name, Layout.CLAM, slide, grid.boxes(), grid.picture)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
