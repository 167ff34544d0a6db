"""One examination shared by several processes, on one machine or on several that share a folder.

    a.jsonl.shards/00000.jsonl   rows of the first shard, written and resumed by `evaluate`
    a.jsonl.claims               who works on what; a process that ends, however it ends, lets go
    a.jsonl                      all rows in sample order, once every shard is done; the folder is then gone

Shards and the batches within are fixed, so the file has the same bytes as one process would have written.
"""

import logging
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from malpighi.claims import Claims
from malpighi.durable import mending
from malpighi.evaluation.evaluate import (
    EvaluateOptions,
    GradeOf,
    Outcome,
    PromptOf,
    evaluate,
    refuse_repeats,
    settings_of,
)
from malpighi.evaluation.rows import gather, refuse_others, rows_in
from malpighi.inference.engine import Engine
from malpighi.records import Sample

log = logging.getLogger(__name__)

SHARD = 64
"""Samples of one shard, rounded up to whole batches."""

_SECONDS_BETWEEN_LOOKS = 0.2
_WHOLE = "whole"


class _Part(NamedTuple):
    """One shard: its rows' file and its samples."""

    path: Path
    samples: Sequence[Sample]


class _Board:
    """Which shards are done; a shard that is done stays so, and its file is not read again."""

    def __init__(self, parts: Sequence[_Part]) -> None:
        self.parts = parts
        self._done: set[Path] = set()

    def done(self, part: _Part) -> bool:
        if part.path not in self._done and rows_in(part.path) == len(part.samples):
            self._done.add(part.path)
        return part.path in self._done

    def rows(self, but: _Part | None = None) -> int:
        """Rows that are written, of all shards but one."""
        others = (part for part in self.parts if part is not but)
        return sum(len(part.samples) if self.done(part) else rows_in(part.path) for part in others)


def evaluate_shared(
    engine: Engine,
    samples: Sequence[Sample],
    prompt_of: PromptOf,
    grade_of: GradeOf,
    out: Path,
    options: EvaluateOptions,
    on_progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """As `evaluate`, beside other processes that are given the same arguments; each returns the whole.

    A process takes the next shard that nobody has, until all are done. One that is killed leaves its shard to
    the others, with the batches that it had finished; what was asked in its last batch is asked again, save
    the answers that a request cache has kept. A file that one process has begun with `evaluate` is finished
    in that way, by one of them.

    Args:
        engine: as for `evaluate`, and so are all others.
        samples: what is asked.
        prompt_of: a sample's prompt.
        grade_of: the verdict on a completion.
        out: the predictions file.
        options: the same in every process.
        on_progress: called with (rows done by all processes, rows in all).

    Raises:
        UserError: as `evaluate`. The other processes go on.

    Returns:
        All rows; `asked` counts those that this process has written.
    """
    refuse_repeats(samples)
    refuse_begun(samples, out, options)
    folder, board = _shards(out), _Board(_parts(samples, out, options))

    def answer(part: _Part) -> int:
        def tell(done: int, _: int) -> None:
            if on_progress is not None:
                on_progress(board.rows(but=part) + done, len(samples))

        return evaluate(engine, part.samples, prompt_of, grade_of, part.path, options, tell).asked

    with mending(out.parent):
        folder.mkdir(parents=True, exist_ok=True)
    with Claims(out.with_name(out.name + ".claims")) as claims:
        asked = _answer_all(board, claims, out, answer)
        with claims.holding(_WHOLE, wait=True):
            if not out.exists():
                log.info("%s: %d shards are put together", out, len(board.parts))
                gather([part.path for part in board.parts], out)
            whole = evaluate(engine, samples, prompt_of, grade_of, out, options, on_progress)
            shutil.rmtree(folder, ignore_errors=True)
    asked += whole.asked
    return replace(whole, kept=len(samples) - asked, asked=asked)


def refuse_begun(samples: Sequence[Sample], out: Path, options: EvaluateOptions) -> None:
    """Refuse to go on with rows of `out`, or of its shards, that were begun with other samples or options.

    Raises:
        UserError: naming the file and what differs.
    """
    for part in (_Part(out, samples), *_parts(samples, out, options)):
        if part.path.is_file():
            refuse_others(part.path, settings_of(part.samples, options))


def _answer_all(board: _Board, claims: Claims, out: Path, answer: Callable[[_Part], int]) -> int:
    """Answer shards until all are done, by whomever; the number of rows written here."""
    asked = 0
    while not out.exists() and not all(board.done(part) for part in board.parts):
        got = 0
        for part in board.parts:
            if board.done(part):
                continue
            with claims.holding(part.path.name) as mine:
                # In this order: another process takes the shards away once the whole file is there.
                if mine and not board.done(part) and not out.exists():
                    got += answer(part)
        asked += got
        if not got:
            time.sleep(_SECONDS_BETWEEN_LOOKS)
    return asked


def _shards(out: Path) -> Path:
    return out.with_name(out.name + ".shards")


def _parts(samples: Sequence[Sample], out: Path, options: EvaluateOptions) -> list[_Part]:
    return [
        _Part(_shards(out) / f"{number:05d}.jsonl", part)
        for number, part in enumerate(_deal(samples, options))
    ]


def _deal(samples: Sequence[Sample], options: EvaluateOptions) -> Iterator[Sequence[Sample]]:
    size = -(-SHARD // options.batch_size) * options.batch_size
    for start in range(0, len(samples), size):
        yield samples[start : start + size]
