"""Every completion that a reinforcement stage drew, with its grade: one JSON line each."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import msgspec

from malpighi.durable import replacing
from malpighi.records import Failure, to_json


class Rollout(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One completion.

    Attributes:
        step: optimizer steps done when it was drawn.
        sample: id of the question.
        text: the completion.
        length: tokens, the end token included.
        truncated: it reached the length limit.
        reward: what it earned; None where it could not be graded.
        status: how the reading of the answer went; "" where it could not be graded.
        parts: of the grade.
        fault: why it could not be graded; "" where it could.
        dropped: drawn for a question that dynamic sampling replaced; nothing was learned from it.
    """

    step: int
    sample: str
    text: str
    length: int
    truncated: bool
    reward: float | None
    status: str = ""
    parts: dict[str, float] = {}
    fault: str = ""
    dropped: bool = False


class RolloutFile:
    """An open file of rollouts; goes on where a checkpoint left off.

    Args:
        path: the file; made where missing.
        step: the step that training goes on from. Rows from that step on are dropped: they are drawn again.
    """

    def __init__(self, path: Path, step: int) -> None:
        self._path = path
        kept = [row for row in read_rollouts(path) if row.step < step]
        with replacing(path) as file:
            file.writelines(to_json(row) + b"\n" for row in kept)

    def add(self, rows: Iterable[Rollout]) -> None:
        """Append rows."""
        with self._path.open("ab") as file:
            file.write(b"".join(to_json(row) + b"\n" for row in rows))


def read_rollouts(path: Path) -> list[Rollout]:
    """The rows of a file; none where it is missing. A last line cut short by a kill is left out."""
    if not path.is_file():
        return []
    lines = path.read_bytes().split(b"\n")
    return [msgspec.json.decode(line, type=Rollout) for line in lines[:-1]]


def faults(path: Path, stage: str) -> list[Failure]:
    """One failure per question that could not be graded, with the first reason and how often."""
    rows = [row for row in read_rollouts(path) if row.fault]
    counts = Counter(row.sample for row in rows)
    first = {row.sample: row.fault for row in reversed(rows)}
    return [
        Failure(sample, stage, f"{first[sample]} ({count} completions were left out)")
        for sample, count in counts.items()
    ]
