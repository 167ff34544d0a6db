"""Cells: found where the phantom and real masks say they are, marked without being painted over, ranked."""

import csv
import json
import math
import os
from pathlib import Path

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from malpighi.errors import ConfigError, DataError, MissingScaleError
from malpighi.geometry import Box, Frame, Region, View
from malpighi.guidelines.pack import load_pack
from malpighi.phantom.generate import measured_cell
from malpighi.phantom.regions import render_nuclei
from malpighi.phantom.stain import he_stain
from malpighi.pixels import decode_image, decode_labels, image_size
from malpighi.slides.anchors import ANCHOR_COLOUR, CropSettings, crop_cell
from malpighi.slides.cell_files import CellFileSettings, RankedCell, cells_slide
from malpighi.slides.cells import Cell, CellSettings, best_cells, find_cells
from malpighi.slides.gallery import Exhibit, gallery
from malpighi.slides.nuclei import contrast, find_nuclei, nuclear_density, threshold_of
from malpighi.slides.opening import open_slide
from malpighi.slides.pieces import TissueMap
from malpighi.slides.slide import Level, Slide, SlideFacts
from malpighi.slides.stain_density import brightest

DATA = Path(os.environ.get("MALPIGHI_TEST_DATA", Path(__file__).parents[2] / "../shared/data"))


def hits(cells, labels):
    """How many truths hold the centre of a cell; each truth and each cell counts once."""
    found = {int(labels[int(y), int(x)]) for x, y in cells}
    return len(found - {0})


@pytest.fixture(scope="module")
def smear(tmp_path_factory):
    """(path, mpp, instance mask of the nuclei, mask of the cells) of twelve cells of one patient."""
    pack = load_pack("tbs")
    drawn = [measured_cell(5, index, pack).cell for index in range(12)]
    nuclei = [np.where(cell.nuclei > 0, cell.nuclei + 10 * k, 0) for k, cell in enumerate(drawn)]
    rows = [slice(k, k + 4) for k in range(0, 12, 4)]
    rgb, labels, cells = (
        np.concatenate([np.concatenate(parts[row], axis=1) for row in rows])
        for parts in ([c.rgb for c in drawn], nuclei, [c.cell for c in drawn])
    )
    path = tmp_path_factory.mktemp("smear") / "smear.png"
    Image.fromarray(rgb).save(path)
    return path, drawn[0].smear.mpp, labels, cells


def test_papanicolaou_nuclei_are_found(smear):
    path, mpp, labels, bodies = smear
    with open_slide(path, mpp=mpp) as slide:
        found = [(cell.x, cell.y) for cell in find_cells(slide)]
    truths = len(np.unique(labels)) - 1
    assert hits(found, labels) >= 0.9 * truths
    inside = [(x, y) for x, y in found if bodies[int(y), int(x)]]
    assert hits(inside, labels) >= 0.6 * len(inside)  # leucocytes and other cells may lie on a cell


def test_haematoxylin_and_eosin_nuclei_are_found():
    truths = proposals = right = 0
    for index in range(8):
        rng = np.random.default_rng([7, index])
        region = render_nuclei(he_stain(rng), 0.5, rng)
        white = brightest(region.rgb)
        threshold = threshold_of(contrast(nuclear_density(region.rgb, white), 0.5))
        found = [n for n in find_nuclei(region.rgb, white, threshold, 0.5) if n.area_um2 > 12]
        truths += len(np.unique(region.nuclei)) - 1
        proposals += len(found)
        right += hits([(n.x, n.y) for n in found], region.nuclei)
    assert right >= 0.95 * truths
    assert right >= 0.95 * proposals


@pytest.mark.realdata
def test_real_nuclei_are_found():
    folder = DATA / "dsb2018_he"
    if not folder.is_dir():
        pytest.skip(f"no data set at {folder}; set MALPIGHI_TEST_DATA")
    truths = proposals = right = 0
    for row in list(csv.DictReader((folder / "index.csv").read_text().splitlines()))[::6]:
        rgb = np.asarray(decode_image((folder / f"images/{row['id']}.png").read_bytes()))
        labels = decode_labels((folder / f"instance_masks/{row['id']}.png").read_bytes())
        areas = np.bincount(labels.ravel())[1:]
        mpp = math.sqrt(45 / np.median(areas[areas > 0]))  # the files state none: a nucleus has 45 um2
        white = brightest(rgb)
        threshold = threshold_of(contrast(nuclear_density(rgb, white), mpp))
        found = [n for n in find_nuclei(rgb, white, threshold, mpp) if n.area_um2 > 12]
        truths += int((areas > 0).sum())
        proposals += len(found)
        right += hits([(n.x, n.y) for n in found], labels)
    assert right >= 0.6 * truths
    assert right >= 0.85 * proposals


