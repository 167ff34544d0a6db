"""JPEG tiles: made complete, told their colours, and decoded, at full size or shrunk by a power of two.

The tiles of a TIFF are JPEG streams that lack two things: the tables they share, which the directory holds,
and their colours, which the directory states and a decoder would guess. Both go before the first segment.

Source: TIFF Technical Note 2 (1995); Adobe's marker as in ITU-T T.872, section 6.5.3.
"""

import simplejpeg

from malpighi.errors import DataError
from malpighi.geometry import Size
from malpighi.slides.slide import Pixels

SHRINKS = (1, 2, 4, 8)
_START, _END = b"\xff\xd8", b"\xff\xd9"
_ADOBE = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SCAN, _APP0, _APP14 = 0xDA, 0xE0, 0xEE
_HEAD = 1024


def states_colours(data: bytes) -> bool:
    """Whether a JPEG says by itself what its values are, through a JFIF or an Adobe segment."""
    return data.find(b"Adobe", 0, _HEAD) >= 0 or data.find(b"JFIF", 0, _HEAD) >= 0


class Completion:
    """What the tiles of one page lack to be JPEG files of their own.

    Args:
        tables: the page's shared tables, a JPEG stream without a picture; may be empty.
        rgb: whether the values are red, green and blue; otherwise they are YCbCr.
    """

    def __init__(self, tables: bytes, *, rgb: bool) -> None:
        inside = tables[2:-2] if tables.startswith(_START) and tables.endswith(_END) else b""
        self._rgb = rgb
        self._shared = bool(inside)
        self._prefix = _START + _ADOBE + (b"\0" if rgb else b"\1") + _unmarked(inside)

    def complete(self, tile: bytes) -> bytes:
        """A tile as a JPEG file of its own; no pixel changes.

        Raises:
            DataError: the bytes do not begin as a JPEG does.
        """
        if not tile.startswith(_START):
            raise DataError(f"it begins with {tile[:4]!r}; a JPEG begins with {_START!r}")
        jfif = tile.find(b"JFIF", 0, _HEAD) >= 0  # which is YCbCr by definition
        if tile.find(b"Adobe", 0, _HEAD) >= 0 or (jfif and self._rgb):
            return self._prefix + _unmarked(tile[2:])
        return tile if jfif and not self._shared else self._prefix + memoryview(tile)[2:]


def decode_jpeg(data: bytes, size: Size, shrink: int = 1) -> Pixels:
    """The pixels of a JPEG that must be of a given size.

    Args:
        data: a complete JPEG.
        size: (width, height) it must have, px; both divisible by `shrink`.
        shrink: 1, 2, 4 or 8: how many px become one, taken from the lowest frequencies.

    Returns:
        rgb_HW3 of `size` // `shrink`.

    Raises:
        DataError: another size than stated; found before memory is taken for it.
        ValueError: the stream is damaged.
    """
    found = _frame_size(data)
    if found != size:
        raise DataError(f"its JPEG states {found} px; expected {size}")
    least = (0, 0) if shrink == 1 else (size[1] // shrink, size[0] // shrink)
    rgb: Pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=least[0], min_width=least[1])
    return rgb


def _frame_size(data: bytes) -> Size | None:
    """(width, height) that the JPEG's frame header states; None where there is none before the picture."""
    place = 2
    while place + 9 <= len(data) and data[place] == 0xFF:
        kind = data[place + 1]
        if kind in _FRAMES:
            return (data[place + 7] << 8 | data[place + 8], data[place + 5] << 8 | data[place + 6])
        if kind == _SCAN:
            return None
        place += 1 if kind == 0xFF else 2 + (data[place + 2] << 8 | data[place + 3])
    return None


def _unmarked(segments: bytes) -> bytes:
    """Segments without those that state colours: the directory does, and a decoder would believe these."""
    kept, place = [], 0
    while place + 4 <= len(segments) and segments[place] == 0xFF and segments[place + 1] != _SCAN:
        end = place + 2 + (segments[place + 2] << 8 | segments[place + 3])
        if segments[place + 1] not in (_APP0, _APP14):
            kept.append(segments[place:end])
        place = end
    return b"".join(kept) + segments[place:]
