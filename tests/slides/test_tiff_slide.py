"""Tiled TIFFs of every kind that is read directly, against tifffile, OpenSlide and the pixels written."""

import logging

import imagecodecs
import numpy as np
import pytest
import simplejpeg
import tifffile
from PIL import Image

from malpighi.geometry import Region
from malpighi.slides import tile_codec
from malpighi.slides.opening import open_slide
from malpighi.slides.tiff_slide import TiffSlide

SIZE = (330, 210)
APERIO = "Aperio Image Library v11.0.37\r\n330x210 (64x64) J2K/KDU Q=70|AppMag = 20|MPP = 0.4990"


@pytest.fixture(scope="module")
def rgb():
    coarse = np.random.default_rng(2).integers(90, 240, (7, 11, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC))


def write(path, rgb, **options):
    given = {"tile": (64, 64), "photometric": "rgb", "metadata": None, **options}
    tifffile.imwrite(path, rgb, **given)
    return path


def whole(path, **options):
    with open_slide(path, **options) as slide:
        assert slide.facts.reader == "tiff", slide.facts.notes
        assert len(slide.damage) == 0
        return slide.read_level(0, (0, 0), slide.size)


@pytest.mark.parametrize("compression", [None, "lzw", "adobe_deflate", "deflate"])
@pytest.mark.parametrize("predictor", [False, True])
@pytest.mark.parametrize("layout", ["<", ">", "big"])
def test_lossless_tiles_are_exact(tmp_path, rgb, compression, predictor, layout):
    if predictor and compression is None:
        pytest.skip("no predictor without compression")
    order = {"bigtiff": True} if layout == "big" else {"byteorder": layout}
    path = write(tmp_path / "a.tif", rgb, compression=compression, predictor=predictor, **order)
    assert (whole(path) == rgb).all()


@pytest.mark.parametrize("subsampling", [(1, 1), (2, 1), (2, 2)])
def test_ycbcr_jpeg_is_as_tifffile_decodes_it(tmp_path, rgb, subsampling):
    path = write(tmp_path / "a.tif", rgb, compression="jpeg", photometric="ycbcr", subsampling=subsampling)
    assert (whole(path) == tifffile.imread(path)).all()