def test_area_and_box_are_those_of_the_nucleus(tmp_path):
    """A disc of known size, dark on a paler cell, at another scale than that of the search."""
    y, x = np.mgrid[:600, :800] + 0.5
    rgb = np.full((600, 800, 3), (245, 240, 245), dtype=np.uint8)
    rgb[np.hypot(x - 430, y - 300) < 150] = (200, 180, 215)
    rgb[np.hypot(x - 400, y - 310) < 24] = (80, 60, 130)
    Image.fromarray(rgb).save(tmp_path / "cell.png")
    with open_slide(tmp_path / "cell.png", mpp=0.2) as slide:
        (cell,) = find_cells(slide)
    assert (cell.x, cell.y) == pytest.approx((400, 310), abs=1.5)
    assert cell.box.corners == pytest.approx((376, 286, 424, 334), abs=4)
    assert cell.area_um2 == pytest.approx(math.pi * 4.8**2, rel=0.15)
    assert cell.irregularity < 0.05


def test_fields_neither_cut_nor_repeat(smear):
    path, mpp, *_ = smear
    with open_slide(path, mpp=mpp) as slide:
        whole, parts = (
            {(round(c.x / 8), round(c.y / 8)) for c in find_cells(slide, CellSettings(field=side))}
            for side in (1024, 128)
        )
    assert len(whole ^ parts) <= 0.2 * len(whole)
    assert abs(len(whole) - len(parts)) <= 0.1 * len(whole)


def test_tissue_says_where_to_look(smear):
    path, mpp, *_ = smear
    with open_slide(path, mpp=mpp) as slide:
        left = np.zeros((1, 4), dtype=bool)
        left[0, 0] = True
        settings = CellSettings(field=128, mpp=max(mpp, 0.1))
        found = list(find_cells(slide, settings, tissue=TissueMap(left, slide.whole)))
    assert found
    assert max(cell.x for cell in found) <= 128 * 2


def test_a_scale_is_never_assumed(smear):
    with open_slide(smear[0]) as slide, pytest.raises(MissingScaleError):
        next(find_cells(slide))


