"""Where the tiles of a TIFF or BigTIFF lie: the directories, read once, believing nothing.

Every count and offset is held against the size of the file before memory is taken for it, so that a damaged
or hostile file costs an error and never the process.

Source: TIFF 6.0 (Adobe, 1992), section 2; BigTIFF as libtiff defines it.
"""

import struct
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from malpighi.errors import DataError
from malpighi.geometry import Size
from malpighi.slides.byte_file import ByteFile

MAX_DIRECTORIES = 1000
MAX_ENTRIES = 1000
MAX_TILES = 1 << 22
MAX_TILE_PIXELS = 1 << 24
_MAX_TEXT = 1 << 20
_MAX_TABLES = 1 << 16
_MAX_NUMBERS = 4096

_SIZES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
_WHOLE = {1: "u1", 3: "u2", 4: "u4", 13: "u4", 16: "u8", 18: "u8"}

_TEXTS = {270: "ImageDescription", 271: "Make", 272: "Model", 305: "Software", 306: "DateTime"}
_NUMBERS = {
    254: "subfile", 256: "width", 257: "height", 258: "bits", 259: "compression", 262: "photometric",
    277: "samples", 284: "planar", 296: "unit", 317: "predictor", 322: "tile_width", 323: "tile_height",
    330: "children", 339: "format",
}  # fmt: skip
_OFFSETS, _COUNTS, _TABLES, _XMP = 324, 325, 347, 700
_RESOLUTIONS = (282, 283)


class Array(NamedTuple):
    """Where the numbers of a tag lie."""

    kind: str
    length: int
    offset: int


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """One directory: a picture of the file, as far as its tiles matter.

    Attributes:
        size: (width, height), px.
        tile: (width, height) of its tiles, px; None where it is stored in strips.
        compression: as TIFF numbers it.
        photometric: as TIFF numbers it: 2 RGB, 6 YCbCr.
        samples: values per pixel.
        bits: bits of each value; 0 where they differ.
        planar: 1 where the values of a pixel lie together.
        predictor: 2 where rows hold differences.
        reduced: whether it says that it is a smaller copy of another.
        tables: what its JPEG tiles share; empty where they share nothing.
        texts: what it says in words, by the name of the tag; a very long text is cut.
        resolution: pixels per unit (x, y) and the unit (2 inch, 3 centimetre); None where incomplete.
        scanned: whether it carries the XML of a Ventana scanner, whose tiles overlap.
        offsets: where the tiles' offsets lie.
        counts: where the tiles' sizes lie.
    """

    size: Size
    tile: Size | None
    compression: int
    photometric: int
    samples: int
    bits: int
    planar: int
    predictor: int
    reduced: bool
    tables: bytes
    texts: dict[str, str]
    resolution: tuple[float, float, int] | None
    scanned: bool
    offsets: Array | None
    counts: Array | None


class TiffIndex(NamedTuple):
    """The pictures of a file.

    Attributes:
        pages: the main chain, in the order of the file.
        children: the sub-directories of the first page: the levels of an OME-TIFF.
    """

    pages: tuple[Page, ...]
    children: tuple[Page, ...]


class Places(NamedTuple):
    """Where each tile of a page lies, row by row.

    Attributes:
        offsets: uint64, bytes from the start of the file.
        counts: uint64, bytes of the tile; 0 for one that was never written.
    """

    offsets: NDArray[np.uint64]
    counts: NDArray[np.uint64]


class _Layout(NamedTuple):
    order: str
    first: int
    head: str
    entry: str
    word: str


def is_tiff(head: bytes) -> bool:
    """Whether the first bytes of a file are those of a TIFF."""
    return head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read_index(file: ByteFile) -> TiffIndex:
    """Read all directories of a file.

    Raises:
        DataError: not a TIFF, or its directories contradict themselves or the size of the file.
    """
    layout = _layout(file)
    pages, seen, offset = list[Page](), set[int](), layout.first
    child_offsets: tuple[int, ...] = ()
    while offset:
        if offset in seen or len(pages) == MAX_DIRECTORIES:
            raise DataError(_bad(file, f"its chain of directories has no end (at byte {offset})"))
        seen.add(offset)
        tags, following = _directory(file, layout, offset)
        if not pages:
            child_offsets = tags.numbers("children")[:MAX_DIRECTORIES]
        pages.append(_page(tags, words=not pages))
        offset = following
    if not pages:
        raise DataError(_bad(file, "it holds no picture"))
    children = [
        _page(_directory(file, layout, place)[0], words=False)
        for place in dict.fromkeys(child_offsets)
        if place not in seen
    ]
    return TiffIndex(tuple(pages), tuple(children))


def read_places(file: ByteFile, page: Page) -> Places:
    """Read where the tiles of a tiled page lie.

    Raises:
        DataError: fewer places than tiles, or more than any slide has.
    """
    columns, rows = grid_of(page)
    if page.offsets is None or page.counts is None or columns * rows > MAX_TILES:
        raise DataError(_bad(file, f"{columns} x {rows} tiles of {page.size} px have no usable index"))
    found = []
    for array in (page.offsets, page.counts):
        if array.length < columns * rows:
            raise DataError(_bad(file, f"its index names {array.length} tiles of {columns * rows}"))
        data = file.read(array.offset, columns * rows * np.dtype(array.kind).itemsize)
        numbers = np.frombuffer(data, array.kind).astype(np.uint64)
        if len(numbers) < columns * rows:
            raise DataError(_bad(file, "it ends within the index of its tiles"))
        found.append(numbers)
    return Places(*found)


