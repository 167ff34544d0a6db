import pickle

import numpy as np
import pytest
from PIL import Image

from malpighi.errors import DataError, MissingScaleError
from malpighi.geometry import Region
from malpighi.slides.opening import open_slide
from malpighi.slides.slide import Damage


def test_the_phantom_opens_with_its_scale_and_levels(phantom):
    path, truth = phantom
    with open_slide(path) as slide:
        assert slide.size == (truth.rgb.shape[1], truth.rgb.shape[0])
        assert slide.mpp == pytest.approx(0.5, rel=1e-3)
        assert [level.downsample for level in slide.levels] == pytest.approx([1, 2, 4], rel=0.01)


def test_pixels_are_those_that_were_written(phantom):
    path, truth = phantom
    with open_slide(path) as slide:
        found = slide.read_level(0, (300, 200), (256, 128))
    assert np.abs(found.astype(int) - truth.rgb[200:328, 300:556]).mean() < 4  # JPEG


def test_a_reduced_read_is_the_mean_over_areas(phantom):
    path, truth = phantom
    with open_slide(path) as slide:
        found = slide.read(Region(0, 0, 1536, 1024), (96, 64)).astype(float)
    areas = truth.rgb.reshape(64, 16, 96, 16, 3).mean(axis=(1, 3))
    assert np.abs(found - areas).mean() < 2


def test_outside_is_white(phantom):
    with open_slide(phantom[0]) as slide:
        found = slide.read(Region(-100, -100, 200, 200), (100, 100))
    assert (found[:49, :49] == 255).all()


def test_bands_change_nothing(phantom, monkeypatch):
    with open_slide(phantom[0]) as slide:
        straight = slide.read(Region(10.5, 7.25, 1001, 803), (333, 217))
        monkeypatch.setattr("malpighi.slides.slide._BAND_PIXELS", 20_000)
        banded = slide.read(Region(10.5, 7.25, 1001, 803), (333, 217))
    assert np.abs(straight.astype(int) - banded).max() <= 1


def test_a_scale_is_never_assumed(phantom, tmp_path):
    Image.new("RGB", (40, 30), "red").save(tmp_path / "plain.png")
    with open_slide(tmp_path / "plain.png") as slide:
        assert (slide.mpp, slide.facts.mpp_source) == (None, "")
        with pytest.raises(MissingScaleError):
            slide.read_at((0, 0), (8, 8), mpp=1.0)
    with open_slide(tmp_path / "plain.png", mpp=0.5) as slide:
        assert (slide.read_at((0, 0), (20, 15), mpp=1.0) == (255, 0, 0)).all()
        assert slide.facts.mpp_source == "given"


def test_a_slide_travels_between_processes(phantom):
    with open_slide(phantom[0], mpp=0.4) as slide, pickle.loads(pickle.dumps(slide)) as other:
        assert other.facts == slide.facts
        assert (other.read(other.whole, (50, 40)) == slide.read(slide.whole, (50, 40))).all()


def test_nothing_to_read_is_refused(phantom, tmp_path):
    with open_slide(phantom[0]) as slide, pytest.raises(DataError, match="no extent"):
        slide.read(Region(0, 0, 0, 5), (3, 3))
    with pytest.raises(DataError, match="there is no slide"):
        open_slide(tmp_path / "none.svs")


def test_damage_counts_a_tile_once():
    damage = Damage()
    damage.mark(0, 1, 2, "cut short")
    damage.mark(0, 1, 2, "again")
    assert (len(damage), list(damage)) == (1, [((0, 1, 2), "cut short")])
