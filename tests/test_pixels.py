import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from malpighi.errors import DataError
from malpighi.pixels import decode_image, decode_labels, image_size


def encode(image, kind="png", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def bomb(side=30_000):
    """A PNG that states side x side pixels and holds a few rows of nothing."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(side * 3 * 20), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


GRADIENT = Image.fromarray((np.mgrid[0:48, 0:64].sum(0) * 2).astype(np.uint8)).convert("RGB")

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))


@pytest.mark.parametrize("kind", ["png", "bmp", "tiff", "ppm", "gif"])
def test_lossless_formats_keep_their_pixels(kind):
    image = decode_image(encode(GRADIENT, kind))
    assert image.mode == "RGB"
    assert np.array_equal(np.asarray(image), np.asarray(GRADIENT))


@pytest.mark.parametrize("kind", ["jpeg", "webp", "jpeg2000"])
def test_lossy_formats_come_close(kind):
    image = decode_image(encode(GRADIENT, kind))
    assert image.size == (64, 48)
    assert np.abs(np.asarray(image).astype(int) - np.asarray(GRADIENT)).mean() < 4


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"<html>not found</html>", "not an image"),
        (b"\x89PNG\r\n\x1a\n", "header"),
        (b"\xff\xd8\xff", "header"),
        (encode(NOISE, "jpeg")[:1500], "cut short"),
        (encode(NOISE, "png")[:4000], "cut short"),
        (encode(Image.new("F", (4, 4)), "tiff"), "floating-point"),
    ],
)
def test_what_is_no_whole_image_is_refused(data, words):
    with pytest.raises(DataError, match=words):
        decode_image(data)


def test_a_bomb_is_refused_from_its_header_without_a_warning():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for ask in (decode_image, decode_labels, image_size):
            with pytest.raises(DataError, match="30000 x 30000"):
                ask(bomb())
        assert image_size(bomb(12_000)) == (12_000, 12_000)
    assert caught == []


def test_the_limit_is_exact():
    data = encode(Image.new("RGB", (10, 10)))
    assert decode_image(data, max_pixels=100).size == (10, 10)
    with pytest.raises(DataError, match="more than the 99"):
        decode_image(data, max_pixels=99)


def test_process_wide_settings_of_pil_are_left_alone():
    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters))
    decode_image(encode(GRADIENT))
    with pytest.raises(DataError):
        decode_image(bomb())
    assert before == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters))


def test_transparent_parts_become_white():
    image = Image.new("RGBA", (4, 4), (200, 0, 0, 255))
    image.putpixel((0, 0), (0, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 0, 128))
    decoded = decode_image(encode(image))
    assert decoded.getpixel((0, 0)) == (255, 255, 255)
    assert decoded.getpixel((1, 0))[0] == pytest.approx(127, abs=1)
    assert decoded.getpixel((2, 2)) == (200, 0, 0)
    assert decode_image(encode(image.convert("LA"))).getpixel((0, 0)) == (255, 255, 255)


def test_palettes_become_their_colours():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    assert np.asarray(decode_image(encode(image))).tolist() == [[[10, 20, 30], [200, 100, 50]]]
    clear = decode_image(encode(image, transparency=0))
    assert clear.getpixel((0, 0)) == (255, 255, 255)
    assert clear.getpixel((1, 0)) == (200, 100, 50)


def test_cmyk_becomes_rgb():
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    red, green, blue = decode_image(encode(image, "jpeg", quality=95)).getpixel((8, 8))
    assert red > 240
    assert green < 15
    assert blue < 15


def test_sixteen_bit_grey_keeps_its_high_byte():
    values = np.array([[0, 255, 256, 65535]], np.uint16)
    for kind in ("png", "tiff"):
        decoded = decode_image(encode(Image.fromarray(values), kind))
        assert np.asarray(decoded)[..., 0].tolist() == [[0, 0, 1, 255]]
    wide = Image.fromarray(np.array([[70000]], np.int32))
    with pytest.raises(DataError, match="16 bits"):
        decode_image(encode(wide, "tiff"))


def test_an_orientation_tag_is_left_alone():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode_image(encode(GRADIENT, "jpeg", exif=exif)).size == (64, 48)


@given(st.integers(1, 65535))
def test_labels_are_read_as_stored(value):
    values = np.array([[0, value], [1, 0]], np.uint16)
    labels = decode_labels(encode(Image.fromarray(values)))
    assert labels.dtype == np.int32
    assert labels.tolist() == values.tolist()


def test_labels_of_one_bit_and_palette_images():
    bits = Image.new("1", (2, 1))
    bits.putpixel((1, 0), 1)
    assert (decode_labels(encode(bits)) > 0).tolist() == [[False, True]]
    indexed = Image.fromarray(np.array([[0, 3, 2]], np.uint8))
    indexed.putpalette([0, 0, 0, 9, 9, 9, 8, 8, 8, 7, 7, 7])
    assert decode_labels(encode(indexed)).tolist() == [[0, 3, 2]]


def test_a_coloured_image_is_no_mask():
    with pytest.raises(DataError, match="one channel"):
        decode_labels(encode(GRADIENT))


@settings(max_examples=60, deadline=None)
@given(data=st.data(), kind=st.sampled_from(["png", "jpeg", "tiff", "gif", "bmp", "webp"]))
def test_damaged_bytes_give_an_image_or_a_data_error(data, kind):
    content = bytearray(encode(GRADIENT, kind))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            mode = decode_image(bytes(content)).mode
        except DataError:
            mode = "RGB"
    assert mode == "RGB"