class GlassSlide(Slide):
    """Empty glass of any size; remembers the largest picture that was asked for."""

    def __init__(self, side):
        levels = tuple(Level((math.ceil(side / f), math.ceil(side / f)), float(f)) for f in (1, 16))
        super().__init__(Path("glass"), SlideFacts(reader="test", levels=levels, mpp=0.25))
        self.largest = self.reads = 0

    def read(self, region, size):
        self.largest, self.reads = max(self.largest, size[0] * size[1]), self.reads + 1
        rgb = np.full((size[1], size[0], 3), 245, dtype=np.uint8)
        rgb[size[1] // 2 - 8 : size[1] // 2 + 8, size[0] // 2 - 8 : size[0] // 2 + 8] = (80, 60, 130)
        return rgb

    def _decode(self, level, corner, size, shrink):
        raise NotImplementedError

    def close(self):
        pass

    def __reduce__(self):
        return (GlassSlide, (self.size[0],))


def test_what_is_held_does_not_grow_with_the_slide():
    asked = []
    for side in (4_000, 16_000):
        slide = GlassSlide(side)
        assert best_cells(find_cells(slide), 3)
        asked.append(slide.largest)
    assert max(asked) <= 2048**2


def test_empty_glass_has_no_cells(tmp_path):
    Image.new("RGB", (500, 400), (244, 243, 246)).save(tmp_path / "glass.png")
    with open_slide(tmp_path / "glass.png", mpp=0.5) as slide:
        row = cells_slide(slide, tmp_path / "out")
    assert row["cells"] == 0
    assert pq.read_table(tmp_path / "out/cells.parquet").num_rows == 0
    assert json.loads((tmp_path / "out/ranked.json").read_bytes()) == []
    assert not (tmp_path / "out/gallery.jpg").exists()


def test_a_crop_shows_the_cell_in_the_middle_with_its_box_around(tmp_path):
    noise = np.random.default_rng(0).integers(0, 200, (400, 400, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    cell = Cell(200.0, 150.0, Box(180, 135, 215, 170, Frame.SLIDE), 40.0, 0.5, 0.0, 1.0)
    with open_slide(tmp_path / "noise.png", mpp=0.5) as slide:
        crop = crop_cell(slide, cell, CropSettings(microns=64, pixels=256, clearance=1.0))
        plain = slide.read(crop.region, (128, 128))
    assert crop.rgb.shape == (128, 128, 3)  # nothing is enlarged
    assert crop.region == Region(136, 86, 128, 128, 0.5)
    assert crop.box.corners == (44, 49, 79, 84)
    assert crop.mpp == 0.5
    red = (crop.rgb == ANCHOR_COLOUR).all(axis=2)
    changed = (crop.rgb != plain).any(axis=2)
    assert (red >= changed).all()
    rows, columns = np.nonzero(red)
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (40, 45, 83, 88)
    assert not red[47:86, 42:81].any()


def test_a_crop_at_the_edge_of_the_slide_keeps_its_size(tmp_path):
    Image.new("RGB", (300, 300), (90, 20, 30)).save(tmp_path / "dark.png")
    cell = Cell(2.0, 298.0, Box(0, 290, 8, 300, Frame.SLIDE), 10.0, 0.5, 0.0, 1.0)
    with open_slide(tmp_path / "dark.png", mpp=0.5) as slide:
        crop = crop_cell(slide, cell, CropSettings(microns=64))
    assert crop.rgb.shape == (128, 128, 3)
    assert (crop.rgb[:, :50] == 255).all()
    assert (crop.rgb[-50:] == 255).all()


def test_the_files_hold_what_was_found(smear, tmp_path):
    path, mpp, labels, _ = smear
    with open_slide(path, mpp=mpp) as slide:
        row = cells_slide(slide, tmp_path, CellFileSettings(ranked=10, crops=True))
        found = list(find_cells(slide))
    msgspec.json.encode(row)
    table = pq.read_table(tmp_path / "cells.parquet").to_pydict()
    assert row["cells"] == len(found) == len(table["x"])
    assert table["x"] == [cell.x for cell in found]
    ranked = msgspec.json.decode((tmp_path / "ranked.json").read_bytes(), type=list[RankedCell])
    scores = [entry.cell.score for entry in ranked]
    assert scores == sorted((cell.score for cell in found), reverse=True)[:10]
    for entry in ranked:
        view = View(image_size((tmp_path / entry.file).read_bytes()))
        assert view.clip(Box(*entry.anchor)).corners == entry.anchor
    assert image_size((tmp_path / "gallery.jpg").read_bytes()) == (8 * 164 + 4, 2 * 178 + 4)
    assert hits([(e.cell.x, e.cell.y) for e in ranked], labels) >= 3


def test_a_large_dark_nucleus_outranks_its_neighbours(tmp_path):
    y, x = np.mgrid[:600, :900] + 0.5
    rgb = np.full((600, 900, 3), (245, 240, 245), dtype=np.uint8)
    for column in range(60, 880, 80):
        for row in (80, 520):
            rgb[np.hypot(x - column, y - row) < 9] = (130, 110, 170)
    rgb[np.hypot(x - 450, y - 300) < 20] = (60, 40, 100)
    Image.fromarray(rgb).save(tmp_path / "cells.png")
    with open_slide(tmp_path / "cells.png", mpp=0.4) as slide:
        first, second = best_cells(find_cells(slide), 2)
        blind = best_cells(find_cells(slide, CellSettings(size=0, darkness=0, irregularity=0)), 1)
    assert (first.x, first.y) == pytest.approx((450, 300), abs=2)
    assert first.score > 1.5 > 0.5 > second.score
    assert blind[0].score == 0


def test_a_gallery_is_numbered_row_by_row():
    tiles = [Exhibit(np.full((300, 200, 3), shade, np.uint8), f"cell {shade}") for shade in (10, 20, 30)]
    sheet = np.asarray(gallery(tiles, columns=2, cell=90))
    assert sheet.shape == (2 * 108 + 4, 2 * 94 + 4, 3)
    assert [sheet[40, 30, 0], sheet[40, 124, 0], sheet[148, 30, 0]] == [10, 20, 30]
    assert (sheet[94:108, 4:90] < 128).any()
    assert (sheet[112:, 98:] == 255).all()
    with pytest.raises(DataError, match="at least one"):
        gallery([])


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (CellSettings, {"mpp": 4.0}),
        (CellSettings, {"field": 8}),
        (CellSettings, {"least_um2": 50.0, "most_um2": 40.0}),
        (CropSettings, {"microns": 0.0}),
        (CellFileSettings, {"ranked": 0}),
    ],
)
def test_settings_that_mean_nothing_are_refused(kind, wrong):
    with pytest.raises(ConfigError):
        kind(**wrong)
