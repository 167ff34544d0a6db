import numpy as np
import pytest

from malpighi.phantom.stain import (
    Stain,
    develop,
    empty_glass,
    he_stain,
    optical_density,
    pap_stain,
    texture,
    unmix,
)


def clean(stain: Stain) -> Stain:
    return Stain(stain.dyes, stain.matrix, stain.white_3, stain.tilt, 0.0, 0.0)


@pytest.mark.parametrize("make", [pap_stain, he_stain])
@pytest.mark.parametrize("seed", range(5))
def test_density_of_the_picture_is_that_of_the_dyes(make, seed):
    rng = np.random.default_rng(seed)
    stain = clean(make(rng))
    wanted = rng.uniform(0, 0.5, (20, 30, 3)).astype(np.float32)

    found = optical_density(develop(wanted, stain, rng), stain)

    assert np.abs(found - wanted @ stain.matrix).max() < 0.03


@pytest.mark.parametrize("seed", range(5))
def test_unmixing_gives_back_the_concentrations_that_were_developed(seed):
    rng = np.random.default_rng(seed)
    stain = clean(he_stain(rng))
    wanted = rng.uniform(0, 0.5, (20, 30, 3)).astype(np.float32)

    found = unmix(develop(wanted, stain, rng), stain)

    assert np.abs(found - wanted).mean() < 0.02
    assert np.abs(found - wanted).max() < 0.15


def test_a_unit_of_any_dye_is_a_unit_of_mean_optical_density():
    for seed in range(5):
        assert he_stain(np.random.default_rng(seed)).matrix.mean(axis=1) == pytest.approx(1.0, abs=1e-5)
        assert pap_stain(np.random.default_rng(seed)).matrix.mean(axis=1) == pytest.approx(1.0, abs=1e-5)


def test_empty_glass_has_no_density_and_its_own_light():
    rng = np.random.default_rng(1)
    stain = clean(pap_stain(rng))
    glass = develop(np.zeros((16, 24, 3), np.float32), stain, rng)

    assert np.abs(glass - empty_glass((16, 24), stain)).max() <= 1
    assert np.abs(optical_density(glass, stain)).max() < 0.01


def test_more_dye_is_darker_and_haematoxylin_is_bluer_than_eosin():
    rng = np.random.default_rng(2)
    stain = clean(he_stain(rng))
    field = np.zeros((1, 3, 3), np.float32)
    field[0, 0, 0], field[0, 1, 0], field[0, 2, 1] = 0.5, 1.0, 0.5
    thin, thick, eosin = develop(field, stain, rng)[0].astype(int)

    assert (thick < thin).all()
    assert thin[2] - thin[0] > eosin[2] - eosin[0]


def test_noise_and_blur_do_what_they_say():
    rng = np.random.default_rng(3)
    base = clean(he_stain(rng))
    noisy = Stain(base.dyes, base.matrix, base.white_3, (0.0, 0.0), 0.0, 3.0)
    soft = Stain(base.dyes, base.matrix, base.white_3, (0.0, 0.0), 2.0, 0.0)
    field = np.zeros((64, 64, 3), np.float32)
    field[:, 32:, 0] = 1.0

    spread = (develop(field, noisy, rng)[:, :24].astype(float)).std(axis=(0, 1))
    edge = develop(field, soft, rng)[32, :, 0].astype(float)

    assert spread.min() > 1.5
    assert spread.max() < 3.5
    assert np.abs(np.diff(edge)).max() < 0.3 * (edge.max() - edge.min())


@pytest.mark.parametrize("scale", [0.5, 3.0, 17.0])
def test_texture_is_standardised_and_as_coarse_as_asked(scale):
    field = texture(np.random.default_rng(4), (150, 210), scale)
    step = max(int(scale), 1)
    close = float((field[:, :-step] * field[:, step:]).mean())

    assert field.shape == (150, 210)
    assert field.mean() == pytest.approx(0, abs=1e-3)
    assert field.std() == pytest.approx(1, abs=1e-3)
    assert close < 0.95
    if scale > 1:
        assert close > 0.5
