import cv2
import numpy as np
import pytest

from malpighi.phantom.slides import SlideSettings, render_slide
from malpighi.slides.artefacts import INKS, find_folds, large, pen_marks
from malpighi.slides.bubbles import find_bubbles
from malpighi.slides.foreground import is_stained
from malpighi.slides.glass import USUAL, colourfulness, density, find_glass, scanned

DENSITIES = {
    "red": (0.12, 2.1, 1.8),
    "green": (1.9, 0.5, 1.6),
    "blue": (2.2, 1.1, 0.25),
    "black": (1.9, 1.9, 1.8),
}
TEAL = (1.6, 0.45, 0.57)  # a real pen
STAINS = {
    "eosin": (0.28, 1.80, 0.92),
    "haematoxylin": (1.08, 1.32, 0.60),
    "diaminobenzidine": (0.46, 1.02, 1.52),
    "red cells": (0.18, 1.62, 1.20),
}


@pytest.fixture(scope="module")
def spoilt():
    """A slide with folds and air, its density at 8 µm per px, and its truth there."""
    slide = render_slide(7, SlideSettings(width=1280, height=1024, mpp=1.0, folds=True, bubbles=True))
    return (density(low(slide.rgb), find_glass(low(slide.rgb)).colour), low(slide.folds), low(slide.bubbles))


def low(level_0):
    picture = level_0 if level_0.dtype == np.uint8 else level_0.astype(np.float32)
    shrunk = cv2.resize(picture, None, fx=1 / 8, fy=1 / 8, interpolation=cv2.INTER_AREA)
    return shrunk if shrunk.ndim == 3 else shrunk > 0.5


def grown(mask, by=5):
    return cv2.dilate(mask.astype(np.uint8), np.ones((by, by))) > 0


def stroke(colour, strength=1.0, width=12):
    """A density with a stroke of a colour across."""
    picture = np.zeros((60, 80, 3), np.float32)
    picture[20 : 20 + width] = np.array(colour, np.float32) * strength
    return picture


@pytest.mark.parametrize("ink", INKS)
def test_a_stroke_is_found_in_its_colour_only(ink):
    found = pen_marks(stroke(DENSITIES[ink]))
    assert found[ink][21:31].all()
    assert not found[ink][:18].any()
    assert not any(found[other].any() for other in INKS if other != ink)


def test_a_real_teal_pen_is_green():
    assert pen_marks(stroke(TEAL))["green"][22:30].all()


@pytest.mark.parametrize("stain", STAINS)
@pytest.mark.parametrize("strength", [0.2, 0.5, 0.9])
def test_no_stain_is_ink(stain, strength):
    assert not any(mask.any() for mask in pen_marks(stroke(STAINS[stain], strength)).values())


def test_a_thin_line_is_no_stroke():
    assert not pen_marks(stroke(DENSITIES["black"], width=2))["black"].any()


def test_folds_are_found_and_nothing_else(spoilt):
    dense, folds, bubbles = spoilt
    found = find_folds(dense, is_stained(dense) & ~bubbles)
    assert grown(found)[folds & ~bubbles].mean() > 0.6
    assert grown(folds)[found].mean() > 0.9


def test_nothing_folds_on_empty_glass_or_in_one_colour():
    tissue = np.ones((50, 50), bool)
    assert not find_folds(np.zeros((50, 50, 3), np.float32), tissue).any()
    assert not find_folds(np.full((50, 50, 3), 0.5, np.float32), tissue).any()
    assert not find_folds(np.full((50, 50, 3), 0.5, np.float32), ~tissue).any()


def test_bubbles_are_found_rim_and_inside(spoilt):
    dense, _, bubbles = spoilt
    found = find_bubbles(dense, np.zeros(bubbles.shape, bool))
    assert found[bubbles].mean() > 0.4
    assert grown(bubbles)[found].mean() > 0.95


def ring(cut=0, colour=(1.0, 1.0, 1.0)):
    rim = np.zeros((100, 120), np.uint8)
    cv2.ellipse(rim, (60 - cut, 50), (30, 24), 20, 0, 360, 1, 2)
    return rim[..., None] * np.array(colour, np.float32)


def test_a_ring_without_colour_is_a_bubble():
    none = np.zeros((100, 120), bool)
    found = find_bubbles(ring(), none)
    assert found[50, 60]
    assert found.sum() == pytest.approx(np.pi * 31 * 25, rel=0.08)
    assert find_bubbles(ring(cut=60), none)[50, 5]  # half of it lies outside of the picture
    assert not find_bubbles(ring(colour=(0.3, 1.0, 0.6)), none).any()
    assert not find_bubbles(stroke((1.0, 1.0, 1.0), width=2), np.zeros((60, 80), bool)).any()


def test_a_ring_under_ink_is_still_seen():
    ink = np.zeros((100, 120), bool)
    ink[:, 55:70] = True
    assert find_bubbles(ring(), ink)[50, 60]


@pytest.mark.parametrize("colour", [(243, 243, 243), (205, 204, 200), (238, 228, 196)])
def test_the_colour_of_the_glass(colour):
    slide = render_slide(2, SlideSettings(width=1024, height=768, mpp=1.0, stain="pap", glass=colour))
    glass = find_glass(low(slide.rgb))
    assert glass.seen
    assert glass.colour == pytest.approx(colour, rel=0.05)


def test_without_glass_white_is_taken_and_said():
    pink = np.full((64, 64, 3), (225, 170, 205), np.uint8)
    assert (find_glass(pink).seen, find_glass(pink).colour) == (False, USUAL)


def test_shade_has_no_colour():
    shaded = np.linspace(150, 240, 64).astype(np.uint8)[None, :, None].repeat(64, 0).repeat(3, 2)
    assert colourfulness(density(shaded, USUAL)).max() < 1e-5


def test_only_black_that_reaches_the_border_was_not_scanned():
    rgb = np.full((40, 40, 3), 200, np.uint8)
    rgb[:, :5] = rgb[20:25, 20:25] = 0
    seen = scanned(rgb)
    assert not seen[:, :5].any()
    assert seen[:, 5:].all()
    assert not scanned(np.zeros((4, 4, 3), np.uint8)).any()


def test_large_pieces():
    mask = np.zeros((6, 6), bool)
    mask[0, 0] = mask[1, 1] = mask[4, 1:5] = True
    assert large(mask, 3).sum() == 4
    assert large(mask, 2).sum() == 6
    assert large(mask, 2, diagonal=False).sum() == 4
