"""`malpighi slide` as a user meets it: what it prints, writes, and its exit status."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from malpighi.corpus import Corpus
from malpighi.phantom.slides import SlideSettings, render_slide, write_slide
from malpighi.slides.coordinates_h5 import read_coordinates
from malpighi.slides.listing import list_slides
from malpighi.slides.tile_table import read_tiles


@pytest.fixture(scope="session")
def scans(tmp_path_factory):
    """A folder of two phantom slides and one picture in TIFF that states no scale."""
    folder = tmp_path_factory.mktemp("scans")
    for seed in (1, 2):
        slide = render_slide(seed, SlideSettings(width=768, height=640, mpp=0.5))
        write_slide(slide, folder / f"slide-{seed}.tiff")
    Image.new("RGB", (600, 500), (200, 120, 160)).save(folder / "unscaled.tif")
    return folder


def summary(text):
    """The JSON object on stdout."""
    return json.loads(text)


@pytest.mark.parametrize("command", ["info", "read", "tissue", "tiles", "view", "cells"])
def test_every_command_has_help(malpighi, command):
    code, out, _ = malpighi("slide", command, "--help")
    assert code == 0
    assert "PATH..." in out


def test_help_loads_no_image_library():
    code = (
        "import sys, malpighi.cli\n"
        "sys.exit(any(name in sys.modules for name in ('cv2', 'openslide', 'tifffile', 'torch', 'h5py')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0


def test_info_tells_of_all_and_goes_on_after_a_bad_file(malpighi, scans, tmp_path):
    (tmp_path / "bad.svs").write_bytes(b"II*\0 nothing")
    code, out, _ = malpighi("slide", "info", scans, tmp_path / "bad.svs", "--json")
    assert code == 3
    told = summary(out)
    assert next((row["slide"], row["width"], row["mpp"]) for row in told["slides"]) == (
        "slide-1.tiff",
        768,
        0.5,
    )
    assert [row["mpp"] for row in told["slides"]][-1] is None
    assert [Path(failed["id"]).name for failed in told["failed"]] == ["bad.svs"]
    code, out, _ = malpighi("slide", "info", scans)
    assert code == 0
    assert "slide-2.tiff" in out
    assert "none" in out  # no scale, said in the table


def test_a_scale_can_be_given_by_table_or_option(malpighi, scans, tmp_path):
    (tmp_path / "scales.csv").write_text("slide,mpp\nunscaled.tif,0.25\n")
    code, out, _ = malpighi("slide", "info", scans, "--mpp-csv", tmp_path / "scales.csv", "--json")
    assert [row["mpp"] for row in summary(out)["slides"]] == pytest.approx([0.5, 0.5, 0.25], rel=1e-3)
    code, out, _ = malpighi("slide", "info", scans / "unscaled.tif", "--mpp", "1.5", "--json")
    assert (code, summary(out)["slides"][0]["mpp"]) == (0, 1.5)
    code, _, err = malpighi("slide", "info", scans, "--mpp", "-1")
    assert code == 2
    assert "--mpp -1.0" in err


def test_a_region_is_read_as_asked(malpighi, scans, tmp_path):
    ask = ("slide", "read", scans / "slide-1.tiff", "--region", "100,50,256,128")
    code, out, _ = malpighi(*ask, "--at", "1.0", "-o", tmp_path / "a", "--json")
    assert code == 0
    (row,) = summary(out)["finished"]
    assert (row["width"], row["height"], row["mpp"]) == (128, 64, 1.0)
    with Image.open(Path(row["folder"]) / "region.png") as region:
        picture = np.asarray(region)
    truth = render_slide(1, SlideSettings(width=768, height=640, mpp=0.5)).rgb[50:178, 100:356]
    small = truth.reshape(64, 2, 128, 2, 3).mean(axis=(1, 3))
    assert np.abs(picture - small).mean() < 3
    code, _, err = malpighi(*ask, "--size", "10by10", "-o", tmp_path / "b")
    assert code == 2
    assert "--size '10by10'" in err
    code, _, err = malpighi(*ask, "--size", "10x10", "--at", "2", "-o", tmp_path / "b")
    assert (code, "not both" in err) == (2, True)


def test_tiles_make_a_table_pictures_coordinates_and_patches(malpighi, scans, tmp_path):
    out = tmp_path / "out"
    ask = [
        "slide",
        "tiles",
        scans,
        "-o",
        out,
        "--size",
        "128",
        "--h5",
        "trident",
        "--quality",
        "--workers",
        "1",
    ]
    code, text, _ = malpighi(*ask, "--patches", tmp_path / "corpus", "--licence", "CC0-1.0", "--json")
    assert code == 3  # one slide states no scale
    told = summary(text)
    assert [Path(failed["id"]).name for failed in told["failed"]] == ["unscaled.tif"]
    assert "--mpp-csv" in told["failed"][0]["reason"]
    table = read_tiles(out / "tiles.parquet")
    assert len(table) == sum(row["tiles"] for row in told["finished"]) > 0
    assert set(table["damage"].to_pylist()) == {0}
    assert {"pen", "blur", "folds", "bubbles", "tile_focus", "tile_overall"} <= set(table.column_names)
    assert 0.5 < np.mean(table["tile_focus"].to_pylist()) <= 1
    assert min(table["tissue"].to_pylist()) >= 0.5
    for row in told["finished"]:
        with Image.open(Path(row["folder"]) / "contact.jpg") as contact:
            assert contact.size[0] == 768
        found = read_coordinates(out / "patches" / f"{Path(row['path']).stem}_patches.h5")
        assert len(found.corners) == row["tiles"]
    corpus = Corpus.open(tmp_path / "corpus")
    assert len(corpus) == len(table)
    assert {sample.licence for sample in corpus.samples()} == {"CC0-1.0"}

    again = ["slide", "tiles", *sorted(scans.glob("slide-*")), "-o", tmp_path / "again", "--from-h5"]
    code, text, _ = malpighi(*again, out / "patches", "--json", "--workers", "1")
    assert code == 0
    same = read_tiles(tmp_path / "again" / "tiles.parquet")
    assert same.select(["slide", "x", "y", "width"]).equals(table.select(["slide", "x", "y", "width"]))


def test_the_tissue_is_where_the_tiles_are(malpighi, scans, tmp_path):
    malpighi("slide", "tiles", scans / "slide-1.tiff", "-o", tmp_path / "o", "--size", "32", "--at", "1")
    truth = render_slide(1, SlideSettings(width=768, height=640, mpp=0.5)).tissue
    table = read_tiles(tmp_path / "o" / "tiles.parquet")
    inside = [truth[y : y + 64, x : x + 64].mean() for x, y in zip(*columns(table, "x", "y"), strict=True)]
    assert np.mean(inside) > 0.8
    assert len(table) * 64 * 64 > 0.85 * truth.sum()


def columns(table, *names):
    return [table[name].to_pylist() for name in names]


@pytest.mark.parametrize(
    ("verb", "options", "file", "figure"),
    [
        ("tissue", [], "overlay.jpg", "tissue_fraction"),
        (
            "view",
            ["--tokens", "64", "--family", "qwen2_5_vl", "--regions", "1"],
            "view.json",
            "tokens",
        ),
        ("cells", ["--ranked", "5"], "gallery.jpg", "slide"),
    ],
)
def test_every_step_leaves_its_files(malpighi, scans, tmp_path, verb, options, file, figure):
    slide = scans / "slide-1.tiff"
    code, text, _ = malpighi("slide", verb, slide, "-o", tmp_path / "o", "--workers", "1", "--json", *options)
    assert code == 0
    (row,) = summary(text)["finished"]
    assert (Path(row["folder"]) / file).is_file()
    assert row[figure]
    if verb == "view":
        assert row["tokens"] <= 64
        assert row["width"] % 28 == 0
    code, _, err = malpighi("slide", verb, slide, "-o", tmp_path / "p", "--set", "nothing=1")
    assert (code, "there is no setting 'nothing'" in err) == (2, True)


def test_annotations_are_exported_and_what_is_lost_is_told(malpighi, scans, tmp_path):
    square = {"type": "Polygon", "coordinates": [[[10, 20], [50, 20], [50, 60], [10, 60], [10, 20]]]}
    drawn = {"type": "Feature", "geometry": square, "properties": {"classification": {"name": "tumour"}}}
    spoilt = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": "none"}, "properties": {}}
    (tmp_path / "slide-1.geojson").write_text(
        json.dumps({"type": "FeatureCollection", "features": [drawn, spoilt]})
    )
    source = str(tmp_path / "{name}.geojson")
    asked = ["slide", "export", scans / "slide-1.tiff", "--from", source, "--to", "coco", "--json"]
    code, text, _ = malpighi(*asked, "-o", tmp_path / "o", "--workers", "1")
    told = summary(text)
    assert code == 3
    assert "1 features were left out" in told["failed"][0]["reason"]
    (row,) = told["finished"]
    coco = json.loads(next(Path(row["folder"]).glob("slide-1*.json")).read_text())
    assert coco["annotations"][0]["bbox"] == [10, 20, 40, 40]
    code, _, err = malpighi(*asked, "-o", tmp_path / "p", "--set", "format=svg")
    assert code == 2
    assert "no format 'svg'; choose from geojson" in " ".join(err.split())
    assert not (tmp_path / "p").exists()


def test_it_says_what_it_will_do_and_shows_what_it_did(malpighi, scans, tmp_path):
    code, text, _ = malpighi("slide", "tiles", scans, "-o", tmp_path / "o", "--workers", "2")
    flat = " ".join(text.split())
    assert code == 3
    assert "tiles: 3 slides" in flat
    assert "at most about 18 tiles" in flat
    assert "1 items failed and were set aside" in flat
    assert "slide-1.tiff" in flat
    code, text, _ = malpighi("slide", "tiles", scans, "-o", tmp_path / "o")
    assert "goes on from what is there" in " ".join(text.split())
    code, _, err = malpighi("slide", "tiles", scans, "-o", tmp_path / "o", "--size", "64")
    assert code == 2
    assert "other settings" in err


def test_mistakes_are_told_before_any_work(malpighi, scans, tmp_path):
    for wrong, words in (
        ([tmp_path / "none.svs"], "there is no slide"),
        ([tmp_path], "no slides there"),
        ([scans, "--overlap", "300"], "overlap 300"),
        ([scans, "--patches", tmp_path / "c"], "licence"),
    ):
        code, out, err = malpighi("slide", "tiles", *wrong, "-o", tmp_path / "o")
        assert (code, out) == (2, "")
        assert words in err
        assert not (tmp_path / "o").exists()
    assert malpighi("slide", "tiles", scans, "-o", tmp_path / "o", "--edges", "bend")[0] == 2


def test_slides_are_found_in_folders_and_by_patterns(tmp_path):
    for name in ("b.svs", "a.TIF", "c.png", "deep/d.ndpi", "dicom/1.dcm", "dicom/2.dcm", "e.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    names = [path.relative_to(tmp_path).as_posix() for path in list_slides([str(tmp_path)])]
    assert names == ["a.TIF", "b.svs", "deep/d.ndpi", "dicom"]
    assert [path.name for path in list_slides([f"{tmp_path}/*.png", f"{tmp_path}/b.svs"])] == [
        "c.png",
        "b.svs",
    ]
    assert len(list_slides([str(tmp_path / "b.svs"), str(tmp_path)])) == 4
    (tmp_path / "odd[1].svs").write_bytes(b"")
    assert list_slides([f"{tmp_path}/odd[1].svs"]) == [tmp_path / "odd[1].svs"]


def links(scans, folder, count):
    """Many slides that are links to few."""
    folder.mkdir()
    for number in range(count):
        (folder / f"s{number:03d}.tiff").symlink_to(scans / f"slide-{1 + number % 2}.tiff")
    return folder


def start(slides, out, *options):
    command = [Path(sys.executable).with_name("malpighi"), "slide", "tiles", slides, "-o", out, *options]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)


def finished(out):
    return len(list((out / "slides").glob("*/row.json")))


def events(out, name):
    lines = map(json.loads, (out / "log.jsonl").read_text().splitlines())
    return Counter(line["slide"] for line in lines if line["event"] == name)


def kill_at(count, slides, out, *options):
    process = start(slides, out, *options)
    end = time.monotonic() + 120
    while finished(out) < count:
        assert time.monotonic() < end
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize("count", [8, pytest.param(300, marks=pytest.mark.slow)])
def test_killed_twice_and_resumed_gives_the_same_parquet(malpighi, scans, tmp_path, count):
    slides = links(scans, tmp_path / "links", count)
    crew = ("--workers", "1" if count < 100 else "2")
    assert malpighi("slide", "tiles", slides, "-o", tmp_path / "straight", "--workers", "1")[0] == 0
    for part in (count // 4, count // 2):
        kill_at(part, slides, tmp_path / "killed", *crew)
    assert malpighi("slide", "tiles", slides, "-o", tmp_path / "killed", *crew)[0] == 0
    for name in ("tiles.parquet", "summary.csv", "manifest.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()
    assert finished(tmp_path / "killed") == count
    assert set(events(tmp_path / "killed", "done").values()) == {1}


@pytest.mark.parametrize("count", [10, pytest.param(300, marks=pytest.mark.slow)])
def test_two_processes_never_do_the_same_slide(scans, tmp_path, count):
    slides = links(scans, tmp_path / "links", count)
    both = [start(slides, tmp_path / "out", "--workers", "1") for _ in range(2)]
    assert [process.wait(600) for process in both] == [0, 0]
    for event in ("begun", "done"):
        claimed = events(tmp_path / "out", event)
        assert (len(claimed), set(claimed.values())) == (count, {1})
    assert len(read_tiles(tmp_path / "out" / "tiles.parquet")) > 0
