import pytest

from malpighi.phantom.slides import SlideSettings, render_slide, write_slide


@pytest.fixture(scope="session")
def phantom(tmp_path_factory):
    """(path, what is exactly known about it) of a small phantom slide, mpp 0.5."""
    slide = render_slide(3, SlideSettings(width=1536, height=1024, mpp=0.5))
    path = tmp_path_factory.mktemp("slides") / "phantom.tiff"
    write_slide(slide, path)
    return path, slide
