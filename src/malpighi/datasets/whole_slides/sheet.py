"""One sheet of an .xlsx workbook as rows of text: what an index of a data set needs, and no more.

An .xlsx file is a zip of XML parts. Read are the text and number that a cell stores: shared and inline
strings, numbers, truth values, and the stored result of a formula. A date is its serial number. Styles,
formulas and macros are passed over.

Source: ECMA-376 part 1, sections 18.2 (workbook), 18.3.1.4 (cell) and 18.4 (shared strings).
"""

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO
from xml.etree import ElementTree

from malpighi.errors import DataError

MAX_PART = 256 << 20
"""Bytes of one unpacked part beyond which a file is refused: no index of a data set is as long."""
_WHOLE = 1e15  # numbers from here on are no counts


def read_sheet(path: Path, name: str | None = None) -> list[dict[str, str]]:
    """Rows of a sheet below its first row, by the names in that row.

    Cells are stripped of white space, "" where a cell is missing or empty; whole numbers are written without
    a point (`3`, not `3.0`). Rows without any text and columns without a name are left out.

    Args:
        path: the .xlsx file.
        name: of the sheet; the first one where None.

    Raises:
        DataError: missing, no .xlsx file, without that sheet (the message lists those there), without a
            header, or a column name that occurs twice.
    """
    try:
        with zipfile.ZipFile(path) as book:
            rows = [row for row in _rows(book, _part(book, path, name)) if any(row)]
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except (zipfile.BadZipFile, KeyError, ValueError, IndexError, ElementTree.ParseError) as error:
        raise DataError(f"{path} is no readable .xlsx workbook: {error}") from error
    if not rows:
        raise DataError(f"{path}: the sheet {name or 'that comes first'} is empty; expected a header")
    header, *below = rows
    named = [column for column in header if column]
    twice = sorted({column for column in named if named.count(column) > 1})
    if twice:
        raise DataError(f"{path}: column {', '.join(twice)} occurs twice")
    return [
        {column: row[place] if place < len(row) else "" for place, column in enumerate(header) if column}
        for row in below
    ]


def _part(book: zipfile.ZipFile, path: Path, name: str | None) -> str:
    """Name of the zip's part that holds the sheet."""
    parts = {
        relation.get("Id"): relation.get("Target", "")
        for relation in _tree(book, "xl/_rels/workbook.xml.rels").iter()
    }
    sheets = {
        sheet.get("name", ""): parts[_relation(sheet)]
        for sheet in _tree(book, "xl/workbook.xml").iterfind(".//{*}sheet")
    }
    if not sheets or (name is not None and name not in sheets):
        raise DataError(f"{path} has no sheet {name!r}; found {', '.join(map(repr, sheets)) or 'none'}")
    target = sheets[name] if name is not None else next(iter(sheets.values()))
    return target.removeprefix("/") if target.startswith("/") else f"xl/{target}"


def _relation(sheet: ElementTree.Element) -> str:
    """Id of the relation that leads to a sheet; the standard's two dialects name it in two namespaces."""
    return next((value for key, value in sheet.attrib.items() if key.endswith("}id")), "")


def _rows(book: zipfile.ZipFile, part: str) -> Iterator[list[str]]:
    shared = _shared(book)
    with _opened(book, part) as file:
        for _, row in ElementTree.iterparse(file):
            if _tag(row) != "row":
                continue
            cells: list[str] = []
            for cell in row.iterfind("{*}c"):
                place = _column(cell.get("r", "")) if cell.get("r") else len(cells)
                cells += [""] * (place + 1 - len(cells))
                cells[place] = _value(cell, shared)
            yield cells
            row.clear()


def _shared(book: zipfile.ZipFile) -> list[str]:
    if "xl/sharedStrings.xml" not in book.namelist():
        return []
    return [_text(entry) for entry in _tree(book, "xl/sharedStrings.xml").iterfind("{*}si")]


def _value(cell: ElementTree.Element, shared: list[str]) -> str:
    kind = cell.get("t", "n")
    inline = cell.find("{*}is")
    if inline is not None:
        return _text(inline).strip()
    stored = cell.findtext("{*}v", "").strip()
    if kind == "s" and stored:
        return shared[int(stored)].strip()
    if kind == "b":
        return {"1": "TRUE", "0": "FALSE"}.get(stored, stored)
    return _number(stored) if kind == "n" and stored else stored


def _number(stored: str) -> str:
    value = float(stored)
    return str(int(value)) if value.is_integer() and abs(value) < _WHOLE else stored


def _text(element: ElementTree.Element) -> str:
    """Text of a string, its runs joined; phonetic guides are left out."""
    own = [part for part in element if _tag(part) == "t"]
    runs = [part for run in element if _tag(run) == "r" for part in run.iterfind("{*}t")]
    return "".join(part.text or "" for part in (*own, *runs))


def _column(reference: str) -> int:
    """Place of a cell in its row, from 0: `C7` is 2."""
    letters = re.match(r"[A-Z]{1,3}", reference)
    if letters is None:
        raise ValueError(f"{reference!r} is no cell reference")
    place = 0
    for letter in letters.group():
        place = place * 26 + ord(letter) - ord("A") + 1
    return place - 1


def _tag(element: ElementTree.Element) -> str:
    return str(element.tag).rpartition("}")[2]


def _tree(book: zipfile.ZipFile, part: str) -> ElementTree.Element:
    with _opened(book, part) as file:
        return ElementTree.parse(file).getroot()


def _opened(book: zipfile.ZipFile, part: str) -> IO[bytes]:
    if book.getinfo(part).file_size > MAX_PART:
        raise ValueError(f"{part} unpacks to more than {MAX_PART >> 20} MiB")
    return book.open(part)
