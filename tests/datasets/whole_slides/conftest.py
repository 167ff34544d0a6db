"""Tiny workbooks and slides as data sets ship them."""

import zipfile
from xml.sax.saxutils import escape

import pytest
from PIL import Image

MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
LINK = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"


def _cell(place, value, shared):
    if value is None:
        return ""
    if isinstance(value, int | float):
        return f'<c r="{place}"><v>{value}</v></c>'
    if value.startswith("inline:"):
        return f'<c r="{place}" t="inlineStr"><is><t>{escape(value[7:])}</t></is></c>'
    if value not in shared:
        shared.append(value)
    return f'<c r="{place}" t="s"><v>{shared.index(value)}</v></c>'


@pytest.fixture
def write_workbook():
    """Write an .xlsx file: path, and rows of cells by sheet; None is a cell that is not there."""

    def write(path, sheets):
        shared, parts = [], {}
        for number, rows in enumerate(sheets.values(), 1):
            lines = "".join(
                f'<row r="{y}">'
                + "".join(_cell(f"{chr(65 + x)}{y}", v, shared) for x, v in enumerate(row))
                + "</row>"
                for y, row in enumerate(rows, 1)
            )
            parts[f"xl/worksheets/sheet{number}.xml"] = (
                f'<worksheet xmlns="{MAIN}"><sheetData>{lines}</sheetData></worksheet>'
            )
        entries = "".join(
            f'<sheet name="{escape(name)}" sheetId="{n}" r:id="rId{n}"/>' for n, name in enumerate(sheets, 1)
        )
        parts["xl/workbook.xml"] = (
            f'<workbook xmlns="{MAIN}" xmlns:r="{LINK}"><sheets>{entries}</sheets></workbook>'
        )
        parts["xl/_rels/workbook.xml.rels"] = (
            "<Relationships>"
            + "".join(
                f'<Relationship Id="rId{n}" Target="worksheets/sheet{n}.xml"/>'
                for n in range(1, len(sheets) + 1)
            )
            + "</Relationships>"
        )
        strings = "".join(f"<si><t>{escape(text)}</t></si>" for text in shared)
        parts["xl/sharedStrings.xml"] = f'<sst xmlns="{MAIN}">{strings}</sst>'
        with zipfile.ZipFile(path, "w") as book:
            for name, text in parts.items():
                book.writestr(name, text)

    return write


@pytest.fixture
def slide():
    """Write a small picture that opens as a slide; another size or shade is another slide."""

    def write(path, shade=0, size=(40, 30)):
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = {".svs": "TIFF", ".tif": "TIFF"}.get(path.suffix)
        Image.new("RGB", size, (255, shade % 256, shade // 256)).save(path, kind)

    return write
