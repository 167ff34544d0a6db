"""One suite for every engine: scripted, in this process, over a server."""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from malpighi.errors import ConfigError, UserError
from malpighi.geometry import View
from malpighi.inference.engine import Completion, Sampling
from malpighi.inference.openai_engine import OpenAIEngine, Server
from malpighi.inference.scripted_engine import ScriptedEngine
from malpighi.inference.transformers_engine import TransformersEngine
from malpighi.models.families import FAMILIES
from malpighi.models.prompt import Prompt
from malpighi.models.sizes import TinySize
from malpighi.models.tiny import build_tiny
from malpighi.models.vlm import load_vlm
from malpighi.records import Turn

SMALL = TinySize(hidden=64, layers=2, feed_forward=96, vision_hidden=32, vision_layers=2, vision_heads=2)
BAD = "<|image_pad|>"
GREEDY = Sampling(max_new_tokens=6)


def ask(side, words, images=0):
    rng = np.random.default_rng(sum(words.encode()))
    shown = tuple(
        Image.fromarray(rng.integers(0, 256, (side, 2 * side, 3), dtype=np.uint8)) for _ in range(images)
    )
    views = tuple(View(image.size, image.size) for image in shown)
    return Prompt("Answer.", (Turn("user", words),), shown, views, f"{words}/{images}")


class EchoServer:
    """A chat server on the loopback that echoes the question; one word, BAD, is refused."""

    def __init__(self):
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                content = body["messages"][-1]["content"]
                parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
                words = parts[-1]["text"].split()
                cut = len(words) > body["max_tokens"]
                if BAD in words:
                    return self.reply(400, {"error": {"message": "a special token"}})
                said = " ".join(words[: body["max_tokens"]])
                choice = {"message": {"content": said}, "finish_reason": "length" if cut else "stop"}
                usage = {"completion_tokens": min(len(words), body["max_tokens"])}
                return self.reply(200, {"choices": [choice], "usage": usage})

            def reply(self, status, body):
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()
        self.thread.join(timeout=5)


@pytest.fixture(scope="module")
def no_proxy():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1")
        yield


@pytest.fixture(
    scope="module", params=["scripted", "openai", *(f"transformers:{f}" for f in sorted(FAMILIES))]
)
def engine(request, tmp_path_factory):
    """Any engine, with `side`: the px of a token that its prompts must be made of."""
    kind, _, family = request.param.partition(":")
    if kind == "transformers":
        vlm = load_vlm(build_tiny(family, tmp_path_factory.mktemp("tiny"), ["Answer. one two"], size=SMALL))
        made = TransformersEngine(vlm, batch_size=3)
        made.side = vlm.family.pixels_per_token
        yield made
    elif kind == "openai":
        request.getfixturevalue("no_proxy")
        server = EchoServer()
        made = OpenAIEngine(Server(f"http://127.0.0.1:{server.http.server_port}/v1", "m", backoff=0.01))
        made.side = 28
        yield made
        server.close()
    else:
        made = ScriptedEngine(_echo)
        made.side = 28
        yield made


def _echo(prompt):
    if BAD in prompt.turns[-1].text:
        raise UserError("a special token")
    return prompt.turns[-1].text


def test_no_prompts_no_completions(engine):
    assert engine.generate([], GREEDY) == []


def test_as_many_completions_as_prompts_and_in_order(engine):
    prompts = [ask(engine.side, "word " * (1 + i * 5 % 7), images=i % 3) for i in range(8)]
    together = engine.generate(prompts, GREEDY)
    alone = [engine.generate([prompt], GREEDY)[0] for prompt in prompts]
    assert together == alone
    assert all(isinstance(completion, Completion) for completion in together)


def test_one_bad_prompt_does_not_spoil_the_others(engine):
    good = [ask(engine.side, "one two", images=1), ask(engine.side, "three")]
    expected = engine.generate(good, GREEDY)
    first, bad, last = engine.generate([good[0], ask(engine.side, f"a {BAD} b"), good[1]], GREEDY)
    assert [first, last] == expected
    assert (bad.finish, bad.text) == ("error", "")
    assert "special token" in bad.error
    assert all(completion.finish != "error" and completion.error == "" for completion in expected)


def test_all_bad_prompts_are_all_errors(engine):
    done = engine.generate([ask(engine.side, BAD)] * 3, GREEDY)
    assert [completion.finish for completion in done] == ["error"] * 3


def test_several_images_and_unicode(engine):
    prompts = [
        ask(engine.side, "Größe in µm? 細胞核 🔬", images=3),
        ask(engine.side, "naïve\nlines", images=2),
    ]
    done = engine.generate(prompts, GREEDY)
    assert [completion.finish in ("stop", "length") for completion in done] == [True, True]


def test_the_length_is_bounded_and_said(engine):
    for most in (1, 3):
        done = engine.generate(
            [ask(engine.side, "one two three four five six")], Sampling(max_new_tokens=most)
        )[0]
        assert done.tokens <= most
        if done.finish == "length":
            assert done.tokens == most


def test_repeating_a_call_repeats_the_answers(engine):
    prompts = [ask(engine.side, "one two", images=1), ask(engine.side, "three four")]
    sampling = Sampling(max_new_tokens=6, temperature=1.0, seed=11)
    assert engine.generate(prompts, sampling) == engine.generate(prompts, sampling)


def test_senseless_sampling_is_refused():
    with pytest.raises(ConfigError, match="at least 1"):
        Sampling(max_new_tokens=0)
    for temperature in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="temperature"):
            Sampling(temperature=temperature)


def test_the_scripted_engine_follows_its_list_and_says_when_it_ends():
    engine = ScriptedEngine(["  one two ", "three"])
    done = engine.generate([ask(28, "?")] * 3, Sampling(max_new_tokens=2))
    assert done[:2] == [Completion("  one two ", 2), Completion("three", 1)]
    assert done[2].finish == "error"
    assert re.search("holds 2 replies", done[2].error)
    assert ScriptedEngine(["a b  c d"]).generate([ask(28, "?")], Sampling(max_new_tokens=3)) == [
        Completion("a b  c", 3, "length")
    ]
