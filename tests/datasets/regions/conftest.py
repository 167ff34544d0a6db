"""Workbooks for the data sets whose labels lie in one."""

import zipfile

import pytest

_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_LINK = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"


@pytest.fixture
def write_sheet():
    """Writes an .xlsx workbook of one sheet: text in place, numbers as numbers."""

    def cell(value):
        if isinstance(value, int):
            return f"<c><v>{value}</v></c>"
        return f'<c t="inlineStr"><is><t>{value}</t></is></c>'

    def sheet(path, rows):
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = "".join(f"<row>{''.join(map(cell, row))}</row>" for row in rows)
        with zipfile.ZipFile(path, "w") as book:
            book.writestr(
                "xl/workbook.xml",
                f'<workbook xmlns="{_MAIN}" xmlns:r="{_LINK}"><sheets><sheet name="Sheet1" sheetId="1" '
                'r:id="rId1"/></sheets></workbook>',
            )
            book.writestr(
                "xl/_rels/workbook.xml.rels",
                '<Relationships><Relationship Id="rId1" Target="worksheets/sheet1.xml"/></Relationships>',
            )
            book.writestr(
                "xl/worksheets/sheet1.xml",
                f'<worksheet xmlns="{_MAIN}"><sheetData>{lines}</sheetData></worksheet>',
            )

    return sheet
