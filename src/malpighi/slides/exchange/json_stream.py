"""The elements of one large JSON array, one after the other, in the memory of the largest element.

Tolerant where files in the wild are not JSON: NaN and Infinity are numbers. An element that cannot be read
is reported and the reading goes on at the next one.
"""

import codecs
import gzip
import json
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from malpighi.errors import DataError

CHUNK = 1 << 22  # characters
_PIECE = 1 << 13  # bytes; of a damaged gzip, what comes before the piece is kept
_SPACE = re.compile(r"[ \t\r\n]*")
_CUT_LITERAL = 16  # characters; an error nearer to the end of the buffer may be a cut `-Infinity`
_DECODER = json.JSONDecoder()


class Element(NamedTuple):
    """One element of the array.

    Attributes:
        place: its index in the array, from 0.
        value: what it says; None where it cannot be read.
        error: why it cannot be read; "" where it can.
    """

    place: int
    value: Any
    error: str = ""


class _BrokenError(ValueError):
    """The text at the present place is no JSON."""


class JsonStream:
    """Reads values from a text; keeps only what is not yet used.

    Args:
        file: where the text comes from.
        resume: what begins an element, to go on after one that is broken.
    """

    def __init__(self, file: "Source", resume: re.Pattern[str]) -> None:
        self._file = file
        self._resume = resume
        self._text = ""
        self._at = 0
        self._ended = False

    def elements(self, member: str) -> Iterator[Element]:
        """The elements of the array, or of the array under `member` of the object, or the value alone.

        Raises:
            DataError: neither an array nor an object.
        """
        first = self._peek()
        if first == "[":
            yield from self._array()
        elif first == "{":
            yield from self._object(member)
        else:
            raise DataError(f"begins with {self._text[:20]!r}; expected a JSON object or list")

    def _object(self, member: str) -> Iterator[Element]:
        others: dict[str, Any] = {}
        self._at += 1
        try:
            while self._peek() not in ("}", ""):
                if self._peek() == ",":
                    self._at += 1
                    continue
                name = self._value()
                if self._peek() != ":":
                    raise _BrokenError(f"after {name!r} stands {self._peek()!r}; expected ':'")
                self._at += 1
                if name == member and self._peek() == "[":
                    yield from self._array()
                    return
                others[str(name)] = self._value()
        except _BrokenError as error:
            yield Element(0, None, str(error))
            return
        yield Element(0, others)

    def _array(self) -> Iterator[Element]:
        self._at += 1
        index = 0
        while (found := self._peek()) != "]":
            if found == ",":
                self._at += 1
                continue
            if not found:
                yield Element(index, None, f"the file ends inside of the list{self._file.cut}; copy it again")
                return
            try:
                value = self._value()
            except _BrokenError as error:
                yield Element(index, None, str(error))
                if not self._skip():
                    return
            else:
                yield Element(index, value)
            index += 1

    def _value(self) -> Any:
        self._peek()
        while True:
            try:
                value, self._at = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                early = len(self._text) - error.pos > _CUT_LITERAL and "Unterminated" not in error.msg
                if early or not self._fill():
                    near = self._text[error.pos : error.pos + 30]
                    cut = "" if early else f"; the file ends here{self._file.cut}"
                    raise _BrokenError(f"not JSON: {error.msg} at {near!r}{cut}") from error
            except (ValueError, RecursionError) as error:  # a number of thousands of digits; deep nesting
                raise _BrokenError(f"not usable JSON: {error}") from error
            else:
                return value

    def _skip(self) -> bool:
        """Go to where the next element seems to begin, if there is one."""
        self._at += 1
        while not (found := self._resume.search(self._text, self._at)):
            self._at = max(self._at, len(self._text) - 64)
            if not self._fill():
                return False
        self._at = found.start()
        return True

    def _peek(self) -> str:
        """The next character that is no space; "" at the end."""
        while True:
            self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._fill():
                return ""

    def _fill(self) -> bool:
        """Read on; what is kept at least doubles, so that a long element is not decoded too often."""
        if self._ended:
            return False
        kept = self._text[self._at :]
        more = self._file.read(max(CHUNK, len(kept)))
        self._ended = not more
        self._text, self._at = kept + more, 0
        return bool(more)


class Source:
    """Text out of a file of bytes, up to where it is cut or damaged.

    Attributes:
        cut: why the bytes ended early; "" where they did not.
    """

    def __init__(self, file: BinaryIO | gzip.GzipFile) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self.cut = ""

    def read(self, size: int) -> str:
        """At least `size` bytes as text, or what is left; "" at the end.

        Raises:
            DataError: the bytes are not UTF-8.
        """
        text = ""
        try:
            while len(text) < size and not self.cut:
                data = self._file.read(min(size, _PIECE))
                text += self._decoder.decode(data, final=not data)
                if not data:
                    break
        except (EOFError, OSError, zlib.error) as error:
            self.cut = f" ({error})"
        except UnicodeDecodeError as error:
            raise DataError(f"is not UTF-8 ({error}); save it as UTF-8") from error
        return text


@contextmanager
def opened_text(path: Path) -> Iterator[Source]:
    """A text file, gzipped or not (its first bytes tell), UTF-8 with or without a mark.

    Raises:
        DataError: it cannot be opened.
    """
    try:
        raw = path.open("rb")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; check the path") from error
    with raw:
        zipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        yield Source(gzip.GzipFile(fileobj=raw) if zipped else raw)
