"""Pictures as slides: how large they may be."""

import pytest
from PIL import Image

from malpighi.errors import DataError
from malpighi.slides.picture_slide import MAX_PIXELS, PictureSlide


def test_pictures_of_the_size_of_jpeg_slides_are_taken_and_larger_ones_refused(tmp_path, monkeypatch):
    Image.new("RGB", (40, 30), "red").save(tmp_path / "a.jpg")
    with PictureSlide(tmp_path / "a.jpg") as slide:
        assert slide.size == (40, 30)
    assert MAX_PIXELS >= 20_000**2
    monkeypatch.setattr("malpighi.slides.picture_slide.MAX_PIXELS", 1199)
    with pytest.raises(DataError, match="1199 px allowed"):
        PictureSlide(tmp_path / "a.jpg")
