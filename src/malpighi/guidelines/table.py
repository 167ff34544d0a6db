"""The rule that decides each fully known cell, worked out once; everything else is looked up in it.

With n observations and k cell classes there are k * 2**n fully known cells: 1,536 for the pack of nine
observations and three classes. What may still happen to a partly known cell is a set of rows of this table.
"""

from collections.abc import Sequence

from malpighi.guidelines.expression import Test


class Table:
    """Which rule decides, for every crisp state.

    A state is a bit mask of the present observations and the index of the cell class.

    Args:
        tests: The compiled expressions in priority order.
        observations: Number of observations.
        classes: Number of cell classes.
    """

    def __init__(self, tests: Sequence[Test], observations: int, classes: int) -> None:
        self.rows = tuple(
            tuple(_first(tests, present, cell_class) for present in range(1 << observations))
            for cell_class in range(classes)
        )

    def decider(self, present: int, cell_class: int) -> int:
        """Index of the deciding rule of one crisp state, or -1 when no rule holds."""
        return self.rows[cell_class][present]

    def deciders(self, present: int, unknown: int, classes: Sequence[int]) -> set[int]:
        """Every rule that decides some completion of a partly known cell (supervaluation).

        Args:
            present: Bits known to be present.
            unknown: Bits not known; disjoint from `present`.
            classes: Cell classes that are still possible.
        """
        found = set()
        for row in (self.rows[cell_class] for cell_class in classes):
            subset = unknown
            while True:
                found.add(row[present | subset])
                if not subset:
                    break
                subset = (subset - 1) & unknown
        return found

    def expectation(self, chances: Sequence[float], classes: Sequence[int], rules: int) -> list[float]:
        """Probability of each rule deciding, summed exactly over all states.

        Args:
            chances: Probability of each observation being present; observations are independent.
            classes: Cell classes that are still possible, equally likely.
            rules: Number of rules.
        """
        states = [(0, 1.0 / len(classes))]
        for position, chance in enumerate(chances):
            bit = 1 << position
            present = [(mask | bit, weight * chance) for mask, weight in states] if chance > 0 else []
            absent = [(mask, weight * (1 - chance)) for mask, weight in states] if chance < 1 else []
            states = present + absent
        total = [0.0] * rules
        for row in (self.rows[cell_class] for cell_class in classes):
            for mask, weight in states:
                total[row[mask]] += weight
        return total


def _first(tests: Sequence[Test], present: int, cell_class: int) -> int:
    return next((index for index, test in enumerate(tests) if test(present, 0, cell_class)), -1)
