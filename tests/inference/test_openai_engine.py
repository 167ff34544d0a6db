import base64
import io
import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from malpighi.errors import ConfigError, UserError
from malpighi.geometry import View
from malpighi.inference.engine import Completion, Sampling
from malpighi.inference.openai_engine import OpenAIEngine, Server, Spent, messages
from malpighi.inference.openai_reply import Reply, Retry, read_reply, wait_before
from malpighi.models.prompt import Prompt
from malpighi.records import Turn


def chat(text, reason="stop", tokens=2, **message):
    body = {"choices": [{"message": {"content": text, **message}, "finish_reason": reason}]}
    return 200, body | {"usage": {"completion_tokens": tokens}}


class Loopback:
    """Gives scripted answers; the last one repeats.

    An answer is (status, JSON or raw text[, headers]), or a fault: "hang", "at once", "mid-body", "trickle".
    """

    def __init__(self):
        self.script = [chat("ok")]
        self.bodies = []
        self.keys = []
        self.busiest = 0
        self.release = threading.Event()
        self._busy = 0
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.answer(self, body)

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = False
        self._thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def answer(self, handler, body):
        with self._lock:
            self.bodies.append((handler.path, body))
            self.keys.append(handler.headers.get("Authorization"))
            self._busy += 1
            self.busiest = max(self.busiest, self._busy)
            answer = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if callable(answer):
            answer = answer(body)
        if answer == "hang":
            self.release.wait(5)
            answer = chat("too late")
        if answer in ("mid-body", "at once", "trickle"):
            self.break_off(handler, answer)
            return
        status, content, *headers = answer
        data = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        try:
            handler.send_response(status)
            for name, value in (*headers, ("Content-Length", str(len(data)))):
                handler.send_header(name, value)
            handler.end_headers()
            handler.wfile.write(data)
        except OSError:
            pass  # the client gave up, which is what some of these tests are about
        with self._lock:
            self._busy -= 1

    def break_off(self, handler, how):
        """Half of a reply and no more; or byte by byte, for longer than anyone waits."""
        handler.close_connection = True
        if how != "at once":
            handler.send_response(200)
            handler.send_header("Content-Length", "1000")
            handler.end_headers()
            handler.wfile.write(b'{"choices": [{"mess')
        for _ in range(40 if how == "trickle" else 0):
            if self.release.wait(0.05):
                break
            try:
                handler.wfile.write(b" ")
            except OSError:
                break
        with self._lock:
            self._busy -= 1

    def close(self):
        self.release.set()
        self.http.shutdown()
        self.http.server_close()
        self._thread.join(timeout=5)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def loopback():
    server = Loopback()
    yield server
    server.close()


def engine(loopback, **changes):
    settings = {"base_url": loopback.url, "model": "m", "attempts": 3, "backoff": 0.01, "timeout": 5.0}
    return OpenAIEngine(Server(**(settings | changes)))


def ask(words="Which?", images=(), system="Think.", turns=()):
    views = tuple(View(image.size, image.size) for image in images)
    return Prompt(system, (*turns, Turn("user", words)), tuple(images), views, words)


GREEDY = Sampling(max_new_tokens=7)


def test_the_request_says_what_was_asked_for(loopback):
    sampling = Sampling(max_new_tokens=7, temperature=0.5, seed=3)
    assert engine(loopback, api_key="sesame").generate([ask()], sampling) == [Completion("ok", 2)]
    path, body = loopback.bodies[0]
    assert path == "/v1/chat/completions"
    assert loopback.keys == ["Bearer sesame"]
    assert body == {
        "model": "m",
        "messages": [{"role": "system", "content": "Think."}, {"role": "user", "content": "Which?"}],
        "max_tokens": 7,
        "temperature": 0.5,
        "seed": 3,
    }


