"""The mini recipe as a user runs it: one command, killed or not, on the phantom or on damaged real data."""

import html
import json
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

from malpighi.pipeline.context import Context
from malpighi.pipeline.evaluating import chosen_samples
from malpighi.pipeline.folder import RunFolder
from malpighi.recipes.mini import mini
from malpighi.records import Prediction, from_json

ROOT = Path(os.environ.get("MALPIGHI_TEST_DATA", Path(__file__).parents[2] / "../shared/data"))
SCRIPT = Path(sys.executable).with_name("malpighi")
MODELS = ["majority", "cnn", "untrained", "aligned", "supervised", "reinforced"]

# Small enough to be run several times over.
LEAST = [
    *("data.phantom.cells=36", "data.phantom.regions=36", "align.train.steps=2", "supervise.train.steps=4"),
    *("reinforce.train.steps=2", "reinforce.train.prompts=2", "reinforce.train.group=2"),
    *("reinforce.train.micro_batch=4", "classify.train.steps=2", "classify.train.batch_size=4"),
    *("align.train.save_every=1", "supervise.train.save_every=1", "reinforce.train.save_every=1"),
    *("align.train.batch_size=16", "supervise.train.batch_size=16"),
    *("evaluate.per_exam=2", "evaluate.batch_size=4", "report.draws=100"),
]


class Ended(NamedTuple):
    code: int
    out: str
    err: str
    seconds: float


