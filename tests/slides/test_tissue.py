import os
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import shapely
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from malpighi.errors import ConfigError
from malpighi.geometry import Region
from malpighi.phantom.slides import SlideSettings, render_slide, write_slide
from malpighi.slides import foreground
from malpighi.slides.opening import open_slide
from malpighi.slides.outlines import outlines
from malpighi.slides.overlay import tissue_slide
from malpighi.slides.tissue import TissueSettings, find_tissue

ROOT = Path(os.environ.get("MALPIGHI_TEST_DATA", Path(__file__).parents[2] / "../shared/data")) / "slides"
needs_data = pytest.mark.skipif(
    not ROOT.is_dir(), reason=f"no real slides: {ROOT} is missing; set MALPIGHI_TEST_DATA"
)
FAST = TissueSettings(focus=False)
# Stain, colour of the glass, least IoU: cells of 6 px have more border than pieces of tissue.
STAINS = [("he", None, 0.87), ("ihc", (205, 204, 200), 0.85), ("pap", (238, 230, 200), 0.65)]


def spoilt(stain, glass):
    return SlideSettings(
        width=1024, height=768, mpp=1.0, stain=stain, glass=glass, pen=True, blur=True, pieces=2
    )


@pytest.fixture(scope="module", params=STAINS, ids=lambda stain: stain[0])
def marked(request, tmp_path_factory):
    """(truth, tissue, least IoU) of a slide with ink and blur."""
    stain, glass, least = request.param
    truth = render_slide(11, spoilt(stain, glass))
    path = tmp_path_factory.mktemp("tissue") / "slide.tiff"
    write_slide(truth, path)
    with open_slide(path) as slide:
        return truth, find_tissue(slide), least


@pytest.fixture(scope="module")
def plain(phantom):
    """(truth, tissue) of a slide without artefacts."""
    with open_slide(phantom[0]) as slide:
        return phantom[1], find_tissue(slide)


def at_work(mask, tissue):
    """A mask of level 0 in the pixels of the tissue's masks."""
    size = tissue.mask.shape[::-1]
    return cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0.5


def picture(tmp_path, rgb, mpp=8.0):
    path = tmp_path / "picture.png"
    Image.fromarray(rgb).save(path)
    return open_slide(path, mpp=mpp)


def low_power(truth):
    return cv2.resize(truth.rgb, None, fx=1 / 16, fy=1 / 16, interpolation=cv2.INTER_AREA)


def test_tissue_is_found_under_all_stains_and_on_all_glass(marked):
    truth, tissue, least = marked
    there = at_work(truth.tissue & ~truth.pen, tissue)
    assert (tissue.mask & there).sum() / (tissue.mask | there).sum() > least
    assert tissue.found
    assert tissue.notes == ()
    assert tissue.downsample == pytest.approx(8.0, rel=1e-3)


def test_ink_and_blur_are_found_where_they_are(marked):
    truth, tissue, _ = marked
    ink = at_work(truth.pen, tissue)
    near = cv2.dilate(ink.astype(np.uint8), np.ones((5, 5))) > 0
    assert tissue.maps["pen"][ink].mean() > 0.95
    assert near[tissue.maps["pen"]].mean() > 0.9
    blurred = at_work(truth.blurred & truth.tissue, tissue) & tissue.maps["all"] & ~tissue.maps["pen"]
    sharp = tissue.maps["all"] & ~(
        cv2.dilate(at_work(truth.blurred, tissue).astype(np.uint8), np.ones((17, 17))) > 0
    )
    assert tissue.maps["blur"][blurred].mean() > 0.6
    assert tissue.maps["blur"][sharp].mean() < 0.08


def test_a_clean_slide_has_no_artefacts(plain):
    truth, tissue = plain
    there = at_work(truth.tissue, tissue)
    assert (tissue.mask & there).sum() / (tissue.mask | there).sum() > 0.93
    shares = tissue.shares()
    assert shares["tissue"] == pytest.approx(truth.tissue.mean(), abs=0.03)
    assert {name: round(shares[name], 2) for name in ("pen", "blur", "folds", "bubbles")} == dict.fromkeys(
        ("pen", "blur", "folds", "bubbles"), 0.0
    )


@pytest.mark.parametrize("method", foreground.METHODS)
def test_every_method_finds_most_of_the_tissue(method, phantom):
    truth = phantom[1]
    with open_slide(phantom[0]) as slide:
        tissue = find_tissue(slide, TissueSettings(method=method, focus=False))
    there = at_work(truth.tissue, tissue)
    assert (tissue.mask & there).sum() / (tissue.mask | there).sum() > 0.75


def test_empty_glass_is_said_to_be_empty(tmp_path):
    write_slide(render_slide(5, SlideSettings(width=700, height=600, pieces=0)), tmp_path / "empty.tiff")
    with open_slide(tmp_path / "empty.tiff") as slide:
        tissue = find_tissue(slide)
        row = tissue_slide(slide, tmp_path / "out")
    assert (tissue.found, tissue.mask.any(), tissue.polygons) == (False, False, [])
    assert "no tissue found" in tissue.notes[-1]
    assert f"{tissue.figures['threshold']:.3f}" in tissue.notes[-1]
    assert (row["found"], row["pieces"], row["tissue_fraction"]) == (False, 0, 0.0)


