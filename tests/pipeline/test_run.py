"""The spine with stages that take no time: order, resumption, what is done again, failures of the disk."""

import errno
import json
import logging
from pathlib import Path

import pytest

from malpighi.errors import ConfigError, DataError, UserError
from malpighi.pipeline import run as spine
from malpighi.pipeline.context import StageResult
from malpighi.pipeline.folder import RunFolder
from malpighi.pipeline.recipe import with_settings
from malpighi.pipeline.run import stage_inputs
from malpighi.recipes.mini import mini
from malpighi.records import Failure

pytestmark = pytest.mark.usefixtures("untouched_process")
run = spine.run
NAMES = ["data", "build", "align", "supervise", "reinforce", "classify", "evaluate", "report"]


class Heard:
    """A listener that remembers."""

    def __init__(self):
        self.said = []

    def started(self, stage, *, resumed):
        self.said.append((stage, "goes on" if resumed else "begins"))

    def progressed(self, done, total, text):
        self.said.append((done, total, text))

    def finished(self, stage, seconds, *, skipped):
        self.said.append((stage, "kept" if skipped else "done"))

    def of(self, *kinds):
        return [said[0] for said in self.said if said[1] in kinds]


@pytest.fixture
def worked(monkeypatch):
    """Stages that write one file each; the names of those at work, in order. Give one a fault by its name."""
    names, faults = [], {}

    def runner(context, stage, work):
        names.append(context.name)
        left = work / "left.txt"
        before = left.read_text() if left.is_file() else ""
        left.write_text(before + "x")
        if context.name in faults:
            raise faults.pop(context.name)
        context.tell(1, 1, "all")
        failures = [Failure("cell-7", "data", "zero bytes")] if context.name == "data" else []
        return StageResult(failures, {"before": before})

    for kind in spine.RUNNERS:
        monkeypatch.setitem(spine.RUNNERS, kind, runner)
    return names, faults


def recipe(*settings):
    return with_settings(mini("smoke"), settings)


def test_all_stages_run_in_order(tmp_path, worked):
    heard = Heard()
    result = run(recipe(), tmp_path / "run", heard)
    assert worked[0] == NAMES == heard.of("done") == list(result.seconds)
    assert result.failures == [Failure("cell-7", "data", "zero bytes")]
    assert all(result.folder.done(name) for name in NAMES)
    assert json.loads((tmp_path / "run" / "recipe.json").read_text())["environment"]["torch"]
    log = result.folder.log.read_text()
    assert "stage data is finished after 0.0 s, 1 failed items" in log


def test_what_is_finished_is_kept(tmp_path, worked):
    run(recipe(), tmp_path, Heard())
    worked[0].clear()
    heard = Heard()
    again = run(recipe(), tmp_path, heard)
    assert worked[0] == []
    assert heard.of("kept") == NAMES
    assert again.failures == [Failure("cell-7", "data", "zero bytes")]
    assert "stage report is finished already; kept" in again.folder.log.read_text()


def test_a_failed_stage_goes_on_where_it_was(tmp_path, worked):
    names, faults = worked
    faults["align"] = DataError("the loss became nan")
    with pytest.raises(DataError, match="the loss became nan"):
        run(recipe(), tmp_path, Heard())
    folder = RunFolder(tmp_path)
    assert [folder.state(name)["state"] for name in NAMES[:4]] == [
        "finished",
        "finished",
        "half done",
        "to do",
    ]
    heard = Heard()
    run(recipe(), tmp_path, heard)
    assert names == ["data", "build", "align", *NAMES[2:]]
    assert (heard.of("kept"), heard.of("goes on")) == (["data", "build"], ["align"])
    assert folder.done("align").notes == {"before": "x"}
    assert folder.done("supervise").notes == {"before": ""}


