import numpy as np
import pytest
from msgspec.structs import replace
from scipy.ndimage import binary_dilation, binary_erosion, label

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


FOLDED = SlideSettings(width=900, height=700, mpp=0.5, folds=True, bubbles=True, pieces=2)


@pytest.mark.parametrize("stain", ["he", "ihc"])
def test_folds_are_denser_than_what_they_lie_on_and_change_nothing_else(stain):
    settings = replace(FOLDED, stain=stain, bubbles=False)
    folded, flat = render_slide(6, settings), render_slide(6, replace(settings, folds=False))
    assert folded.folds.mean() > 0.003
    assert (folded.tissue | ~folded.folds).all()
    assert not flat.folds.any()
    assert folded.rgb[folded.folds].mean() < flat.rgb[folded.folds].mean() - 15
    away = ~binary_dilation(folded.folds, iterations=8)
    assert np.abs(folded.rgb.astype(int) - flat.rgb)[away].max() <= 1


def test_bubbles_have_dark_rims_and_are_softer_inside():
    airy, clear = (
        render_slide(6, replace(FOLDED, folds=False)),
        render_slide(6, replace(FOLDED, folds=False, bubbles=False)),
    )
    assert 0.01 < airy.bubbles.mean() < 0.4
    assert not clear.bubbles.any()
    deep = binary_erosion(airy.bubbles, iterations=30)
    rim = airy.bubbles & ~binary_erosion(airy.bubbles, iterations=16)
    assert airy.rgb[rim].mean() < clear.rgb[rim].mean() - 30
    assert sharpness(airy.rgb, deep) < 0.8 * sharpness(clear.rgb, deep)
    away = ~binary_dilation(airy.bubbles, iterations=20)
    assert (airy.rgb[away] == clear.rgb[away]).all()


@pytest.mark.parametrize("pieces", [0, 1, 3])
def test_there_are_as_many_pieces_as_asked_for(pieces):
    slide = render_slide(2, SlideSettings(width=900, height=600, pieces=pieces, blur=True, folds=True))
    assert label(slide.tissue)[1] == pieces
    if pieces == 0:
        assert not slide.folds.any()
        assert not slide.blurred.any()
        assert slide.rgb.astype(int).std(axis=(0, 1)).max() < 12


@pytest.mark.parametrize("stain", ["ihc", "pap"])
def test_other_stains_have_tissue_where_the_mask_says(stain):
    slide = render_slide(2, SlideSettings(width=900, height=700, mpp=0.5, stain=stain))
    glass = np.median(slide.rgb[~slide.tissue], axis=0)
    away = np.abs(slide.rgb.astype(float) - glass).max(axis=2)
    assert away[slide.tissue].mean() > 2 * away[~slide.tissue].mean()
    assert (away[~slide.tissue] > 45).mean() < 0.005
    assert slide.tissue.any()


def test_an_immunostain_is_brown_in_places_and_a_smear_has_much_glass():
    brown = render_slide(2, SlideSettings(width=900, height=700, stain="ihc")).rgb.astype(int)
    assert ((brown[..., 0] - brown[..., 2]) > 40).mean() > 0.02
    smear = render_slide(2, SlideSettings(width=900, height=700, stain="pap"))
    assert 0.02 < smear.tissue.mean() < 0.35
    assert not smear.tumour.any()


def test_the_glass_has_the_colour_asked_for():
    slide = render_slide(2, SlideSettings(width=700, height=600, pieces=0, glass=(200, 190, 150)))
    assert slide.rgb.mean(axis=(0, 1)) == pytest.approx((200, 190, 150), abs=3)


@pytest.mark.parametrize("bad", [{"stain": "pas"}, {"pieces": 9}, {"glass": (0, 0, 0)}])
def test_stains_pieces_and_glass_out_of_range_are_refused(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        render_slide(0, SlideSettings(**bad))
