"""The command line as a user meets it: what it prints, where, and with which exit status."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from malpighi.pipeline.folder import Done, RunFolder
from malpighi.recipes.mini import mini

pytestmark = pytest.mark.usefixtures("untouched_process")
SCREEN_LINES = 24


@pytest.fixture
def half_run(tmp_path):
    """A run folder whose first stage is finished."""
    folder = RunFolder(tmp_path / "half")
    folder.root.mkdir()
    folder.write_recipe(mini("smoke"), {})
    folder.begin("data", "x")
    folder.finish("data", Done(inputs="x", seconds=70.0), [])
    folder.begin("build", "x")
    return folder.root


def assert_mendable(result, *words):
    """A mistake a user can mend: status 2, one screen on stderr, no traceback, nothing on stdout."""
    code, out, err = result
    assert (code, out) == (2, "")
    assert len(err.splitlines()) <= SCREEN_LINES
    assert "Traceback" not in err
    flat = " ".join(err.replace("│", " ").split())
    for word in words:
        assert word in flat


@pytest.mark.parametrize("command", [[], ["run"], ["plan"], ["ask"], ["data", "check"], ["phantom"]])
def test_help_is_there_for_every_command(malpighi, command):
    code, out, _ = malpighi(*command, "--help")
    assert code == 0
    assert "Usage: malpighi" in out


def test_help_says_what_it_is_not_for(malpighi):
    assert "Not a medical device" in " ".join(malpighi("--help")[1].split())


def test_the_installed_command_works_and_loads_no_torch():
    script = Path(sys.executable).with_name("malpighi")
    done = subprocess.run([script, "--help"], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    code = "import sys, malpighi.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run"], ["Missing argument", "RECIPE"]),
        (["run", "mini", "--colour", "red"], ["No such option", "--colour"]),
        (["fly"], ["No such command"]),
        (["run", "mimi"], ["there is no recipe 'mimi'; did you mean mini?"]),
        (["plan", "mimi"], ["did you mean mini?"]),
        (["run", "mini", "--set", "size=huge"], ["mini has no size 'huge'; take demo, smoke, real"]),
        (["run", "mini", "--set", "sede=3"], ["there is no setting 'sede'; did you mean seed"]),
        (["run", "mini", "--set", "align.train.steps=many"], ["steps: Expected `int`, got `str`"]),
        (["run", "mini", "--set", "seed=three"], ["--set seed=three: expected int"]),
        (["status", "no/such/run"], ["no/such/run is not a run folder", "malpighi run mini"]),
        (["report", "no/such/run"], ["is not a run folder"]),
        (["data", "check", "herlef", "."], ["unknown data set 'herlef'; known:"]),
        (["phantom", "sheet.png", "--count", "1"], ["--count"]),
        (["phantom", "no/such/folder/sheet.png", "--count", "2"], ["cannot write in no/such/folder"]),
    ],
)
def test_mistakes_are_explained_on_one_screen(malpighi, arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_mendable(malpighi(*arguments), *words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "command",
    [
        "run",
        pytest.param("plan"),
    ],
)
def test_a_missing_data_folder_is_named(malpighi, tmp_path, command):
    result = malpighi(command, "mini", "--data", tmp_path / "slides", "--work", tmp_path / "run")
    assert_mendable(result, "there is no folder", "slides; give --data a data set")


def test_a_folder_without_known_data_sets_is_named(malpighi, tmp_path):
    (tmp_path / "mine").mkdir()
    result = malpighi("plan", "mini", "--data", tmp_path / "mine")
    assert_mendable(result, "holds no known data set; expected folders named", "herlev")


@pytest.mark.parametrize("work", ["file/run", "file"])
def test_a_work_folder_that_cannot_be_made_is_named(malpighi, tmp_path, work):
    (tmp_path / "file").write_text("")
    result = malpighi("run", "mini", "--set", "size=smoke", "--work", tmp_path / work)
    assert_mendable(result, "cannot write in")


def test_an_unfinished_run_has_no_report(malpighi, half_run):
    assert_mendable(malpighi("report", half_run), "has no report yet; finish the run with: malpighi run mini")


def test_asking_with_a_missing_picture(malpighi, half_run):
    build = RunFolder(half_run)
    build.begin("reinforce", "x")
    build.finish("reinforce", Done(inputs="x", seconds=1.0), [])
    result = malpighi("ask", half_run, half_run / "none.png", "Why?")
    assert_mendable(result, "cannot read the picture", "none.png: No such file or directory")


def test_asking_a_model_that_is_not_trained(malpighi, half_run, tmp_path):
    Image.new("RGB", (50, 50)).save(tmp_path / "cell.png")
    assert_mendable(malpighi("ask", half_run, tmp_path / "cell.png", "Why?"), "is not trained yet in")


def test_the_status_tells_every_stage(malpighi, half_run):
    code, out, _ = malpighi("status", half_run)
    assert code == 0
    states = {line.split()[0]: line for line in out.splitlines() if line.split()[:1] and line[0] != " "}
    assert "finished" in states["data"]
    assert "1 min 10 s" in states["data"]
    assert "half done" in states["build"]
    assert "to do" in states["report"]


def test_the_status_as_json(malpighi, half_run):
    code, out, err = malpighi("status", half_run, "--json")
    stages = json.loads(out)["stages"]
    assert (code, err) == (0, "")
    assert [stage["stage"] for stage in stages] == list(mini().stages)
    assert stages[0] == {"stage": "data", "state": "finished", "seconds": 70.0, "failed": 0}


def test_a_plan_names_every_stage_and_runs_nothing(malpighi, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = malpighi("plan", "mini", "--set", "size=smoke", "--work", "there")
    assert code == 0
    assert all(name in out for name in mini().stages)
    assert "To go: about" in out
    assert list(tmp_path.iterdir()) == []


def test_a_plan_as_json(malpighi):
    code, out, err = malpighi("plan", "mini", "--json", "--workers", 1, "--set", "reinforce.train.steps=7")
    told = json.loads(out)
    assert (code, err) == (0, "")
    assert [row["stage"] for row in told["stages"]] == list(mini().stages)
    assert told["stages"][4]["count"].startswith("2 adapters x 7 steps")
    assert told["workers"] == 1
    assert told["seconds"] == told["at_most"] == pytest.approx(sum(row["seconds"] for row in told["stages"]))


def test_a_plan_for_several_processes_with_its_bound(malpighi):
    _, out, _ = malpighi("plan", "controls", "--json", "--workers", 2)
    told = json.loads(out)
    assert told["workers"] == 2
    assert told["seconds"] < sum(row["seconds"] for row in told["stages"])
    assert told["at_most"] > told["seconds"]
    _, out, _ = malpighi("plan", "controls", "--workers", 2)
    assert "with every round of resampling) with 2 processes" in " ".join(out.split())


def test_the_settings_with_their_sources(malpighi):
    code, out, _ = malpighi("settings", "mini", "--json", "--set", "reinforce.train.steps=7")
    rows = {row["setting"]: row for row in json.loads(out)["settings"]}
    assert code == 0
    assert rows["reinforce.train.steps"]["value"] == 7
    assert "SmartPath-R1" in rows["reinforce.train.epsilon"]["source"]
    assert malpighi("settings", "mini")[0] == 0


def test_the_data_sets_are_listed(malpighi):
    code, out, _ = malpighi("data", "list", "--json")
    rows = json.loads(out)["datasets"]
    assert code == 0
    assert {"herlev", "bccd"} <= {row["name"] for row in rows}
    assert all(row["licence"] and row["use"] and row["split"] for row in rows)
    assert "herlev" in malpighi("data", "list")[1]


def test_an_incomplete_data_set_is_told_by_the_exit_status(malpighi, tmp_path):
    herlev = tmp_path / "herlev" / "train" / "carcinoma_in_situ"
    herlev.mkdir(parents=True)
    code, _, err = malpighi("data", "check", "herlev", tmp_path / "herlev")
    assert code in (2, 3)
    assert "Traceback" not in err


def test_a_sheet_of_the_phantom(malpighi, tmp_path):
    sheet = tmp_path / "sheet.png"
    code, out, _ = malpighi("phantom", sheet, "--count", "4", "--seed", "5")
    assert code == 0
    with Image.open(sheet) as image:
        assert f"{image.width} x {image.height} px" in " ".join(out.split())


def test_words_of_users_are_no_markup(malpighi, tmp_path):
    _, _, err = malpighi("status", tmp_path / "[red]run[/]")
    assert "[red]run[/]" in err
