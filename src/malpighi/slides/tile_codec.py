"""The bytes of one tile of a TIFF to pixels, by how the page says they are compressed."""

import struct
import zlib
from collections.abc import Callable

import imagecodecs
import numpy as np

from malpighi.errors import DataError
from malpighi.slides.jpeg import SHRINKS, Completion, decode_jpeg
from malpighi.slides.slide import Pixels
from malpighi.slides.tiff_index import MAX_TILE_PIXELS, Page
from malpighi.slides.tiled_slide import TileError

PLAIN, LZW, JPEG, DEFLATE = 1, 5, 7, (8, 32946)
APERIO_YCBCR, APERIO_RGB, JPEG2000 = 33003, 33005, 34712
_RGB, _YCBCR = 2, 6
_CODESTREAM = b"\xff\x4f\xff\x51"
_SLACK = 1 << 20

_READABLE = {
    **dict.fromkeys((PLAIN, LZW, *DEFLATE), (_RGB,)),
    **dict.fromkeys((JPEG, APERIO_YCBCR, APERIO_RGB, JPEG2000), (_RGB, _YCBCR)),
}


def why_not(page: Page) -> str:
    """Why the tiles of a page cannot be decoded here; empty where they can."""
    if page.tile is None:
        return "it is not tiled"
    if page.tile[0] * page.tile[1] > MAX_TILE_PIXELS:
        return f"its tiles of {page.tile[0]} x {page.tile[1]} px are too large"
    if (page.samples, page.bits, page.planar) != (3, 8, 1):
        return f"it has {page.samples} samples of {page.bits} bits, not three of 8 that lie together"
    if page.photometric not in _READABLE.get(page.compression, ()):
        return f"compression {page.compression} with colours {page.photometric} is not read directly"
    if page.predictor not in (1, 2):
        return f"predictor {page.predictor} is not read directly"
    return ""


class TileCodec:
    """Decodes the tiles of one page. Keeps nothing between tiles, so threads may share it.

    Attributes:
        shrinks: powers of two by which a tile can be shrunk while it is decoded, 1 first.
        most_bytes: no tile takes more; one that states more is damaged.

    Args:
        page: a page for which `why_not` is empty.
    """

    def __init__(self, page: Page) -> None:
        self.size = page.tile or (0, 0)
        self.most_bytes = 2 * self.size[0] * self.size[1] * 3 + _SLACK
        self.jpeg = page.compression == JPEG
        self.shrinks = SHRINKS if self.jpeg and not any(side % SHRINKS[-1] for side in self.size) else (1,)
        self._completion = Completion(page.tables, rgb=page.photometric == _RGB)
        self._decode = self._decoder(page)

    def decode(self, data: bytes, shrink: int = 1) -> Pixels:
        """The pixels of a tile, a new array of tile size // `shrink`.

        Raises:
            TileError: the bytes do not hold such a tile; the message says what they hold.
        """
        try:
            if self.jpeg:
                return decode_jpeg(self._completion.complete(data), self.size, shrink)
            return self._decode(data)
        except MemoryError:
            raise
        except Exception as error:  # on damaged bytes a decoder may raise nearly anything
            raise TileError(f"it does not decode: {error}") from error

    def complete(self, data: bytes) -> bytes:
        """The bytes of a JPEG tile as a file of its own; see `jpeg.Completion`."""
        try:
            return self._completion.complete(data)
        except DataError as error:
            raise TileError(str(error)) from error

    def _decoder(self, page: Page) -> Callable[[bytes], Pixels]:
        if page.compression in (APERIO_YCBCR, APERIO_RGB, JPEG2000):
            ycbcr = page.compression == APERIO_YCBCR or page.photometric == _YCBCR
            return lambda data: self._jpeg2000(data, ycbcr=ycbcr)
        count = self.size[0] * self.size[1] * 3
        differences = page.predictor == 2

        def unpack(data: bytes | bytearray) -> Pixels:
            if page.compression == LZW:
                data = imagecodecs.lzw_decode(data, out=count)
            elif page.compression in DEFLATE:
                data = zlib.decompressobj().decompress(data, count)
            return self._plain(data, differences=differences)

        return unpack

    def _plain(self, data: bytes | bytearray, *, differences: bool) -> Pixels:
        shape = (self.size[1], self.size[0], 3)
        if len(data) < shape[0] * shape[1] * 3:
            raise DataError(f"it holds {len(data)} bytes of {shape[0] * shape[1] * 3}")
        rgb = np.frombuffer(data, np.uint8, shape[0] * shape[1] * 3).reshape(shape)
        return np.cumsum(rgb, axis=1, dtype=np.uint8) if differences else rgb.copy()

    def _jpeg2000(self, data: bytes, *, ycbcr: bool) -> Pixels:
        """Of Aperio's YCbCr the chroma is often stored at half width; the decoder then converts by itself."""
        start = data.find(_CODESTREAM)
        if start < 0 or len(data) < start + 51:
            raise DataError("it holds no JPEG 2000 codestream")
        right, lower, left, top = struct.unpack_from(">4I", data, start + 8)
        (parts,) = struct.unpack_from(">H", data, start + 40)
        if (right - left, lower - top, parts) != (*self.size, 3):
            raise DataError(f"it states {parts} x {right - left} x {lower - top} px; expected {self.size}")
        rgb: Pixels = imagecodecs.jpeg2k_decode(data[start:], numthreads=1)
        if rgb.shape != (self.size[1], self.size[0], 3) or rgb.dtype != np.uint8:
            raise DataError(f"it holds {rgb.shape} of {rgb.dtype}; expected {self.size} of 8 bits")
        return _rgb_of(rgb) if ycbcr and data[start + 46] == data[start + 43] == 1 else rgb


def _rgb_of(ycbcr: Pixels) -> Pixels:
    """YCbCr of full range as RGB.

    Source: ITU-T T.871, section 7.
    """
    y, cb, cr = (ycbcr[..., channel].astype(np.float32) for channel in range(3))
    cb, cr = cb - 128, cr - 128
    rgb = np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], axis=-1)
    whole: Pixels = np.rint(rgb).clip(0, 255).astype(np.uint8)
    return whole
