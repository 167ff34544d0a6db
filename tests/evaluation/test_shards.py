"""Processes that share one examination, against an endpoint on the loopback that logs what it is asked."""

import json
import logging
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from malpighi.claims import Claims
from malpighi.errors import DataError, UserError
from malpighi.evaluation.evaluate import EvaluateOptions, evaluate
from malpighi.evaluation.shards import SHARD, evaluate_shared
from malpighi.grading.grade import Reading, grade
from malpighi.inference.engine import Completion, Sampling
from malpighi.inference.openai_engine import OpenAIEngine, Server
from malpighi.inference.request_cache import Cached
from malpighi.models.prompt import PromptStyle, build_prompt
from malpighi.records import Choice, Provenance, Sample, Scale, TaskKind, Turn

CONCURRENCY = 4
OPTIONS = EvaluateOptions(model="served", batch_size=16, sampling=Sampling(max_new_tokens=16))
STYLE = PromptStyle(family="qwen3_vl")
ENDINGS = ("", ".failures.jsonl", ".settings.json")


def samples(count):
    return [
        Sample(
            id=f"toy/{n}",
            dataset="toy",
            exam="toy/class",
            task=TaskKind.CLASSIFICATION,
            scale=Scale.CELL,
            images=(),
            turns=(Turn("user", f"Question {n}?"),),
            answer=Choice(n % 3),
            options=("a", "b", "c"),
            group=f"patient{n // 4}",
            licence="CC0-1.0",
            provenance=Provenance("test"),
        )
        for n in range(count)
    ]


def prompt_of(sample):
    if sample.id == "toy/77":
        raise DataError("its image is torn")
    return build_prompt(sample, [], STYLE)


def grade_of(sample, completion, prompt):
    return grade(sample, completion.text, Reading(truncated=completion.finish == "length"))


class Endpoint:
    """Answers every question with the letter of its number modulo 5, and keeps the questions in order."""

    def __init__(self, seconds=0.0):
        self.asked = []
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                number = int(body["messages"][-1]["content"].split("?")[0].split()[1])
                with outer._lock:
                    outer.asked.append(number)
                time.sleep(seconds)
                said = {"content": f"<answer>({'ABCDE'[number % 5]})</answer>"}
                data = json.dumps({"choices": [{"message": said, "finish_reason": "stop"}]}).encode()
                try:
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)
                except OSError:
                    self.close_connection = True  # the process that asked was killed

            def log_message(self, *args):
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request, client_address):
                """A killed client is what this test is about."""

        self.http = Quiet(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def close(self):
        self.http.shutdown()
        self.http.server_close()
        self.thread.join(timeout=5)


@pytest.fixture
def endpoint(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Endpoint(seconds=0.002)
    yield server
    server.close()


def share(out, url, count):
    """What each of the processes does."""
    engine = OpenAIEngine(Server(url, "m", concurrency=CONCURRENCY, backoff=0.01))
    cached = Cached(engine, out.parent / "answers.sqlite", url)
    return evaluate_shared(cached, samples(count), prompt_of, grade_of, out, OPTIONS)


def child(out, url, count):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import pathlib; import test_shards as t; "
        "t.share(pathlib.Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))"
    )
    folder = str(Path(__file__).parent)
    return subprocess.Popen([sys.executable, "-c", code, folder, str(out), url, str(count)])


def wait_until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.005)


def rows_files(shards):
    return [path for path in shards.glob("*.jsonl") if "failures" not in path.name and path.stat().st_size]


def same_files(out, other):
    return [Path(f"{out}{e}").read_bytes() == Path(f"{other}{e}").read_bytes() for e in ENDINGS] == [True] * 3


