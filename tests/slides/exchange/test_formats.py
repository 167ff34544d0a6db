import json
import subprocess
import sys
from pathlib import Path

import pytest
import shapely

from malpighi.errors import ConfigError, DataError
from malpighi.slides.annotations import Annotation, Kind
from malpighi.slides.exchange import formats
from malpighi.slides.exchange.formats import (
    FORMATS,
    ExportSettings,
    export_slide,
    format_of,
    read_annotations,
    write_annotations,
)
from malpighi.slides.exchange.ngff_labels import read_ngff_labels
from malpighi.slides.opening import open_slide

RING = shapely.box(100, 100, 900, 700).difference(shapely.box(200, 200, 300, 300))
MARKS = [
    Annotation(geometry=RING, label="Tumor", score=0.5, kind=Kind.DETECTION),
    Annotation(geometry=shapely.box(1000, 500, 1500, 1000), label="Straße", score=0.25),
]
READABLE = [name for name, found in FORMATS.items() if found.read]


@pytest.mark.parametrize("name", READABLE)
def test_annotations_go_through_every_format(tmp_path, phantom, same, name):
    path = tmp_path / f"a{FORMATS[name].suffixes[0]}"
    with open_slide(phantom[0]) as slide:
        written = write_annotations(path, MARKS, slide, ExportSettings(source="", outlines=True))
        found = read_annotations(path, slide)
    assert written.count == 2
    assert found.failures == ()
    same(sorted(found.annotations, key=lambda mark: -mark.geometry.area), MARKS)


@pytest.mark.parametrize("name", FORMATS)
def test_a_slide_is_exported_into_every_format(tmp_path, phantom, name):
    with open_slide(phantom[0]) as slide:
        write_annotations(tmp_path / "phantom.geojson", MARKS, slide)
        row = export_slide(
            slide, tmp_path / "out", ExportSettings(source=f"{tmp_path}/{{name}}.geojson", format=name)
        )
    assert json.loads(json.dumps(row)) == row
    assert (row["read"], row["written"], row["failed"]) == (2, 2, 0)
    assert Path(row["file"]).exists()
    assert Path(row["file"]).parent == tmp_path / "out"
    assert format_of(Path(row["file"])) == name


def test_what_failed_and_what_was_lost_stands_in_the_row(tmp_path, phantom):
    features = [
        {"type": "Feature", "geometry": {"type": "Point", "coordinates": [5, 5]}, "properties": {}},
        {"type": "Feature", "geometry": None, "properties": {}},
        {"type": "Feature", "geometry": {"type": "Point", "coordinates": [9e5, 5]}, "properties": {}},
    ]
    (tmp_path / "phantom.json").write_text(json.dumps(features))
    with open_slide(phantom[0]) as slide:
        settings = ExportSettings(source=str(tmp_path / "{name}.json"), format="yolo")
        row = export_slide(slide, tmp_path / "out", settings)
    assert (row["read"], row["written"], row["failed"]) == (2, 0, 1)
    assert row["first_failure"].startswith("phantom.json#1: ")
    assert "beyond the edge of phantom.tiff" in row["notes"]
    assert "Point left out" in row["notes"]


def test_labels_and_heat_maps_are_of_the_annotations(tmp_path, phantom):
    with open_slide(phantom[0]) as slide:
        write_annotations(tmp_path / "a.ome.zarr", MARKS, slide, ExportSettings(source="", step=2))
        write_annotations(tmp_path / "a.heat.tif", MARKS, slide)
        with pytest.raises(DataError, match="none of 2 annotations has a 'area'"):
            write_annotations(tmp_path / "b.tif", MARKS, slide, ExportSettings(source="", column="area"))
    assert read_ngff_labels(tmp_path / "a.ome.zarr")[0][0].shape == (512, 768)
    with open_slide(tmp_path / "a.heat.tif") as shown:
        assert shown.size == (16, 11)  # a step of 100 px: all edges lie on it


def test_formats_are_known_by_ending_and_by_content(tmp_path):
    for name, expected in (
        ("a.GEOJSON", "geojson"), ("a.geojson.gz", "geojson"), ("a.json", "coco"), ("a.coco.json", "coco"),
        ("a.dcm", "dicom-ann"), ("a.seg.dcm", "dicom-seg"), ("x.sr.dcm", "dicom-sr"),
        ("a.parquet", "parquet"),
        ("a.ome.zarr", "ngff-labels"), ("a.tif", "heat-map"), ("a.txt", "yolo"),
    ):  # fmt: skip
        assert format_of(tmp_path / name) == expected
    (tmp_path / "a.json").write_text('{"type": "FeatureCollection", "features": []}')
    assert format_of(tmp_path / "a.json") == "geojson"
    (tmp_path / "a.json").write_text('{"images": [], "annotations": []}')
    assert format_of(tmp_path / "a.json") == "coco"
    with pytest.raises(DataError, match=r"no format ends so.*\.geojson"):
        format_of(Path("a.xml"))


def test_dicom_is_told_by_its_modality(tmp_path, phantom):
    with open_slide(phantom[0]) as slide:
        for kind in ("ann", "seg", "sr"):
            write_annotations(tmp_path / f"a.{kind}.dcm", MARKS, slide)
            (tmp_path / f"a.{kind}.dcm").rename(tmp_path / f"{kind}.dcm")
            assert format_of(tmp_path / f"{kind}.dcm") == f"dicom-{kind}"
        with pytest.raises(DataError, match="holds pixels and no annotations"):
            read_annotations(tmp_path / "seg.dcm", slide)
    (tmp_path / "b.dcm").write_bytes(b"x" * 300)
    with pytest.raises(DataError, match=r"b\.dcm is DICOM of modality"):
        read_annotations(tmp_path / "b.dcm")


def test_what_cannot_be_done_is_said(tmp_path, phantom, monkeypatch):
    with pytest.raises(DataError, match="check the path"):
        read_annotations(tmp_path / "none.geojson")
    with open_slide(phantom[0]) as slide:
        write_annotations(tmp_path / "a.coco.json", MARKS, slide)
        with pytest.raises(DataError, match="say of which slide"):
            read_annotations(tmp_path / "a.coco.json")
        with pytest.raises(ConfigError, match=r"no format 'svg'; choose from geojson"):
            export_slide(slide, tmp_path, ExportSettings(source="x", format="svg"))
        with pytest.raises(ConfigError, match=r"only \{name\} and \{folder\}"):
            export_slide(slide, tmp_path, ExportSettings(source="{case}.json"))
        monkeypatch.setattr(formats, "HAS_DICOM", False)
        with pytest.raises(ConfigError, match=r"malpighi\[dicom\]"):
            write_annotations(tmp_path / "a.ann.dcm", MARKS, slide)


def test_without_the_extra_the_other_formats_work():
    code = (
        "import sys; sys.modules['highdicom'] = None\n"
        "from malpighi.slides.exchange import formats\n"
        "assert not formats.HAS_DICOM and formats.FORMATS['geojson'].read"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
