"""Patches: stored bytes passed on where they may be, right colours for any decoder, resumable."""

import io
import os
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import simplejpeg
import tifffile
from PIL import Image

from malpighi.corpus import Corpus
from malpighi.errors import ConfigError, DataError
from malpighi.records import Text
from malpighi.slides.choices import Edges
from malpighi.slides.grid import GridSettings, make_grid, select, tiles_of
from malpighi.slides.opening import open_slide
from malpighi.slides.patches import PatchSettings, add_patches, encoded, patch_items, stored_bytes
from malpighi.slides.tile_table import Selected, tile_table, write_tiles
from malpighi.slides.tiles import read_tile

DATA = Path(os.environ.get("MALPIGHI_TEST_DATA", Path(__file__).parents[3] / "shared/data")) / "slides"
SETTINGS = PatchSettings(licence="CC0-1.0", organ="colon")


def table_of(slide, settings):
    grid = make_grid(slide, settings)
    indices, tissue = select(grid, lambda boxes: np.ones(len(boxes)), 0.5)
    return tile_table(slide, Selected(grid.boxes(indices), grid.picture, tissue), settings)


def decoders(data):
    """The pixels of a JPEG by three decoders that share no settings."""
    yield np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    yield simplejpeg.decode_jpeg(data, "RGB")
    yield imagecodecs.jpeg8_decode(data)


def assert_passed_on(slide, tiles):
    count = 0
    for tile in tiles:
        data = stored_bytes(slide, tile)
        assert data is not None
        straight = read_tile(slide, tile).astype(int)
        for pixels in decoders(data):
            assert np.abs(pixels - straight).max() == 0
        count += 1
    return count


def test_stored_bytes_decode_to_what_is_read(phantom):
    with open_slide(phantom[0]) as slide:
        grid = make_grid(slide, GridSettings(mpp=None))
        assert assert_passed_on(slide, tiles_of(grid.boxes(), grid.picture)) == 24
        coarse = make_grid(slide, GridSettings(mpp=1.0))
        assert assert_passed_on(slide, tiles_of(coarse.boxes(), coarse.picture)) == 6


@pytest.mark.realdata
def test_stored_bytes_of_a_scanner_keep_their_colours():
    """Its tiles are RGB without saying so: spliced naively, the colours are wrong."""
    path = DATA / "cmu-1-small-region.svs"
    if not path.is_file():
        pytest.skip(f"no slide {path}; set MALPIGHI_TEST_DATA")
    with open_slide(path) as slide:
        grid = make_grid(slide, GridSettings(size=240))
        assert assert_passed_on(slide, tiles_of(grid.boxes(), grid.picture)) == 108


@pytest.mark.parametrize(
    "settings",
    [
        GridSettings(mpp=None, size=128),  # a part of a stored tile
        GridSettings(mpp=0.7),  # resampled
        GridSettings(mpp=None, size=200, overlap=10),
    ],
)
def test_other_tiles_are_encoded_anew(phantom, settings):
    with open_slide(phantom[0]) as slide:
        grid = make_grid(slide, settings)
        for tile in list(tiles_of(grid.boxes(), grid.picture))[:6]:
            assert stored_bytes(slide, tile) is None
            straight = read_tile(slide, tile)
            blob, how = encoded(slide, tile, SETTINGS)
            assert (how, blob.suffix) == ("png", ".png")
            assert (np.asarray(Image.open(io.BytesIO(blob.data))) == straight).all()
            blob, how = encoded(slide, tile, PatchSettings(licence="x", encoding="jpeg"))
            assert (how, blob.suffix) == ("jpeg95", ".jpg")
            for pixels in decoders(blob.data):
                assert np.abs(pixels.astype(int) - straight).mean() < 3


def test_padding_of_a_stored_tile_is_not_passed_on(tmp_path):
    path = tmp_path / "odd.tif"
    rgb = np.random.default_rng(0).integers(0, 255, (300, 300, 3)).astype(np.uint8)
    tifffile.imwrite(path, rgb, tile=(256, 256), compression="jpeg", photometric="rgb")
    with open_slide(path) as slide:
        grid = make_grid(slide, GridSettings(mpp=None, edges=Edges.PAD))
        passed = [stored_bytes(slide, tile) is not None for tile in tiles_of(grid.boxes(), grid.picture)]
        assert passed == [True, False, False, False]


