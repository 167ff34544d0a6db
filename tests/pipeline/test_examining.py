"""Whole examinations: of a served model that looks or does not, of tiny weights, of a script."""

import base64
import io
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec
import numpy as np
import pytest
from PIL import Image

from malpighi.config import override
from malpighi.corpus import Corpus, blob_of
from malpighi.errors import ConfigError, DataError, UserError
from malpighi.evaluation.rows import read_predictions
from malpighi.evaluation.rubric import load_rubric
from malpighi.models.prompt import PromptStyle
from malpighi.pipeline.exam_plan import plan_exam
from malpighi.pipeline.exam_settings import Endpoint, ExamSettings
from malpighi.pipeline.examining import examine
from malpighi.pipeline.judging import to_judge
from malpighi.pipeline.marking import Store
from malpighi.pipeline.material import Material, chosen
from malpighi.pipeline.recipe import Phantom
from malpighi.records import (
    Choice,
    ImageRef,
    Item,
    Provenance,
    Sample,
    Scale,
    Split,
    TaskKind,
    Turn,
)

SIDES = ("left", "right", "top", "bottom")
SETTINGS = ExamSettings(draws=200, shown=1, endpoint=Endpoint(timeout=20, attempts=2))


def side_item(number):
    """A picture that is dark on one side, and the question on which."""
    pixels = np.full((56, 56, 3), 220, np.uint8)
    side = SIDES[number % 4]
    half = {"left": np.s_[:, :28], "right": np.s_[:, 28:], "top": np.s_[:28], "bottom": np.s_[28:]}[side]
    pixels[half] = 10 + number % 100
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    blob = blob_of(buffer.getvalue(), ".png")
    sample = Sample(
        id=f"sides/{number}",
        dataset="sides",
        exam="sides/dark",
        task=TaskKind.CLASSIFICATION,
        scale=Scale.CELL,
        images=(ImageRef(blob.key, (56, 56)),),
        turns=(Turn("user", "Which side is dark?"),),
        answer=Choice(number % 4),
        options=SIDES,
        group=f"patient{number}",
        split=Split.TEST if number % 3 else Split.TRAIN,
        licence="CC0-1.0",
        provenance=Provenance("test"),
    )
    return Item(sample, (blob,))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sides") / "corpus"
    with Corpus.create(folder) as corpus:
        for number in range(90):
            corpus.add(side_item(number))
    return folder


class Seer:
    """A server that looks at the picture, or always says A; it remembers what it was asked."""

    def __init__(self):
        self.blind = False
        self.refused = set()
        self.asked = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked.append(self.headers.get("Authorization"))
                status, said = outer.answer(body)
                choice = {"message": {"content": said}, "finish_reason": "stop"}
                usage = {"prompt_tokens": 100, "completion_tokens": 10}
                data = json.dumps({"choices": [choice], "usage": usage}).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()
        self.model = f"http://127.0.0.1:{self.http.server_port}/v1#lab/seer"

    def answer(self, body):
        *_, shown, text = body["messages"][-1]["content"]
        data = base64.b64decode(shown["image_url"]["url"].partition(",")[2])
        light = np.asarray(Image.open(io.BytesIO(data)).convert("L"), float)
        middle = light.shape[0] // 2
        means = {
            "left": light[:, :middle].mean(), "right": light[:, middle:].mean(),
            "top": light[:middle].mean(), "bottom": light[middle:].mean(),
        }  # fmt: skip
        if int(light.min()) in self.refused:
            return 400, "no"
        letters = {name: letter for letter, name in re.findall(r"([A-D])\. (\w+)", text["text"])}
        seen = letters[min(means, key=means.get)]
        return 200, f"<answer>{'A' if self.blind else seen}</answer>"

    def close(self):
        self.http.shutdown()
        self.http.server_close()
        self.thread.join(timeout=5)