@pytest.mark.parametrize("count", [320, pytest.param(2000, marks=pytest.mark.slow)])
def test_two_processes_share_an_examination_and_one_is_killed(tmp_path, endpoint, count):
    straight, out = tmp_path / "one" / "a.jsonl", tmp_path / "two" / "a.jsonl"
    first, second = child(out, endpoint.url, count), child(out, endpoint.url, count)
    shards = out.with_name("a.jsonl.shards")
    wait_until(lambda: len(endpoint.asked) > count // 5 and len(rows_files(shards)) > 1)
    first.kill()
    first.wait(30)
    assert second.wait(120) == 0
    asked = Counter(endpoint.asked)
    twice = sum(asked.values()) - len(asked)
    assert set(asked) == set(range(count)) - {77}, "nothing is lost"
    # The killed process had at most as many requests under way as it may have at once.
    logging.getLogger(__name__).info("asked %d times, %d of them twice", sum(asked.values()), twice)
    assert twice <= CONCURRENCY
    engine = OpenAIEngine(Server(endpoint.url, "m", concurrency=CONCURRENCY))
    one = evaluate(engine, samples(count), prompt_of, grade_of, straight, OPTIONS)
    assert same_files(out, straight)
    assert len(one.predictions) == count
    assert [failure.id for failure in one.failures] == ["toy/77"]
    assert not shards.exists()


def test_two_processes_that_live_ask_nothing_twice(tmp_path, endpoint):
    out = tmp_path / "a.jsonl"
    both = [child(out, endpoint.url, 320) for _ in range(2)]
    assert [process.wait(120) for process in both] == [0, 0]
    assert sorted(endpoint.asked) == sorted(set(range(320)) - {77})
    again = share(out, "http://127.0.0.1:9/v1", 320)
    assert (again.kept, again.asked) == (320, 0)


class Parrot:
    """Answers in this process; stops when told to."""

    def __init__(self, stop_after=None):
        self.stop_after = stop_after
        self.asked = []

    def generate(self, prompts, sampling):
        if self.stop_after is not None and len(self.asked) >= self.stop_after:
            raise KeyboardInterrupt
        self.asked += [prompt.digest for prompt in prompts]
        return [Completion(f"<answer>(A)</answer> of {len(prompts)}") for _ in prompts]


def run(out, engine, count=150, options=OPTIONS, told=None):
    return evaluate_shared(engine, samples(count), prompt_of, grade_of, out, options, told)


def test_alone_it_is_the_same_as_without_shards(tmp_path):
    told = []
    outcome = run(tmp_path / "a.jsonl", Parrot(), told=lambda *progress: told.append(progress))
    straight = evaluate(Parrot(), samples(150), prompt_of, grade_of, tmp_path / "b.jsonl", OPTIONS)
    assert outcome == straight
    assert same_files(tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    assert told[0] == (0, 150)
    assert told[-1] == (150, 150)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


@pytest.mark.parametrize("batch", [1, 7, 64, 200])
def test_any_batch_size_keeps_its_batches(tmp_path, batch):
    options = replace(OPTIONS, batch_size=batch)
    run(tmp_path / "a.jsonl", Parrot(), options=options)
    evaluate(Parrot(), samples(150), prompt_of, grade_of, tmp_path / "b.jsonl", options)
    assert same_files(tmp_path / "a.jsonl", tmp_path / "b.jsonl")


def test_stopped_inside_a_shard_it_goes_on_there(tmp_path):
    first, second = Parrot(stop_after=SHARD + 20), Parrot()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "a.jsonl", first)
    outcome = run(tmp_path / "a.jsonl", second)
    assert (outcome.kept, outcome.asked) == (96, 54)
    assert len(first.asked) + len(second.asked) == 149


def test_shards_of_other_settings_are_refused(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "a.jsonl", Parrot(stop_after=SHARD))
    with pytest.raises(UserError, match="fingerprint was '', now 'other'"):
        run(tmp_path / "a.jsonl", Parrot(), options=replace(OPTIONS, fingerprint="other"))


def test_a_file_begun_by_one_process_is_finished(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        evaluate(Parrot(stop_after=40), samples(150), prompt_of, grade_of, tmp_path / "a.jsonl", OPTIONS)
    outcome = run(tmp_path / "a.jsonl", Parrot())
    assert (outcome.kept, outcome.asked, len(outcome.predictions)) == (48, 102, 150)


def test_nothing_to_ask_is_an_empty_file(tmp_path):
    assert run(tmp_path / "a.jsonl", Parrot(), count=0).predictions == []
    assert (tmp_path / "a.jsonl").read_bytes() == b""


def test_a_shard_of_another_is_waited_for(tmp_path):
    out = tmp_path / "a.jsonl"
    code = (
        "import sys, time; from malpighi.claims import Claims\n"
        "with Claims(sys.argv[1]) as c, c.holding('00001.jsonl') as mine:\n"
        "    print(mine, flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, f"{out}.claims"], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "True\n"
    engine = Parrot()
    threading.Timer(1.0, holder.kill).start()
    run(out, engine)
    assert len(engine.asked) == 149
    last = [prompt_of(sample).digest for sample in samples(2 * SHARD)[SHARD:] if sample.id != "toy/77"]
    assert engine.asked[-len(last) :] == last, "the held shard came last"
    holder.stdout.close()
    holder.wait(10)
    with Claims(Path(f"{out}.claims")) as claims, claims.holding("00001.jsonl") as mine:
        assert mine


def test_a_deleted_file_leaves_nothing_that_stops_a_new_one(tmp_path):
    out, other = tmp_path / "a.jsonl", replace(OPTIONS, fingerprint="other")
    run(out, Parrot())
    with pytest.raises(UserError, match="delete this one"):
        run(out, Parrot(), options=other)
    out.unlink()  # as the message says; its settings stay behind
    assert run(out, Parrot(), options=other).asked == 150
    assert run(out, Parrot(), options=other).kept == 150