def test_a_corrupt_stored_tile_is_background_and_counted(phantom, tmp_path):
    data = bytearray(phantom[0].read_bytes())
    with tifffile.TiffFile(phantom[0]) as file:
        offset = file.pages[0].dataoffsets[7]
        data[offset : offset + 400] = bytes(400)
    path = tmp_path / "corrupt.tiff"
    path.write_bytes(data)
    with open_slide(path) as slide:
        grid = make_grid(slide, GridSettings(mpp=None))
        tile = list(tiles_of(grid.boxes(), grid.picture))[7]
        blob, how = encoded(slide, tile, SETTINGS)
        assert how == "png"
        assert (np.asarray(Image.open(io.BytesIO(blob.data))) == 255).all()
        assert len(slide.damage) == 1


def test_patches_say_where_they_are_from(phantom):
    with open_slide(phantom[0]) as slide:
        table = table_of(slide, GridSettings(mpp=None))
        items = list(patch_items(slide, "phantom-1", table, SETTINGS))
    assert len({item.sample.id for item in items}) == 24
    sample, (blob,) = items[7].sample, items[7].blobs
    image = sample.images[0]
    assert (image.key, image.size, image.slide) == (blob.key, (256, 256), str(phantom[0]))
    assert (image.region.x, image.region.y, image.region.width) == (256, 256, 256)
    assert image.mpp == pytest.approx(0.5, rel=1e-3)
    assert sample.provenance.operation == "patch:stored"
    assert sample.provenance.parents == (table["slide_hash"][0].as_py(),)
    assert (sample.licence, sample.organ, sample.group) == ("CC0-1.0", "colon", "phantom")
    assert (sample.answer, sample.facts) == (Text(""), {"tissue": 1.0})


def test_a_corpus_is_gone_on_with_and_nothing_is_added_twice(phantom, tmp_path):
    with open_slide(phantom[0]) as slide:
        write_tiles(table_of(slide, GridSettings(mpp=None)), tmp_path / "t.parquet")
    one = ("one", phantom[0], tmp_path / "t.parquet")
    two = ("two", phantom[0], tmp_path / "t.parquet")
    gone = ("gone", tmp_path / "gone.svs", tmp_path / "t.parquet")
    assert add_patches(tmp_path / "c", [one], SETTINGS, open_slide) == ({"stored": 24}, [])
    counts, failures = add_patches(tmp_path / "c", [one, gone, two], SETTINGS, open_slide)
    assert counts == {"stored": 24}
    assert [(failure.id, failure.stage) for failure in failures] == [(str(tmp_path / "gone.svs"), "patches")]
    corpus = Corpus.open(tmp_path / "c")
    assert len(corpus) == 48
    assert len(corpus.image_keys) <= 24  # the same bytes are stored once
    assert corpus.samples()[30].id.startswith("patches/two/")


def test_an_error_midway_leaves_what_is_whole(phantom, tmp_path):
    with open_slide(phantom[0]) as slide:
        write_tiles(table_of(slide, GridSettings(mpp=None)), tmp_path / "t.parquet")

    class Fails(type(slide)):
        def tile_jpeg(self, level, column, row):
            if (column, row) == (2, 1):
                raise DataError("vanished")
            return super().tile_jpeg(level, column, row)

    one = ("one", phantom[0], tmp_path / "t.parquet")
    counts, failures = add_patches(tmp_path / "c", [one], SETTINGS, Fails)
    assert (counts, failures[0].reason) == ({"stored": 8}, "vanished")
    assert add_patches(tmp_path / "c", [one], SETTINGS, open_slide) == ({"stored": 16}, [])
    assert len(Corpus.open(tmp_path / "c")) == 24


def test_patches_need_a_licence():
    with pytest.raises(ConfigError, match="--licence"):
        PatchSettings(licence=" ")
