import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from malpighi.geometry import Region
from malpighi.slides.area import mean_over_areas
from malpighi.slides.opening import open_slide


@given(
    st.integers(1, 40), st.integers(1, 40), st.floats(0, 0.6), st.floats(0, 0.6),
    st.integers(1, 9), st.integers(1, 9), st.integers(0, 9),
)  # fmt: skip
def test_every_pixel_is_the_mean_of_what_it_covers(wide, high, left, top, columns, rows, seed):
    """Against the same picture with every pixel made 20 x 20 of it."""
    rgb = np.random.default_rng(seed).integers(0, 256, (high, wide, 3), dtype=np.uint8)
    fine = np.repeat(np.repeat(rgb, 20, axis=0), 20, axis=1).astype(float)
    x0, y0 = round(left * wide * 20), round(top * high * 20)
    columns, rows = min(columns, max(1, wide - x0 // 20)), min(rows, max(1, high - y0 // 20))
    width, height = (wide * 20 - x0) // columns, (high * 20 - y0) // rows
    box = (x0 / 20, y0 / 20, (x0 + width * columns) / 20, (y0 + height * rows) / 20)
    if width < 20 or height < 20:
        return
    part = fine[y0 : y0 + height * rows, x0 : x0 + width * columns]
    wanted = part.reshape(rows, height, columns, width, 3).mean(axis=(1, 3))
    assert np.abs(mean_over_areas(rgb, (columns, rows), box) - wanted).max() <= 0.51


@pytest.mark.parametrize("size", [(512, 341), (300, 200), (77, 51)])
def test_parts_fit_without_a_seam(phantom, monkeypatch, size):
    with open_slide(phantom[0]) as slide:
        straight = slide.read(Region(0, 0, 1536, 1024), size)
        monkeypatch.setattr("malpighi.slides.slide._BAND_PIXELS", 30_000)
        monkeypatch.setattr("malpighi.slides.slide._BAND_ROWS", 64)
        parts = slide.read(Region(0, 0, 1536, 1024), size)
    assert np.abs(straight.astype(int) - parts).max() <= 1
