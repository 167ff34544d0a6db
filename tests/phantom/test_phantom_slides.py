import numpy as np
import pytest

from malpighi.errors import ConfigError

tifffile = pytest.importorskip("tifffile", reason="needs the extra `slides`")
openslide = pytest.importorskip("openslide", reason="needs the extra `slides`")

from malpighi.phantom.slides import SlideSettings, render_slide, write_slide  # noqa: E402

SMALL = SlideSettings(width=1100, height=900, mpp=0.5)


@pytest.fixture(scope="module")
def plain():
    return render_slide(3, SMALL)


@pytest.fixture(scope="module")
def file(plain, tmp_path_factory):
    path = tmp_path_factory.mktemp("slides") / "phantom.tiff"
    write_slide(plain, path)
    return path


def sharpness(rgb, mask):
    grey = rgb.mean(axis=2)
    return float(np.abs(np.diff(grey, axis=1))[mask[:, 1:]].mean())


def test_openslide_reads_levels_scale_and_pixels(file, plain):
    with openslide.OpenSlide(file) as slide:
        assert slide.level_dimensions == ((1100, 900), (550, 450), (275, 225))[: slide.level_count]
        assert slide.level_count == 3
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.5)
        assert float(slide.properties["openslide.mpp-y"]) == pytest.approx(0.5)
        seen = np.asarray(slide.read_region((300, 300), 0, (400, 300)).convert("RGB")).astype(float)
    assert np.abs(seen - plain.rgb[300:600, 300:700]).mean() < 4


def test_every_level_is_tiled_and_states_its_own_resolution(file):
    with tifffile.TiffFile(file) as tiff:
        assert [page.is_tiled for page in tiff.pages] == [True] * 3
        assert [page.tags["XResolution"].value[0] for page in tiff.pages] == [20000, 10000, 5000]
        assert [page.tags["NewSubfileType"].value for page in tiff.pages] == [0, 1, 1]
        assert {page.compression.name for page in tiff.pages} == {"JPEG"}


def test_the_tissue_mask_is_where_the_picture_is_not_glass(plain):
    glass = np.median(plain.rgb[~plain.tissue], axis=0)
    coloured = np.abs(plain.rgb.astype(float) - glass).max(axis=2) > 25
    assert coloured[plain.tissue].mean() > 0.75
    assert coloured[~plain.tissue].mean() < 0.005
    assert 0.3 < plain.tissue.mean() < 0.55


def test_tumour_is_inside_the_tissue_and_only_on_demand(plain):
    assert plain.tumour.any()
    assert (plain.tissue | ~plain.tumour).all()
    assert not render_slide(3, SlideSettings(width=600, height=600, tumour=False)).tumour.any()


def test_pen_and_blur_are_there_on_demand_only(plain):
    marked = render_slide(3, SlideSettings(width=1100, height=900, mpp=0.5, pen=True, blur=True))
    untouched = ~marked.pen & ~marked.blurred

    assert not plain.pen.any()
    assert not plain.blurred.any()
    assert marked.pen.mean() > 0.01
    assert marked.rgb[marked.pen].mean() < plain.rgb[marked.pen].mean() - 40
    both = marked.blurred & marked.tissue & ~marked.pen
    assert sharpness(marked.rgb, both) < 0.5 * sharpness(plain.rgb, both)
    assert np.abs(marked.rgb.astype(int) - plain.rgb)[untouched].mean() < 0.6


def test_a_slide_is_the_same_again(plain):
    assert (render_slide(3, SMALL).rgb == plain.rgb).all()
    assert (render_slide(4, SMALL).rgb != plain.rgb).any()


@pytest.mark.parametrize("bad", [{"width": 100}, {"height": 90_000}, {"mpp": 5.0}])
def test_sizes_and_scales_out_of_range_are_refused(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        render_slide(0, SlideSettings(**bad))