def malpighi(*arguments, timeout=900):
    start = time.monotonic()
    done = subprocess.run(
        [SCRIPT, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=timeout
    )
    return Ended(done.returncode, done.stdout, done.stderr, time.monotonic() - start)


def run(work, *settings, data=None):
    chosen = [part for setting in ("size=smoke", *settings) for part in ("--set", setting)]
    return malpighi("run", "mini", "--work", work, *chosen, *(["--data", data] if data else []))


def predictions(work):
    """Bytes of every predictions file by model."""
    files = (work / "predictions").glob("*.jsonl")
    return {path.stem: path.read_bytes() for path in files if not path.stem.endswith(".failures")}


def rows(work, model):
    data = (work / "predictions" / f"{model}.jsonl").read_bytes()
    return [from_json(line, Prediction) for line in data.splitlines()]


def assert_whole(work):
    """Every model has one row per chosen test sample, the classifier per sample with options."""
    folder = RunFolder(work)
    recipe = folder.recipe()
    context = Context(recipe, folder, "evaluate", lambda *_: None)
    chosen = [s.id for s in chosen_samples(context, recipe.stages["evaluate"])]
    assert len(chosen) >= 6
    assert sorted(predictions(work)) == sorted(MODELS)
    for model in ("majority", "untrained", "aligned", "supervised", "reinforced"):
        assert [row.sample for row in rows(work, model)] == chosen
    asked = [row.sample for row in rows(work, "cnn")]
    assert len(asked) >= 3
    assert set(asked) < set(chosen)


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    work = tmp_path_factory.mktemp("smoke") / "run"
    return work, run(work)


def test_one_command_does_everything(smoke):
    work, ended = smoke
    assert (ended.code, ended.err) == (0, "")
    for name in mini("smoke").stages:
        assert re.search(rf"{name}\s+done", ended.out)
    assert "report.html" in ended.out
    assert_whole(work)


def test_the_report_is_one_self_contained_page(smoke):
    page = (smoke[0] / "report.html").read_text()
    assert page.lstrip().lower().startswith("<!doctype html>")
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!data:|#)""", page)
    assert "url(http" not in page
    assert page.count("data:image/") >= 10
    assert "Not a medical device" in page
    text = html.unescape(page)
    assert all(model in text for model in MODELS)
    assert str(smoke[0].parent) not in text


def test_every_stage_tells_what_it_did(smoke):
    folder = RunFolder(smoke[0])
    for name in folder.recipe().stages:
        done = folder.done(name)
        assert done.seconds > 0
        assert done.notes
    for name in ("align", "supervise", "reinforce", "classify"):
        curve = [json.loads(line) for line in (folder.stage(name) / "curves.jsonl").read_text().splitlines()]
        assert curve
        assert all(row["step"] > 0 for row in curve)
    assert "Traceback" not in folder.log.read_text()


def test_experts_answer_their_own_tasks_and_the_base_the_rest(smoke):
    base = {row.sample: row for row in rows(smoke[0], "supervised")}
    answered = rows(smoke[0], "reinforced")
    boxes = [row for row in answered if row.task in ("detection", "segmentation")]
    assert {row.adapter for row in boxes} == {"detection", "segmentation"}
    assert all(row.adapter == row.task for row in boxes)
    others = [row for row in answered if row not in boxes]
    assert len(others) > len(boxes)
    assert all((row.adapter, row.text) == ("", base[row.sample].text) for row in others)


def test_the_router_of_a_run_says_why(smoke):
    ended = malpighi("route", smoke[0], "Segment glands in pathology region.", "--json")
    assert json.loads(ended.out)["adapter"] == "segmentation"
    ended = malpighi("route", smoke[0], "Write a poem about the sea.", "--json")
    assert json.loads(ended.out)["adapter"] == ""


def test_the_results_as_json(smoke):
    ended = malpighi("report", smoke[0], "--json")
    told = json.loads(ended.out)
    assert (ended.code, ended.err, told["failures"]) == (0, "", [])
    assert Path(told["report"]) == smoke[0] / "report.html"
    assert sorted(told["results"]["models"]) == sorted(MODELS)


def test_the_status_says_finished(smoke):
    ended = malpighi("status", smoke[0], "--json")
    assert {stage["state"] for stage in json.loads(ended.out)["stages"]} == {"finished"}


def test_the_model_can_be_asked(smoke, tmp_path):
    Image.new("RGB", (90, 70), "orchid").save(tmp_path / "cell.png")
    ended = malpighi("ask", smoke[0], tmp_path / "cell.png", "Is the nucleus enlarged?", "--json")
    told = json.loads(ended.out)
    assert (ended.code, ended.err, told["model"]) == (0, "", "reinforced")
    assert "Not a medical device" in told["notice"]


def test_the_same_command_again_keeps_everything(smoke):
    work, _ = smoke
    before, page = predictions(work), (work / "report.html").read_bytes()
    again = run(work)
    assert (again.code, again.err) == (0, "")
    assert again.out.count("kept, was finished") == len(mini("smoke").stages)
    assert (predictions(work), (work / "report.html").read_bytes()) == (before, page)


@pytest.mark.slow
def test_the_other_family_does_everything_too(tmp_path):
    ended = run(tmp_path / "run", "family=qwen3_vl", *LEAST)
    assert ended.code == 0
    assert_whole(tmp_path / "run")
    assert RunFolder(tmp_path / "run").done("build").notes["family"] == "qwen3_vl"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kill -9")
@pytest.mark.parametrize("family", ["qwen3_vl", "qwen2_5_vl"])
def test_a_run_killed_at_any_moment_ends_with_the_same_bytes(tmp_path, family):
    least = [f"family={family}", *LEAST]
    straight, killed, rng = tmp_path / "straight", tmp_path / "killed", random.Random(5)
    chosen = [part for setting in ("size=smoke", *least) for part in ("--set", setting)]
    assert malpighi("run", "mini", "--work", straight, "--workers", "1", *chosen).code == 0
    settings = [part for setting in ("size=smoke", *least) for part in ("--set", setting)]
    deaths = 0
    for stage in ("data", "align", "supervise", "reinforce", "evaluate"):
        process = subprocess.Popen(
            [SCRIPT, "run", "mini", "--work", killed, "--workers", "2", *settings],
            stdout=subprocess.PIPE,
            text=True,
        )
        with process:
            # Not by the clock alone: how long a stage takes depends on what else the machine does.
            for line in process.stdout:
                if re.search(rf"{stage}\s+\.\.\.", line):
                    break
            time.sleep(rng.uniform(0.0, 3.0))
            process.send_signal(signal.SIGKILL)
        deaths += process.returncode == -signal.SIGKILL
    assert deaths >= 3
    assert run(killed, *least).code == 0
    assert predictions(killed) == predictions(straight)
    for stage in ("align", "supervise", "reinforce", "classify"):
        assert weights(killed, stage) == weights(straight, stage)


def weights(work, stage):
    """Bytes of the model, or of each expert, that a stage left."""
    folder = RunFolder(work).stage(stage)
    files = [*folder.glob("model/*.safetensors"), *folder.glob("experts/*/*.safetensors")]
    files += folder.glob("experts/experts.json")
    assert files
    return {path.relative_to(folder): path.read_bytes() for path in files}


def png_bomb(side):
    """A PNG that says it is `side` x `side` px and holds next to nothing."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(4096))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.fixture
def damaged(tmp_path):
    """Copies of three small real data sets with planted faults: (folder, id -> words of the reason)."""
    if not ROOT.is_dir():
        pytest.skip(f"no real data: {ROOT} is missing; set MALPIGHI_TEST_DATA")
    data = tmp_path / "data"
    for name in ("herlev", "crc_val_he_7k", "pathology_atlas"):
        shutil.copytree(ROOT / name, data / name)
    return data, plant(data)


def plant(data):
    tiles = sorted((data / "crc_val_he_7k").rglob("*.jpg"))
    cells = sorted((data / "herlev").rglob("*.jpg"))
    cells[0].write_bytes(cells[0].read_bytes()[:300])
    cells[1].write_bytes(b"")
    bomb = tiles[0].with_name(f"{tiles[0].stem}.png")
    bomb.write_bytes(png_bomb(30_000))
    path = data / "pathology_atlas" / "captions.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    captioned = next(
        r for r in records if r.get("titleEN") and (data / "pathology_atlas" / r["image"]).is_file()
    )
    captioned["titleEN"] = ""
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return {
        cells[0].stem: "",
        cells[1].stem: "empty",
        bomb.stem: "",
        captioned["id"]: "the caption is empty",
    }


@pytest.mark.slow
@pytest.mark.realdata
def test_damaged_real_data_are_set_aside_by_name(damaged, tmp_path):
    data, planted = damaged
    ended = run(tmp_path / "run", *LEAST, data=data)
    assert ended.code == 3
    assert "Traceback" not in ended.err
    failures = json.loads(malpighi("report", tmp_path / "run", "--json").out)["failures"]
    page = html.unescape((tmp_path / "run" / "report.html").read_text())
    for stem, words in planted.items():
        (failure,) = [f for f in failures if stem in f["id"]]
        assert words in failure["reason"]
        assert failure["id"] in page
        assert failure["reason"] in page
    assert f"{len(failures)} items failed" in ended.out
    assert_whole(tmp_path / "run")


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "lacking"),
    [
        ("herlev", {"align/caption", "reinforce/detection", "reinforce/segmentation"}),
        ("bccd", {"align/caption", "classify/classification+vqa", "reinforce/segmentation"}),
    ],
)
def test_data_of_one_kind_are_enough(tmp_path, name, lacking):
    if not (ROOT / name).is_dir():
        pytest.skip(f"no real data: {ROOT / name} is missing; set MALPIGHI_TEST_DATA")
    ended = run(tmp_path / "run", *LEAST, data=ROOT / name)
    assert ended.code == 3
    failures = json.loads(malpighi("report", tmp_path / "run", "--json").out)["failures"]
    assert {failure["id"] for failure in failures if failure["stage"] != "data"} == lacking
    assert all(name in ended.out for name in lacking)
    assert (tmp_path / "run" / "report.html").is_file()
    assert len({len(rows(tmp_path / "run", model)) for model in ("untrained", "reinforced")}) == 1
