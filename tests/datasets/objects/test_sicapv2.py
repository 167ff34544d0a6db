import io
import zipfile
from xml.sax.saxutils import escape

import numpy as np
import pytest
from PIL import Image

from malpighi.errors import DataError
from malpighi.records import Split

SIZE = (64, 48)
NS = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
R = 'xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships"'
SHEET = '<sheet name="Sheet1" sheetId="1" r:id="rId1"/>'
RELATION = '<Relationship Id="rId1" Target="worksheets/sheet1.xml"/>'
HEADER = ["image_name", "NC", "G3", "G4", "G5", "G4C"]


def xlsx(rows, *, shared=True):
    """A workbook as spreadsheet programs write it: texts in a table of their own, or in the cells."""
    texts, lines = [], []
    for y, row in enumerate(rows, 1):
        cells = []
        for x, value in enumerate(row):
            place = f'r="{chr(65 + x)}{y}"'
            if value is None:
                continue
            if isinstance(value, int):
                cells.append(f"<c {place}><v>{value}</v></c>")
            elif shared:
                texts.append(f"<si><r><t>{escape(value[:3])}</t></r><r><t>{escape(value[3:])}</t></r></si>")
                cells.append(f'<c {place} t="s"><v>{len(texts) - 1}</v></c>')
            else:
                cells.append(f'<c {place} t="inlineStr"><is><t>{escape(value)}</t></is></c>')
        lines.append(f'<row r="{y}">{"".join(cells)}</row>')
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        sheet = f"<worksheet {NS}><sheetData>{''.join(lines)}</sheetData></worksheet>"
        archive.writestr("xl/workbook.xml", f"<workbook {NS} {R}><sheets>{SHEET}</sheets></workbook>")
        archive.writestr("xl/_rels/workbook.xml.rels", f"<Relationships>{RELATION}</Relationships>")
        archive.writestr("xl/worksheets/sheet1.xml", sheet)
        if shared:
            archive.writestr("xl/sharedStrings.xml", f"<sst {NS}>{''.join(texts)}</sst>")
    return file.getvalue()


def name(slide, number):
    return f"{slide}_Block_Region_1_0_{number}_xini_6803_yini_59786"


TRAIN = [name("16B0001851", 0), name("16B0001851", 1)]
TEST = [name("18B0005478J", 0), name("18B0005478J", 1)]
UNLISTED = name("18B0005478J", 9)


def noisy(labels):
    grain = np.random.default_rng(1).integers(-25, 25, labels.shape)
    return np.clip(labels.astype(int) + grain, 0, 255).astype(np.uint8)


def build(tree, painted):
    def write(folder):
        root = folder / "SICAPv2"
        for stem in (*TRAIN, *TEST, UNLISTED):
            tree.image(root / f"images/{stem}.jpg", SIZE)
            cancer = painted(SIZE, (190, 8, 8, 48, 40)) if stem in (TRAIN[0], TEST[0]) else painted(SIZE)
            tree.pixels(root / f"masks/{stem}.jpg", noisy(cancer), quality=90)
        tree.image(root / f"images/{name('18B0005478J', 2)}.jpg", SIZE)
        tree.pixels(root / f"masks/{name('18B0005478J', 2)}.jpg", noisy(painted(SIZE)))
        tree.image(root / "images/nameless.jpg", SIZE)
        tree.pixels(root / "masks/nameless.jpg", painted(SIZE))
        rows = [HEADER, [f"{TRAIN[0]}.jpg", 0, 1, 0, 0, 0], [f"{TRAIN[1]}.jpg", 1, 0, 0, 0, 0]]
        tree.write(root / "partition/Test/Train.xlsx", xlsx(rows))
        rows = [HEADER, [f"{TEST[0]}.jpg", 0, 0, 1, 1, None], [f"{TEST[1]}.jpg", 1, 0, 0, 0, 0]]
        rows += [
            [f"{name('18B0005478J', 2)}.jpg", 0, 0, 0, 1, 0],
            [f"{name('18B0005478J', 8)}.jpg", 1, 0, 0, 0, 0],
        ]
        tree.write(root / "partition/Test/Test.xlsx", xlsx(rows, shared=False))
        wrong = xlsx([HEADER, [f"{TRAIN[0]}.jpg", 1, 0, 0, 0, 0]])
        tree.write(root / "partition/Validation/Val1/Test.xlsx", wrong)

    return write