def test_a_changed_setting_does_again_what_depends_on_it(tmp_path, worked):
    names, _ = worked
    run(recipe(), tmp_path, Heard())
    names.clear()
    run(recipe("supervise.train.steps=9"), tmp_path, Heard())
    assert names == ["supervise", "reinforce", "evaluate", "report"]
    names.clear()
    run(recipe("supervise.train.steps=9", "classify.train.steps=5"), tmp_path, Heard())
    assert names == ["classify", "evaluate", "report"]


def changed(*settings):
    before, after = stage_inputs(recipe()), stage_inputs(recipe(*settings))
    return [name for name in NAMES if before[name] != after[name]]


@pytest.mark.parametrize(
    ("setting", "stages"),
    [
        ("report.draws=10", ["report"]),
        ("evaluate.batch_size=3", ["evaluate", "report"]),
        ("classify.train.steps=5", ["classify", "evaluate", "report"]),
        ("reinforce.train.beta=0.1", ["reinforce", "evaluate", "report"]),
        ("align.train.steps=5", ["align", "supervise", "reinforce", "evaluate", "report"]),
        ("build.size.layers=1", [name for name in NAMES if name not in ("data", "classify")]),
        ("data.max_boxes=5", NAMES),
        ("seed=1", NAMES),
        ("threads=2", NAMES),
        ("prompt.think=false", NAMES),
        ("segmenter=boxes", ["reinforce", "evaluate", "report"]),
        ("title=Another", []),
    ],
)
def test_a_setting_changes_its_stage_and_what_depends_on_it(setting, stages):
    assert changed(setting) == stages


def test_a_segmenter_that_is_compared_with_nothing_changes_nothing():
    boxes = ("reinforce.tasks=[detection]", "evaluate.tasks=[detection, vqa]")
    assert stage_inputs(recipe(*boxes)) == stage_inputs(recipe(*boxes, "segmenter=boxes"))


def test_the_files_of_the_segmenter_count(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "sam"}')
    (tmp_path / "model.safetensors").write_bytes(b"12")
    one = stage_inputs(recipe(f"segmenter={tmp_path}"))
    (tmp_path / "model.safetensors").write_bytes(b"123")
    other = stage_inputs(recipe(f"segmenter={tmp_path}"))
    assert [name for name in NAMES if one[name] != other[name]] == ["reinforce", "evaluate", "report"]


def test_a_segmenter_that_is_none_starts_nothing(tmp_path, worked):
    with pytest.raises(ConfigError, match="set segmenter to classical, boxes, or the folder of a SAM"):
        run(recipe("segmenter=medsam"), tmp_path / "run", Heard())
    assert worked[0] == []


def test_the_files_of_the_data_count(tmp_path):
    data = tmp_path / "herlev"
    data.mkdir()
    (data / "a.png").write_bytes(b"12")
    one = stage_inputs(mini("smoke", data=str(data)))
    assert stage_inputs(mini("smoke", data=str(data))) == one
    (data / "a.png").write_bytes(b"123")
    other = stage_inputs(mini("smoke", data=str(data)))
    assert all(one[name] != other[name] for name in NAMES)
    with pytest.raises(ConfigError, match=r"there is no folder .*; give --data a data set"):
        stage_inputs(mini("smoke", data=str(tmp_path / "missing")))


def test_a_recipe_that_does_not_hold_together_starts_nothing(tmp_path, worked):
    stages = dict(reversed(mini("smoke").stages.items()))
    broken = type(mini("smoke"))(name="r", size="s", title="t", prompt=mini("smoke").prompt, stages=stages)
    with pytest.raises(ConfigError, match="stage 'report' needs 'data'"):
        run(broken, tmp_path / "run", Heard())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "is full; free space"),
        (errno.EDQUOT, "is full; free space"),
        (errno.EACCES, "give --work a folder that you may write to"),
        (errno.EPERM, "give --work a folder that you may write to"),
        (errno.EROFS, "give --work a folder that you may write to"),
    ],
)
def test_failures_of_the_disk_say_what_to_do(tmp_path, worked, number, words):
    worked[1]["align"] = OSError(number, "the system's words")
    with pytest.raises(UserError, match=words) as caught:
        run(recipe(), tmp_path, Heard())
    assert str(tmp_path) in str(caught.value)
    assert run(recipe(), tmp_path, Heard()).seconds.keys() == set(NAMES)


