"""Commands about exams: what they print, what they leave, and with which exit status they end."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from malpighi.corpus import Corpus, blob_of
from malpighi.evaluation.rows import write_predictions
from malpighi.evaluation.rubric import load_rubric
from malpighi.records import (
    Choice,
    Grade,
    ImageRef,
    Item,
    Prediction,
    Provenance,
    Sample,
    Scale,
    Split,
    Status,
    TaskKind,
    Turn,
)

pytestmark = pytest.mark.usefixtures("untouched_process")
SCORES = {criterion.name: 8 for criterion in load_rubric().criteria}


@pytest.fixture
def run(tmp_path):
    """A run folder with a corpus of pictures and the answers of one model."""
    root = tmp_path / "run"
    rows = []
    with Corpus.create(root / "corpus") as corpus:
        for number in range(24):
            pixels = np.full((16, 16, 3), 40 + 60 * (number % 2), np.uint8)
            pixels[0, 0] = number
            path = tmp_path / "x.png"
            Image.fromarray(pixels).save(path)
            blob = blob_of(path.read_bytes(), ".png")
            sample = Sample(
                id=f"s{number}", dataset="d", exam="d/class", task=TaskKind.CLASSIFICATION, scale=Scale.ROI,
                images=(ImageRef(blob.key, (16, 16)),), turns=(Turn("user", "Dark or light?"),),
                answer=Choice(number % 2), options=("dark", "light"), group=f"g{number}",
                split=Split.TRAIN if number < 12 else Split.TEST, licence="CC0-1.0",
                provenance=Provenance("test"),
            )  # fmt: skip
            corpus.add(Item(sample, (blob,)))
            right = number % 3 > 0
            rows.append(
                Prediction(
                    model="m",
                    exam="d/class",
                    sample=sample.id,
                    group=sample.group,
                    task=sample.task,
                    text="right" if right else "wrong",
                    grade=Grade(float(right), Status.OK, None, {"exact": float(right)}),
                    truth={"index": number % 2, "options": ["dark", "light"]},
                )
            )
    (root / "predictions").mkdir()
    write_predictions(root / "predictions/m.jsonl", rows[12:])
    return root


@pytest.fixture
def judge_server():
    """A judge on loopback that finds an answer right where it says so, and fails on one sample."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            text = body["messages"][1]["content"]
            asked.append(self.headers.get("authorization"))
            said = json.dumps(SCORES | {"correct": '"right"' in text})
            data = json.dumps({"choices": [{"message": {"content": said}, "finish_reason": "stop"}]}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1", asked
    server.shutdown()
    server.server_close()


def test_a_judge_is_planned_asked_once_and_replayed(malpighi, run, judge_server, monkeypatch):
    url, asked = judge_server
    monkeypatch.setenv("MALPIGHI_API_KEY", "secret")
    code, out, _ = malpighi("judge", str(run), "--judge", "j", "--server", url, "--plan", "--json")
    assert (code, json.loads(out)["left"], asked) == (0, 4, [])
    code, out, err = malpighi("judge", str(run), "--judge", "j", "--server", url, "--json")
    assert code == 0, err
    (row,) = json.loads(out)["rows"]
    assert (row["n"], row["missing"], row["exact"], row["agreement"]) == (12, 0, 8 / 12, 1.0)
    assert row["score"]["value"] == pytest.approx(7 / 9)
    assert asked == ["Bearer secret"] * 4, "equal answers are judged once"
    assert "secret" not in (run / "verdicts.jsonl").read_text()
    code, out, _ = malpighi("judge", str(run), "--judge", "j")
    assert code == 0
    assert "1.000" in out
    assert len(asked) == 4


def test_missing_verdicts_are_listed_and_turn_the_status(malpighi, run):
    code, out, _ = malpighi("judge", str(run), "--judge", "nobody")
    assert code == 3
    assert "12 items failed" in out
    assert "never judged" in out


def test_a_run_without_corpus_or_model_is_told_so(malpighi, run, tmp_path):
    (tmp_path / "empty").mkdir()
    for arguments, word in (
        ((str(tmp_path / "empty"), "--judge", "j"), "holds no corpus"),
        ((str(run), "--judge", "j", "--model", "x"), "no predictions of x; found m"),
        ((str(run), "--judge", "j", "--rubric", "x"), "no rubric 'x'"),
    ):
        code, _, err = malpighi("judge", *arguments)
        assert code == 2
        assert word in " ".join(err.split())


def test_published_numbers_are_shown_and_checked(malpighi):
    code, out, _ = malpighi("published", "singpath-vl", "--check", "--json")
    assert code == 0
    assert json.loads(out)
    code, out, _ = malpighi("published", "singpath-vl")
    assert code == 0
    assert "Koilocyte" in out
    code, _, err = malpighi("published", "none")
    assert code == 2
    assert "smartpath-r1" in err


def test_data_sets_are_listed_and_described(malpighi):
    rows = json.loads(malpighi("data", "list", "--json")[1])["datasets"]
    assert len(rows) >= 57
    assert {"name", "what", "papers", "access", "get", "use", "licence", "split"} <= rows[0].keys()
    code, out, _ = malpighi("data", "describe", "pathmmu")
    assert code == 0
    assert "gated" in out
    code, _, err = malpighi("data", "get", "pathmmu")
    assert code == 2
    assert "cannot be fetched" in " ".join(err.split())
    code, _, err = malpighi("data", "get", "ccrcc")
    assert code == 2
    assert "--accept-licence" in err


def test_a_script_is_planned_examined_and_compared(malpighi, run, tmp_path):
    common = ("scripted:dark", str(run / "corpus"), "--out", str(tmp_path / "exam"))
    code, out, _ = malpighi("evaluate", *common, "--plan", "--json")
    assert (code, json.loads(out)["requests"]) == (0, 12)
    code, out, err = malpighi("evaluate", *common, "--controls", "permuted", "--set", "train=own", "--json")
    assert code == 0, err
    told = json.loads(out)
    (row,) = [row for row in told["results"]["rows"] if row["model"] == "scripted-dark"]
    assert row["score"]["value"] == 0.5
    assert {path.name for path in (tmp_path / "exam/tables").iterdir()} >= {"scores.csv", "scores.tex"}
    page = (tmp_path / "exam/report.html").read_text()
    for words in ("No test sample was found in the training data", "Order of the options", "a script that"):
        assert words in page
    code, out, _ = malpighi(
        "compare", str(run), str(tmp_path / "exam"), "--tables", str(tmp_path / "t"), "--json"
    )
    assert code == 0
    models = json.loads(out)["results"]["models"]
    assert sorted(models) == ["m", "majority", "scripted-dark"], "a control is no contestant"
    assert (tmp_path / "t/comparisons.tex").is_file()
    suite = tmp_path / "mine.yaml"
    suite.write_text(
        "format_version: 1\nname: mine\ntitle: Mine\ngroups:\n"
        "  - {name: all, title: All, metric: accuracy, scale: roi,"
        " tasks: [{name: light, exams: [d/class]}]}\n"
    )
    code, out, _ = malpighi("compare", str(run), "--suite", str(suite), "--json")
    assert code == 0, "one model is enough for the tasks of a suite"
    task, mean = json.loads(out)["tasks"]
    assert (task["task"], task["score"], task["n"]) == ("light", 8 / 12, 12)
    assert (mean["task"], mean["score"]) == ("mean of 1 of 1 tasks", 8 / 12)
    code, _, err = malpighi("compare", str(run), str(tmp_path / "exam"), "--with", "smartpath-r1")
    assert code == 2
    assert "smartpath-r1 has no figures for d/class" in " ".join(err.split())


def test_an_examination_says_what_is_wrong(malpighi, run, tmp_path):
    out = ("--out", str(tmp_path / "exam"))
    corpus = str(run / "corpus")
    for arguments, word in (
        (("nowhere", corpus, *out), "no model folder nowhere"),
        (("scripted:x", str(tmp_path / "none"), *out), "there is no folder"),
        (("scripted:x", corpus, *out, "--exam", "z/*"), "no exam is named 'z/*'"),
        (("scripted:x", corpus, *out, "--suite", "smartpath-r1"), "no sample answers to a task of suite"),
        (("scripted:x", corpus, *out, "--suite", "none"), "smartpath-r1"),
        (("scripted:x", corpus, *out, "--controls", "blind"), "unknown control 'blind'"),
        (("http://127.0.0.1:9/v1", corpus, *out), "names no model"),
        (("no_package:make", corpus, *out), "package no_package is not installed"),
        (("platform:node", corpus, *out), "has no `generate`"),
    ):
        code, _, err = malpighi("evaluate", *arguments)
        assert code == 2, arguments
        assert word in " ".join(err.split()), err


def test_leaks_are_told(malpighi, run):
    code, out, err = malpighi("leaks", str(run), "--json")
    assert code == 0, err
    assert json.loads(out)["leaks"] == []


def test_annotators_are_compared(malpighi, tmp_path):
    path = tmp_path / "labels.csv"
    rows = [f"c{n},p{n // 2},{'NA' if n % 3 else 'NILM'},{'NA' if n % 4 else 'NILM'}," for n in range(24)]
    path.write_text("\n".join(["item,group,ann,ben,cho", *rows]))
    code, out, err = malpighi("agreement", str(path), "--json")
    assert code == 0, err
    told = json.loads(out)
    assert told["raters"] == ["ann", "ben", "cho"]
    same = sum((n % 3 == 0) == (n % 4 == 0) for n in range(24)) / 24
    assert told["agreement"]["percent"]["value"] == pytest.approx(same), (
        "'NA' is a label, an empty cell is none"
    )
    code, out, _ = malpighi("agreement", str(path))
    assert "Cohen's kappa, ann and ben" in out
    path.write_text("item,group,ann\nc1,p1,x\n")
    code, _, err = malpighi("agreement", str(path))
    assert (code, "two annotators or more" in " ".join(err.split())) == (2, True)


def test_power_goes_both_ways(malpighi):
    needed = json.loads(malpighi("power", "--difference", "0.05", "--json")[1])["samples"]
    assert 500 < needed < 800
    seen = json.loads(malpighi("power", "--samples", str(needed), "--json")[1])["difference"]
    assert seen == pytest.approx(0.05, rel=0.02)
    grouped = malpighi(
        "power", "--difference", "0.05", "--group-size", "10", "--correlation", "0.3", "--json"
    )[1]
    assert json.loads(grouped)["samples"] == pytest.approx(3.7 * needed, rel=0.02)
    assert "cannot show any difference" in malpighi("power", "--samples", "3")[1]
    code, _, err = malpighi("power")
    assert (code, "either --difference or --samples" in err) == (2, True)
