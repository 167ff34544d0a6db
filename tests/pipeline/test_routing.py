import json
import shutil

import pytest

from malpighi.errors import UserError
from malpighi.models.phrasings import OTHER, Phrase
from malpighi.models.prompt_classifier import fit
from malpighi.models.router import Limit, Limits, Router, RouterFile
from malpighi.models.task_groups import shipped_groups
from malpighi.pipeline.routing import experts_folder, route_in


@pytest.fixture(scope="module")
def experts(tmp_path_factory):
    """A folder of experts with a router of few words and one adapter."""
    folder = tmp_path_factory.mktemp("made") / "experts"
    limits = Limits(Limit(0.5, "our choice"), Limit(0.5, "our choice"), Limit(200, "our choice"))
    phrases = [
        Phrase(text, group, text)
        for text, group in (
            ("find the nuclei", "detection"),
            ("find the glands", "detection"),
            ("cook the rice", OTHER),
            ("cook the eggs", OTHER),
        )
    ]
    Router(RouterFile(1, shipped_groups(), {}, limits), fit(phrases, 1e-3, least=1)).save(folder)
    (folder / "detection").mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (folder / "detection" / name).write_bytes(b"")
    return folder


@pytest.fixture
def run(experts, tmp_path):
    shutil.copytree(experts, tmp_path / "run/stages/experts/experts")
    return tmp_path / "run"


def test_a_run_and_a_folder_mean_the_same(experts, run):
    assert route_in(run, "find the nuclei") == route_in(experts, "find the nuclei")
    assert route_in(run, "find the nuclei").adapter == "detection"


def test_an_unfinished_stage_has_no_experts(run):
    (run / "stages/experts").rename(run / "stages/experts.part")
    with pytest.raises(UserError, match=r"holds no experts: .*\(malpighi status tells\)"):
        experts_folder(run)


def test_several_stages_are_named(experts, run):
    shutil.copytree(experts, run / "stages/more/experts")
    with pytest.raises(
        UserError, match=r"of several stages; give one of: .*stages/experts/experts, .*stages/more/"
    ):
        experts_folder(run)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no folder .*nowhere; give a run folder or a folder of experts"):
        experts_folder(tmp_path / "nowhere")


def test_the_command_tells_adapter_step_and_reasons(malpighi, run):
    code, out, err = malpighi("route", run, "find the nuclei")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == ["detection", "by", "classifier"]
    assert any("speak for detection" in line for line in lines)
    assert "detection 0." in lines[-1]


def test_the_command_tells_that_the_base_answers(malpighi, run):
    code, out, _ = malpighi("route", run, "cook the rice")
    assert code == 0
    assert out.splitlines()[0].split() == ["base", "by", "fallback"]


def test_a_stated_task_without_adapter(malpighi, run):
    _, out, _ = malpighi("route", run, "x", "--task", "vqa")
    assert out.splitlines()[0].split() == ["base", "by", "task"]
    assert "there is no adapter for vqa" in out


def test_json_is_one_object(malpighi, run):
    code, out, _ = malpighi("route", run, "find the nuclei", "--json")
    told = json.loads(out)
    assert code == 0
    assert set(told) == {"adapter", "by", "group", "confidence", "reasons", "scores"}
    assert told["adapter"] == told["group"] == "detection"


def test_markup_in_a_prompt_is_shown_as_it_is(malpighi, run):
    code, out, _ = malpighi("route", run, "[red]find the nuclei[/red]")
    assert code == 0
    assert "[/]" not in out


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["nowhere", "x"], "no folder nowhere"),
        ([".", "x"], "holds no experts"),
        ([".", "x", "--task", "y"], "holds no"),
    ],
)
def test_mistakes_are_explained(malpighi, tmp_path, monkeypatch, arguments, word):
    monkeypatch.chdir(tmp_path)
    code, out, err = malpighi("route", *arguments)
    assert (code, out) == (2, "")
    assert word in " ".join(err.split())


def test_an_unknown_task_is_explained(malpighi, run):
    code, _, err = malpighi("route", run, "x", "--task", "counting")
    assert code == 2
    assert "unknown task 'counting'; the groups are classification" in " ".join(err.split())