def test_a_full_disk_is_found_behind_another_librarys_error(tmp_path, worked, monkeypatch):
    worked[1]["align"] = RuntimeError("PytorchStreamWriter failed writing file")
    free = type(spine.shutil.disk_usage(tmp_path))(total=100, used=100, free=0)
    monkeypatch.setattr(spine.shutil, "disk_usage", lambda path: free)
    with pytest.raises(UserError, match="is full; free space"):
        run(recipe(), tmp_path, Heard())


def test_other_errors_stay_what_they_are(tmp_path, worked):
    worked[1]["align"] = RuntimeError("a bug of ours")
    with pytest.raises(RuntimeError, match="a bug of ours"):
        run(recipe(), tmp_path, Heard())
    worked[1]["align"] = OSError(errno.EIO, "Input/output error")
    with pytest.raises(OSError, match="Input/output error"):
        run(recipe(), tmp_path, Heard())
    worked[1]["align"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run(recipe(), tmp_path, Heard())


@pytest.mark.parametrize("below", ["file", "file/run", "file/deep/run"])
def test_a_work_folder_that_cannot_be_made_is_refused(tmp_path, worked, below):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write in"):
        run(recipe(), tmp_path / below, Heard())
    assert worked[0] == []


def test_a_second_run_in_the_same_folder_is_refused(tmp_path, worked):
    with RunFolder(tmp_path).locked(), pytest.raises(UserError, match="another run is at work in"):
        run(recipe(), tmp_path, Heard())


def test_warnings_of_libraries_go_to_the_log_of_this_run_alone(tmp_path, worked):
    for name in ("one", "two"):
        run(recipe(), tmp_path / name, Heard())
        logging.getLogger("somebody").warning("said during %s", name)
    one, two = ((tmp_path / name / "logs" / "run.log").read_text() for name in ("one", "two"))
    assert "said during one" in one
    assert "said during two" not in one
    assert "said during two" in two


def test_what_transformers_says_goes_to_the_log_too(tmp_path, worked, capsys):
    run(recipe(), tmp_path, Heard())
    logging.getLogger("transformers.trainer").warning("said by the trainer")
    assert "said by the trainer" in (tmp_path / "logs" / "run.log").read_text()
    assert "said by the trainer" not in capsys.readouterr().err


def test_the_environment_says_what_it_ran_on():
    found = spine.environment()
    assert {
        "malpighi",
        "commit",
        "python",
        "machine",
        "device",
        "torch",
        "transformers",
        "trl",
    } <= found.keys()
    assert all(isinstance(value, str) and value for value in found.values())
    assert not any(str(Path.cwd()) in value for value in found.values())


def test_a_stage_that_needs_no_other_is_run_ahead(worked, tmp_path, monkeypatch):
    """Which process it runs in does not matter: its turn comes, it is finished, and it is not run again."""
    names, _ = worked
    early = []

    def at_once(function, context, inputs):
        early.append((context.name, context.workers))
        function(context, inputs)
        return Ended()

    monkeypatch.setattr(spine.ahead, "start", at_once)
    heard = Heard()
    result = spine.run(recipe(), tmp_path, heard, workers=2)
    assert early == [("classify", 1)]
    assert names == ["data", "classify", "build", "align", "supervise", "reinforce", "evaluate", "report"]
    assert heard.of("done") == NAMES
    assert list(result.seconds) == NAMES


class Ended:
    exitcode = 0

    def is_alive(self):
        return False

    def join(self):
        pass
