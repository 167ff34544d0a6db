import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from malpighi.errors import DataError
from malpighi.slides.quality import tile_quality

ROOT = Path(os.environ.get("MALPIGHI_TEST_DATA", Path(__file__).parents[2] / "../shared/data")) / "slides"
needs_data = pytest.mark.skipif(
    not ROOT.is_dir(), reason=f"no real tiles: {ROOT} is missing; set MALPIGHI_TEST_DATA"
)
EMPTY = np.full((256, 256, 3), 243, np.uint8)


@pytest.fixture(scope="module")
def tile(phantom):
    """A tile in the middle of the tissue, mpp 0.5."""
    return np.ascontiguousarray(phantom[1].rgb[384:640, 600:856])


def inked(tile, density, rows):
    shaded = tile.astype(float)
    shaded[rows] *= np.exp(-np.array(density))
    return shaded.astype(np.uint8)


def test_a_good_tile_scores_high(tile):
    good = tile_quality(tile, 0.5)
    assert good.focus > 0.8
    assert (good.pen, good.fold, good.bubble) == (0, 0, 0)
    assert good.empty < 0.2
    assert good.overall == pytest.approx(good.focus * (1 - good.empty))


def test_glass_is_empty_and_nothing_on_it_is_sharp():
    found = tile_quality(EMPTY, 0.5)
    assert (found.focus, found.pen, found.fold, found.empty, found.bubble) == (0, 0, 0, 1, 0)
    assert found.overall == 0


@pytest.mark.parametrize("mpp", [0.5, None])
def test_the_more_blurred_the_less_sharp(tile, mpp):
    scores = [tile_quality(tile, mpp).focus]
    scores += [tile_quality(cv2.GaussianBlur(tile, (0, 0), sigma), mpp).focus for sigma in (2, 4, 8)]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 0.5 > scores[2]


def test_sharpness_does_not_depend_on_contrast(tile):
    pale = (243 - (243 - tile.astype(float)) * 0.4).astype(np.uint8)
    assert tile_quality(pale, 0.5).focus == pytest.approx(tile_quality(tile, 0.5).focus, abs=0.15)


def test_noise_is_not_taken_for_sharpness(tile):
    blurred = cv2.GaussianBlur(tile, (0, 0), 8).astype(float)
    noisy = np.clip(blurred + np.random.default_rng(0).normal(0, 2, tile.shape), 0, 255).astype(np.uint8)
    assert tile_quality(noisy, 0.5).focus < 0.5


@pytest.mark.parametrize(
    "density", [(0.12, 2.1, 1.8), (1.9, 0.5, 1.6), (2.2, 1.1, 0.25), (1.9, 1.9, 1.8)], ids=str
)
@pytest.mark.parametrize("under", ["glass", "tissue"])
def test_the_share_of_ink(tile, density, under):
    ground = tile if under == "tissue" else EMPTY
    found = tile_quality(inked(ground, density, slice(64, 192)), 0.5)
    assert found.pen == pytest.approx(0.5, abs=0.13)
    assert tile_quality(ground, 0.5).pen == 0


def test_the_rim_of_a_bubble_shows(tile):
    rimmed = tile.copy()
    cv2.circle(rimmed, (300, 128), 200, (40, 40, 40), 12)
    assert tile_quality(rimmed, 0.5).bubble > 0.4


def test_the_colour_of_the_glass_can_be_given():
    yellow = np.full((256, 256, 3), (238, 228, 190), np.uint8)
    assert tile_quality(yellow, 0.5).empty == 0
    assert tile_quality(yellow, 0.5, glass=(238, 228, 190)).empty == 1


@settings(max_examples=25, deadline=None)
@given(
    rgb=arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40), st.just(3))),
    mpp=st.sampled_from([None, 0.1, 0.5, 8.0, 20.0]),
)
def test_scores_are_shares_whatever_the_tile(rgb, mpp):
    found = tile_quality(rgb, mpp)
    scores = (found.focus, found.pen, found.fold, found.empty, found.bubble, found.overall)
    assert all(0 <= score <= 1 for score in scores)


@pytest.mark.parametrize(
    "bad", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3)), np.zeros((0, 8, 3), np.uint8)]
)
def test_what_is_no_tile_is_refused(bad):
    with pytest.raises(DataError, match="H x W x 3"):
        tile_quality(bad)


def real(name):
    return np.asarray(Image.open(ROOT / "tissue_tiles" / f"{name}.png").convert("RGB"))


@needs_data
@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("no-tissue-green-pen", 0.5),
        ("no-tissue-red-pen", 0.25),
        ("tcga-green-pen", 0.1),
        ("tcga-red-pen", 0.15),
        ("medium-nuclei-score-green-pen-level1", 0.3),
        ("very-low-nuclei-score-red-pen-level1", 0.08),
    ],
)
def test_real_tiles_with_ink_are_flagged(name, least):
    assert tile_quality(real(name)).pen > least


@needs_data
@pytest.mark.realdata
@pytest.mark.parametrize("name", ["no-tissue", "no-tissue2", "no-tissue-line", "almost-white-1"])
def test_real_tiles_without_tissue_are_empty(name):
    found = tile_quality(real(name))
    assert found.empty > 0.98
    assert found.overall < 0.02


@needs_data
@pytest.mark.realdata
@pytest.mark.parametrize(
    "name",
    [
        "high-nuclei-score-level0",
        "medium-nuclei-score-level0",
        "tcga-lung-rgb",
        "very-low-nuclei-score-level0",
    ],
)
def test_real_tiles_of_tissue_are_sharp_and_full(name):
    found = tile_quality(real(name))
    assert found.empty < 0.2
    assert found.focus > 0.5
    assert found.pen < 0.02