def grid_of(page: Page) -> tuple[int, int]:
    """(columns, rows) of the tiles of a tiled page; (0, 0) where it is not tiled."""
    if page.tile is None:
        return (0, 0)
    return (-(-page.size[0] // page.tile[0]), -(-page.size[1] // page.tile[1]))


class _Tags:
    """The tags of one directory: type, count, and where the value lies."""

    def __init__(self, file: ByteFile, layout: _Layout, found: dict[int, tuple[int, int, int]]) -> None:
        self._file, self._order, self._found = file, layout.order, found

    def place(self, tag: int) -> Array | None:
        """Where the whole numbers of a tag lie."""
        if tag not in self._found or self._found[tag][0] not in _WHOLE:
            return None
        kind, count, offset = self._found[tag]
        return Array(self._order + _WHOLE[kind], count, offset)

    def data(self, tag: int, limit: int) -> bytes:
        """The bytes of a tag, at most `limit`; empty where there is no such tag."""
        if tag not in self._found:
            return b""
        kind, count, offset = self._found[tag]
        return self._file.read(offset, min(count * _SIZES[kind], limit))

    def numbers(self, name: str) -> tuple[int, ...]:
        """The whole numbers of a tag by our name of it."""
        tag = _BY_NAME[name]
        place = self.place(tag)
        if place is None:
            return ()
        data = self.data(tag, _MAX_NUMBERS * 8)
        whole = len(data) - len(data) % np.dtype(place.kind).itemsize
        return tuple(np.frombuffer(data[:whole], place.kind).tolist())

    def number(self, name: str, default: int) -> int:
        """The first number of a tag."""
        return next(iter(self.numbers(name)), default)

    def ratio(self, tag: int) -> float:
        """A fraction; 0 where it is absent or has no value."""
        data = self.data(tag, 8)
        if len(data) < 8 or self._found[tag][0] != 5:
            return 0.0
        above, below = struct.unpack(self._order + "II", data)
        return above / below if below else 0.0


_BY_NAME = {name: tag for tag, name in _NUMBERS.items()}


def _layout(file: ByteFile) -> _Layout:
    head = file.read(0, 16)
    if not is_tiff(head) or len(head) < 8:
        raise DataError(f"{file.path} is not a TIFF: it begins with {head[:8]!r}")
    order = "<" if head[:2] == b"II" else ">"
    if b"*" in head[2:4]:
        return _Layout(
            order, struct.unpack(order + "I", head[4:8])[0], order + "H", order + "HHI4s", order + "I"
        )
    if len(head) < 16 or struct.unpack(order + "HH", head[4:8]) != (8, 0):
        raise DataError(_bad(file, "its BigTIFF header is damaged"))
    return _Layout(order, struct.unpack(order + "Q", head[8:])[0], order + "Q", order + "HHQ8s", order + "Q")


def _directory(file: ByteFile, layout: _Layout, offset: int) -> tuple[_Tags, int]:
    """The tags of the directory at `offset`, and where the next one lies (0: nowhere)."""
    head, width, word = (struct.calcsize(part) for part in (layout.head, layout.entry, layout.word))
    start = file.read(offset, head)
    if len(start) < head:
        raise DataError(_bad(file, f"a directory should lie at byte {offset} of {file.size}"))
    (count,) = struct.unpack(layout.head, start)
    if not 0 < count <= MAX_ENTRIES:
        raise DataError(_bad(file, f"the directory at byte {offset} states {count} entries"))
    body = file.read(offset + head, count * width + word)
    if len(body) < count * width:
        raise DataError(_bad(file, f"it ends within the directory at byte {offset}"))
    found = {}
    for index in range(count):
        tag, kind, length, value = struct.unpack_from(layout.entry, body, index * width)
        if kind not in _SIZES:
            continue
        size = length * _SIZES[kind]
        place = offset + head + index * width + width - word
        if size > word:
            (place,) = struct.unpack(layout.word, value)
        if place + size > file.size:
            raise DataError(
                _bad(file, f"tag {tag} should take bytes {place} to {place + size} of {file.size}")
            )
        found[tag] = (kind, length, place)
    tail = body[count * width :]
    following = struct.unpack(layout.word, tail)[0] if len(tail) == word else 0
    return _Tags(file, layout, found), following


def _page(tags: _Tags, *, words: bool) -> Page:
    bits, unit = tags.numbers("bits") or (1,), tags.number("unit", 0)
    across, down = (tags.ratio(tag) for tag in _RESOLUTIONS)
    tile = (tags.number("tile_width", 0), tags.number("tile_height", 0))
    texts = {name: _text(tags.data(tag, _MAX_TEXT)) for tag, name in _TEXTS.items()} if words else {}
    return Page(
        size=(tags.number("width", 0), tags.number("height", 0)),
        tile=tile if min(tile) > 0 else None,
        compression=tags.number("compression", 1),
        photometric=tags.number("photometric", -1),
        samples=tags.number("samples", 1),
        bits=bits[0] if len(set(bits)) == 1 and tags.number("format", 1) == 1 else 0,
        planar=tags.number("planar", 1),
        predictor=tags.number("predictor", 1),
        reduced=bool(tags.number("subfile", 0) & 1),
        tables=tags.data(_TABLES, _MAX_TABLES),
        texts={name: text for name, text in texts.items() if text},
        resolution=(across, down, unit) if across > 0 and down > 0 else None,
        scanned=b"iScan" in tags.data(_XMP, _MAX_TEXT) if words else False,
        offsets=tags.place(_OFFSETS),
        counts=tags.place(_COUNTS),
    )


def _text(data: bytes) -> str:
    return data.split(b"\0", 1)[0].decode("utf-8", "replace").strip()


def _bad(file: ByteFile, what: str) -> str:
    return f"{Path(file.path).name}: the TIFF is damaged or cut short: {what}; copy the file again"