def jpeg_tiles(rgb, tile, *, colours="RGB", strip=True):
    """JPEG streams whose values are `rgb` itself, as if they were YCbCr; without JFIF where `strip`."""
    high, wide = (-(-side // tile) * tile for side in rgb.shape[:2])
    padded = np.zeros((high, wide, 3), np.uint8)
    padded[: rgb.shape[0], : rgb.shape[1]] = rgb
    for y in range(0, high, tile):
        for x in range(0, wide, tile):
            part = np.ascontiguousarray(padded[y : y + tile, x : x + tile])
            data = simplejpeg.encode_jpeg(part, 90, colours, "444")
            yield data[:2] + data[20:] if strip and data[2:4] == b"\xff\xe0" else data


def ycbcr_named_rgb(rgb):
    """What an encoder that takes RGB must be given so that its YCbCr are the values of `rgb`."""
    return np.asarray(Image.merge("YCbCr", Image.fromarray(rgb).split()).convert("RGB"))


@pytest.mark.parametrize("strip", [True, False])
def test_the_directory_says_what_colours_mean_not_the_stream(tmp_path, rgb, strip):
    """The trap of Aperio's RGB: the stream says nothing, or says JFIF, and a decoder makes it YCbCr."""
    soft = np.uint8(rgb // 4 + 96)
    path = tmp_path / "a.tif"
    tiles = jpeg_tiles(ycbcr_named_rgb(soft), 64, strip=strip)
    write(
        path, tiles, shape=soft.shape, dtype=np.uint8, compression="jpeg",
        compressionargs={"outcolorspace": "rgb"},
    )  # fmt: skip
    with tifffile.TiffFile(path) as written:
        assert written.pages[0].photometric == tifffile.PHOTOMETRIC.RGB
    found = whole(path, check=False)
    assert np.abs(found.astype(int) - soft).mean() < 2
    with open_slide(path) as slide:
        assert slide.facts.reader == "tiff"
        assert "agree with OpenSlide (largest difference 0.0" in slide.facts.notes[-1]


@pytest.mark.parametrize("number", [33003, 33005])
def test_aperio_jpeg2000_agrees_with_openslide(tmp_path, rgb, number):
    values = np.asarray(Image.fromarray(rgb).convert("YCbCr")) if number == 33003 else rgb
    padded = np.pad(values, ((0, 256 - 210), (0, 384 - 330), (0, 0)), mode="edge")
    tiles = [
        imagecodecs.jpeg2k_encode(padded[y : y + 64, x : x + 64], codecformat="j2k", level=0, mct=False)
        for y in range(0, 256, 64)
        for x in range(0, 384, 64)
    ][: 4 * 6]
    path = tmp_path / "a.svs"
    tifffile.imwrite(
        path, iter(tiles), shape=rgb.shape, dtype=np.uint8, tile=(64, 64), photometric="rgb",
        compression=number, metadata=None, description=APERIO,
    )  # fmt: skip
    with open_slide(path) as slide:
        assert (slide.facts.reader, slide.facts.vendor) == ("tiff", "aperio"), slide.facts.notes
        assert (slide.mpp, slide.facts.mpp_source, slide.facts.objective) == (0.499, "aperio.MPP", 20)
        found = slide.read_level(0, (0, 0), slide.size)
    assert np.abs(found.astype(int) - rgb).max() <= (3 if number == 33003 else 0)


def test_levels_of_an_ome_tiff_are_found_below_its_first_page(tmp_path, rgb):
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as writer:
        options = {"tile": (64, 64), "photometric": "rgb", "compression": "jpeg"}
        size = {"axes": "YXS", "PhysicalSizeX": 250, "PhysicalSizeXUnit": "nm",
                "PhysicalSizeY": 250, "PhysicalSizeYUnit": "nm"}  # fmt: skip
        writer.write(rgb, subifds=2, metadata=size, **options)
        for factor in (2, 4):
            writer.write(np.asarray(Image.fromarray(rgb).reduce(factor)), subfiletype=1, **options)
    with open_slide(path) as slide:
        assert [level.size for level in slide.levels] == [(330, 210), (165, 105), (83, 53)]
        assert (slide.mpp, slide.facts.mpp_source) == (0.25, "ome.PhysicalSizeX")
        assert (slide.facts.reader, slide.facts.vendor) == ("tiff", "ome")


@pytest.mark.parametrize("shrink", [2, 4, 8])
def test_shrunk_tiles_are_means_and_know_no_padding(tmp_path, rgb, shrink):
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, jpeg_tiles(rgb, 64, strip=False), shape=rgb.shape, dtype=np.uint8, tile=(64, 64),
        photometric="ycbcr", compression="jpeg", metadata=None,
    )  # fmt: skip
    with open_slide(path, check=False) as slide:
        wide, high = -(-330 // shrink), -(-210 // shrink)
        found = slide._decode(0, (0, 0), (wide, high), shrink).astype(float)
    beyond = ((0, -210 % shrink), (0, -330 % shrink), (0, 0))
    padded = np.pad(rgb, beyond, mode="edge").astype(float)
    wanted = padded.reshape(high, shrink, wide, shrink, 3).mean(axis=(1, 3))
    assert np.abs(found - wanted).mean() < 2
    assert np.abs(found - wanted)[:, -1].mean() < 4  # the padding is black


def test_a_read_shrinks_while_it_decodes(tmp_path, rgb, monkeypatch):
    path = write(tmp_path / "a.tif", rgb, compression="jpeg")
    asked = []
    original = TiffSlide._tile_pixels
    monkeypatch.setattr(TiffSlide, "_tile_pixels", lambda *given: asked.append(given[-1]) or original(*given))
    with open_slide(path, check=False) as slide:
        slide.read(Region(0, 0, 320, 192), (40, 24))
        assert set(asked) == {8}
        asked.clear()
        slide.read(Region(0, 0, 320, 192), (100, 60))
        assert set(asked) == {2}
        asked.clear()
        slide.read(Region(0, 0, 320, 192), (320, 192))
        assert set(asked) == {1}


def test_each_tile_is_decoded_once_in_unaligned_bands(tmp_path, rgb, monkeypatch):
    path = write(tmp_path / "a.tif", rgb, compression="jpeg")
    asked = []
    original = TiffSlide._tile_pixels
    monkeypatch.setattr(TiffSlide, "_tile_pixels", lambda *given: asked.append(given[1:]) or original(*given))
    with open_slide(path, check=False) as slide:
        for y in range(0, 210 - 50, 50):
            for x in range(0, 330 - 50, 50):
                slide.read_level(0, (x, y), (50, 50))
    assert len(asked) == len(set(asked)) > 10


def test_a_reading_that_differs_goes_to_openslide_and_says_so(tmp_path, rgb, monkeypatch, caplog):
    path = write(tmp_path / "a.tif", rgb, compression="jpeg")
    original = tile_codec.decode_jpeg
    monkeypatch.setattr(tile_codec, "decode_jpeg", lambda *given: original(*given)[..., ::-1])
    with caplog.at_level(logging.WARNING), open_slide(path) as slide:
        assert slide.facts.reader == "openslide"
        assert "differs by" in slide.facts.notes[0]
        assert "of 255" in caplog.text
        assert np.abs(slide.read_level(0, (0, 0), SIZE).astype(int) - rgb).mean() < 6


def test_pages_in_strips_go_elsewhere(tmp_path, rgb):
    tifffile.imwrite(tmp_path / "a.tif", rgb, photometric="rgb", metadata=None)
    with open_slide(tmp_path / "a.tif") as slide:
        assert slide.facts.reader == "picture"
        assert (slide.read_level(0, (0, 0), SIZE) == rgb).all()


def test_a_file_that_is_no_slide_names_every_reader_that_refused(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(b"II*\0\x08\0\0\0\0\0")
    with pytest.raises(Exception, match=r"directly: .*OpenSlide: .*as a picture: "):
        open_slide(path)
