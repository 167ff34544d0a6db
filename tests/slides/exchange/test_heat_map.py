import json

import numpy as np
import openslide
import pyarrow as pa
import pytest
import tifffile

from malpighi.errors import ConfigError, DataError
from malpighi.geometry import Region
from malpighi.slides.exchange.heat_map import (
    COLORS,
    HeatMap,
    HeatMapSettings,
    halved,
    lay,
    palette,
    picture,
    write_heat_map,
)
from malpighi.slides.opening import open_slide


def table(*rows, names=("x", "y", "width", "height", "score")):
    return pa.table({name: list(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)})


TILES = table(
    (0, 0, 256, 256, 0.0), (256, 0, 256, 256, 1.0), (1280, 768, 256, 256, 0.5), (512, 0, 256, 256, np.nan)
)


def test_tiles_lie_where_they_are_on_the_slide():
    heat = lay(TILES, (1536, 1024), HeatMapSettings())
    assert heat.step == 256
    expected = np.full((4, 6), np.nan)
    expected[0, :2], expected[3, 5] = (0, 1), 0.5
    np.testing.assert_array_equal(heat.scores, expected)


def test_where_tiles_overlap_their_mean_counts():
    heat = lay(table((0, 0, 200, 100, 0.0), (100, 0, 200, 100, 1.0)), (300, 100), HeatMapSettings())
    np.testing.assert_allclose(heat.scores, [[0, 0.5, 1]])


@pytest.mark.parametrize("form", ["rgb", "rgba", "float32"])
@pytest.mark.parametrize("step", [0, 2])
def test_the_map_is_aligned_with_the_slide(tmp_path, phantom, form, step):
    settings = HeatMapSettings(form=form, step=step)
    with open_slide(phantom[0]) as slide:
        heat = lay(TILES, slide.size, settings)
        limits = write_heat_map(tmp_path / "heat.tif", heat, slide, settings)
        mpp = slide.mpp
    assert limits == {"low": 0.0, "high": 1.0}
    with tifffile.TiffFile(tmp_path / "heat.tif") as tiff:
        told = json.loads(tiff.pages[0].description)
        assert told["region"] == [0, 0, 1536, 1024]
        assert (told["step"], told["mpp"]) == (heat.step, pytest.approx(mpp * heat.step))
        assert [stop["score"] for stop in told["legend"]] == [0, 0.25, 0.5, 0.75, 1]
        assert tiff.pages[0].is_tiled
        if form == "float32":
            np.testing.assert_array_equal(tiff.pages[0].asarray(), heat.scores)
            return
    with open_slide(tmp_path / "heat.tif") as shown:
        factor = shown.size[0] / 1536
        if step:
            assert shown.mpp == pytest.approx(mpp * heat.step, rel=1e-3)
        else:  # 128 um to a pixel is no scale of a slide; what is taken for one ends near 20
            assert shown.mpp is None
        assert len(shown.levels) == (1 if step == 0 else 3)
        for x, y, score in ((128, 128, 0), (384, 128, 1), (1408, 896, 0.5)):
            seen = shown.read(Region(x * factor, y * factor, 0.5, 0.5), (1, 1))[0, 0]
            np.testing.assert_array_equal(seen, palette("viridis")[round(score * 255)])
        empty = shown.read(Region(700 * factor, 500 * factor, 0.5, 0.5), (1, 1))[0, 0]
        assert empty.tolist() == [255, 255, 255]


def test_openslide_opens_it(tmp_path, phantom):
    settings = HeatMapSettings(step=2, form="rgba")
    with open_slide(phantom[0]) as slide:
        write_heat_map(tmp_path / "heat.tif", lay(TILES, slide.size, settings), slide, settings)
    with openslide.OpenSlide(tmp_path / "heat.tif") as shown:
        assert shown.level_count == 3
        assert shown.level_dimensions[0] == (768, 512)
        assert shown.read_region((300, 300), 0, (1, 1)).getpixel((0, 0))[3] == 0  # no tile, see-through
        assert shown.read_region((10, 10), 0, (1, 1)).getpixel((0, 0)) == (*palette("viridis")[0], 255)


def test_coarser_levels_are_means_of_what_is_known():
    heat = np.array([[0, 1, np.nan], [np.nan, 0.5, np.nan]], dtype=np.float32)
    np.testing.assert_allclose(halved(heat), [[0.5, np.nan]])


@pytest.mark.parametrize("name", COLORS)
def test_lightness_rises_all_along_the_colours(name):
    lightness = palette(name) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness) > -1).all()
    assert lightness[-1] - lightness[0] > 100


def test_no_scale_no_resolution(tmp_path, phantom):
    with open_slide(phantom[0]) as slide:
        slide.facts = type(slide.facts)(reader="x", levels=slide.facts.levels)
        write_heat_map(
            tmp_path / "heat.tif", lay(TILES, slide.size, HeatMapSettings()), slide, HeatMapSettings()
        )
    with open_slide(tmp_path / "heat.tif") as shown:
        assert shown.mpp is None


def test_all_scores_alike_are_shown_as_the_lowest(tmp_path, phantom):
    with open_slide(phantom[0]) as slide:
        heat = HeatMap(np.full((4, 6), 0.3, dtype=np.float32), 256)
        limits = write_heat_map(tmp_path / "heat.tif", heat, slide, HeatMapSettings())
    assert limits == {"low": pytest.approx(0.3), "high": pytest.approx(1.3)}


def test_wrong_tables_and_settings_are_refused(tmp_path, phantom):
    with pytest.raises(DataError, match="no column 'score'; it has x, y, width, height, tumour"):
        lay(
            table((0, 0, 1, 1, 1), names=("x", "y", "width", "height", "tumour")), (10, 10), HeatMapSettings()
        )
    with pytest.raises(DataError, match="not of numbers"):
        lay(table((0, 0, 1, 1, "high")), (10, 10), HeatMapSettings())
    with pytest.raises(DataError, match="no finite places"):
        lay(table((0, 0, 1, 1, np.nan)), (10, 10), HeatMapSettings())
    with pytest.raises(ConfigError, match="raise step=1"):
        lay(TILES, (100_000, 100_000), HeatMapSettings(step=1))
    with open_slide(phantom[0]) as slide:
        heat = lay(TILES, slide.size, HeatMapSettings())
        for wrong, word in (
            ({"form": "gif"}, "form"),
            ({"colors": "jet"}, "jet"),
            ({"low": 2.0, "high": 1.0}, "low below high"),
        ):
            with pytest.raises(ConfigError, match=word):
                write_heat_map(tmp_path / "a.tif", heat, slide, HeatMapSettings(**wrong))
        with pytest.raises(DataError, match="the slide at step 256"):
            write_heat_map(tmp_path / "a.tif", HeatMap(np.zeros((3, 3)), 256), slide, HeatMapSettings())
        with pytest.raises(DataError, match="missing"):
            write_heat_map(
                tmp_path / "a.tif", HeatMap(np.full((4, 6), np.nan), 256), slide, HeatMapSettings()
            )
    assert list(tmp_path.iterdir()) == []


def test_large_slides_get_a_step_that_keeps_the_map_small():
    heat = lay(table((13, 7, 101, 97, 1.0)), (200_000, 200_000), HeatMapSettings())
    assert heat.step == 50
    assert picture(heat.scores[:2, :2], (0, 1), HeatMapSettings()).shape == (2, 2, 3)
