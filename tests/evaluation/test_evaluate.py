import os
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from PIL import Image

from malpighi.errors import ConfigError, DataError, UserError
from malpighi.evaluation.evaluate import EvaluateOptions, Outcome, evaluate, image_hash, truth_of
from malpighi.evaluation.rows import read_predictions, write_predictions
from malpighi.geometry import Box
from malpighi.grading.grade import Reading, grade
from malpighi.inference.engine import Completion, Sampling
from malpighi.inference.scripted_engine import ScriptedEngine
from malpighi.models.prompt import Prompt, PromptStyle, build_prompt
from malpighi.records import (
    Boxes,
    Choice,
    Grade,
    ImageRef,
    MaskRef,
    Provenance,
    Sample,
    Scale,
    Status,
    TaskKind,
    Text,
    Turn,
)

OPTIONS = EvaluateOptions(model="supervised", batch_size=4, sampling=Sampling(max_new_tokens=16))


def a_sample(number: int, **changes: object) -> Sample:
    sample = Sample(
        id=f"toy/{number}",
        dataset="toy",
        exam="toy/class",
        task=TaskKind.CLASSIFICATION,
        scale=Scale.CELL,
        images=(ImageRef(f"{number:064x}", (10, 20)),),
        turns=(Turn("user", f"Question {number} – naïve?"),),
        answer=Choice(number % 2),
        options=("no", "yes"),
        group=f"patient{number // 3}",
        licence="CC0-1.0",
        provenance=Provenance("test"),
    )
    return msgspec.structs.replace(sample, **changes)


SAMPLES = [a_sample(number) for number in range(11)]


class Parrot:
    """An engine that answers from the prompt's digest and counts what it was asked."""

    def __init__(self, broken: frozenset[str] = frozenset(), stop_after: int | None = None) -> None:
        self.broken = broken
        self.stop_after = stop_after
        self.asked: list[list[str]] = []

    def generate(self, prompts: list[Prompt], sampling: Sampling) -> list[Completion]:
        if self.stop_after is not None and len(self.asked) == self.stop_after:
            raise KeyboardInterrupt
        self.asked.append([prompt.digest for prompt in prompts])
        return [self._answer(prompt.digest, len(prompts)) for prompt in prompts]

    def _answer(self, digest: str, batch: int) -> Completion:
        if digest in self.broken:
            return Completion(text="", tokens=0, finish="error", error="server said 500")
        # The batch size is in the text, as batching changes real numerics: batches must not shift on resume.
        return Completion(text=f"<answer>{digest} in {batch} –\n</answer>", tokens=7, finish="stop")


def prompt_of(sample: Sample) -> Prompt:
    if "bad" in sample.group:
        raise DataError(f"image of {sample.id} is truncated")
    return Prompt(system="", turns=sample.turns, images=(), views=(), digest=f"d{sample.id}")


def grade_of(sample: Sample, completion: Completion, prompt: Prompt) -> Grade:
    if "ungradable" in sample.group:
        raise DataError("the mask is missing from the corpus")
    assert prompt.digest in completion.text
    return Grade(1.0 if sample.answer.index else 0.0, Status.OK, 1, {"task": 1.0})


def run(out: Path, engine: Parrot | None = None, samples=SAMPLES, options=OPTIONS, **more) -> Outcome:
    return evaluate(engine or Parrot(), samples, prompt_of, grade_of, out, options, **more)


def test_rows_say_everything_about_the_sample(tmp_path):
    seen = []
    outcome = run(tmp_path / "deep" / "a.jsonl", on_progress=lambda *done: seen.append(done))
    assert seen == [(0, 11), (4, 11), (8, 11), (11, 11)]
    assert (outcome.kept, outcome.asked, outcome.failures) == (0, 11, [])
    row = read_predictions(tmp_path / "deep" / "a.jsonl")[5]
    assert row == outcome.predictions[5]
    assert (row.model, row.exam, row.sample, row.group) == ("supervised", "toy/class", "toy/5", "patient1")
    assert row.truth == {"index": 1, "options": ["no", "yes"]}
    assert row.prompt_hash == "dtoy/5"
    assert row.image_hash == image_hash(SAMPLES[5])
    assert row.tokens == 7