@pytest.fixture
def seer(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Seer()
    yield server
    server.close()


def test_a_served_model_that_looks(corpus, seer, tmp_path, monkeypatch):
    monkeypatch.setenv("MALPIGHI_API_KEY", "sesame")
    told = []
    settings = msgspec.structs.replace(
        SETTINGS,
        controls=("blank", "mismatched", "permuted"),
        endpoint=Endpoint(price_in=1000.0, price_out=10_000.0, timeout=20),
    )
    run = examine(seer.model, corpus, tmp_path / "run", settings, lambda *progress: told.append(progress))
    assert run.model == "seer"
    assert (run.asked, run.kept, run.exit_status) == (240, 0, 0)
    assert list(run.predictions) == ["seer", "seer@blank", "seer@mismatched", "seer@permuted"]
    read = {name: read_predictions(path) for name, path in run.predictions.items()}
    scores = {name: sum(row.grade.score for row in rows) / len(rows) for name, rows in read.items()}
    assert (scores["seer"], scores["seer@permuted"]) == (1.0, 1.0)
    assert scores["seer@blank"] < 0.5
    assert scores["seer@mismatched"] < 0.5
    shown = {row.model: row.score.value for row in run.results.rows}
    assert shown["seer"] == 1.0
    assert 0.15 < shown["majority"] < 0.35
    assert set(shown) == {"seer", "majority"}, "a control is no contestant"
    assert all(look.difference.estimate.value > 0.4 and not look.warning for look in run.controls.looks)
    assert [c.share.value for c in run.controls.consistency] == [1.0]
    assert {(c.first, c.second) for c in run.results.comparisons} == {("majority", "seer")}
    # The blank pictures of one brightness are one request; nothing else is asked twice.
    assert run.spent.requests == len(seer.asked) == run.cached.misses
    assert run.cost == pytest.approx(run.spent.requests * (100 * 1000 + 10 * 10_000) / 1e6)
    assert told[0][:2] == (0, 240)
    assert told[-1][:2] == (240, 240)
    assert any("left" in text and "cost" in text for _, _, text in told)
    assert set(seer.asked) == {"Bearer sesame"}
    assert not any(b"sesame" in path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file())
    page = run.report.read_text()
    assert "With the image it scores +0." in page
    assert "With permuted options it names the same one in 1.000" in page
    record = json.loads((tmp_path / "run" / "exam.json").read_text())["models"]["seer"]
    assert (record["kind"], record["frame"], record["prompt"]["system"]) == (
        "endpoint",
        "relative1000",
        "patho_r1",
    )
    before = len(seer.asked)
    again = examine(seer.model, corpus, tmp_path / "run", settings)
    assert (again.asked, again.kept, len(seer.asked)) == (0, 240, before)
    assert again.results == run.results


def test_a_served_model_that_does_not_look(corpus, seer, tmp_path):
    seer.blind = True
    settings = msgspec.structs.replace(SETTINGS, controls=("blank", "permuted"), cache=False)
    run = examine(seer.model, corpus, tmp_path / "run", settings)
    assert "not clearly better" in run.controls.looks[0].warning
    assert run.controls.consistency[0].share.value < 0.4
    assert "Does it look?" in run.report.read_text()
    warned = {row.model: row.warning for row in run.results.rows}
    assert "100% of the answers are left" in warned["seer"]
    assert run.cached is None
    assert len(seer.asked) == 60 + 60 + 60


def test_failed_items_are_counted_and_end_with_status_3(corpus, seer, tmp_path):
    seer.refused = {10 + 1, 10 + 2}
    run = examine(seer.model, corpus, tmp_path / "run", SETTINGS)
    assert {failure.id for failure in run.failures} == {"sides/1", "sides/2"}
    assert run.exit_status == 3
    assert len((tmp_path / "run" / "failures.jsonl").read_text().splitlines()) == 2
    rows = read_predictions(run.predictions["seer"])
    assert len(rows) == 60
    assert sum(row.grade.score for row in rows) == 58


def test_a_plan_asks_a_few_and_tells_what_all_would_cost(corpus, seer, tmp_path):
    settings = msgspec.structs.replace(
        SETTINGS, controls=("permuted",), probe=5, endpoint=Endpoint(price_in=2.0, price_out=4.0)
    )
    plan = plan_exam(seer.model, corpus, tmp_path / "run", settings)
    assert plan.exams == {"sides/dark": 60}
    assert (plan.requests, plan.probed, plan.probe_failures) == (120, 5, 0)
    assert (plan.prompt_tokens, plan.completion_tokens) == (12_000, 1200)
    assert plan.cost == pytest.approx((12_000 * 2 + 1200 * 4) / 1e6)
    assert plan.seconds > 0
    assert len(seer.asked) == 6
    assert not (tmp_path / "run" / "exam.json").exists()
    free = plan_exam("scripted:A", corpus, tmp_path / "other", SETTINGS)
    assert free.cost is None
    assert free.prompt_tokens > 60


def test_two_models_stand_side_by_side_and_exams_can_be_chosen(tmp_path):
    settings = msgspec.structs.replace(
        SETTINGS, phantom=Phantom(cells=16, regions=6), exams=("phantom/cat*", "phantom/cell"), per_exam=3
    )
    first = examine("scripted:A", "phantom", tmp_path, settings)
    second = examine("scripted:ECHO", "phantom", tmp_path, settings)
    assert first.what == "a script that always says 'A'; no model"
    assert second.results.models == ["majority", "scripted-A", "scripted-ECHO"]
    assert {row.exam for row in second.results.rows} == {"phantom/category", "phantom/cell"}
    assert all(row.n <= 3 for row in second.results.rows)
    assert ("scripted-A", "scripted-ECHO") in {(c.first, c.second) for c in second.results.comparisons}
    assert set(json.loads((tmp_path / "exam.json").read_text())["models"]) == {"scripted-A", "scripted-ECHO"}
    assert "phantom" in second.report.read_text()
    with pytest.raises(ConfigError, match=r"no exam is named 'toy/\*'.*phantom/category"):
        examine("scripted:A", "phantom", tmp_path, msgspec.structs.replace(settings, exams=("toy/*",)))
    with pytest.raises(UserError, match="begun with other data"):
        examine("scripted:A", "phantom", tmp_path, msgspec.structs.replace(settings, seed=4))


def test_weights_of_a_trained_family_with_chances(miniatures, tmp_path, untouched_process):
    mini = miniatures("qwen3_vl")
    blobs = mini.pictures._load_bytes
    samples = [s for s in mini.samples if isinstance(s.answer, Choice)][:6]
    samples = [msgspec.structs.replace(s, split=Split.TEST) for s in samples]
    material = Material(samples, Store(blobs, lambda key: mini.masks[key]))
    settings = msgspec.structs.replace(
        SETTINGS, with_chances=True, max_new_tokens=6, prompt=mini.pictures.style, batch_size=2
    )
    run = examine(str(mini.folder), material, tmp_path, settings)
    rows = read_predictions(run.predictions[mini.folder.name])
    assert [len(row.chances) for row in rows] == [len(row.truth["options"]) for row in rows]
    assert all(sum(row.chances) == pytest.approx(1) for row in rows)
    record = json.loads((tmp_path / "exam.json").read_text())["models"][mini.folder.name]
    assert record["kind"] == "trained"
    assert msgspec.convert(record["prompt"], PromptStyle) == mini.pictures.style
    other = msgspec.structs.replace(settings, prompt=PromptStyle(family="qwen2_5_vl"))
    with pytest.raises(ConfigError, match=r"set prompt\.family=qwen3_vl"):
        examine(str(mini.folder), material, tmp_path / "other", other)


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        ("nowhere", DataError, "no model folder nowhere"),
        ("http://127.0.0.1:9/v1", ConfigError, "names no model"),
    ],
)
def test_models_that_are_none(corpus, tmp_path, model, error, message):
    with pytest.raises(error, match=message):
        examine(model, corpus, tmp_path, SETTINGS)


