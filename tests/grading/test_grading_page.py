"""What docs/concepts/grading.md and docs/how-to/use-the-graders-elsewhere.md show is run."""

import importlib.util
import json
import re
import sys
import types
from pathlib import Path

import pytest

from malpighi.grading.conduct import Length
from malpighi.grading.elsewhere import RewardFunctions
from malpighi.grading.grade import Reading, grade
from malpighi.grading.reward import reward
from malpighi.grading.rows import read_sample
from malpighi.guidelines.pack import load_pack
from malpighi.records import TaskKind

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/concepts/grading.md").read_text(encoding="utf-8")
HOW_TO = (ROOT / "docs/how-to/use-the-graders-elsewhere.md").read_text(encoding="utf-8")
ROW = json.dumps({"id": 1, "task": "vqa", "answer": "yes"})
REPLY = "<think>x</think><answer>yes</answer>"


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("attacks_benchmark", ROOT / "benchmarks/attacks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_of_attacks_is_what_a_run_gives(benchmark):
    shown = [line for line in PAGE.splitlines() if " / " in line and line.startswith("| ")]
    assert shown == [line for line in benchmark.table() if not line.startswith("|---")]


def test_the_table_shows_no_robust_rise_and_some_published_ones(benchmark):
    cells = [cell.strip() for line in benchmark.table()[2:] for cell in line.split("|")[2:-1] if cell.strip()]
    robust, paper = zip(*(cell.split(" / ") for cell in cells), strict=True)
    assert not any("**" in value for value in robust)
    assert sum("**" in value for value in paper) > 10


def test_the_example_prints_what_its_comments_say(capsys):
    code = blocks(PAGE, "python")[0]
    exec(compile(code, "grading.md", "exec"), {})
    assert capsys.readouterr().out.splitlines() == re.findall(r"print\(.*\)  # (.*)", code)


def test_every_part_is_in_the_table():
    listed = set(
        re.findall(r"`(\w+)`", "\n".join(line for line in PAGE.splitlines() if line.startswith("| ")))
    )
    rows = [
        {"task": "classification", "options": ["a", "b"], "answer": "a"},
        {"task": "detection", "image_size": [9, 9], "answer": []},
        {"task": "caption", "answer": "x"},
    ]
    for row in rows:
        asked = read_sample(json.dumps({"id": 1, **row}))
        parts = grade(asked.sample, "a", Reading(asked.view)).parts
        assert {part for part in parts if not part.endswith(("30", "70"))} <= listed


def test_figures_named_in_passing():
    thirty = "melanoma " + " ".join(f"other{i}" for i in range(29))
    found = grade(read_sample(json.dumps({"id": 1, "task": "vqa", "answer": "melanoma"})).sample, thirty)
    assert found.parts["bleu4"] == pytest.approx(0.03, abs=0.005)
    assert found.parts["exact"] == 0.0


@pytest.mark.parametrize("line", blocks(HOW_TO, "json")[0].splitlines())
def test_every_row_shown_can_be_read(line):
    assert read_sample(line).sample.id == str(json.loads(line)["id"])


def test_the_files_for_other_trainers_work(monkeypatch):
    swift = types.ModuleType("swift.rewards")
    swift.orms = {}
    monkeypatch.setitem(sys.modules, "swift", types.ModuleType("swift"))
    monkeypatch.setitem(sys.modules, "swift.rewards", swift)
    files = {
        re.match(r"# \S+, for (\S+)", code)[1]: code
        for code in blocks(HOW_TO, "python")
        if code.startswith("# ")
    }
    spaces = {name: {} for name in files}
    for name, code in files.items():
        exec(compile(code, name, "exec"), spaces[name])
    assert set(files) == {"verl", "EasyR1", "ms-swift"}
    assert spaces["verl"]["compute_score"]("malpighi", REPLY, ROW)["score"] == 2.0
    given = [{"response": REPLY, "response_length": 9, "ground_truth": ROW}]
    assert spaces["EasyR1"]["compute_score"](given)[0]["overall"] == 2.0
    assert spaces["EasyR1"]["REWARD_TYPE"] == "batch"
    assert swift.orms["malpighi"](args=None)([REPLY], sample=[ROW]) == [2.0]


def test_the_terms_shown_are_accepted():
    space = {}
    exec(compile(blocks(HOW_TO, "python")[0], "terms", "exec"), space)
    assert isinstance(space["rewards"], RewardFunctions)
    assert space["rewards"].trl([REPLY], sample=[ROW]) == [2.0]


def test_the_weights_shown_can_be_weighed():
    shown = re.search(r"classification: \{(.*)\}", PAGE)[1]
    weights = {name: float(value) for name, value in re.findall(r"(\w+): (-?[\d.]+)", shown)}
    row = {"id": 1, "task": "classification", "options": ["NILM", "HSIL"], "answer": "HSIL"}
    reading = Reading(length=Length(2_000, 2_048, 512), pack=load_pack("tbs"))
    found = grade(read_sample(json.dumps(row)).sample, "<think>Round.</think><answer>HSIL</answer>", reading)
    value = reward(found, TaskKind.CLASSIFICATION, {TaskKind.CLASSIFICATION: weights})
    assert value == pytest.approx(2.0 - 464 / 512 - 0.5)
