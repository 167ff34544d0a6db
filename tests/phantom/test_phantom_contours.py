import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from malpighi.phantom.contours import Contour, coverage, ellipse, polygon, ripple, to_area, whole
from malpighi.phantom.nuclei import eccentric_aspect, notched_radii, solidity
from malpighi.phantom.outlines import around, convex_around

sizes = st.floats(150, 2500)
seeds = st.integers(0, 10_000)


@given(sizes, st.floats(1, 3), st.floats(0, 3.1))
def test_the_pixels_inside_an_ellipse_add_up_to_its_area(area, aspect, angle):
    contour = Contour(64.3, 63.8, ellipse(area, aspect, angle))
    inside = contour.depth(whole((128, 128))) > 0

    assert contour.area == pytest.approx(area, rel=0.01)
    assert inside.sum() == pytest.approx(area, rel=0.06)


@given(sizes, seeds)
def test_coverage_is_anti_aliased_and_keeps_the_area(area, seed):
    rng = np.random.default_rng(seed)
    radii = polygon(rng, area, 6, 0.15)
    cover = coverage(Contour(60, 60, radii).depth(whole((120, 120))))

    assert Contour(0, 0, radii).area == pytest.approx(area, rel=0.001)
    assert cover.sum() == pytest.approx(area, rel=0.06)
    assert ((cover > 0.05) & (cover < 0.95)).any()


def test_a_window_holds_the_whole_outline_and_stays_in_the_picture():
    contour = Contour(10.0, 50.0, ellipse(500, 1.5, 0.3))
    rows, columns = contour.window((100, 100))
    full = contour.depth(whole((100, 100))) > 0

    assert full[rows, columns].sum() == full.sum()
    assert columns.start == 0
    assert Contour(500.0, 500.0, ellipse(500, 1.5, 0.3)).depth(contour.window((100, 100))).max() < 0


@given(seeds, st.floats(0.02, 0.3))
def test_a_ripple_has_the_strength_asked_for(seed, strength):
    wobble = ripple(np.random.default_rng(seed), range(3, 9), strength)
    assert np.sqrt(np.mean(wobble**2)) == pytest.approx(strength, rel=1e-3)
    assert abs(wobble.mean()) < 1e-5


@given(seeds, st.floats(0.86, 0.91), st.floats(1, 2.5))
def test_notches_reach_the_wanted_solidity_and_keep_the_area(seed, wanted, aspect):
    radii = notched_radii(np.random.default_rng(seed), 700, aspect, wanted)
    assert solidity(Contour(0, 0, radii)) == pytest.approx(wanted, abs=0.035)
    assert Contour(0, 0, radii).area == pytest.approx(700, rel=1e-3)


def test_eccentricity_and_aspect_agree():
    aspect = eccentric_aspect(0.8)
    assert np.sqrt(1 - (1 / aspect) ** 2) == pytest.approx(0.8)
    assert eccentric_aspect(0.0) == 1.0


@given(seeds)
def test_an_outline_around_others_holds_them(seed):
    rng = np.random.default_rng(seed)
    pair = tuple(
        Contour(50 + dx, 50.0, to_area(ellipse(300, 1.3, rng.uniform(0, 3)), 300)) for dx in (-12, 12)
    )
    inside = np.any([c.depth(whole((100, 100))) > 1 for c in pair], axis=0)
    for radii in (around((50, 50), pair), convex_around((50, 50), pair)):
        assert (Contour(50, 50, radii).depth(whole((100, 100)))[inside] > 0).all()