def test_senseless_settings_are_refused(corpus, tmp_path):
    with pytest.raises(ConfigError, match="unknown control 'noise'"):
        ExamSettings(controls=("noise",))
    with pytest.raises(ConfigError, match="workers=0"):
        ExamSettings(workers=0)
    with pytest.raises(ConfigError, match="tells no option chances"):
        examine("scripted:A", corpus, tmp_path, msgspec.structs.replace(SETTINGS, with_chances=True))
    with pytest.raises(ConfigError, match="says which exams and splits"):
        ExamSettings(suite="patho-r1", exams=("a/*",))
    with pytest.raises(ConfigError, match="says which exams and splits"):
        ExamSettings(suite="patho-r1", split=Split.VALIDATION)
    with pytest.raises(ConfigError, match="negatives belong to a suite"):
        ExamSettings(negatives=True)
    with pytest.raises(ConfigError, match="leaks=refuse needs to know"):
        ExamSettings(leaks="refuse")
    with pytest.raises(ConfigError, match="'majority' is the name of the constant answer"):
        examine("scripted:A", corpus, tmp_path, msgspec.structs.replace(SETTINGS, name="majority"))
    found = Corpus.open(corpus)
    material = Material(found.samples(), Store(found.image_bytes, found.mask))
    with pytest.raises(ConfigError, match="workers share a corpus"):
        examine("scripted:A", material, tmp_path, msgspec.structs.replace(SETTINGS, workers=2))


