"""A job over many slides: shared, killed, resumed, and what becomes of slides that fail."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from malpighi.claims import Claims
from malpighi.errors import ConfigError, DataError, UserError
from malpighi.slides.job import JobSettings, run_job, slide_id


class Told:
    def __init__(self):
        self.calls = []

    def progressed(self, done, total, text):
        self.calls.append((done, total, text))


def measure(path: Path, folder: Path) -> dict[str, object]:
    """Stands for a slide's work: slow enough to be killed, its result known."""
    text = path.read_text()
    if text == "bad":
        raise DataError(f"{path.name} is bad")
    if text == "odd":
        raise ZeroDivisionError("by nothing")
    if text == "deadly" and "MALPIGHI_SPARE" not in os.environ:
        os.kill(os.getpid(), signal.SIGKILL)
    if text.startswith("slow"):
        time.sleep(0.02)
    (folder / "copy.txt").write_text(text * 3)
    return {"length": len(text), "text": text}


def join(result, out):
    merged = "\n".join((folder / "copy.txt").read_text() for _, folder in result.finished)
    (out / "merged.txt").write_text(merged)


HOW = JobSettings("s1", merge=join)


@pytest.fixture
def slides(tmp_path):
    folder = tmp_path / "slides"
    folder.mkdir()
    for number in range(40):
        (folder / f"{number:02d}.txt").write_text(f"slow{number}")
    return sorted(folder.iterdir())


def events(out, *names):
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] in names]


def start(paths, out, workers=1):
    """The same job in another process."""
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "import test_job as t\n"
        "if __name__ == '__main__':\n"
        "    how = t.JobSettings('s1', workers=int(sys.argv[3]), merge=t.join)\n"
        "    paths = [Path(p) for p in sys.argv[4:]]\n"
        "    t.run_job(paths, Path(sys.argv[2]), 'copy', t.measure, how, t.Told())\n"
    )
    here = str(Path(__file__).parent)
    script = out.parent / "other.py"
    script.write_text(code)
    command = [sys.executable, str(script), here, str(out), str(workers), *map(str, paths)]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join([here, *sys.path])})


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)


def result_of(out):
    return {name: (out / name).read_bytes() for name in ("merged.txt", "manifest.json", "summary.csv")}


def test_every_slide_is_done_once_in_order(slides, tmp_path):
    told = Told()
    result = run_job(slides, tmp_path / "out", "copy", measure, HOW, told)
    assert [done.path for done, _ in result.finished] == [str(path) for path in slides]
    assert told.calls[-1][:2] == (40, 40)
    assert Counter(line["event"] for line in events(tmp_path / "out", "begun", "done")) == {
        "begun": 40,
        "done": 40,
    }
    assert (tmp_path / "out" / "merged.txt").read_text().startswith("slow0slow0slow0\nslow1")
    again = run_job(slides, tmp_path / "out", "copy", measure, HOW, Told())
    assert again == result
    assert len(events(tmp_path / "out", "begun")) == 40


def test_a_failing_slide_is_recorded_and_the_job_goes_on(slides, tmp_path):
    slides[3].write_text("bad")
    slides[5].write_text("odd")
    result = run_job(slides, tmp_path / "out", "copy", measure, HOW, Told())
    assert [(f.id, f.stage, f.reason) for f in result.failures] == [
        (str(slides[3]), "copy", "03.txt is bad"),
        (str(slides[5]), "copy", "ZeroDivisionError: by nothing"),
    ]
    assert len(result.finished) == 38
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert [failed["id"] for failed in manifest["failed"]] == [str(slides[3]), str(slides[5])]
    run_job(slides, tmp_path / "out", "copy", measure, HOW, Told())
    assert len(events(tmp_path / "out", "failed")) == 2  # kept, not tried again
    retry = JobSettings("s1", merge=join, retry=True)
    assert len(run_job(slides, tmp_path / "out", "copy", measure, retry, Told()).failures) == 2
    assert len(events(tmp_path / "out", "failed")) == 4


def test_a_slide_that_changed_is_done_again(slides, tmp_path):
    slides[0].write_text("bad")
    run_job(slides, tmp_path / "out", "copy", measure, HOW, Told())
    slides[0].write_text("mended")
    slides[1].write_text("another")
    result = run_job(slides, tmp_path / "out", "copy", measure, HOW, Told())
    assert not result.failures
    assert (tmp_path / "out" / "merged.txt").read_text().startswith("mended" * 3 + "\n" + "another" * 3)


