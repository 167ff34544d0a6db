import numpy as np
import pytest
import shapely
import zarr

from malpighi.errors import ConfigError, DataError
from malpighi.slides.annotations import Annotation
from malpighi.slides.exchange import ngff_labels
from malpighi.slides.exchange.ngff_labels import LabelSettings, read_ngff_labels, write_ngff_labels
from malpighi.slides.exchange.rasters import outline
from malpighi.slides.opening import open_slide

RING = shapely.box(100, 100, 900, 700).difference(shapely.box(200, 200, 300, 300))
MARKS = [
    Annotation(geometry=RING, label="Tumor", score=0.5, id="t", measurements={"area": 3.0, "bad": np.nan}),
    Annotation(geometry=shapely.box(600, 500, 1500, 1000), label="Stroma", color=(1, 2, 3)),
    Annotation(geometry=shapely.Point(5.5, 6.5), label="Mitose é"),
    Annotation(geometry=shapely.LineString([(0, 0), (9, 9)]), label="line"),
]


def painted(shape):
    labels = np.zeros(shape, dtype=np.uint32)
    labels[100:700, 100:900], labels[200:300, 200:300] = 1, 0
    labels[500:1000, 600:1500] = 2
    labels[6, 5] = 3
    return labels


def test_labels_lie_where_the_annotations_are(tmp_path, phantom):
    path = tmp_path / "a.ome.zarr"
    with open_slide(phantom[0]) as slide:
        written = write_ngff_labels(path, MARKS, slide)
        mpp = slide.mpp
    assert (written.count, written.notes) == (3, ("1 x line left out: labels are areas",))
    levels, properties = read_ngff_labels(path)
    expected = painted((1024, 1536))
    for number, level in enumerate(levels):
        np.testing.assert_array_equal(level[:], expected[:: 2**number, :: 2**number])
    assert [level.shape for level in levels] == [(1024, 1536), (512, 768), (256, 384)]
    assert outline(levels[0][:] == 1).equals(RING.difference(MARKS[1].geometry))
    assert properties[0] == {
        "label-value": 1, "class": "Tumor", "kind": "annotation", "id": "t", "score": 0.5, "area": 3.0,
    }  # fmt: skip
    told = zarr.open_group(path / "labels/annotations", mode="r").attrs["ome"]
    assert told["version"] == "0.5"
    assert [axis["unit"] for axis in told["multiscales"][0]["axes"]] == ["micrometer"] * 2
    second = told["multiscales"][0]["datasets"][1]["coordinateTransformations"]
    assert second[0]["scale"] == pytest.approx([2 * mpp] * 2)
    assert second[1]["translation"] == pytest.approx([mpp / 2] * 2)
    assert told["image-label"]["colors"][1] == {"label-value": 2, "rgba": [1, 2, 3, 255]}
    assert len({tuple(color["rgba"]) for color in told["image-label"]["colors"]}) == 3
    assert zarr.open_group(path / "labels", mode="r").attrs["ome"]["labels"] == ["annotations"]


def test_where_the_shards_end_does_not_matter(tmp_path, phantom, monkeypatch):
    monkeypatch.setattr(ngff_labels, "CHUNK", 64)
    monkeypatch.setattr(ngff_labels, "SHARD", 128)
    with open_slide(phantom[0]) as slide:
        write_ngff_labels(tmp_path / "a.ome.zarr", MARKS, slide)
    levels, _ = read_ngff_labels(tmp_path / "a.ome.zarr")
    assert len(levels) == 6
    np.testing.assert_array_equal(levels[0][:], painted((1024, 1536)))
    np.testing.assert_array_equal(levels[5][:], painted((1024, 1536))[::32, ::32])


def test_few_files_and_none_for_empty_glass(tmp_path):
    class Large:
        size, mpp = (30_000, 20_000), 0.25

    write_ngff_labels(tmp_path / "a.ome.zarr", [Annotation(geometry=shapely.box(10, 10, 90, 90))], Large())
    shards = [
        file for file in (tmp_path / "a.ome.zarr").rglob("*") if file.is_file() and file.name != "zarr.json"
    ]
    levels, _ = read_ngff_labels(tmp_path / "a.ome.zarr")
    assert len(shards) == len([level for level in levels if level[:100, :100].any()])
    assert len(levels) == 7


def test_values_by_class_and_coarser_labels(tmp_path, phantom):
    settings = LabelSettings(name="tissue", step=4, by="class")
    with open_slide(phantom[0]) as slide:
        slide.facts = type(slide.facts)(reader="x", levels=slide.facts.levels)
        write_ngff_labels(tmp_path / "a.ome.zarr", [*MARKS[:2], MARKS[0]], slide, settings)
    levels, properties = read_ngff_labels(tmp_path / "a.ome.zarr", "tissue")
    assert [told["class"] for told in properties] == ["Tumor", "Stroma"]
    assert [told["label-value"] for told in properties] == [2, 1]
    assert levels[0].shape == (256, 384)
    assert (levels[0][30, 30], levels[0][60, 60], levels[0][240, 300]) == (2, 0, 1)
    told = zarr.open_group(tmp_path / "a.ome.zarr/labels/tissue", mode="r").attrs["ome"]["multiscales"][0]
    assert told["axes"] == [
        {"name": "y", "type": "space"},
        {"name": "x", "type": "space"},
    ]  # no scale, no unit
    assert told["datasets"][0]["coordinateTransformations"][0]["scale"] == [4, 4]


def test_what_is_there_is_replaced_and_a_failure_leaves_it(tmp_path, phantom, monkeypatch):
    path = tmp_path / "a.ome.zarr"
    with open_slide(phantom[0]) as slide:
        write_ngff_labels(path, MARKS, slide)
        write_ngff_labels(path, MARKS[:1], slide)
        assert len(read_ngff_labels(path)[1]) == 1

        def fail(*_):
            raise RuntimeError

        monkeypatch.setattr(ngff_labels, "paint", fail)
        with pytest.raises(RuntimeError):
            write_ngff_labels(path, MARKS, slide)
    assert len(read_ngff_labels(path)[1]) == 1
    assert [folder.name for folder in tmp_path.iterdir()] == ["a.ome.zarr"]


def test_wrong_settings_and_folders_are_refused(tmp_path, phantom):
    with open_slide(phantom[0]) as slide:
        for wrong in (LabelSettings(step=0), LabelSettings(by="cell"), LabelSettings(name="a/b")):
            with pytest.raises(ConfigError):
                write_ngff_labels(tmp_path / "a.ome.zarr", MARKS, slide, wrong)
    with pytest.raises(DataError, match="no OME-Zarr label image 'annotations'"):
        read_ngff_labels(tmp_path)
