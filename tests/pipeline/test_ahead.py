import importlib
import os
import signal
import subprocess
import sys
import time
from functools import partial
from multiprocessing import active_children

import pytest

from malpighi.pipeline.ahead import end, lanes, start, wait

WORK = """
import os, time

def mark(folder, names):
    for name in names:
        if not (folder / name).exists():
            (folder / name).write_text(str(os.getpid()))

def fail(folder, names):
    raise ZeroDivisionError(names)

def sleep(seconds):
    for each in seconds:
        time.sleep(each)
"""


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A module that other processes can import; `mark` leaves a file per name that says who did it."""
    (tmp_path / "ahead_work.py").write_text(WORK)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "ahead_work", raising=False)
    return importlib.import_module("ahead_work")


@pytest.mark.parametrize(("workers", "processes"), [(1, 1), (2, 2), (9, 3)])
def test_items_are_shared_out_and_each_is_done_once(work, tmp_path, workers, processes):
    names = ["a", "b", "c"]
    with lanes(names, workers, partial(work.mark, tmp_path)) as mine:
        work.mark(tmp_path, mine)
    who = {(tmp_path / name).read_text() for name in names}
    assert len(who) == processes
    assert str(os.getpid()) in who


def test_who_fails_leaves_the_work_to_the_caller(work, tmp_path, caplog):
    with lanes(["a", "b"], 2, partial(work.fail, tmp_path)) as mine:
        work.mark(tmp_path, mine)
    assert mine == ["a"]
    assert not (tmp_path / "b").exists()
    assert "it is done again here" in caplog.text


def test_what_is_at_work_ends_when_the_caller_stumbles(work):
    def stumble():
        with lanes([60, 60], 2, work.sleep):
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        stumble()
    assert not active_children()


def test_ended_processes_are_gone(work):
    process = start(work.sleep, [60])
    end([process])
    assert process.exitcode == -signal.SIGKILL
    done = start(work.sleep, [0])
    wait([done])
    assert done.exitcode == 0


AHEAD = """
import time
from malpighi.pipeline.ahead import start
if __name__ == "__main__":
    print(start(time.sleep, 60).pid, flush=True)
    time.sleep(60)
"""
POOL = """
import os, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from malpighi.lifetime import die_with
if __name__ == "__main__":
    with ProcessPoolExecutor(1, get_context("spawn"), die_with, (os.getpid(),)) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        pool.submit(time.sleep, 60).result()
"""


@pytest.mark.parametrize("calls", [AHEAD, POOL])
def test_who_works_ahead_dies_with_a_killed_run(tmp_path, calls):
    script = tmp_path / "caller.py"
    script.write_text(calls)
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as caller:
        child = int(caller.stdout.readline())
        time.sleep(5)  # until the child's interpreter is up
        assert alive(child)
        caller.send_signal(signal.SIGKILL)
    for _ in range(50):
        if not alive(child):
            return
        time.sleep(0.1)
    os.kill(child, signal.SIGKILL)
    pytest.fail("the child outlived the run")


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