def test_without_a_key_none_is_sent(loopback):
    engine(loopback, base_url=loopback.url + "/").generate([ask(system="")], GREEDY)
    assert loopback.keys == [None]
    assert loopback.bodies[0][0] == "/v1/chat/completions"
    assert loopback.bodies[0][1]["messages"] == [{"role": "user", "content": "Which?"}]


def test_images_arrive_pixel_for_pixel_before_the_first_user_words():
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (28, 56, 3), dtype=np.uint8)) for _ in range(2)]
    earlier = (Turn("user", "What is seen?"), Turn("assistant", "A gland."))
    system, first, answer, last = messages(ask(images=images, turns=earlier))
    assert system["role"] == "system"
    assert [part["type"] for part in first["content"]] == ["image_url", "image_url", "text"]
    assert first["content"][2]["text"] == "What is seen?"
    assert (answer, last) == (
        {"role": "assistant", "content": "A gland."},
        {"role": "user", "content": "Which?"},
    )
    for image, part in zip(images, first["content"], strict=False):
        head, _, data = part["image_url"]["url"].partition(",")
        assert head == "data:image/png;base64"
        sent = Image.open(io.BytesIO(base64.b64decode(data)))
        assert np.array_equal(np.asarray(sent), np.asarray(image))


def test_the_key_is_never_shown():
    assert "sesame" not in repr(Server("http://localhost/v1", "m", api_key="sesame"))


def test_several_requests_are_under_way_at_once_and_order_is_kept(loopback):
    def slowly(body):
        words = body["messages"][-1]["content"]
        time.sleep(0.12 - 0.02 * int(words))  # the first asked answers last
        return chat(words)

    loopback.script = [slowly]
    done = engine(loopback, concurrency=3).generate([ask(str(i)) for i in range(6)], GREEDY)
    assert [completion.text for completion in done] == list("012345")
    assert 2 <= loopback.busiest <= 3


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(loopback, status):
    loopback.script = [(status, "busy"), (status, "busy"), chat("at last")]
    assert engine(loopback).generate([ask()], GREEDY) == [Completion("at last", 2)]
    assert len(loopback.bodies) == 3


def test_retry_after_is_respected(loopback):
    loopback.script = [(429, "slow down", ("Retry-After", "1")), chat("ok")]
    start = time.monotonic()
    engine(loopback).generate([ask()], GREEDY)
    assert time.monotonic() - start >= 1.0


def test_waits_double_are_scattered_and_bounded():
    for attempt, most in ((1, 1.0), (2, 2.0), (3, 4.0), (30, 60.0)):
        waits = {wait_before(Retry("busy"), attempt, 1.0) for _ in range(200)}
        assert len(waits) > 100
        assert most / 2 <= min(waits) < 0.6 * most
        assert 0.9 * most < max(waits) <= most
    asked = [wait_before(Retry("busy", wait=7.0), 1, 1.0) for _ in range(50)]
    assert 7.0 <= min(asked) <= max(asked) <= 7.5
    assert wait_before(Retry("busy", wait=1e9), 1, 1.0) == 60.0


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        ("2", 2, 2),
        ("1.5", 1.5, 1.5),
        ("Fri, 01 Jan 2100 00:00:00 GMT", 1e8, 1e10),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0, 0),
    ],
)
def test_what_a_busy_server_asks_for(header, least, most):
    read = read_reply(Reply(429, header, b"slow down"))
    assert isinstance(read, Retry)
    assert least <= read.wait <= most


@pytest.mark.parametrize("header", ["", "soon", "-3", "nan", "1e9", "1.2.3"])
def test_a_senseless_retry_after_is_no_wait(header):
    assert read_reply(Reply(429, header, b"")).wait is None


