import logging
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from malpighi.errors import UserError
from malpighi.geometry import View
from malpighi.inference.engine import Completion, Sampling, failed
from malpighi.inference.request_cache import Cached
from malpighi.models.prompt import Prompt
from malpighi.records import Turn

GREEDY = Sampling(max_new_tokens=8)
DRAWN = Sampling(max_new_tokens=8, temperature=1.0, seed=3)


class Counter:
    """Says what it was asked and how often in the call and in all; words in `broken` fail."""

    def __init__(self, broken=()):
        self.asked = []
        self.broken = set(broken)

    def generate(self, prompts, sampling):
        said = []
        for prompt in prompts:
            words = prompt.turns[-1].text
            before = sum(done == words for done in self.asked)
            self.asked.append(words)
            fails = words in self.broken
            said.append(failed("down") if fails else Completion(f"{words}/{before}", 2, chances=(0.25, 0.75)))
        return said


class Streamed(Counter):
    """Hands over last things first, and breaks down after `most`."""

    def __init__(self, most):
        super().__init__()
        self.most = most

    def each(self, prompts, sampling):
        for index in reversed(range(len(prompts))):
            if self.most == 0:
                raise UserError("the key has run out")
            self.most -= 1
            yield index, self.generate([prompts[index]], sampling)[0]


def ask(words="one", pixels=None, **changes):
    images = () if pixels is None else (Image.fromarray(np.full((4, 6, 3), pixels, np.uint8)),)
    views = tuple(View(image.size, image.size) for image in images)
    prompt = Prompt("s", (Turn("user", words),), images, views, f"{words}/{pixels}")
    return replace(prompt, **changes)


def texts(completions):
    return [completion.text for completion in completions]


def test_what_was_asked_is_not_asked_again_and_comes_back_whole(tmp_path):
    engine = Counter()
    cached = Cached(engine, tmp_path / "deep" / "a.sqlite", "weights")
    first = cached.generate([ask("a"), ask("b")], GREEDY)
    again = Cached(Counter(), tmp_path / "deep" / "a.sqlite", "weights")
    assert again.generate([ask("b"), ask("c"), ask("a")], GREEDY) == [
        first[1],
        Completion("c/0", 2, chances=(0.25, 0.75)),
        first[0],
    ]
    assert engine.asked == ["a", "b"]
    report = again.report()
    assert (report.hits, report.misses, report.entries) == (2, 1, 3)
    assert report.bytes > 0


@pytest.mark.parametrize(
    "other",
    [
        {"prompt": ask("other", 7)},
        {"prompt": ask("a", 8)},
        {"prompt": ask("a", 7, system="t")},
        {"prompt": ask("a", 7, answers=("yes", "no"))},
        {"prompt": ask("a", 7, turns=(Turn("user", "x"), Turn("assistant", "y"), Turn("user", "a")))},
        {"sampling": Sampling(max_new_tokens=9)},
        {"fingerprint": "others"},
        {"adapter": "vqa"},
    ],
    ids=str,
)
def test_any_difference_is_another_request(tmp_path, other):
    asked = Counter()
    Cached(asked, tmp_path / "a", "weights").generate([ask("a", 7)], GREEDY)
    cached = Cached(asked, tmp_path / "a", other.get("fingerprint", "weights"), other.get("adapter", ""))
    cached.generate([other.get("prompt", ask("a", 7))], other.get("sampling", GREEDY))
    assert len(asked.asked) == 2


def test_the_seed_of_a_greedy_request_does_not_count(tmp_path):
    cached = Cached(Counter(), tmp_path / "a", "w")
    cached.generate([ask()], GREEDY)
    cached.generate([ask()], Sampling(max_new_tokens=8, seed=5))
    assert cached.report().hits == 1


def test_failures_are_asked_again(tmp_path):
    engine = Counter(broken=["bad"])
    cached = Cached(engine, tmp_path / "a", "w")
    assert [c.finish for c in cached.generate([ask("bad"), ask("good")], GREEDY)] == ["error", "stop"]
    engine.broken.clear()
    assert texts(cached.generate([ask("bad"), ask("good")], GREEDY)) == ["bad/1", "good/0"]
    assert engine.asked == ["bad", "good", "bad"]


def test_equal_greedy_requests_are_asked_once_and_equal_draws_each(tmp_path):
    engine = Counter()
    cached = Cached(engine, tmp_path / "a", "w")
    assert texts(cached.generate([ask("a"), ask("b"), ask("a")], GREEDY)) == ["a/0", "b/0", "a/0"]
    assert engine.asked == ["a", "b"]
    engine.asked.clear()
    drawn = cached.generate([ask("a"), ask("b"), ask("a")], DRAWN)
    assert texts(drawn) == ["a/0", "b/0", "a/1"]
    assert cached.generate([ask("a"), ask("a"), ask("b")], DRAWN) == [drawn[0], drawn[2], drawn[1]]
    assert engine.asked == ["a", "b", "a"]
    # A third draw needs the first two drawn again, or the engine would take it for the first.
    engine.asked.clear()
    assert texts(cached.generate([ask("a")] * 3, DRAWN)) == ["a/0", "a/1", "a/2"]


