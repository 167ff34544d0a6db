"""JPEG tiles: made complete, told their colours, and decoded, at full size or shrunk by a power of two.

The tiles of a TIFF are JPEG streams that lack two things: the tables they share, which the directory holds,
and their colours, which the directory states and a decoder would guess. Both go before the first segment.

Source: TIFF Technical Note 2 (1995); Adobe's marker as in ITU-T T.872, section 6.5.3.
"""

import struct

import numpy as np
import simplejpeg  # type: ignore[import-untyped]

from malpighi.errors import DataError
from malpighi.geometry import Size
from malpighi.slides.slide import Pixels

SHRINKS = (1, 2, 4, 8)
_START, _END = b"\xff\xd8", b"\xff\xd9"
_ADOBE = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"
_FRAMES = (0xC0, 0xC1, 0xC2)
_HEAD = 1024


def states_colours(data: bytes) -> bool:
    """Whether a JPEG says by itself what its values are, through a JFIF or an Adobe segment."""
    return data.find(b"Adobe", 0, _HEAD) >= 0 or data.find(b"JFIF", 0, _HEAD) >= 0


def prefix_of(tables: bytes, *, rgb: bool) -> bytes:
    """What comes before the first segment of every tile of a page.

    Args:
        tables: the page's shared tables, a JPEG stream without a picture; may be empty.
        rgb: whether the values are red, green and blue; otherwise they are YCbCr.
    """
    inside = tables[2:-2] if tables.startswith(_START) and tables.endswith(_END) else b""
    return _START + _ADOBE + (b"\0" if rgb else b"\1") + _unmarked(inside)


def complete(tile: bytes, prefix: bytes) -> bytes:
    """A tile as a JPEG file of its own; no pixel changes.

    Raises:
        DataError: the bytes do not begin as a JPEG does.
    """
    if not tile.startswith(_START):
        raise DataError(f"it begins with {tile[:4]!r}; a JPEG begins with {_START!r}")
    if states_colours(tile):
        return prefix + _unmarked(tile[2:])
    return prefix + tile[2:]


def decode_jpeg(data: bytes, size: Size, shrink: int = 1) -> Pixels:
    """The pixels of a JPEG that must be of a given size.

    Args:
        data: a complete JPEG.
        size: (width, height) it must have, px; both divisible by `shrink`.
        shrink: 1, 2, 4 or 8: how many px become one, taken from the lowest frequencies.

    Raises:
        DataError: another size than stated.
        ValueError: the stream is damaged, or larger than stated.
    """
    width, height = size[0] // shrink, size[1] // shrink
    room = np.empty((height, width, 3), dtype=np.uint8)
    least = (0, 0) if shrink == 1 else (height, width)
    if shrink > 1 and _frame_size(data) != size:  # a larger picture would be shrunk until it fits
        raise DataError(f"it states {_frame_size(data)} px; expected {size}")
    rgb: Pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=least[0], min_width=least[1], buffer=room)
    if rgb.shape[:2] != (height, width):
        raise DataError(f"it holds {rgb.shape[1]} x {rgb.shape[0]} px; expected {width} x {height}")
    return rgb


def _frame_size(data: bytes) -> Size | None:
    """(width, height) that the JPEG's frame header states; None where there is none before the picture."""
    place = 2
    while place + 9 <= len(data) and data[place] == 0xFF and data[place + 1] != 0xDA:
        if data[place + 1] in _FRAMES:
            high, wide = struct.unpack_from(">HH", data, place + 5)
            return (wide, high)
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return None


def _unmarked(segments: bytes) -> bytes:
    """Segments without those that state colours: the directory does, and a decoder would believe the last."""
    kept, place = [], 0
    while place + 4 <= len(segments) and segments[place] == 0xFF and segments[place + 1] != 0xDA:
        end = place + 2 + int.from_bytes(segments[place + 2 : place + 4], "big")
        if segments[place + 1] not in (0xE0, 0xEE):
            kept.append(segments[place:end])
        place = end
    return b"".join(kept) + segments[place:]
