"""Work done ahead in other processes, so that a run uses the cores it has.

A process that works ahead leaves its results on disk, where a killed and resumed run would leave them too.
The run itself comes to the same work in its own order, finds it finished, and only reads it. So what works
ahead may fail or die without harm: the run then does the work itself, and shows what is wrong with it.
"""

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

import torch

from malpighi.lifetime import die_with

Thing = TypeVar("Thing")

log = logging.getLogger(__name__)

_FRESH = get_context("spawn")  # a fork of a process that runs torch's threads may hang


def default_workers(threads: int) -> int:
    """Processes that a command uses unless told: as many as keep its cores busy; one on a GPU."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 1 if torch.cuda.is_available() else max(cores // max(threads, 1), 1)


def start(function: Callable[..., Any], *arguments: Any) -> BaseProcess:
    """Call a module's function in a process of its own, which ends when this one does, however it ends."""
    process = _FRESH.Process(target=_call, args=(os.getpid(), function, arguments), daemon=True)
    process.start()
    return process


@contextmanager
def lanes(items: Sequence[Thing], workers: int, work: Callable[[list[Thing]], Any]) -> Iterator[list[Thing]]:
    """Share items out among processes; what is left for the caller to do first is given back.

    On leaving, the other processes are waited for. The caller then goes over all items again.

    Args:
        items: what is to be done.
        workers: processes, this one included.
        work: picklable; does some of the items, and may be told of items that are done already.
    """
    others: list[BaseProcess] = []
    try:
        for lane in range(1, min(workers, len(items))):
            others.append(start(work, list(items[lane::workers])))
        yield list(items[::workers])
        wait(others)
    finally:
        end(others)


def wait(processes: Iterable[BaseProcess]) -> None:
    """Until all have ended."""
    for process in processes:
        process.join()
        if process.exitcode:
            log.warning("work ahead ended with status %s; it is done again here", process.exitcode)


def end(processes: Iterable[BaseProcess]) -> None:
    """Kill what is still at work; what it has finished is kept."""
    for process in processes:
        if process.is_alive():
            process.kill()
            process.join()


def _call(parent: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run, which ends this process
    logging.captureWarnings(capture=True)  # into the run's log, as in the run itself
    die_with(parent)
    try:
        function(*arguments)
    except Exception:
        log.exception("work ahead failed")
        sys.exit(1)