def test_a_slide_that_is_gone_stays_done_and_a_missing_one_fails(slides, tmp_path):
    run_job(slides, tmp_path / "out", "copy", measure, HOW, Told())
    slides[0].unlink()
    result = run_job([*slides, tmp_path / "never.txt"], tmp_path / "out", "copy", measure, HOW, Told())
    assert len(result.finished) == 40
    assert "No such file" in result.failures[0].reason


def test_other_settings_need_another_folder(slides, tmp_path):
    run_job(slides[:1], tmp_path / "out", "copy", measure, HOW, Told())
    with pytest.raises(ConfigError, match="other settings"):
        run_job(slides[:1], tmp_path / "out", "copy", measure, JobSettings("s2"), Told())


def test_a_full_disk_ends_the_job_in_words(slides, tmp_path):
    def full(path, folder):
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match="the disk is full"):
        run_job(slides, tmp_path / "out", "copy", full, HOW, Told())


def test_killed_twice_and_resumed_is_the_same_as_straight(slides, tmp_path):
    run_job(slides, tmp_path / "straight", "copy", measure, HOW, Told())
    out = tmp_path / "killed"
    for goal in (8, 20):
        process = start(slides, out)
        wait_for(lambda goal=goal: len(list((out / "slides").glob("*/row.json"))) >= goal)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (out / "manifest.json").exists()
    run_job(slides, out, "copy", measure, HOW, Told())
    assert result_of(out) == result_of(tmp_path / "straight")
    assert set(Counter(line["slide"] for line in events(out, "done")).values()) == {1}
    assert not list((out / "slides").glob("*.part"))


def test_two_commands_at_once_share_the_slides(slides, tmp_path):
    run_job(slides, tmp_path / "straight", "copy", measure, HOW, Told())
    out = tmp_path / "shared"
    both = [start(slides, out), start(slides, out)]
    assert [process.wait(60) for process in both] == [0, 0]
    assert set(Counter(line["slide"] for line in events(out, "begun")).values()) == {1}
    assert set(Counter(line["slide"] for line in events(out, "done")).values()) == {1}
    assert {line["pid"] for line in events(out, "done")} == {process.pid for process in both}
    assert result_of(out) == result_of(tmp_path / "straight")


def test_a_crew_shares_the_slides_and_dies_with_its_parent(slides, tmp_path):
    run_job(slides, tmp_path / "straight", "copy", measure, HOW, Told())
    out = tmp_path / "crew"
    process = start(slides, out, workers=2)
    wait_for(lambda: len(list((out / "slides").glob("*/row.json"))) >= 3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    crew = {line["pid"] for line in events(out, "begun")}
    assert process.pid not in crew
    wait_for(lambda: not any(alive(pid) for pid in crew))
    assert start(slides, out, workers=2).wait(60) == 0
    assert result_of(out) == result_of(tmp_path / "straight")
    assert set(Counter(line["slide"] for line in events(out, "done")).values()) == {1}


def test_a_slide_that_kills_its_process_is_a_failure(slides, tmp_path):
    slides[4].write_text("deadly")
    assert start(slides, tmp_path / "out", workers=2).wait(60) == 0
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert [failed["reason"][:43] for failed in manifest["failed"]] == [
        "the process that worked on it was killed or"
    ]
    assert len(manifest["finished"]) == 39


def test_a_claim_is_held_by_one(tmp_path):
    with Claims(tmp_path / "lock") as claims:
        with claims.holding("a") as first, claims.holding("a") as second, claims.holding("b") as other:
            assert (first, second, other) == (True, False, True)
        with claims.holding("a") as again:
            assert again
    with Claims(tmp_path / "lock") as claims, claims.holding("a") as again:
        assert again


def test_names_are_short_and_differ_by_place():
    long = slide_id(Path("/x/" + "ä" * 300 + ".svs"))
    assert len(long.encode()) < 100
    assert slide_id(Path("/a/slide.svs")) != slide_id(Path("/b/slide.svs"))
    assert "/" not in slide_id(Path("/a/ ..svs"))


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False
