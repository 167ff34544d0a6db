"""The first sheet of an .xlsx file as rows of text: enough for the lists that data sets come with."""

import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from malpighi.errors import DataError

MAX_BYTES = 64 * 2**20

# What zipfile and the XML parser raise on damaged, encrypted or foreign files.
_UNREADABLE = (
    *(OSError, RuntimeError, ValueError, LookupError),
    *(zipfile.BadZipFile, zlib.error, ElementTree.ParseError),
)
_NS = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"


def read_workbook(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """Rows below the header of the first sheet, the named columns only; "" where a cell is empty.

    Raises:
        DataError: missing, not an .xlsx file, over 64 MiB, or a column is missing.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            shared = [_text(entry) for entry in _parse(archive, "xl/sharedStrings.xml").iter(f"{_NS}si")]
            rows = [
                dict(_cells(row, shared)) for row in _parse(archive, _first_sheet(archive)).iter(f"{_NS}row")
            ]
    except _UNREADABLE as error:
        raise DataError(f"cannot read {path} as a table (.xlsx): {error}") from error
    header = {text: letters for letters, text in (rows[0] if rows else {}).items()}
    missing = [name for name in columns if name not in header]
    if missing:
        raise DataError(f"{path}: no column {', '.join(missing)}; found {list(header)}")
    return [{name: row.get(header[name], "") for name in columns} for row in rows[1:] if row]


def _first_sheet(archive: zipfile.ZipFile) -> str:
    names = [name for name in archive.namelist() if re.fullmatch(r"xl/worksheets/sheet\d+\.xml", name)]
    return min(names, key=lambda name: int(re.findall(r"\d+", name)[-1]), default="xl/worksheets/sheet1.xml")


def _parse(archive: zipfile.ZipFile, name: str) -> ElementTree.Element:
    """A part of the archive; an absent table of shared texts is an empty one."""
    if name == "xl/sharedStrings.xml" and name not in archive.namelist():
        return ElementTree.Element("none")
    if archive.getinfo(name).file_size > MAX_BYTES:
        raise ValueError(f"{name} is larger than {MAX_BYTES} bytes")
    return ElementTree.fromstring(archive.read(name))


def _cells(row: ElementTree.Element, shared: list[str]) -> Iterator[tuple[str, str]]:
    """(letters of the column, text) of the cells that hold something."""
    for cell in row.iter(f"{_NS}c"):
        letters = cell.get("r", "").rstrip("0123456789")
        value = cell.findtext(f"{_NS}v", "")
        if cell.get("t") == "s":
            value = shared[int(value)]
        elif cell.get("t") == "inlineStr":
            value = _text(cell)
        if value.strip():
            yield letters, value.strip()


def _text(element: ElementTree.Element) -> str:
    return "".join(part.text or "" for part in element.iter(f"{_NS}t"))
