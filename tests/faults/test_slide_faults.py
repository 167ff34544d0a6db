"""Slides that are torn, that lie, or that go away while they are read: the right error or a marked tile."""

import json
import os
import pickle
import resource
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from malpighi.errors import DataError
from malpighi.slides.byte_file import ByteFile
from malpighi.slides.opening import open_slide
from malpighi.slides.openslide_slide import OpenSlideSlide
from malpighi.slides.tiff_index import MAX_DIRECTORIES, read_index
from malpighi.slides.tiff_slide import TiffSlide

TILE = 64
SIZE = (320, 256)
FUZZER = Path(__file__).with_name("fuzz_tiff.py")


@pytest.fixture
def rgb():
    coarse = np.random.default_rng(2).integers(90, 200, (5, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC))


@pytest.fixture
def path(tmp_path, rgb):
    return write(tmp_path / "slide.tif", rgb)


def write(path, rgb, compression="jpeg", **options):
    tifffile.imwrite(
        path, rgb, tile=(TILE, TILE), photometric="rgb", compression=compression, metadata=None, **options
    )
    return path


def change(path, name, index, value):
    """Write another number into an array of the first directory."""
    with tifffile.TiffFile(path, mode="r+b") as file:
        tag = file.pages[0].tags[name]
        tag.overwrite(tuple(value if k == index else old for k, old in enumerate(tag.value)))


def tile_of(slide, column, row):
    return slide.read_level(0, (column * TILE, row * TILE), (TILE, TILE))


def only(slide, column, row, rgb):
    """One tile is white and marked, all others are as written; the reason."""
    found = slide.read_level(0, (0, 0), slide.size)
    left, top = column * TILE, row * TILE
    assert (found[top : top + TILE, left : left + TILE] == 255).all()
    found[top : top + TILE, left : left + TILE] = rgb[top : top + TILE, left : left + TILE]
    assert np.abs(found.astype(int) - rgb).mean() < 3
    ((place, reason),) = slide.damage
    assert place == (0, column, row)
    return reason


def test_a_tile_that_was_never_written_is_white_and_marked(path, rgb):
    change(path, "TileByteCounts", 7, 0)
    with open_slide(path) as slide:
        assert any("1 of 20 tiles of level 0 were never written" in note for note in slide.facts.notes)
        assert only(slide, 2, 1, rgb) == "it was never written"
        assert (tile_of(slide, 2, 1) == 255).all()
        assert slide.tile_jpeg(0, 2, 1) is None


@pytest.mark.parametrize("count", [3, 40, 200, 2**31, 2**32 - 1])
def test_a_wrong_byte_count_costs_its_tile(path, rgb, count):
    change(path, "TileByteCounts", 7, count)
    with open_slide(path) as slide:
        assert only(slide, 2, 1, rgb)


def test_an_offset_past_the_end_costs_its_tile(path, rgb):
    change(path, "TileOffsets", 7, 2**32 - 9)
    with open_slide(path) as slide:
        assert "of" in only(slide, 2, 1, rgb)


@pytest.mark.parametrize("compression", ["jpeg", "lzw", "adobe_deflate", "jpeg2000", None])
def test_a_tile_that_does_not_decode_is_white_and_marked(tmp_path, rgb, compression):
    path = write(tmp_path / "a.tif", rgb, compression)
    with tifffile.TiffFile(path) as file:
        offset, count = file.pages[0].dataoffsets[7], file.pages[0].databytecounts[7]
    if compression is None:
        change(path, "TileByteCounts", 7, 100)
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\x7f" * min(count, 150))
    with open_slide(path, check=False) as slide:
        assert only(slide, 2, 1, rgb)


def test_a_jpeg_of_another_size_is_no_tile(path, rgb):
    """A tile that claims 65,500 px must not take their memory, and a larger one must not be shrunk to fit."""
    with tifffile.TiffFile(path) as file:
        offset = file.pages[0].dataoffsets[7]
    with path.open("r+b") as file:
        data = file.read()
        place = data.index(b"\xff\xc0", offset) + 5
        for side in (65_500, 2 * TILE):
            file.seek(place)
            file.write(struct.pack(">HH", side, side))
            file.flush()
            with open_slide(path, check=False) as slide:
                assert str(side) in only(slide, 2, 1, rgb)
                assert (slide._decode(0, (16, 8), (8, 8), 8) == 255).all()


