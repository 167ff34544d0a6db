"""Checks of a pack over every fully known cell: what its author cannot see by reading the rules."""

import msgspec

from malpighi.guidelines.pack import Pack


class Fall(msgspec.Struct, frozen=True):
    """An abnormal finding that makes a cell's category milder.

    Attributes:
        cell_class: The class of the cell.
        present: What was present before.
        added: The abnormal observation that was added.
        before: The category before.
        after: The milder category after.
    """

    cell_class: str
    present: tuple[str, ...]
    added: str
    before: str
    after: str


class Examination(msgspec.Struct, frozen=True):
    """What an exhaustive walk over a pack found.

    Attributes:
        counts: Number of crisp states by cell class and category.
        unreachable_rules: Rules that never decide.
        unreachable_categories: Categories no cell gets.
        idle_observations: Observations that never change a category.
        falls: Every case where severity falls as an abnormal finding is added.
    """

    counts: dict[str, dict[str, int]]
    unreachable_rules: tuple[str, ...]
    unreachable_categories: tuple[str, ...]
    idle_observations: tuple[str, ...]
    falls: tuple[Fall, ...]


def examine(pack: Pack) -> Examination:
    """Walk over every crisp state of every cell class.

    Returns:
        What was found; a sound pack has nothing but `counts`.
    """
    rules = {rule.id: rule.category for rule in pack.definition.rules}
    categories = [category.id for category in pack.definition.categories]
    abnormal = {item.code for item in pack.definition.observations if item.abnormal}
    counts = {name: dict.fromkeys(categories, 0) for name in pack.cell_classes}
    fired, telling, falls = set(), set(), []
    for cell_class in pack.cell_classes:
        for present in _subsets(pack.codes):
            rule = pack.decider(present, cell_class)
            fired.add(rule)
            before = rules[rule]
            counts[cell_class][before] += 1
            for code in pack.codes:
                if code in present:
                    continue
                after = rules[pack.decider(present | {code}, cell_class)]
                if after != before:
                    telling.add(code)
                if code in abnormal and pack.severity(after) < pack.severity(before):
                    falls.append(Fall(cell_class, tuple(sorted(present)), code, before, after))
    reached = {rules[rule] for rule in fired}
    return Examination(
        counts=counts,
        unreachable_rules=tuple(rule for rule in rules if rule not in fired),
        unreachable_categories=tuple(category for category in categories if category not in reached),
        idle_observations=tuple(code for code in pack.codes if code not in telling),
        falls=tuple(falls),
    )


def _subsets(codes: tuple[str, ...]) -> list[frozenset[str]]:
    subsets: list[frozenset[str]] = [frozenset()]
    for code in codes:
        subsets += [subset | {code} for subset in subsets]
    return subsets