def test_each_row_names_the_adapter_that_answered(tmp_path):
    class Experts(Parrot):
        def generate(self, prompts, sampling):
            said = super().generate(prompts, sampling)
            return [msgspec.structs.replace(c, adapter="vqa" if i else "") for i, c in enumerate(said)]

    rows = run(tmp_path / "p.jsonl", Experts(), SAMPLES[:4]).predictions
    assert [row.adapter for row in rows] == ["", "vqa", "vqa", "vqa"]
    assert read_predictions(tmp_path / "p.jsonl") == rows


def test_a_file_cut_at_any_byte_is_completed_to_the_same_bytes(tmp_path):
    whole = tmp_path / "whole.jsonl"
    samples = [*SAMPLES[:5], a_sample(5, group="bad"), *SAMPLES[6:]]
    run(whole, Parrot(frozenset({"dtoy/2"})), samples)
    data, failed = whole.read_bytes(), Path(f"{whole}.failures.jsonl").read_bytes()
    ends = [at + 1 for at, byte in enumerate(data) if byte == ord("\n")]
    cuts = {0, 1, 9, 10, 11, *ends, *(end - 1 for end in ends), *(end + 1 for end in ends[:-1])}
    cuts |= set(random.Random(0).sample(range(len(data)), 40))
    for number, cut in enumerate(sorted(cuts)):
        out = tmp_path / str(number) / "whole.jsonl"
        out.parent.mkdir()
        out.write_bytes(data[:cut])
        Path(f"{out}.failures.jsonl").write_bytes(failed)
        engine = Parrot(frozenset({"dtoy/2"}))
        outcome = run(out, engine, samples)
        assert out.read_bytes() == data, cut
        assert Path(f"{out}.failures.jsonl").read_bytes() == failed, cut
        rows = sum(end <= cut for end in ends)
        assert outcome.kept == (11 if rows == 11 else rows // 4 * 4), cut
        assert sum(map(len, engine.asked)) <= 11 - outcome.kept
        assert len(outcome.predictions) == 11


def test_a_killed_run_goes_on_without_asking_twice(tmp_path):
    straight, killed = tmp_path / "straight.jsonl", tmp_path / "killed.jsonl"
    run(straight)
    first, second = Parrot(stop_after=2), Parrot()
    with pytest.raises(KeyboardInterrupt):
        run(killed, first)
    outcome = run(killed, second)
    assert killed.read_bytes() == straight.read_bytes()
    assert [*first.asked, *second.asked] == [
        [f"dtoy/{n}" for n in part] for part in (range(4), range(4, 8), range(8, 11))
    ]
    assert (outcome.kept, outcome.asked) == (8, 3)
    assert run(killed, Parrot(stop_after=0)).asked == 0


class Killer(Parrot):
    """Kills its own process when asked for the third batch."""

    def generate(self, prompts, sampling):
        if len(self.asked) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().generate(prompts, sampling)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_a_run_killed_from_outside_ends_with_the_same_bytes(tmp_path):
    straight, killed = tmp_path / "straight.jsonl", tmp_path / "killed.jsonl"
    run(straight)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_evaluate as t; "
        "t.run(t.Path(sys.argv[2]), t.Killer())"
    )
    folder = str(Path(__file__).parent)
    child = subprocess.run(
        [sys.executable, "-c", code, folder, str(killed)], capture_output=True, check=False
    )
    assert child.returncode == -signal.SIGKILL, child.stderr.decode()
    assert len(read_predictions(killed)) == 8
    assert run(killed).kept == 8
    assert killed.read_bytes() == straight.read_bytes()


