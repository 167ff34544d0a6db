"""Processes that all run the same function, end when their parent does, and are replaced when they die."""

import os
import signal
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from malpighi.errors import UserError
from malpighi.lifetime import die_with

_FRESH = get_context("spawn")  # a fork of a process with threads may hang
_MENDABLE = 3


class Crew:
    """Some processes at the same work.

    Args:
        function: a module's function; returns when nothing is left to do.
        arguments: its arguments; picklable.
        count: processes.
    """

    def __init__(self, function: Callable[..., None], arguments: tuple[Any, ...], count: int) -> None:
        self._call = (function, arguments)
        self._told, self._tell = _FRESH.Pipe(duplex=False)
        self._processes = [self._start() for _ in range(count)]

    def look(self) -> list[int]:
        """Process ids of those that died since the last look; others take their place.

        A process that has nothing left to do ends with status 0 and is not replaced.

        Raises:
            UserError: one of them came upon something that the user must mend.
        """
        dead = [process for process in self._processes if process.exitcode is not None]
        self._processes = [process for process in self._processes if process.exitcode is None]
        if any(process.exitcode == _MENDABLE for process in dead) and self._told.poll(1):
            raise UserError(self._told.recv())
        died = [int(process.pid or 0) for process in dead if process.exitcode]
        self._processes += [self._start() for _ in died]
        return died

    def end(self) -> None:
        """Kill what is still at work."""
        for process in self._processes:
            process.kill()
            process.join()
        for end in (self._told, self._tell):
            end.close()

    def _start(self) -> BaseProcess:
        process = _FRESH.Process(target=_run, args=(os.getpid(), self._tell, *self._call), daemon=True)
        process.start()
        return process


def _run(parent: int, tell: Connection, function: Callable[..., None], arguments: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this process
    die_with(parent)
    try:
        function(*arguments)
    except UserError as error:
        tell.send(str(error))
        raise SystemExit(_MENDABLE) from error
