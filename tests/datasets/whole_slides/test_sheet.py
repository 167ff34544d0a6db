"""Sheets of workbooks, as people and programs write them."""

import zipfile

import pytest

from malpighi.datasets.whole_slides.sheet import MAX_PART, read_sheet
from malpighi.errors import DataError


@pytest.fixture
def book(tmp_path, write_workbook):
    path = tmp_path / "index.xlsx"
    write_workbook(
        path,
        {
            "First": [
                ["Patient ID", None, " Grade ", "Note"], [1, "unnamed", 2.0, "a & b"], [None] * 4,
                [2, None, None, "inline: <c>"],
            ],
            "Second sheet": [["x"], [0.25], ["1+"], [1e20]],
        },
    )  # fmt: skip
    return path


def test_cells_are_text_by_column(book):
    assert read_sheet(book) == [
        {"Patient ID": "1", "Grade": "2", "Note": "a & b"},
        {"Patient ID": "2", "Grade": "", "Note": "<c>"},
    ]
    assert read_sheet(book, "Second sheet") == [{"x": "0.25"}, {"x": "1+"}, {"x": "1e+20"}]


def rewritten(book, part, change):
    with zipfile.ZipFile(book) as old:
        parts = {name: old.read(name).decode() for name in old.namelist()}
    parts[part] = change(parts[part])
    with zipfile.ZipFile(book, "w") as new:
        for name, text in parts.items():
            new.writestr(name, text)


def test_rich_text_formulas_and_rows_without_references(book):
    rich = "<si><r><t>Pat</t></r><r><t>ient ID</t></r><rPh><t>phonetic</t></rPh></si>"
    rewritten(book, "xl/sharedStrings.xml", lambda text: text.replace("<si><t>Patient ID</t></si>", rich))
    row = '<row><c t="str"><f>1+1</f><v>two</v></c><c/><c t="b"><v>1</v></c><c t="e"><v>#N/A</v></c></row>'
    rewritten(
        book, "xl/worksheets/sheet1.xml", lambda text: text.replace("</sheetData>", f"{row}</sheetData>")
    )
    assert read_sheet(book)[-1] == {"Patient ID": "two", "Grade": "TRUE", "Note": "#N/A"}


def test_a_file_without_shared_strings(book):
    with zipfile.ZipFile(book) as old:
        parts = {name: old.read(name) for name in old.namelist() if "shared" not in name}
    parts["xl/worksheets/sheet1.xml"] = (
        b'<worksheet><sheetData><row><c r="B1" t="inlineStr"><is><t>far</t></is></c></row><row>'
        b'<c r="A2"><v>7</v></c><c r="B2"><v>8</v></c><c r="AB2"><v>9</v></c></row></sheetData></worksheet>'
    )
    parts["xl/_rels/workbook.xml.rels"] = parts["xl/_rels/workbook.xml.rels"].replace(
        b'"worksheets/sheet1', b'"/xl/worksheets/sheet1'
    )
    with zipfile.ZipFile(book, "w") as new:
        for name, data in parts.items():
            new.writestr(name, data)
    assert read_sheet(book) == [{"far": "8"}]


def test_what_is_no_workbook_is_refused(book, tmp_path, write_workbook, monkeypatch):
    with pytest.raises(DataError, match=r"'Third'.*'First', 'Second sheet'"):
        read_sheet(book, "Third")
    with pytest.raises(DataError, match=r"none\.xlsx"):
        read_sheet(tmp_path / "none.xlsx")
    for content in (b"", b"Patient ID,Grade\n1,2\n", b"PK\x03\x04"):
        (tmp_path / "bad.xlsx").write_bytes(content)
        with pytest.raises(DataError, match=r"bad\.xlsx is no readable"):
            read_sheet(tmp_path / "bad.xlsx")
    write_workbook(tmp_path / "twice.xlsx", {"s": [["a", "a"]]})
    with pytest.raises(DataError, match="column a occurs twice"):
        read_sheet(tmp_path / "twice.xlsx")
    write_workbook(tmp_path / "empty.xlsx", {"s": []})
    with pytest.raises(DataError, match="is empty"):
        read_sheet(tmp_path / "empty.xlsx")
    for part, text in (
        ("xl/worksheets/sheet1.xml", "<worksheet><sheetData>"),
        ("xl/sharedStrings.xml", "<sst/>"),
        ("xl/_rels/workbook.xml.rels", "<Relationships/>"),
    ):
        write_workbook(tmp_path / "bad.xlsx", {"s": [["a"], ["b"]]})
        rewritten(tmp_path / "bad.xlsx", part, lambda _, text=text: text)
        with pytest.raises(DataError, match="no readable"):
            read_sheet(tmp_path / "bad.xlsx")
    monkeypatch.setattr("malpighi.datasets.whole_slides.sheet.MAX_PART", 10)
    with pytest.raises(DataError, match="MiB"):
        read_sheet(book)
    assert MAX_PART > 1 << 20