def test_sicapv2_follows_the_contract(contract, tree, painted, corners):
    shown = {
        f"{stem}:{exam}:prostate_cancer": exam
        for stem in (TRAIN[0], TEST[0])
        for exam in ("detection", "segmentation")
    }
    absent = {f"{stem}:absent:prostate_cancer": "absent" for stem in (TRAIN[1], TEST[1], UNLISTED)}
    samples = contract(
        "sicapv2",
        build(tree, painted),
        shown | absent,
        {
            name("18B0005478J", 2): "says G5",
            name("18B0005478J", 8): "no such image",
            "nameless": "16B0001851",
        },
        [f"SICAPv2/{part}" for part in ("images", "masks", "partition/Test", "partition/Test/Test.xlsx")],
    )
    assert samples[f"{TRAIN[0]}:detection:prostate_cancer"].split == Split.TRAIN
    assert samples[f"{TEST[1]}:absent:prostate_cancer"].split == Split.TEST
    unlisted = samples[f"{UNLISTED}:absent:prostate_cancer"]
    assert unlisted.group == "18B0005478"
    assert unlisted.split == Split.TEST, "an unlisted patch goes with its slide"
    ((x0, y0, x1, y1),) = corners(samples[f"{TRAIN[0]}:detection:prostate_cancer"])
    assert max(abs(x0 - 8), abs(y0 - 8), abs(x1 - 48), abs(y1 - 40)) <= 1


def test_masks_that_were_turned_into_png_hold_patterns(items, tree, painted, tmp_path, corners):
    build(tree, painted)(tmp_path)
    (tmp_path / f"SICAPv2/masks/{TRAIN[0]}.jpg").unlink()
    tree.pixels(
        tmp_path / f"SICAPv2/masks/{TRAIN[0]}.png", painted(SIZE, (3, 4, 4, 24, 24), (5, 24, 4, 44, 24))
    )
    found, _ = items("sicapv2", tmp_path)
    assert corners(found[f"{TRAIN[0]}:detection:prostate_cancer"]) == [(4, 4, 44, 24)]


def test_a_list_without_its_columns_is_refused(items, tree, painted, tmp_path):
    build(tree, painted)(tmp_path)
    tree.write(tmp_path / "SICAPv2/partition/Test/Test.xlsx", xlsx([["file", "NC"], ["a.jpg", 1]]))
    with pytest.raises(DataError, match=r"Test\.xlsx: no column image_name"):
        items("sicapv2", tmp_path)


def test_grey_survives_jpeg_as_bright_and_dark():
    image = Image.fromarray(noisy(np.full((48, 64), 190, np.uint8)))
    assert np.asarray(image).min() > 100


def test_slides_of_one_patient_are_one_group_where_the_table_names_it(items, tree, painted, tmp_path):
    build(tree, painted)(tmp_path)
    other = name("19B0000001", 0)
    tree.image(tmp_path / f"SICAPv2/images/{other}.jpg", SIZE)
    tree.pixels(tmp_path / f"SICAPv2/masks/{other}.jpg", noisy(painted(SIZE)))
    alone, _ = items("sicapv2", tmp_path)
    assert alone[f"{other}:absent:prostate_cancer"].sample.group == "19B0000001"
    rows = [["slide_id", "patient_id"], ["18B0005478J", "7"], ["19B0000001", "7"], ["16B0001851", None]]
    tree.write(tmp_path / "SICAPv2/wsi_labels.xlsx", xlsx(rows))
    found, _ = items("sicapv2", tmp_path)
    same = [found[f"{stem}:absent:prostate_cancer"].sample for stem in (other, UNLISTED)]
    assert {(sample.group, sample.split) for sample in same} == {("patient 7", Split.TEST)}
    assert found[f"{TRAIN[1]}:absent:prostate_cancer"].sample.group == "16B0001851"


def test_a_table_of_slides_without_patients_is_passed_over(items, tree, painted, tmp_path):
    build(tree, painted)(tmp_path)
    tree.write(tmp_path / "SICAPv2/wsi_labels.xlsx", xlsx([["slide", "grade"], ["16B0001851", "3"]]))
    found, _ = items("sicapv2", tmp_path)
    assert found[f"{TRAIN[1]}:absent:prostate_cancer"].sample.group == "16B0001851"
