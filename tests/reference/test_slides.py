"""Our reading of the real slides against OpenSlide's and tifffile's, and one slide in two formats."""

import os
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import tifffile

from malpighi.geometry import Region
from malpighi.slides.area import mean_over_areas
from malpighi.slides.opening import open_slide
from malpighi.slides.openslide_slide import OpenSlideSlide
from malpighi.slides.tiff_check import difference

DATA = Path(os.environ.get("MALPIGHI_TEST_DATA", Path(__file__).parents[2] / "../shared/data")) / "slides"

pytestmark = [
    pytest.mark.realdata,
    pytest.mark.skipif(not DATA.exists(), reason=f"no real slides at {DATA}; set MALPIGHI_TEST_DATA"),
]

TIFFS = {
    "cmu-1-small-region.svs": (0.499, "aperio.MPP"),
    "tcga-cr-7395-01a-01-ts1.svs": (None, ""),
    "giardia_HE_40x_crop.tif": (pytest.approx(0.263, rel=1e-3), "tiff.XResolution"),
}


@pytest.mark.parametrize("name", TIFFS)
def test_tiles_are_those_of_openslide(name):
    """Exact where OpenSlide reads on whole pixels; where it reads between them, the mean within one value."""
    with open_slide(DATA / name) as ours, OpenSlideSlide(DATA / name) as theirs:
        assert (ours.facts.reader, (ours.mpp, ours.facts.mpp_source)) == ("tiff", TIFFS[name])
        for index, level in enumerate(theirs.levels):
            assert ours.levels[index] == level
            across, down = (-(-side // tile) for side, tile in zip(level.size, level.tile, strict=True))
            some = np.random.default_rng(index).permutation(across * down)[:60].tolist()
            for row, column in (divmod(k, across) for k in some):
                value, most = difference(ours, theirs, (index, column, row))
                assert value <= (0 if most == 2 else 1), (index, column, row)
        assert len(ours.damage) == 0


@pytest.mark.parametrize("name", TIFFS)
def test_levels_are_exactly_those_of_tifffile(name):
    compared = 0
    with open_slide(DATA / name) as slide, tifffile.TiffFile(DATA / name) as file:
        pages = [page for page in file.pages if page.is_tiled]
        for index, (level, page) in enumerate(zip(slide.levels, pages, strict=True)):
            if level.size[0] * level.size[1] < 2**24:
                assert (slide.read_level(index, (0, 0), level.size) == page.asarray()).all()
                compared += 1
    assert compared


def test_a_plain_tiff_is_a_picture():
    with open_slide(DATA / "kidney-48-5.tif") as slide:
        assert (slide.facts.reader, slide.mpp) == ("picture", None)
        assert (slide.read_level(0, (0, 0), slide.size) == tifffile.imread(slide.path)).all()


@pytest.fixture
def pair():
    with (
        open_slide(DATA / "cmu-1-small-region.svs") as svs,
        open_slide(DATA / "cmu-1-small-region-dicom") as dicom,
    ):
        yield svs, dicom


def apart(a, b):
    return np.abs(a.astype(int) - b)


def test_svs_and_dicom_of_one_slide_are_the_same_slide(pair):
    svs, dicom = pair
    assert (svs.size, svs.mpp) == (dicom.size, pytest.approx(dicom.mpp))
    assert (svs.facts.reader, dicom.facts.reader) == ("tiff", "dicom")


def test_svs_and_dicom_of_one_slide_give_the_same_view(pair):
    """Of the same level 0, so that only the second JPEG is between them."""
    fine = [slide.read_at((900, 1400), (400, 300), 0.95) for slide in pair]
    assert apart(*fine).mean() < 5
    whole = [slide.read_level(0, (0, 0), slide.size) for slide in pair]
    views = [mean_over_areas(rgb, (512, 684), (0, 0, *pair[0].size)) for rgb in whole]
    assert apart(*views).mean() < 1.5
    assert np.percentile(apart(*views), 99) < 9


def test_overviews_of_both_lie_upon_each_other(pair):
    """The DICOM's own coarse levels were made sharper than means are: they differ more, but not in place."""
    one, other = (slide.read(Region(0, 0, *slide.size, slide.mpp), (512, 684)) for slide in pair)
    assert apart(one, other).mean() < 8
    inner = one[4:-4, 4:-4].astype(int)
    moves = {
        (x, y): np.abs(inner - other[4 + y : y - 4 or None, 4 + x : x - 4 or None][:676, :504]).mean()
        for x, y in product((-1, 0, 1), repeat=2)
    }  # fmt: skip
    assert min(moves, key=moves.get) == (0, 0)
