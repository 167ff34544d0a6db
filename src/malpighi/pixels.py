"""Encoded images to pixels: the one file that decodes what comes from outside, and so distrusts it.

Nothing here changes or depends on PIL's process-wide settings for large or damaged images.
"""

import io
from collections.abc import Callable
from typing import BinaryIO

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from malpighi.errors import DataError

MAX_PIXELS = 178_000_000

# PIL's own `open` warns about large images through the process-wide warnings filter, and tries formats that
# start other programs. Opening by the first bytes does neither.
_OPENERS: tuple[tuple[bytes, Callable[[BinaryIO], Image.Image]], ...] = (
    (b"\xff\xd8\xff", JpegImagePlugin.JpegImageFile),
    (b"\x89PNG\r\n\x1a\n", PngImagePlugin.PngImageFile),
    (b"II*\x00", TiffImagePlugin.TiffImageFile),
    (b"MM\x00*", TiffImagePlugin.TiffImageFile),
    (b"II+\x00", TiffImagePlugin.TiffImageFile),
    (b"BM", BmpImagePlugin.BmpImageFile),
    (b"GIF8", GifImagePlugin.GifImageFile),
    (b"RIFF", WebPImagePlugin.WebPImageFile),
    (b"\x00\x00\x00\x0cjP", Jpeg2KImagePlugin.Jpeg2KImageFile),
    (b"\xff\x4f\xff\x51", Jpeg2KImagePlugin.Jpeg2KImageFile),
    (b"P4", PpmImagePlugin.PpmImageFile),
    (b"P5", PpmImagePlugin.PpmImageFile),
    (b"P6", PpmImagePlugin.PpmImageFile),
)


def image_size(data: bytes, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(width, height) from the header, px, without decoding.

    Raises:
        DataError: as `decode_image`, as far as the header shows it.
    """
    return _open_image(data, max_pixels).size


def decode_image(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The image as RGB, fully decoded.

    Transparent parts become white, the empty background of a bright-field slide; 16-bit grey keeps its high
    byte. An EXIF orientation is left alone: boxes and masks refer to the pixels as stored.

    Args:
        data: a JPEG, PNG, TIFF, BMP, GIF, WebP, JPEG 2000 or PNM file.
        max_pixels: images with more are refused from their header, before anything is decoded.

    Raises:
        DataError: an empty, damaged or foreign file, too many pixels, or pixels that have no colour.
    """
    image = _load(data, max_pixels)
    if image.mode in ("I", "I;16", "I;16B", "I;16L"):
        return Image.fromarray((_in_16_bits(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise DataError("floating-point pixels have no defined colour; save the image with 8 or 16 bits")
    try:
        return _over_white(image) if image.has_transparency_data else image.convert("RGB")
    except ValueError as error:
        raise DataError(f"pixels of mode {image.mode} cannot be shown as RGB: {error}") from error


def decode_opaque(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """As `decode_image`, but with the colours as stored, for files whose alpha channel means nothing."""
    image = _load(data, max_pixels)
    if image.mode != "RGBA":
        return decode_image(data, max_pixels=max_pixels)
    return Image.merge("RGB", image.split()[:3])


def decode_labels(data: bytes, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """A one-channel image as numbers: a mask or a label map.

    Returns:
        labels_HW: int32, as stored (palette images: the index).

    Raises:
        DataError: as `decode_image`, or the image has several channels.
    """
    image = _load(data, max_pixels)
    if image.mode.startswith("I"):
        return _in_16_bits(image).astype(np.int32)
    if image.mode not in ("1", "L", "P"):
        raise DataError(f"a mask needs one channel of whole numbers; found mode {image.mode}")
    return np.asarray(image).astype(np.int32)


def _load(data: bytes, max_pixels: int) -> Image.Image:
    image = _open_image(data, max_pixels)
    try:
        image.load()
    except MemoryError:
        raise
    except Exception as error:  # on damaged bytes a decoder may raise nearly anything
        raise DataError(f"the image is cut short or damaged: {error}") from error
    return image


def _open_image(data: bytes, max_pixels: int) -> Image.Image:
    if not data:
        raise DataError("the file is empty (0 bytes) where an image was expected")
    opener = next((opener for magic, opener in _OPENERS if data.startswith(magic)), None)
    if opener is None:
        raise DataError(f"not an image: begins with {data[:8]!r}; expected JPEG, PNG, TIFF or alike")
    try:
        image = opener(io.BytesIO(data))
    except Exception as error:  # as above
        raise DataError(f"not a readable image, its header is damaged: {error}") from error
    width, height = image.size
    if width * height > max_pixels:
        raise DataError(
            f"{width} x {height} px is more than the {max_pixels} px allowed; cut it into tiles first"
        )
    return image


def _over_white(image: Image.Image) -> Image.Image:
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    white.alpha_composite(image.convert("RGBA"))
    return white.convert("RGB")


def _in_16_bits(image: Image.Image) -> np.ndarray:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise DataError(f"pixel values {values.min()} to {values.max()}; expected 0 to 65535 (16 bits)")
    return values
