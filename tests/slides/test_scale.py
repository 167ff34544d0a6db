from pathlib import Path

import numpy as np
import pytest
import tifffile

from malpighi.errors import ConfigError, DataError
from malpighi.slides.opening import open_slide
from malpighi.slides.scale import (
    Scale,
    Stated,
    from_imaged_volume,
    from_ome,
    from_pixel_spacing,
    from_properties,
    from_resolution,
    given_scale,
    objective_of,
    read_scales,
    scale_of,
)

OME = '<?xml version="1.0"?><OME xmlns="x"><Image><Pixels SizeX="5" {}/></Image></OME>'


def write(path, **options):
    rgb = np.full((128, 128, 3), 200, np.uint8)
    tifffile.imwrite(path, rgb, tile=(64, 64), photometric="rgb", metadata=None, **options)
    return path


@pytest.mark.parametrize(
    ("options", "mpp"),
    [
        ({"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"}, 0.5),
        ({"resolution": (101_600, 101_600), "resolutionunit": "INCH"}, 0.25),
        ({"resolution": (20_000, 20_000), "resolutionunit": "NONE"}, None),
        ({"resolution": (72, 72), "resolutionunit": "INCH"}, None),
        ({"resolution": (96, 96), "resolutionunit": "INCH"}, None),
        ({"resolution": (1, 1), "resolutionunit": "CENTIMETER"}, None),
        ({}, None),
    ],
)
@pytest.mark.parametrize("check", [True, False])
def test_resolution_tags_count_only_with_a_unit_and_in_reason(tmp_path, options, mpp, check):
    with open_slide(write(tmp_path / "a.tif", **options), check=check) as slide:
        assert slide.mpp == (None if mpp is None else pytest.approx(mpp))
        assert slide.facts.mpp_source == ("" if mpp is None else "tiff.XResolution")


def test_what_was_refused_is_noted(tmp_path):
    path = write(tmp_path / "a.tif", resolution=(72, 72), resolutionunit="INCH")
    with open_slide(path) as slide:
        assert any("352.778" in note for note in slide.facts.notes)


def test_the_order_of_sources(tmp_path):
    text = "Aperio Image\r\n|AppMag = 40|MPP = 0.2520"
    options = {"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER", "description": text}
    path = write(tmp_path / "a.svs", **options)
    found = []
    for given in ({"mpp": 0.3, "scales": {"a.svs": 0.4}}, {"scales": {"a": 0.4}}, {"scales": {"b": 1.0}}, {}):
        with open_slide(path, **given) as slide:
            found.append((slide.mpp, slide.facts.mpp_source))
    assert found == [(0.3, "given"), (0.4, "table"), (0.252, "aperio.MPP"), (0.252, "aperio.MPP")]


def test_an_unusable_source_gives_way_to_the_next():
    stated = [Stated("aperio.MPP", float("nan"), 1), Stated("x", 0, 0), Stated("y", 0.5, 0.6)]
    scale = scale_of(Scale(), stated)
    assert (scale.mpp, scale.source) == (pytest.approx(0.55), "y")
    assert [note.split()[0] for note in scale.notes] == ["aperio.MPP", "x", "pixels"]
    assert scale_of(Scale(), stated[:2])[:2] == (None, "")


@pytest.mark.parametrize(
    ("attributes", "mpp"),
    [
        ('PhysicalSizeX="0.25" PhysicalSizeY="0.25"', 0.25),
        ('PhysicalSizeX="250" PhysicalSizeXUnit="nm" PhysicalSizeY="0.00025" PhysicalSizeYUnit="mm"', 0.25),
        ('PhysicalSizeX="1" PhysicalSizeXUnit="pixel" PhysicalSizeY="1" PhysicalSizeYUnit="pixel"', None),
        ('PhysicalSizeX="wide" PhysicalSizeY="0.25"', None),
        ('PhysicalSizeX="0.25"', None),
        ("", None),
    ],
)
def test_ome_states_a_size_with_its_unit(attributes, mpp):
    found = scale_of(Scale(), from_ome(OME.format(attributes))).mpp
    assert found == (None if mpp is None else pytest.approx(mpp))


def test_ome_that_would_unpack_itself_is_not_read():
    bomb = '<!DOCTYPE a [<!ENTITY b "c">]>' + OME.format('PhysicalSizeX="1" PhysicalSizeY="1"')
    assert from_ome(bomb) == []
    assert from_ome("<OME> torn") == []


def test_other_sources():
    assert scale_of(Scale(), from_pixel_spacing(0.0005, 0.0005)).mpp == pytest.approx(0.5)
    assert scale_of(Scale(), from_imaged_volume((10, 5), (20_000, 10_000))).mpp == pytest.approx(0.5)
    assert from_resolution((0.5, 0.5, 1)) == []
    vendor = {"openslide.mpp-x": "0.2", "openslide.mpp-y": "0,2", "openslide.vendor": "hamamatsu"}
    assert scale_of(Scale(), from_properties(vendor)) == (0.2, "openslide.mpp-x", ())
    assert objective_of({"openslide.objective-power": "20"}) == 20
    assert objective_of({"aperio.AppMag": "n/a", "openslide.objective-power": "inf"}) is None


def test_a_table_of_scales(tmp_path):
    table = tmp_path / "scales.csv"
    table.write_text("\ufeffslide,mpp,who\nä b.svs,0.25,x\nc,0.5,y\n", encoding="utf-8")
    assert read_scales(table) == {"ä b.svs": 0.25, "c": 0.5}
    assert given_scale(Path("in/ä b.svs"), None, read_scales(table)) == (0.25, "table", ())


@pytest.mark.parametrize(
    ("text", "told"),
    [("", "head"), ("a,b\n1,2\n", "head"), ("s,mpp\nx,\n", "line 2"), ("s,mpp\nx,1\ny,-1\n", "line 3"),
     ("s,mpp\nx\n", "line 2")],
)  # fmt: skip
def test_a_table_that_cannot_be_used_names_the_row(tmp_path, text, told):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=told):
        read_scales(tmp_path / "t.csv")
    with pytest.raises(DataError, match="not a readable table"):
        read_scales(tmp_path / "none.csv")


@pytest.mark.parametrize("mpp", [0.0, -1.0, float("nan"), float("inf")])
def test_a_given_scale_must_be_above_zero(tmp_path, mpp):
    with pytest.raises(ConfigError, match="above 0"):
        open_slide(write(tmp_path / "a.tif"), mpp=mpp)