def test_a_filter_that_would_take_everything_is_set_aside(tmp_path):
    rgb = np.full((160, 200, 3), 240, np.uint8)
    rgb[40:120, 60:140] = (40, 170, 150)  # a section in a stain as green as ink
    with picture(tmp_path, rgb) as slide:
        tissue = find_tissue(slide)
    assert tissue.maps["pen"][50:110, 70:130].all()
    assert tissue.mask[45:115, 65:135].all()
    assert "filter pen set aside: it would remove 100.0% of the tissue" in tissue.notes

    rgb[80:120, 60:140] = (200, 120, 170)
    with picture(tmp_path, rgb) as slide:
        half = find_tissue(slide)
    assert half.notes == ("sharpness not measured: the slide is no finer than the working picture",)
    assert half.mask[85:115, 65:135].all()
    assert not half.mask[45:75, 65:135].any()


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255)], ids=["black", "white"])
def test_padding_is_no_tissue(tmp_path, plain, colour):
    rgb = low_power(plain[0])
    padded = np.full((rgb.shape[0] + 40, rgb.shape[1] + 60, 3), colour, np.uint8)
    padded[20:-20, 30:-30] = rgb
    with picture(tmp_path, rgb) as slide:
        bare = find_tissue(slide, FAST)
    with picture(tmp_path, padded) as slide:
        tissue = find_tissue(slide, FAST)
    assert (tissue.mask[20:-20, 30:-30] != bare.mask).mean() < 0.02
    outside = tissue.mask.copy()
    outside[20:-20, 30:-30] = False
    assert not outside.any()
    assert tissue.shares()["tissue"] == pytest.approx(
        bare.shares()["tissue"] * (1.0 if colour == (0, 0, 0) else rgb[..., 0].size / padded[..., 0].size),
        rel=0.1,
    )


def test_a_transparent_margin_is_no_tissue(tmp_path, plain):
    rgb = low_power(plain[0])
    rgba = np.zeros((rgb.shape[0] + 40, rgb.shape[1] + 40, 4), np.uint8)
    rgba[20:-20, 20:-20, :3], rgba[20:-20, 20:-20, 3] = rgb, 255
    with picture(tmp_path, rgba) as slide:
        tissue = find_tissue(slide, FAST)
    inside = tissue.mask[20:-20, 20:-20]
    assert inside.sum() == tissue.mask.sum() > 0


def test_a_slide_without_scale_is_worked_at_a_bounded_size_and_says_so(tmp_path, plain):
    with picture(tmp_path, plain[0].rgb, mpp=None) as slide:
        tissue = find_tissue(slide, TissueSettings(longest_unscaled=192))
    assert max(tissue.mask.shape) == 192
    assert tissue.mpp is None
    assert any("no scale known" in note for note in tissue.notes)
    there = at_work(plain[0].tissue, tissue)
    assert (tissue.mask & there).sum() / (tissue.mask | there).sum() > 0.9


def test_a_large_slide_is_worked_at_a_coarser_size_and_says_so(phantom):
    with open_slide(phantom[0]) as slide:
        tissue = find_tissue(slide, TissueSettings(longest=64, focus=False))
    assert tissue.mask.shape == (43, 64)
    assert "worked at 12 instead of 8 um/px" in tissue.notes[0]


def test_a_fraction_is_that_of_the_mask(plain):
    _, tissue = plain
    width, height = tissue.size
    assert tissue.fraction(Region(0, 0, width, height)) == pytest.approx(tissue.mask.mean(), abs=1e-2)
    assert tissue.fraction(Region(-width, 0, width, height)) == 0
    assert tissue.fraction(Region(5, 5, 0, 10)) == 0


