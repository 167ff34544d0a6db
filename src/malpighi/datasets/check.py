"""What a data set on disk holds against what it should hold, for a person to read."""

from collections import Counter, defaultdict
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from malpighi.datasets.adapter import Adapter
from malpighi.datasets.split import SplitPlan
from malpighi.records import Boxes, Choice, Failure, Sample, Split

IMAGES = "images"
"""In an adapter's `counts`: how many different images are asked about."""


class Count(NamedTuple):
    """Items of one kind; `expected` is None for a kind that the adapter does not know."""

    what: str
    expected: int | None
    found: int


class Twins(NamedTuple):
    """Images of the same bytes in several entries; reading keeps the first and reports the others.

    Where an adapter keeps them all, only those in several groups count: they may part over a split.
    """

    ids: tuple[str, ...]
    groups: tuple[str, ...]
    splits: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """The result of a check.

    Attributes:
        adapter: with licence, use, split rule and traps.
        counts: per class, kind of box, exam or split.
        splits: samples per split.
        groups: groups per split.
        failures: what could not be used.
        twins: duplicated images.
    """

    adapter: Adapter
    counts: tuple[Count, ...]
    splits: dict[str, int]
    groups: dict[str, int]
    failures: tuple[Failure, ...]
    twins: tuple[Twins, ...]

    @property
    def complete(self) -> bool:
        """Whether every expected number was found."""
        return all(count.expected in (None, count.found) for count in self.counts)

    @property
    def leaks(self) -> tuple[Twins, ...]:
        """Duplicates that would lie on both sides of a split if reading kept them."""
        return tuple(twins for twins in self.twins if len(twins.splits) > 1)

    def rows(self) -> list[dict[str, str]]:
        """The counts as a table."""
        return [
            {
                "data set": self.adapter.name,
                "what": count.what,
                "expected": "" if count.expected is None else str(count.expected),
                "found": str(count.found),
                "verdict": "ok" if count.expected in (None, count.found) else "differs",
            }
            for count in self.counts
        ]


def check(adapter: Adapter, folder: str | Path, plan: SplitPlan | None = None) -> Report:
    """Read a whole data set and count.

    Raises:
        DataError: as `Adapter.read`.
    """
    found: Counter[str] = Counter()
    splits: Counter[str] = Counter()
    groups: dict[str, set[str]] = defaultdict(set)
    images: dict[str, list[Sample]] = defaultdict(list)
    failures: list[Failure] = []
    for result in adapter.read(folder, plan, drop_duplicates=False):
        if isinstance(result, Failure):
            failures.append(result)
            continue
        sample = result.sample
        what, number = counted(sample, adapter.counts)
        found[what] += number
        splits[str(sample.split)] += 1
        groups[str(sample.split)].add(sample.group)
        images[sample.images[0].key].append(sample)
    found.update({split: number for split, number in splits.items() if split in adapter.counts})
    if IMAGES in adapter.counts:
        found[IMAGES] = len(images)
    names = [*adapter.counts, *sorted(set(found) - set(adapter.counts))]
    return Report(
        adapter=adapter,
        counts=tuple(Count(name, adapter.counts.get(name), found[name]) for name in names),
        splits=_in_order(splits),
        groups=_in_order({split: len(members) for split, members in groups.items()}),
        failures=tuple(failures),
        twins=tuple(filter(None, (_twins(same, repeats=adapter.repeats) for same in images.values()))),
    )


def counted(sample: Sample, expected: Container[str] = ()) -> tuple[str, int]:
    """What a sample counts as, and how often: its class, its boxes, or one of its exam.

    Args:
        sample: to be counted.
        expected: names that the adapter knows; an exam among them is counted whole, not class by class, as
            where every question has options of its own.
    """
    what = sample.exam.partition("/")[2]
    if isinstance(sample.answer, Choice) and what not in expected:
        name = sample.options[sample.answer.index]
        return (name if what == "class" else f"{what}: {name}", 1)
    if isinstance(sample.answer, Boxes):
        return (what, len(sample.answer.boxes) or 1)
    return (what, 1)


def _twins(samples: list[Sample], *, repeats: bool) -> Twins | None:
    """The entries of an image, by one sample of each; None for one entry, whatever is asked about it."""
    exam = Counter(sample.exam for sample in samples).most_common(1)[0][0]
    entries = {sample.id.partition(":")[0]: sample for sample in samples if sample.exam == exam}
    groups = {sample.group for sample in entries.values()}
    if len(entries) < 2 or (repeats and len(groups) < 2):
        return None
    return Twins(
        tuple(sample.id for sample in entries.values()),
        tuple(sorted(groups)),
        tuple(sorted({str(sample.split) for sample in entries.values()})),
    )


def _in_order(numbers: dict[str, int]) -> dict[str, int]:
    return {str(split): numbers[split] for split in Split if split in numbers}
