"""What was seen in a cell: each observation present, absent or unknown, perhaps with a probability."""

import enum
from collections.abc import Iterable, Mapping

import msgspec

from malpighi.errors import DataError


class State(enum.StrEnum):
    """Whether an observation is there."""

    PRESENT = "present"
    ABSENT = "absent"
    UNKNOWN = "unknown"


class Finding(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One observation of one cell.

    Attributes:
        state: Present, absent or unknown.
        probability: Probability that it is present, 0 to 1; None stands for 1, 0 or 0.5 by the state.

    Raises:
        DataError: The probability is outside 0..1 or contradicts the state.
    """

    state: State
    probability: float | None = None

    def __post_init__(self) -> None:
        if self.probability is None:
            return
        low = 0.5 if self.state is State.PRESENT else 0.0
        high = 0.5 if self.state is State.ABSENT else 1.0
        if not low <= self.probability <= high:
            raise DataError(
                f"a finding that is {self.state} has probability {self.probability}; "
                f"expected {low} to {high}. Give the probability that the finding is present."
            )

    @property
    def chance(self) -> float:
        """Probability that the observation is present, with the default of its state filled in."""
        if self.probability is not None:
            return self.probability
        return {State.PRESENT: 1.0, State.ABSENT: 0.0, State.UNKNOWN: 0.5}[self.state]


class Observations(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is known of one cell. An observation that is not listed is unknown.

    Attributes:
        findings: By observation code.
        cell_class: One of the pack's cell classes, or None while unknown.
    """

    findings: Mapping[str, Finding] = {}
    cell_class: str | None = None

    @classmethod
    def of(
        cls, *, present: Iterable[str] = (), absent: Iterable[str] = (), cell_class: str | None = None
    ) -> "Observations":
        """From the codes that are present and the codes that are absent; the rest is unknown.

        >>> Observations.of(present=["NE"], absent=["KO"]).state("NM")
        <State.UNKNOWN: 'unknown'>
        """
        findings = {code: Finding(State.PRESENT) for code in present}
        for code in absent:
            if code in findings:
                raise DataError(f"{code} is given both as present and as absent; keep one")
            findings[code] = Finding(State.ABSENT)
        return cls(findings, cell_class)

    def state(self, code: str) -> State:
        """The state of one observation."""
        return self.findings[code].state if code in self.findings else State.UNKNOWN

    def chance(self, code: str) -> float:
        """The probability that one observation is present."""
        return self.findings[code].chance if code in self.findings else 0.5

    def replace(self, findings: Mapping[str, Finding]) -> "Observations":
        """The same cell with some findings changed."""
        return Observations({**self.findings, **findings}, self.cell_class)