boxes = st.lists(st.tuples(*[st.floats(-300, 1900, allow_nan=False)] * 4), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(boxes=boxes)
def test_fractions_are_those_of_counted_pixels(plain, boxes):
    _, tissue = plain
    corners = [(min(a, c), min(b, d), max(a, c) + 1, max(b, d) + 1) for a, b, c, d in boxes]
    found = tissue.fractions(np.array(corners))
    for (x0, y0, x1, y1), fraction in zip(np.array(corners) / tissue.downsample, found, strict=True):
        columns = np.clip(
            np.minimum(np.arange(tissue.mask.shape[1]) + 1, x1)
            - np.maximum(np.arange(tissue.mask.shape[1]), x0),
            0,
            1,
        )
        rows = np.clip(
            np.minimum(np.arange(tissue.mask.shape[0]) + 1, y1)
            - np.maximum(np.arange(tissue.mask.shape[0]), y0),
            0,
            1,
        )
        assert fraction == pytest.approx(rows @ tissue.mask @ columns / ((x1 - x0) * (y1 - y0)), abs=1e-9)


def test_polygons_cover_the_mask_in_pixels_of_level_0(plain):
    _, tissue = plain
    exact = outlines(tissue.mask, tissue.downsample, simplify=0)
    area = sum(piece.area for piece in exact) / tissue.downsample**2
    assert area == pytest.approx(tissue.mask.sum(), rel=0.02)
    assert all(piece.is_valid for piece in tissue.polygons)
    rows, columns = np.nonzero(tissue.mask)
    middles = shapely.points((columns + 0.5) * tissue.downsample, (rows + 0.5) * tissue.downsample)
    assert shapely.covers(shapely.union_all(exact), middles).mean() > 0.99


def test_polygons_have_holes_and_thin_pieces():
    mask = np.zeros((20, 20), bool)
    mask[2:12, 3:13] = True
    mask[5:9, 6:10] = False
    mask[16, 2:9] = True
    mask[18, 18] = True
    ring, line, dot = outlines(mask, 2.0, simplify=0)
    assert (line.area, dot.area) == (7 * 4, 4)
    assert ring.area == pytest.approx((100 - 16) * 4, rel=0.02)  # contours cut the corners of holes
    assert ring.bounds == (6, 4, 26, 24)
    assert len(ring.interiors) == 1
    assert outlines(np.zeros((4, 4), bool), 2.0) == []


def test_the_command_leaves_a_mask_and_a_picture(phantom, tmp_path):
    with open_slide(phantom[0]) as slide:
        row = tissue_slide(slide, tmp_path / "a" / "b", FAST)
        tissue = find_tissue(slide, FAST)
    assert (np.asarray(Image.open(tmp_path / "a" / "b" / "tissue.png")) == tissue.mask).all()
    with Image.open(tmp_path / "a" / "b" / "overlay.jpg") as overlay:
        assert overlay.width == 1600
        green = np.asarray(overlay.convert("RGB")).astype(int)
    assert ((green[..., 1] > 120) & (green[..., 0] < 80) & (green[..., 2] < 80)).sum() > 1000
    assert row["mpp"] == pytest.approx(0.5, rel=1e-3)
    assert row["tissue_fraction"] == tissue.shares()["tissue"]
    assert row["pieces"] == len(tissue.polygons) == 1
    assert {p.name for p in (tmp_path / "a" / "b").iterdir()} == {"tissue.png", "overlay.jpg"}


def test_a_tissue_travels_between_processes(plain):
    _, tissue = plain
    again = pickle.loads(pickle.dumps(tissue))
    assert (again.mask == tissue.mask).all()
    assert again.fraction(Region(100, 100, 300, 300)) == tissue.fraction(Region(100, 100, 300, 300))


@pytest.mark.parametrize(
    ("bad", "word"),
    [({"method": "magic"}, "otsu"), ({"without": ("dust",)}, "bubbles"), ({"mpp": 0.0}, "mpp")],
)
def test_settings_out_of_range_are_refused(phantom, bad, word):
    with open_slide(phantom[0]) as slide, pytest.raises(ConfigError, match=word):
        find_tissue(slide, TissueSettings(**bad))


def test_a_real_immunostain(tmp_path):
    with picture(tmp_path, skimage.data.immunohistochemistry(), mpp=None) as slide:
        tissue = find_tissue(slide)
    assert 0.6 < tissue.shares()["tissue"] < 0.9
    assert tissue.shares()["pen"] < 0.01


# The overlays of these were looked at while constants were chosen.
@needs_data
@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("cmu-1-small-region.svs", 0.3, 0.5),
        ("giardia_HE_40x_crop.tif", 0.35, 0.5),
        ("kidney-48-5.tif", 0.001, 0.01),
        ("tcga-cr-7395-01a-01-ts1.svs", 0.55, 0.7),
    ],
)
def test_real_slides_have_about_the_tissue_that_one_sees(name, low, high):
    with open_slide(ROOT / name) as slide:
        tissue = find_tissue(slide, FAST)
    assert low < tissue.shares()["tissue"] < high
    assert tissue.shares()["pen"] < 0.01
    assert tissue.shares()["bubbles"] == 0


@needs_data
@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("no-tissue", 0.01),
        ("no-tissue2", 0.02),
        ("no-tissue-line", 0.03),
        ("almost-white-1", 0.0),
        ("almost-white-2", 0.1),
    ],
)
def test_real_empty_tiles_have_little_tissue(name, most):
    with open_slide(ROOT / "tissue_tiles" / f"{name}.png") as slide:
        assert find_tissue(slide).shares()["tissue"] <= most


@needs_data
@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "ink"),
    [
        ("no-tissue-green-pen", "green"),
        ("no-tissue-red-pen", "red"),
        ("tcga-green-pen", "green"),
        ("tcga-red-pen", "red"),
        ("medium-nuclei-score-green-pen-level1", "green"),
        ("very-low-nuclei-score-red-pen-level1", "red"),
        ("wsi-blue-pen", "blue"),
        ("diagnostic-slide-thumb-rgb", "black"),
    ],
)
def test_real_ink_is_found_in_its_colour(name, ink):
    with open_slide(ROOT / "tissue_tiles" / f"{name}.png") as slide:
        tissue = find_tissue(slide)
    assert tissue.maps[f"pen_{ink}"].mean() > 0.01