def test_a_failure_row_cut_in_half_or_of_an_unfinished_batch_is_written_once(tmp_path):
    samples = [a_sample(n, group="bad") for n in range(6)]
    out = tmp_path / "a.jsonl"
    failed = Path(f"{out}.failures.jsonl")
    run(out, samples=samples)
    rows, reasons = out.read_bytes(), failed.read_bytes()
    out.write_bytes(b"".join(rows.splitlines(keepends=True)[:4]))
    failed.write_bytes(reasons[:-10])
    outcome = run(out, samples=samples)
    assert (out.read_bytes(), failed.read_bytes()) == (rows, reasons)
    assert [failure.id for failure in outcome.failures] == [sample.id for sample in samples]


def test_a_bad_sample_is_set_aside_and_the_run_goes_on(tmp_path):
    samples = list(SAMPLES)
    samples[1], samples[6] = a_sample(1, group="bad"), a_sample(6, group="ungradable")
    outcome = run(tmp_path / "a.jsonl", Parrot(frozenset({"dtoy/3"})), samples)
    rows = outcome.predictions
    assert [rows[n].grade.status for n in (1, 3, 6)] == [Status.MALFORMED, Status.NO_ANSWER, Status.MALFORMED]
    assert all(rows[n].grade.score == 0 and rows[n].text == "" for n in (1, 3, 6))
    assert all(rows[n].grade.status is Status.OK for n in (0, 2, 4, 5, 7, 8, 9, 10))
    assert [(failure.id, failure.stage) for failure in outcome.failures] == [
        ("toy/1", "evaluate"),
        ("toy/3", "evaluate"),
        ("toy/6", "evaluate"),
    ]
    assert [f.reason for f in outcome.failures][1] == "server said 500"


def test_half_a_surrogate_pair_from_a_server_does_not_stop_the_run(tmp_path):
    class Broken(Parrot):
        def _answer(self, digest, batch):
            return Completion(text="\ud800", tokens=1, finish="stop")

    outcome = run(tmp_path / "a.jsonl", Broken())
    assert {row.grade.status for row in outcome.predictions} == {Status.MALFORMED}
    assert "surrogates" in outcome.failures[0].reason


@pytest.mark.parametrize(
    ("samples", "options", "words"),
    [
        ([a_sample(n + 1) for n in range(11)], OPTIONS, "another examination"),
        (SAMPLES, replace(OPTIONS, model="other"), "another examination"),
        (SAMPLES[:8], OPTIONS, "8 samples are asked"),
        (SAMPLES, replace(OPTIONS, batch_size=2), "batch_size was 4, now 2"),
        (SAMPLES, replace(OPTIONS, sampling=Sampling(max_new_tokens=5)), "max_new_tokens was 16, now 5"),
        (SAMPLES, replace(OPTIONS, fingerprint="retrained"), "now 'retrained'"),
        ([a_sample(n, options=("ja", "nein")) for n in range(11)], OPTIONS, "samples was"),
    ],
)
def test_a_file_of_another_examination_is_refused_and_left_alone(tmp_path, samples, options, words):
    out = tmp_path / "a.jsonl"
    run(out)
    before = out.read_bytes()
    with pytest.raises(UserError, match=words):
        run(out, samples=samples, options=options)
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    "content", [b"notes of mine", b"notes\nof mine\n", b'{"a":1}\n', b"{}", b"\x00" * 50]
)
def test_a_file_that_is_no_predictions_file_is_never_cut(tmp_path, content):
    out = tmp_path / "a.jsonl"
    out.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.jsonl"):
        run(out)
    assert out.read_bytes() == content


def test_damage_in_the_middle_is_named_by_line(tmp_path):
    out = tmp_path / "a.jsonl"
    run(out)
    lines = out.read_bytes().splitlines(keepends=True)
    out.write_bytes(b"".join([*lines[:2], lines[2][:30] + b"\n", *lines[3:]]))
    with pytest.raises(UserError, match="line 3"):
        run(out)