def test_draws_without_a_seed_are_kept_only_when_told(tmp_path):
    loose = Sampling(max_new_tokens=8, temperature=1.0)
    engine = Counter()
    cached = Cached(engine, tmp_path / "a", "w")
    cached.generate([ask()], loose)
    cached.generate([ask()], loose)
    assert len(engine.asked) == 2
    told = Cached(engine, tmp_path / "a", "w", sampled=True)
    told.generate([ask()], loose)
    told.generate([ask()], loose)
    assert len(engine.asked) == 3


def test_each_answer_is_kept_when_it_arrives(tmp_path):
    with pytest.raises(UserError, match="run out"):
        Cached(Streamed(2), tmp_path / "a", "w").generate([ask(w) for w in "abcd"], GREEDY)
    engine = Streamed(9)
    assert texts(Cached(engine, tmp_path / "a", "w").generate([ask(w) for w in "abcd"], GREEDY)) == [
        "a/0",
        "b/0",
        "c/0",
        "d/0",
    ]
    assert engine.asked == ["b", "a"]


@pytest.mark.parametrize("damage", [b"no database", b"", "header", "middle"])
def test_a_damaged_file_is_moved_aside_with_a_warning(tmp_path, caplog, damage):
    path = tmp_path / "a.sqlite"
    cached = Cached(Counter(), path, "w")
    cached.generate([ask(w * 300) for w in "abcdefghij"], GREEDY)
    data = bytearray(path.read_bytes())
    if damage == "header":
        data[0:100] = b"\xff" * 100
    elif damage == "middle":
        data[100:] = b"\xff" * (len(data) - 100)
    else:
        data = bytearray(damage)
    path.write_bytes(data)
    with caplog.at_level(logging.WARNING):
        fresh = Cached(Counter(), path, "w")
        assert texts(fresh.generate([ask("a")], GREEDY)) == ["a/0"]
    moved = list(tmp_path.glob("a.sqlite.damaged-1"))
    assert bool(moved) == bool(damage), "an empty file is a new database"
    assert ("is damaged" in caplog.text) == bool(damage)
    assert fresh.report().entries == 1
    if damage:
        assert moved[0].read_bytes() == bytes(data)


def test_an_answer_that_cannot_be_read_is_asked_for_again(tmp_path):
    cached = Cached(Counter(), tmp_path / "a", "w")
    cached.generate([ask()], GREEDY)
    store = sqlite3.connect(tmp_path / "a")
    store.execute("UPDATE answers SET answer = ?", (b"{half",))
    store.commit()
    store.close()
    assert texts(cached.generate([ask()], GREEDY)) == ["one/1"]
    assert texts(cached.generate([ask()], GREEDY)) == ["one/1"]


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write|cannot be used"):
        Cached(Counter(), tmp_path / "file" / "a", "w").generate([ask()], GREEDY)


def test_damage_deep_in_the_file_is_found_when_it_is_read(tmp_path, caplog):
    path = tmp_path / "a.sqlite"
    prompts = [ask(str(n) * 300) for n in range(60)]
    Cached(Counter(), path, "w").generate(prompts, GREEDY)
    data = bytearray(path.read_bytes())
    assert len(data) > 5 * 4096
    data[3 * 4096 :] = b"\xff" * (len(data) - 3 * 4096)
    path.write_bytes(data)
    engine = Counter()
    assert len(Cached(engine, path, "w").generate(prompts, GREEDY)) == 60
    assert len(engine.asked) == 60
    assert "is damaged" in caplog.text
    assert Cached(engine, path, "w").report().entries == 60
    assert len(list(tmp_path.glob("*.damaged-*"))) == 1


def hammer(path, start):
    cached = Cached(Counter(), path, "w")
    for number in range(start, start + 40):
        assert texts(cached.generate([ask(str(number))], GREEDY)) == [f"{number}/0"]


def test_processes_share_one_file(tmp_path):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import pathlib; import test_request_cache as t; "
        "t.hammer(pathlib.Path(sys.argv[2]), int(sys.argv[3]))"
    )
    folder = str(Path(__file__).parent)
    others = [
        subprocess.Popen([sys.executable, "-c", code, folder, str(tmp_path / "a"), str(20 * k)])
        for k in range(3)
    ]
    assert [process.wait(60) for process in others] == [0, 0, 0]
    assert Cached(Counter(), tmp_path / "a", "w").report().entries == 80