def test_settings_can_be_overridden_by_name():
    changed = override(
        ExamSettings(),
        ["exams=[a/*, b]", "endpoint.family=qwen3_vl", "prompt={family: qwen3_vl, system: smartpath}"],
    )
    assert changed.exams == ("a/*", "b")
    assert changed.endpoint.family == "qwen3_vl"
    assert changed.prompt == PromptStyle(family="qwen3_vl", system="smartpath")


def test_what_is_drawn_of_an_exam_depends_on_no_other_exam():
    """Else a model examined on more exams would be asked other questions, and could not be paired."""
    cells = [side_item(number).sample for number in range(90)]
    regions = [msgspec.structs.replace(s, id=f"b/{s.id}", exam="before/dark") for s in cells]
    whole = Material([*cells, *regions], Store(None, None))
    few = msgspec.structs.replace(SETTINGS, per_exam=7)
    both, one = (chosen(whole, msgspec.structs.replace(few, exams=e)) for e in (("*",), ("sides/*",)))
    assert [len(both), len(one)] == [14, 7]
    assert [s.id for s in both if s.exam == "sides/dark"] == [s.id for s in one]


def test_models_asked_differently_are_told_apart_in_the_notes(corpus, tmp_path):
    """Their means stand side by side, so the page must say that these are of other samples."""
    first = msgspec.structs.replace(SETTINGS, name="supermajority")
    examine("scripted:A", corpus, tmp_path, first)
    run = examine("scripted:B", corpus, tmp_path, msgspec.structs.replace(SETTINGS, per_exam=20))
    assert run.results.models == ["majority", "supermajority", "scripted-B"]
    (note,) = run.results.notes
    assert (
        note == "supermajority and scripted-B: 40 samples of shared exams were answered by only one of them"
    )
    assert note in run.report.read_text()


def test_training_samples_are_named_where_they_are_asked(corpus, tmp_path):
    run = examine("scripted:A", corpus, tmp_path, msgspec.structs.replace(SETTINGS, split=Split.TRAIN))
    (note,) = run.results.notes
    assert note.startswith("30 of 30 samples are of the training split")
    page = run.report.read_text()
    assert note in page
    assert "on 30 samples (30 of the train split)" in page


def test_rows_of_another_segmenter_are_not_continued_and_the_record_stays(tmp_path):
    small = Phantom(cells=16, regions=8)
    settings = msgspec.structs.replace(SETTINGS, phantom=small, fractions=(0.3, 0.1, 0.6), per_exam=2)
    examine("scripted:A", "phantom", tmp_path, settings)
    other = msgspec.structs.replace(settings, segmenter="boxes")
    with pytest.raises(UserError, match="fingerprint was"):
        examine("scripted:A", "phantom", tmp_path, other)
    record = json.loads((tmp_path / "exam.json").read_text())["models"]["scripted-A"]
    assert record["settings"]["segmenter"] == "classical"


def test_answers_on_a_corpus_elsewhere_can_be_judged_without_those_of_controls(corpus, tmp_path):
    examine("scripted:A", corpus, tmp_path, msgspec.structs.replace(SETTINGS, controls=("permuted",)))
    found = to_judge(tmp_path, load_rubric(), "judge")
    assert {case.prediction.model for case in found.cases} == {"majority", "scripted-A"}
    (turned, *_) = to_judge(tmp_path, load_rubric(), "judge", ("scripted-A@permuted",)).cases
    shown = "; ".join(f"{'ABCD'[i]}. {name}" for i, name in enumerate(turned.prediction.truth["options"]))
    assert turned.asked.question == f"Which side is dark? Options: {shown}"


@pytest.mark.slow
def test_workers_give_the_same_rows(corpus, seer, tmp_path):
    one = examine(seer.model, corpus, tmp_path / "one", SETTINGS)
    settings = msgspec.structs.replace(SETTINGS, workers=2, batch_size=8)
    two = examine(seer.model, corpus, tmp_path / "two", settings)
    assert one.predictions["seer"].read_bytes() == two.predictions["seer"].read_bytes()
    assert two.asked + two.kept == 60
    assert len(seer.asked) == 120