@pytest.mark.parametrize("ending", [".settings.json", ".failures.jsonl"])
def test_damage_beside_the_rows_is_named_by_file(tmp_path, ending):
    out = tmp_path / "a.jsonl"
    run(out)
    Path(f"{out}{ending}").write_bytes(b'{"a":1}\n')
    with pytest.raises(UserError, match=ending):
        run(out)


def test_options_and_ids_are_checked(tmp_path):
    with pytest.raises(ConfigError, match="batch_size"):
        EvaluateOptions(model="a", batch_size=0)
    with pytest.raises(ConfigError, match="model name"):
        EvaluateOptions(model="")
    with pytest.raises(DataError, match="twice"):
        run(tmp_path / "a.jsonl", samples=[SAMPLES[0], SAMPLES[0]])


def test_an_engine_that_loses_answers_is_a_bug_not_a_score(tmp_path):
    class Lossy(Parrot):
        def generate(self, prompts, sampling):
            return super().generate(prompts, sampling)[1:]

    with pytest.raises(RuntimeError, match="3 completions for 4 prompts"):
        run(tmp_path / "a.jsonl", Lossy())


def test_truth_of_every_answer():
    box = Box(1, 2, 3, 4.5)
    assert truth_of(a_sample(1)) == {"index": 1, "options": ["no", "yes"]}
    assert truth_of(a_sample(1, answer=Boxes((box,)))) == [[1, 2, 3, 4.5]]
    assert truth_of(a_sample(1, answer=Boxes(()))) == []
    assert truth_of(a_sample(1, answer=MaskRef("k", (box,)))) == [[1, 2, 3, 4.5]]
    assert truth_of(a_sample(1, answer=Text("HPV"))) == "HPV"


def test_image_hash_depends_on_order():
    one, two = ImageRef("a", (1, 1)), ImageRef("b", (1, 1))
    assert image_hash(a_sample(1, images=(one, two))) != image_hash(a_sample(1, images=(two, one)))
    assert image_hash(a_sample(1, images=())) == ""


def test_rows_can_be_written_at_once_and_a_missing_file_is_explained(tmp_path):
    outcome = run(tmp_path / "a.jsonl")
    write_predictions(tmp_path / "new" / "b.jsonl", outcome.predictions)
    assert (tmp_path / "new" / "b.jsonl").read_bytes() == (tmp_path / "a.jsonl").read_bytes()
    with pytest.raises(UserError, match="run the examination"):
        read_predictions(tmp_path / "none.jsonl")


def test_the_real_prompt_engine_and_grader_fit_together(tmp_path):
    style = PromptStyle(family="qwen2_5_vl")
    samples = [a_sample(n, images=(ImageRef("0" * 64, (60, 40)),)) for n in range(3)]

    def reply(prompt: Prompt) -> str:
        if "Question 2" in prompt.turns[-1].text:
            raise DataError("the server refuses this one")
        return "<think>looks so</think><answer>no</answer>"

    outcome = evaluate(
        ScriptedEngine(reply),
        samples,
        lambda sample: build_prompt(sample, [Image.new("RGB", (60, 40))], style),
        lambda sample, completion, prompt: grade(
            sample,
            completion.text,
            Reading(prompt.views[0], style.facts.frame, truncated=completion.finish == "length"),
        ),
        tmp_path / "a.jsonl",
        EvaluateOptions(model="scripted"),
    )
    assert [row.grade.score for row in outcome.predictions] == [1.0, 0.0, 0.0]
    assert [row.grade.status for row in outcome.predictions] == [Status.OK, Status.OK, Status.NO_ANSWER]
    assert len({row.prompt_hash for row in outcome.predictions}) == 3
    assert "refuses" in outcome.failures[0].reason
    assert read_predictions(tmp_path / "a.jsonl") == outcome.predictions