def test_a_file_cut_short_reads_what_is_left(path, rgb):
    with tifffile.TiffFile(path) as file:
        offsets = file.pages[0].dataoffsets
    with path.open("r+b") as file:
        file.truncate(offsets[12] + 30)
    with open_slide(path, check=False) as slide:
        found = slide.read_level(0, (0, 0), slide.size)
        assert np.abs(found[: 2 * TILE].astype(int) - rgb[: 2 * TILE]).mean() < 3
        assert (found[3 * TILE :] == 255).all()
        assert [place for place, _ in slide.damage] == sorted((0, k % 5, k // 5) for k in range(12, 20))


@pytest.mark.parametrize("length", [0, 4, 8, 11, 60, 200])
def test_a_file_without_its_index_is_refused(path, length):
    with path.open("r+b") as file:
        file.truncate(length)
    with pytest.raises(DataError, match=r"slide\.tif"):
        open_slide(path)


def test_a_file_that_is_cut_while_it_is_read(path):
    """A mapped file would kill the process here."""
    with open_slide(path, check=False) as slide:
        assert len(slide.damage) == 0
        with path.open("r+b") as file:
            file.truncate(1000)
        assert (slide.read_level(0, (0, 0), SIZE) == 255).all()
        assert len(slide.damage) == 20
        assert all("ends within it" in reason for _, reason in slide.damage)


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps a file that is open")
def test_a_file_that_vanishes_while_it_is_read(path, rgb):
    slide = open_slide(path)
    path.unlink()
    assert np.abs(slide.read_level(0, (0, 0), SIZE).astype(int) - rgb).mean() < 3
    with pytest.raises(DataError, match="No such file"):
        pickle.loads(pickle.dumps(slide))
    slide.close()
    with pytest.raises(DataError, match="there is no slide"):
        open_slide(path)


def test_closing_while_threads_read_ends_in_an_error_not_a_crash(path):
    slide = open_slide(path, check=False)

    def read(k):
        try:
            return tile_of(slide, k % 5, k // 5 % 4).shape
        except DataError as error:
            return str(error)

    with ThreadPoolExecutor(4) as pool:
        found = [pool.submit(read, k) for k in range(400)]
        slide.close()
        said = {str(each.result()) for each in found}
    assert all("closed" in each or each == str((TILE, TILE, 3)) for each in said)
    assert len(slide.damage) == 0


@pytest.mark.parametrize(
    "name", ["Überweisung 胃 №7 💉.tif", "a" * 240 + ".tif", "white  space\ttab.tif", "-rf.tif", "a.b.c.svs"]
)
def test_any_name_a_file_system_takes(tmp_path, rgb, name):
    with open_slide(write(tmp_path / name, rgb)) as slide:
        assert slide.facts.reader == "tiff"
        assert np.abs(slide.read_level(0, (0, 0), SIZE).astype(int) - rgb).mean() < 3


def test_65536_tiny_tiles(tmp_path):
    tile = np.full((16, 16, 3), 180, np.uint8).tobytes()
    path = tmp_path / "many.tif"
    tifffile.imwrite(
        path, (tile for _ in range(65_536)), shape=(4096, 4096, 3), dtype=np.uint8, tile=(16, 16),
        photometric="rgb", metadata=None,
    )  # fmt: skip
    start = time.monotonic()
    with open_slide(path, check=False) as slide:
        assert (slide.read(slide.whole, (64, 64)) == 180).all()
    assert time.monotonic() - start < 60


def test_missing_levels_are_read_from_what_there_is(tmp_path, rgb):
    path = tmp_path / "gap.tif"
    with tifffile.TiffWriter(path) as writer:
        for factor in (1, 16):
            small = np.asarray(Image.fromarray(rgb).reduce(factor))
            writer.write(small, tile=(16, 16), photometric="rgb", subfiletype=int(factor > 1), metadata=None)
    with open_slide(path) as slide:
        assert [level.downsample for level in slide.levels] == [1, 16]
        found = slide.read(slide.whole, (80, 64)).astype(float)
    assert np.abs(found - rgb.reshape(64, 4, 80, 4, 3).mean(axis=(1, 3))).max() <= 1


def test_levels_of_another_picture_are_no_levels(tmp_path, rgb):
    path = tmp_path / "odd.tif"
    with tifffile.TiffWriter(path) as writer:
        for picture in (rgb, rgb[:, :100], rgb[::2, ::2], np.tile(rgb, (2, 2, 1))):
            writer.write(picture, tile=(16, 16), photometric="rgb", subfiletype=1, metadata=None)
    with open_slide(path, check=False) as slide:
        assert [level.size for level in slide.levels] == [(320, 256), (160, 128)]
        assert any("2 tiled pictures" in note for note in slide.facts.notes)


def test_openslide_goes_on_after_a_bad_tile(path, rgb):
    change(path, "TileByteCounts", 7, 40)
    with OpenSlideSlide(path) as slide:
        assert only(slide, 2, 1, rgb)
        assert np.abs(tile_of(slide, 0, 0).astype(int) - rgb[:TILE, :TILE]).mean() < 3


def test_a_bad_tile_of_openslide_costs_other_threads_nothing(path, rgb):
    change(path, "TileByteCounts", 7, 40)
    with OpenSlideSlide(path) as slide, ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda k: tile_of(slide, k % 5, k // 5 % 4), range(200)))
        assert [place for place, _ in slide.damage] == [(0, 2, 1)]
    for k, tile in enumerate(found):
        column, row = k % 5, k // 5 % 4
        wanted = rgb[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE]
        assert (
            (tile == 255).all() if (column, row) == (2, 1) else np.abs(tile.astype(int) - wanted).mean() < 4
        )


@pytest.mark.parametrize("text", ["<scn xmlns='x'/>", "<DataObject ObjectType='DPUfsImport'/>"])
def test_scanners_with_ways_of_their_own_are_left_to_openslide(tmp_path, rgb, text):
    path = write(tmp_path / "own.tif", rgb, description=text)
    with pytest.raises(DataError, match="a way of its own"):
        TiffSlide(path)
    with open_slide(path) as slide:
        assert slide.facts.reader != "tiff"


def crafted(*tags, following=0, entries=None, tail=b""):
    """A TIFF of one directory at byte 8: tags of (number, type, count, value)."""
    body = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    count = len(tags) if entries is None else entries
    return b"II*\0" + struct.pack("<IH", 8, count) + body + struct.pack("<I", following) + tail


def tiled(wide, high, tile, tiles, offset=8):
    return (
        (256, 4, 1, wide), (257, 4, 1, high), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 2),
        (277, 3, 1, 3), (322, 4, 1, tile), (323, 4, 1, tile),
        (324, 4, tiles, offset), (325, 4, tiles, offset),
    )  # fmt: skip


HOSTILE = {
    "a billion px a side": crafted(*tiled(10**9, 10**9, 256, 1)),
    "one tile of a billion px": crafted(*tiled(10**9, 10**9, 10**9, 1)),
    "a tile of no size": crafted(*tiled(1000, 1000, 0, 16)),
    "no size": crafted(*tiled(0, 0, 256, 1)),
    "counts past the end": crafted(*tiled(10**6, 10**6, 256, 2**32 - 1)),
    "fewer places than tiles": crafted(*tiled(10_000, 10_000, 256, 4)),
    "an index past the end": crafted(*tiled(512, 512, 256, 4, offset=2**31)),
    "a chain that bites its tail": crafted(*tiled(256, 256, 256, 1), following=8),
    "a directory past the end": crafted(*tiled(256, 256, 256, 1), following=2**30),
    "too many entries": crafted(*tiled(256, 256, 256, 1), entries=65_535),
    "no entries": crafted(entries=0),
    "a text past the end": crafted((270, 2, 2**31, 8), *tiled(256, 256, 256, 1)),
    "no directory": b"II*\0\0\0\0\0",
    "a damaged BigTIFF": b"II+\0\x04\0\0\0" + bytes(8),
    "a BigTIFF of endless entries": b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 2**63) + bytes(64),
    "tables past the end": crafted((347, 7, 2**30, 8), *tiled(256, 256, 256, 1)),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_index_is_refused_at_once(tmp_path, kind):
    path = tmp_path / "hostile.tif"
    path.write_bytes(HOSTILE[kind])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match=r"hostile\.tif|a page of"):
        TiffSlide(path)
    with suppress(DataError), open_slide(path) as slide:  # libtiff forgives more
        assert slide.facts.reader == "openslide"
        assert slide.read(slide.whole, (20, 20)).shape == (20, 20, 3)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


def test_thousands_of_directories_are_refused(tmp_path):
    one = struct.pack("<HHHII", 1, 256, 4, 1, 5)
    data, step = b"II*\0" + struct.pack("<I", 8), len(one) + 4
    for k in range(MAX_DIRECTORIES + 5):
        data += one + struct.pack("<I", 8 + (k + 1) * step)
    path = tmp_path / "chain.tif"
    path.write_bytes(data)
    file = ByteFile(path)
    with pytest.raises(DataError, match="no end"):
        read_index(file)
    file.close()


def fuzz(seconds):
    done = subprocess.run(
        [sys.executable, FUZZER, "--seconds", str(seconds)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["grown_mb"] < 400, found
    assert found["slowest_s"] < 60, found
    return found


def test_a_fuzzed_index_never_ends_the_process():
    found = fuzz(5)
    assert found["refused"] > 0
    assert found["read"] + found.get("marked", 0) > 0


@pytest.mark.slow
def test_a_fuzzed_index_never_ends_the_process_in_a_minute():
    assert fuzz(60)["mutations"] > 100
