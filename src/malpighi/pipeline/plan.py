"""What a run will do and cost, told before anything runs: stage by stage, and over the processes that work.

The estimates are those of `cost.py`; how stages share the processes is worked out as `run` does it.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from malpighi.pipeline.cost import Cost, Counts, Machine, estimate, measure
from malpighi.pipeline.folder import RunFolder
from malpighi.pipeline.recipe import Recipe, needs


class PlanRow(msgspec.Struct, frozen=True, kw_only=True):
    """One stage of a plan.

    Attributes:
        stage: its name.
        kind: what it does.
        count: what it goes through, in words.
        tokens: tokens it passes through the model; 0 where none.
        seconds: estimated time in one process.
        most: seconds if every round of resampling were drawn; `seconds` where nothing is drawn anew.
        gigabytes: estimated peak memory of one process, beside Python and torch themselves.
        parts: adapters or models in it that can go side by side.
        needs: stages that must be finished before.
        state: `finished`, `half done` or `to do`.
    """

    stage: str
    kind: str
    count: str
    tokens: int
    seconds: float
    most: float
    gigabytes: float
    parts: int
    needs: tuple[str, ...]
    state: str


class Span(NamedTuple):
    """When a stage is at work.

    Attributes:
        stage: its name.
        start: seconds after the run's start.
        end: likewise.
        gigabytes: peak memory of all its processes.
    """

    stage: str
    start: float
    end: float
    gigabytes: float


def plan(recipe: Recipe, folder: RunFolder, machine: Machine | None = None) -> list[PlanRow]:
    """What each stage will go through and cost.

    Args:
        recipe: what is to be run.
        folder: the run folder; finished stages are shown as such. It need not exist.
        machine: of the estimate; None measures this one (about a second).
    """
    cost = Cost(machine or measure(), Counts.of(recipe))
    rows = []
    for name, stage in recipe.stages.items():
        found = estimate(stage, cost)
        rows.append(
            PlanRow(
                stage=name,
                kind=type(stage).__name__.lower(),
                count=found.count,
                tokens=found.tokens,
                seconds=found.seconds,
                most=found.seconds if found.most is None else found.most,
                gigabytes=found.gigabytes,
                parts=found.parts,
                needs=needs(stage, recipe.stages),
                state=folder.state(name)["state"],
            )
        )
    return rows


def total(rows: Sequence[PlanRow], workers: int = 1) -> tuple[float, float]:
    """Seconds still to go, and peak gigabytes of all processes at once."""
    found = spans(rows, workers)
    held = (sum(other.gigabytes for other in found if other.start <= at.start < other.end) for at in found)
    return max((span.end for span in found), default=0.0), max(held, default=0.0)


def at_most(rows: Sequence[PlanRow], workers: int = 1) -> float:
    """Seconds still to go if every round of resampling were drawn for every question."""
    return total([replace(row, seconds=row.most) for row in rows], workers)[0]


def spans(rows: Sequence[PlanRow], workers: int) -> list[Span]:
    """When each stage that is not finished is at work.

    As `run` does it: it takes the stages in their order. Whenever it begins one, idle processes begin those
    later ones that need nothing unfinished, one process each; what is idle still takes parts of its own.
    """
    now = 0.0
    ends = {row.stage: 0.0 for row in rows if row.state == "finished"}
    found: list[Span] = []
    for place, row in enumerate(rows):
        if row.stage in ends:  # finished, or begun ahead
            now = max(now, ends[row.stage])
            continue
        idle = workers - 1 - sum(span.end > now for span in found)
        ready = [later for later in rows[place + 1 :] if later.stage not in ends and _may(later, ends, now)]
        for later in ready[:idle]:
            found.append(Span(later.stage, now, now + later.seconds, later.gigabytes))
            ends[later.stage] = found[-1].end
            idle -= 1
        lanes = min(1 + idle, row.parts)
        end = now + row.seconds * math.ceil(row.parts / lanes) / row.parts
        found.append(Span(row.stage, now, end, lanes * row.gigabytes))
        ends[row.stage] = now = end
    return found


def _may(row: PlanRow, ends: dict[str, float], now: float) -> bool:
    return all(ends.get(needed, math.inf) <= now for needed in row.needs)
