"""Splits by group: balanced over labels, the same from run to run, never with a group on both sides."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from malpighi.errors import ConfigError
from malpighi.records import Split

_ORDER = (Split.TRAIN, Split.VALIDATION, Split.TEST)


class Member(NamedTuple):
    """One item to be split; `official` is the split that the data set's own lists give it."""

    group: str
    label: Hashable
    official: Split | None = None


@dataclass(frozen=True)
class SplitPlan:
    """How items are split where a data set has no lists of its own.

    Attributes:
        train: wished fraction of items, 0 to 1.
        validation: as `train`.
        test: as `train`; the three add up to 1.
        seed: decides between groups of one size.
    """

    train: float = 0.7
    validation: float = 0.1
    test: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse fractions that cannot be."""
        fractions = (self.train, self.validation, self.test)
        if min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
            raise ConfigError(f"split fractions {fractions}: expected three numbers from 0 that add up to 1")

    @property
    def fractions(self) -> dict[Split, float]:
        """Fraction per split, without the splits that get nothing."""
        pairs = zip(_ORDER, (self.train, self.validation, self.test), strict=True)
        return {split: fraction for split, fraction in pairs if fraction > 0}


def rule_text(unit: str, *, official: bool = False) -> str:
    """The split rule in words.

    Args:
        unit: what a group is, e.g. `slide`.
        official: whether the data set's own lists are followed.

    Example:
        >>> rule_text("slide")
        'by slide, balanced over classes, seeded; a slide is never in two splits'
    """
    if official:
        return f"the official lists; what they leave out by {unit}; a {unit} is never in two splits"
    return f"by {unit}, balanced over classes, seeded; a {unit} is never in two splits"


def assign(members: Iterable[Member], plan: SplitPlan) -> dict[str, Split]:
    """A split for every group.

    Groups that official lists name keep that split (a group in several lists goes, whole, to the last of
    train, validation, test). The others are dealt out from the largest on, each to the split that lacks most
    of its rarest label, and so that every split has a group of every label while there are enough groups.

    Args:
        members: all items, any order.
        plan: wished fractions and seed.
    """
    deal = _Deal(plan)
    official: dict[str, Split] = {}
    groups: dict[str, Counter[Hashable]] = defaultdict(Counter)
    for member in members:
        groups[member.group][member.label] += 1
        if member.official is not None:
            known = official.get(member.group, member.official)
            official[member.group] = max(known, member.official, key=_ORDER.index)
    deal.expect(groups)
    for group, split in official.items():
        deal.give(groups[group], split)
    free = [group for group in groups if group not in official]
    for group in sorted(free, key=lambda name: (-groups[name].total(), _lot(plan.seed, name))):
        official[group] = deal.give(groups[group], deal.best(groups[group]))
    return official


class _Deal:
    """What each split has got of each label so far."""

    def __init__(self, plan: SplitPlan) -> None:
        self._fractions = plan.fractions
        self._totals: Counter[Hashable] = Counter()
        self._groups_left: Counter[Hashable] = Counter()
        self._got: dict[Split, Counter[Hashable]] = {split: Counter() for split in _ORDER}

    def expect(self, groups: Mapping[str, Counter[Hashable]]) -> None:
        for labels in groups.values():
            self._totals.update(labels)
            self._groups_left.update(labels.keys())

    def give(self, labels: Counter[Hashable], split: Split) -> Split:
        self._got[split].update(labels)
        self._groups_left.subtract(labels.keys())
        return split

    def best(self, labels: Counter[Hashable]) -> Split:
        open_splits = self._without(labels) or list(self._fractions)
        rarest = min(labels, key=lambda label: (self._totals[label], str(label)))

        def wish(split: Split) -> tuple[float, float, float]:
            others = sum(count * self._lack(label, split) for label, count in labels.items())
            return (round(self._lack(rarest, split), 9), round(others, 9), self._fractions[split])

        return max(open_splits, key=wish)

    def _without(self, labels: Counter[Hashable]) -> list[Split]:
        """Splits that have nothing of the scarcest label, where the groups left only just suffice."""
        scarcest = min(labels, key=lambda label: (self._groups_left[label], str(label)))
        empty = [split for split in self._fractions if not self._got[split][scarcest]]
        return empty if self._groups_left[scarcest] <= len(empty) else []

    def _lack(self, label: Hashable, split: Split) -> float:
        """Share of a label that the split still lacks."""
        return self._fractions[split] - self._got[split][label] / self._totals[label]


def _lot(seed: int, group: str) -> bytes:
    return hashlib.sha256(f"{seed}/{group}".encode()).digest()