def test_a_server_that_stays_broken_costs_that_prompt_only(loopback):
    def one_breaks(body):
        return (500, "boom") if body["messages"][-1]["content"] == "bad" else chat("ok")

    loopback.script = [one_breaks]
    first, bad, last = engine(loopback).generate([ask("a"), ask("bad"), ask("b")], GREEDY)
    assert (first.text, last.text) == ("ok", "ok")
    assert bad.finish == "error"
    assert "500 after 3 tries: boom" in bad.error
    assert len(loopback.bodies) == 5


def test_a_refused_request_is_not_repeated(loopback):
    loopback.script = [(400, {"error": "too long"})]
    done = engine(loopback).generate([ask()], GREEDY)[0]
    assert (done.finish, len(loopback.bodies)) == ("error", 1)
    assert "400" in done.error
    assert "too long" in done.error


def test_timeouts_are_retried_and_then_reported(loopback):
    loopback.script = ["hang", chat("ok")]
    assert engine(loopback, timeout=0.2).generate([ask()], GREEDY) == [Completion("ok", 2)]
    loopback.script = ["hang"]
    done = engine(loopback, timeout=0.2, attempts=2).generate([ask()], GREEDY)[0]
    assert done.finish == "error"
    assert "ReadTimeout after 2 tries" in done.error


@pytest.mark.parametrize(
    "content",
    [
        "{not json",
        "[]",
        {"choices": []},
        {"choices": [{"message": {"content": "a"}}, {"message": {"content": "b"}}]},
        {"choices": [{}]},
        {"choices": [{"message": None}]},
        {"choices": "x"},
        {"choices": [{"message": {"content": ["a"]}}]},
        {"choices": [{"message": {"content": "a"}}], "usage": {"completion_tokens": "many"}},
        "",
        {"error": "x"},
    ],
)
def test_replies_that_are_no_completions_are_asked_for_again_and_then_errors(loopback, content):
    loopback.script = [(200, content), chat("ok")]
    assert engine(loopback).generate([ask()], GREEDY) == [Completion("ok", 2)]
    loopback.script = [(200, content)] * 3 + [chat("ok")]
    done = engine(loopback, concurrency=1).generate([ask(), ask()], GREEDY)
    assert [completion.finish for completion in done] == ["error", "stop"]
    assert "not a chat completion" in done[0].error
    assert "after 3 tries" in done[0].error
    assert len(loopback.bodies) == 6


@pytest.mark.parametrize(
    ("answer", "reason"),
    [(chat(None), "no content"), (chat(None, refusal="I cannot help."), "refused")],
)
def test_an_empty_message_or_a_refusal_is_asked_for_again_and_then_an_error(loopback, answer, reason):
    loopback.script = [answer, chat("ok")]
    assert engine(loopback).generate([ask()], GREEDY) == [Completion("ok", 2)]
    loopback.script = [answer]
    done = engine(loopback).generate([ask()], GREEDY)[0]
    assert (done.finish, len(loopback.bodies)) == ("error", 5)
    assert reason in done.error


@pytest.mark.parametrize("cut", ["mid-body", "at once"])
def test_a_reply_that_is_cut_off_is_asked_for_again(loopback, cut):
    loopback.script = [cut, chat("ok")]
    assert engine(loopback).generate([ask()], GREEDY) == [Completion("ok", 2)]
    loopback.script = [cut]
    done = engine(loopback).generate([ask()], GREEDY)[0]
    assert done.finish == "error"
    assert "RemoteProtocolError after 3 tries" in done.error


def test_a_reply_that_trickles_counts_as_hanging(loopback):
    loopback.script = ["trickle"]
    start = time.monotonic()
    done = engine(loopback, timeout=0.3, attempts=2).generate([ask()], GREEDY)[0]
    assert "ReadTimeout after 2 tries" in done.error
    assert time.monotonic() - start < 4


def test_what_was_used_is_counted_with_failed_tries(loopback):
    used = {"usage": {"prompt_tokens": 30, "completion_tokens": 4}}
    good = chat("ok")[1] | used
    loopback.script = [(500, "busy"), (200, used), (200, good)]
    asked = engine(loopback)
    asked.generate([ask()], GREEDY)
    assert asked.spent == Spent(3, 60, 8)


