import json
import subprocess
import sys

import msgspec
import pytest

from malpighi.errors import UserError
from malpighi.pipeline.folder import Done, RunFolder
from malpighi.recipes.mini import mini
from malpighi.records import Failure


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "run")


def finish(folder, name, inputs, **notes):
    part = folder.begin(name, inputs)
    (part / "result.txt").write_text(inputs)
    failures = [Failure("a/1", name, "zero bytes")] if notes.pop("failed", False) else []
    done = Done(inputs=inputs, seconds=folder.spent(name, 1.5), failures=len(failures), notes=notes)
    folder.finish(name, done, failures)


def test_a_stage_is_done_when_its_folder_has_its_name(folder):
    part = folder.begin("data", "abc")
    assert folder.done("data") is None
    assert not folder.stage("data").exists()
    assert part == folder.part("data")
    finish(folder, "data", "abc", samples=3)
    assert folder.done("data") == Done(inputs="abc", seconds=1.5, notes={"samples": 3})
    assert json.loads((folder.stage("data") / "done.json").read_text())["inputs"] == "abc"
    assert not folder.part("data").exists()


def test_a_killed_stage_goes_on_with_what_it_left(folder):
    (folder.begin("align", "abc") / "checkpoint").write_text("half")
    assert (folder.begin("align", "abc") / "checkpoint").read_text() == "half"


def test_other_inputs_drop_what_a_killed_stage_left(folder):
    (folder.begin("align", "abc") / "checkpoint").write_text("half")
    assert not (folder.begin("align", "xyz") / "checkpoint").exists()


def test_a_working_folder_killed_at_birth_is_dropped(folder):
    folder.part("align").mkdir(parents=True)
    (folder.part("align") / "left").write_text("?")
    assert not (folder.begin("align", "abc") / "left").exists()


def test_a_stage_killed_between_its_last_word_and_its_name_is_not_done(folder):
    part = folder.begin("data", "abc")
    (part / "done.json").write_bytes(msgspec.json.encode(Done(inputs="abc", seconds=1.0)))
    assert folder.done("data") is None
    assert folder.state("data")["state"] == "half done"


def test_a_stage_done_again_replaces_the_old_one(folder):
    finish(folder, "data", "abc", failed=True)
    (folder.stage("data") / "old").write_text("old")
    finish(folder, "data", "xyz")
    assert folder.done("data").inputs == "xyz"
    assert not (folder.stage("data") / "old").exists()
    assert folder.failures("data") == []


def test_time_adds_up_over_attempts(folder):
    folder.begin("align", "abc")
    folder.spent("align", 2.0)
    folder.begin("align", "abc")
    assert folder.spent("align", 0.5) == 2.5
    assert folder.spent("align") == 2.5
    folder.begin("align", "xyz")
    assert folder.spent("align") == 0.0


def test_the_state_of_a_stage(folder):
    assert folder.state("data") == {"stage": "data", "state": "to do", "seconds": 0.0, "failed": 0}
    folder.begin("data", "abc")
    folder.spent("data", 2.0)
    assert folder.state("data") == {"stage": "data", "state": "half done", "seconds": 2.0, "failed": 0}
    finish(folder, "data", "abc", failed=True)
    assert folder.state("data") == {"stage": "data", "state": "finished", "seconds": 3.5, "failed": 1}


def test_failed_items_are_kept_by_id(folder):
    assert folder.failures("data") == []
    finish(folder, "data", "abc", failed=True)
    assert folder.failures("data") == [Failure("a/1", "data", "zero bytes")]


def test_the_recipe_comes_back_as_it_was(folder):
    folder.root.mkdir()
    folder.write_recipe(mini("smoke", seed=4), {"torch": "2"})
    assert folder.recipe() == mini("smoke", seed=4)
    assert folder.environment() == {"torch": "2"}


def test_a_folder_without_recipe_is_no_run(folder):
    with pytest.raises(UserError, match=r"is not a run folder \(no recipe.json\); start one with"):
        folder.recipe()


@pytest.mark.parametrize(
    "text",
    ['{"version": 1, "recipe": {"name": "x"}}', "{", "[]"],
)
def test_a_damaged_recipe_is_refused(folder, text):
    folder.root.mkdir()
    (folder.root / "recipe.json").write_text(text)
    with pytest.raises(UserError, match=r"recipe\.json"):
        folder.recipe()


def test_a_recipe_of_another_version_is_refused(folder):
    folder.root.mkdir()
    folder.write_recipe(mini("smoke"), {})
    path = folder.root / "recipe.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 99}))
    with pytest.raises(UserError, match="99"):
        folder.recipe()


HOLD = """
import sys
from pathlib import Path
from malpighi.errors import UserError
from malpighi.pipeline.folder import RunFolder
try:
    with RunFolder(Path(sys.argv[1])).locked():
        print("held", flush=True)
        sys.stdin.readline()
except UserError as error:
    print(error)
"""


def holder(folder):
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder.root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_two_processes_never_work_in_one_folder(folder):
    with holder(folder) as first:
        assert first.stdout.readline() == "held\n"
        with holder(folder) as second:
            said = second.communicate("\n", timeout=60)[0]
            assert "another run is at work in" in said
        first.kill()
    with folder.locked():
        pass