def test_completions_arrive_one_by_one(loopback):
    def slowly(body):
        time.sleep(0.15 if body["messages"][-1]["content"] == "0" else 0.0)
        return chat(body["messages"][-1]["content"])

    loopback.script = [slowly]
    arrived = list(engine(loopback, concurrency=3).each([ask(str(i)) for i in range(3)], GREEDY))
    assert arrived[-1] == (0, Completion("0", 2))
    assert sorted((index, completion.text) for index, completion in arrived) == [(0, "0"), (1, "1"), (2, "2")]


@pytest.mark.parametrize("code", ["model_not_found", "invalid_api_key", "insufficient_quota"])
def test_errors_that_all_prompts_would_meet_end_the_run_whatever_their_status(loopback, code):
    loopback.script = [(400, {"error": {"code": code, "message": "no"}})]
    with pytest.raises(UserError, match=code):
        engine(loopback, concurrency=1).generate([ask(str(i)) for i in range(40)], GREEDY)
    assert len(loopback.bodies) < 5


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (chat("a b", "length"), Completion("a b", 2, "length")),
        (chat("a", None), Completion("a", 2, "stop")),
        (chat(""), Completion("", 2, "stop")),
        (chat(None, "length", reasoning="why"), Completion("<think>why</think>", 2, "length")),
        (chat("a", usage_missing=1), Completion("a", 2, "stop")),
        (
            chat("<answer>b</answer>", reasoning_content="why"),
            Completion("<think>why</think><answer>b</answer>", 2),
        ),
        (chat("b", reasoning="why"), Completion("<think>why</think>b", 2)),
        (chat("<think>x</think>b", reasoning_content="x"), Completion("<think>x</think>b", 2)),
    ],
)
def test_how_completions_are_read(loopback, answer, expected):
    loopback.script = [answer]
    assert engine(loopback).generate([ask()], GREEDY) == [expected]


def test_a_completion_without_usage_counts_no_tokens(loopback):
    loopback.script = [
        (200, {"choices": [{"message": {"content": "a"}, "finish_reason": "stop"}], "usage": None})
    ]
    assert engine(loopback).generate([ask()], GREEDY) == [Completion("a", 0)]


def test_a_filtered_completion_is_an_error(loopback):
    loopback.script = [chat("par", "content_filter")]
    done = engine(loopback).generate([ask()], GREEDY)[0]
    assert (done.text, done.finish) == ("par", "error")
    assert "content_filter" in done.error


@pytest.mark.parametrize(
    ("status", "message"),
    [(401, "refuses the API key"), (403, "refuses the API key"), (404, "model 'm'.*not found")],
)
def test_what_concerns_every_prompt_ends_the_run(loopback, status, message):
    loopback.script = [(status, "no")]
    with pytest.raises(UserError, match=message) as caught:
        engine(loopback, concurrency=2, api_key="sesame").generate([ask(str(i)) for i in range(40)], GREEDY)
    assert "sesame" not in str(caught.value)
    assert len(loopback.bodies) < 40


def test_no_server_is_a_clear_error():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Server(f"http://127.0.0.1:{port}/v1", "m", attempts=2, backoff=0.01)
    with pytest.raises(UserError, match=rf"cannot reach http://127.0.0.1:{port}/v1 after 2 tries"):
        OpenAIEngine(server).generate([ask()], GREEDY)


def test_senseless_settings_are_refused():
    with pytest.raises(ConfigError, match="http://localhost:8000/v1"):
        Server("localhost:8000/v1", "m")
    for changes in ({"concurrency": 0}, {"attempts": 0}, {"timeout": 0.0}, {"backoff": -1.0}):
        with pytest.raises(ConfigError, match="must"):
            Server("http://localhost/v1", "m", **changes)
