"""A guideline as a thing that reasons: observations in, candidate categories and the reasons for them out.

pack = load_pack("tbs")
cell = Observations.of(present=["NE", "NH", "NM", "NCR"], absent=["KO"], cell_class="squamous_immature")
pack.decide(cell).category        # certain, or None
pack.most_informative(cell)       # what to look at next
pack.counterfactuals(cell)        # what would have to differ
"""

import functools
import math
from collections.abc import Collection, Mapping
from importlib import resources
from itertools import combinations
from pathlib import Path
from typing import Literal

import msgspec

from malpighi.errors import ConfigError, DataError
from malpighi.guidelines.definition import Definition, Observation, Threshold, read_definition
from malpighi.guidelines.expression import CELL_CLASS, Expression, ExpressionError, Truth, parse
from malpighi.guidelines.findings import Finding, Observations, State
from malpighi.guidelines.table import Table

Verdict = Literal["satisfied", "failed", "unknown"]
Fires = Literal["yes", "possibly", "no"]
_LEAST_GAIN = 1e-9


class Step(msgspec.Struct, frozen=True):
    """What one rule said about a cell.

    Attributes:
        rule: The rule's id.
        category: The category it leads to.
        verdict: Its expression in three-valued logic.
        waits_for: What it reads and is not known, while the verdict is unknown; codes or "cell_class".
        fires: Whether it decides: in every completion of what is unknown, in some, or in none.
        text: The rule in words.
        cite: Source ids.
        confidence: Confidence in the rule itself.
    """

    rule: str
    category: str
    verdict: Verdict
    waits_for: tuple[str, ...]
    fires: Fires
    text: str
    cite: tuple[str, ...]
    confidence: str


class Decision(msgspec.Struct, frozen=True):
    """What the guideline says about one cell.

    Category, candidates and trace take a finding's state at its word; only the posterior uses probabilities.

    Attributes:
        category: The category, when every completion of what is unknown gives the same; else None.
        candidates: The categories of all completions, mildest first; exact.
        trace: Every rule, in priority order.
        posterior: Probability of each category over the chances of the findings; sums to 1.
    """

    category: str | None
    candidates: tuple[str, ...]
    trace: tuple[Step, ...]
    posterior: dict[str, float]


class Counterfactual(msgspec.Struct, frozen=True):
    """A smallest change of what is known that gives another category.

    Attributes:
        flips: The new state of each changed observation.
        before: The category without the change.
        after: The category with it.
        sentence: The change in words.
    """

    flips: dict[str, State]
    before: str
    after: str
    sentence: str


class Question(msgspec.Struct, frozen=True):
    """The unknown whose answer is expected to tell most.

    Attributes:
        about: An observation code, or "cell_class".
        text: The question's wording.
        gain: Expected fall of the posterior's entropy, bits.
    """

    about: str
    text: str
    gain: float


class Pack:
    """A checked guideline.

    Args:
        definition: The pack's data.
        where: The file's name, for messages.

    Attributes:
        definition: The pack's data: sources, limits, categories, thresholds, wording.
        codes: Observation codes in the pack's order.
        cell_classes: Ids of the cell classes.

    Raises:
        DataError: A rule's expression is wrong, or some cell gets no category.
    """

    def __init__(self, definition: Definition, where: str) -> None:
        self.definition = definition
        self.codes = tuple(observation.code for observation in definition.observations)
        self.cell_classes = tuple(value.id for value in definition.cell_class.values)
        self._bits = {code: 1 << position for position, code in enumerate(self.codes)}
        self._expressions = _compile(definition, where)
        self._table = Table([e.test for e in self._expressions], len(self.codes), len(self.cell_classes))
        self._severity = {category.id: category.severity for category in definition.categories}
        self._check_total(where)

    def category(self, findings: Mapping[str, bool], cell_class: str) -> str:
        """The category of a fully known cell; one table look-up.

        Args:
            findings: Every observation code of the pack, and whether it is present.
            cell_class: One of the pack's cell classes.

        Raises:
            DataError: A code is missing or not in the pack, or the class is not.
        """
        if findings.keys() != self._bits.keys():
            missing, extra = self._bits.keys() - findings.keys(), findings.keys() - self._bits.keys()
            raise DataError(
                f"pack {self.definition.id}: missing {sorted(missing)}, not in the pack {sorted(extra)}; "
                "a crisp category needs every observation, use decide() when some are unknown"
            )
        present = sum(self._bits[code] for code, there in findings.items() if there)
        return self._category_of(self._table.decider(present, self._class_index(cell_class)))

    def decide(self, observations: Observations) -> Decision:
        """Candidates, trace and posterior of a cell.

        Raises:
            DataError: The observations name a code or a cell class that the pack does not have.
        """
        present, unknown = self._masks(observations)
        deciders = self._table.deciders(present, unknown, self._classes(observations))
        candidates = self._ordered({self._category_of(rule) for rule in deciders})
        return Decision(
            category=candidates[0] if len(candidates) == 1 else None,
            candidates=candidates,
            trace=self._trace(present, unknown, observations.cell_class, deciders),
            posterior=self._posterior(observations),
        )

    def counterfactuals(
        self, observations: Observations, *, target: str | None = None
    ) -> tuple[Counterfactual, ...]:
        """All smallest sets of known findings that, the other way round, give another certain category.

        Unknown findings and the cell class stay as they are.

        Args:
            observations: The cell.
            target: Only changes to this category; None for any other.

        Returns:
            Sets of one and the same, least, size; none when the cell's category is not certain to begin with
            (then ask `most_informative`) or nothing leads there.

        Raises:
            ConfigError: The target is not a category of the pack.
        """
        if target is not None and target not in self._severity:
            raise ConfigError(
                f"no category {target!r} in pack {self.definition.id}; have {list(self._severity)}"
            )
        present, unknown = self._masks(observations)
        classes = self._classes(observations)
        before = self._certain(present, unknown, classes)
        known = [code for code in self.codes if not unknown & self._bits[code]]
        for size in range(1, len(known) + 1) if before is not None else ():
            found = []
            for codes in combinations(known, size):
                after = self._certain(present ^ sum(self._bits[code] for code in codes), unknown, classes)
                if after not in (None, before) and target in (None, after):
                    found.append(self._counterfactual(codes, present, str(before), str(after)))
            if found:
                return tuple(found)
        return ()

    def most_informative(self, observations: Observations) -> Question | None:
        """The unknown finding, or the cell class, whose answer cuts the expected entropy most.

        Returns:
            None when no answer would change the posterior. Ties go to the class, then to the pack's order.
        """
        self._masks(observations)
        now = _entropy(self._posterior(observations))
        questions = [
            Question(
                observation.code,
                observation.question,
                now - self._entropy_after(observations, observation.code),
            )
            for observation in self.definition.observations
            if observations.state(observation.code) is State.UNKNOWN
        ]
        if observations.cell_class is None:
            after = [
                _entropy(self._posterior(self._in_class(observations, name))) for name in self.cell_classes
            ]
            gain = now - sum(after) / len(after)
            questions.insert(0, Question(CELL_CLASS, self.definition.cell_class.question, gain))
        best = max(questions, key=lambda question: question.gain, default=None)
        return best if best is not None and best.gain > _LEAST_GAIN else None

    def soften(self, observations: Observations) -> Observations:
        """Give each present or absent finding without a probability the accuracy of a single rater.

        Source: the pack's `reliability` of each observation.
        """
        findings = {}
        for code, finding in observations.findings.items():
            if finding.probability is None and finding.state is not State.UNKNOWN:
                accuracy = self.observation(code).accuracy
                chance = accuracy if finding.state is State.PRESENT else 1 - accuracy
                findings[code] = Finding(finding.state, chance)
        return observations.replace(findings)

    def severity(self, category: str) -> int:
        """How bad a category is; higher is worse."""
        return self._severity[category]

    def observation(self, code: str) -> Observation:
        """The wording and data of one observation.

        Raises:
            DataError: The pack has no such observation.
        """
        self._check_codes([code])
        return self.definition.observations[self.codes.index(code)]

    def threshold(self, code: str) -> Threshold:
        """How one observation is measured.

        Raises:
            DataError: The pack states no threshold for it.
        """
        for threshold in self.definition.thresholds:
            if threshold.observation == code:
                return threshold
        raise DataError(
            f"pack {self.definition.id} has no threshold for {code!r}; add one under `thresholds`"
        )

    def decider(self, present: frozenset[str], cell_class: str) -> str:
        """The id of the rule that decides a fully known cell with exactly these observations present."""
        self._check_codes(present)
        mask = sum(self._bits[code] for code in present)
        return self.definition.rules[self._table.decider(mask, self._class_index(cell_class))].id

    def _check_total(self, where: str) -> None:
        for name, row in zip(self.cell_classes, self._table.rows, strict=True):
            if -1 in row:
                state = [code for code in self.codes if self._bits[code] & row.index(-1)]
                raise DataError(
                    f"{where}: no rule holds for a cell of class {name!r} with {state or 'nothing'} present; "
                    "let the last rule say `when: true`"
                )

    def _check_codes(self, codes: Collection[str]) -> None:
        strange = [code for code in codes if code not in self._bits]
        if strange:
            raise DataError(
                f"pack {self.definition.id} has no observation {strange}; have {list(self.codes)}"
            )

    def _class_index(self, cell_class: str) -> int:
        if cell_class not in self.cell_classes:
            raise DataError(
                f"pack {self.definition.id} has no cell class {cell_class!r}; have {list(self.cell_classes)}"
            )
        return self.cell_classes.index(cell_class)

    def _classes(self, observations: Observations) -> list[int]:
        if observations.cell_class is None:
            return list(range(len(self.cell_classes)))
        return [self._class_index(observations.cell_class)]

    def _masks(self, observations: Observations) -> tuple[int, int]:
        self._check_codes(list(observations.findings))
        present = unknown = 0
        for code, bit in self._bits.items():
            state = observations.state(code)
            present |= bit if state is State.PRESENT else 0
            unknown |= bit if state is State.UNKNOWN else 0
        return present, unknown

    def _category_of(self, rule: int) -> str:
        return self.definition.rules[rule].category

    def _ordered(self, categories: set[str]) -> tuple[str, ...]:
        return tuple(sorted(categories, key=lambda category: (self._severity[category], category)))

    def _certain(self, present: int, unknown: int, classes: list[int]) -> str | None:
        categories = {self._category_of(rule) for rule in self._table.deciders(present, unknown, classes)}
        return categories.pop() if len(categories) == 1 else None

    def _trace(
        self, present: int, unknown: int, cell_class: str | None, deciders: set[int]
    ) -> tuple[Step, ...]:
        index = None if cell_class is None else self._class_index(cell_class)
        open_questions = [CELL_CLASS] if cell_class is None else []
        open_questions += [code for code in self.codes if self._bits[code] & unknown]
        steps = []
        for number, (rule, expression) in enumerate(
            zip(self.definition.rules, self._expressions, strict=True)
        ):
            verdict = _verdict(expression.test(present, unknown, index))
            waits = (
                [name for name in open_questions if name in expression.reads] if verdict == "unknown" else []
            )
            fires: Fires = "no" if number not in deciders else "yes" if len(deciders) == 1 else "possibly"
            steps.append(
                Step(
                    rule=rule.id,
                    category=rule.category,
                    verdict=verdict,
                    waits_for=tuple(waits),
                    fires=fires,
                    text=rule.text,
                    cite=tuple(rule.cite),
                    confidence=rule.confidence,
                )
            )
        return tuple(steps)

    def _posterior(self, observations: Observations) -> dict[str, float]:
        chances = [observations.chance(code) for code in self.codes]
        rules = self._table.expectation(chances, self._classes(observations), len(self.definition.rules))
        posterior = {category.id: 0.0 for category in self.definition.categories}
        for number, weight in enumerate(rules):
            posterior[self._category_of(number)] += weight
        return posterior

    def _counterfactual(
        self, codes: tuple[str, ...], present: int, before: str, after: str
    ) -> Counterfactual:
        flips, clauses = {}, []
        for code in codes:
            observation = self.observation(code)
            was_present = bool(present & self._bits[code])
            flips[code] = State.ABSENT if was_present else State.PRESENT
            clauses.append(observation.if_absent if was_present else observation.if_present)
        return Counterfactual(flips, before, after, f"{before} -> {after} if {' and '.join(clauses)}")

    def _entropy_after(self, observations: Observations, code: str) -> float:
        chance = observations.chance(code)
        yes = self._posterior(observations.replace({code: Finding(State.PRESENT)}))
        no = self._posterior(observations.replace({code: Finding(State.ABSENT)}))
        return chance * _entropy(yes) + (1 - chance) * _entropy(no)

    def _in_class(self, observations: Observations, cell_class: str) -> Observations:
        return Observations(observations.findings, cell_class)


def load_pack(name: str | Path) -> Pack:
    """Load a guideline that ships ("tbs") or a pack file of your own (a path that ends in .yaml or .yml).

    Raises:
        ConfigError: There is no such pack or file.
        DataError: The file is not a sound pack; the message names the file and the rule.
        FormatVersionError: The file is of a version this release does not read.

    >>> load_pack("tbs").category(dict.fromkeys(load_pack("tbs").codes, False), "squamous_mature")
    'NILM'
    """
    if Path(name).suffix in {".yaml", ".yml"}:
        try:
            text = Path(name).read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"cannot read the pack {name}: {error.strerror}. Check the path.") from None
        except UnicodeDecodeError as error:
            raise DataError(f"{name}: not UTF-8 text ({error}). Save it as UTF-8.") from None
        return Pack(read_definition(text, str(name)), str(name))
    return _shipped(str(name))


@functools.cache
def _shipped(name: str) -> Pack:
    folder = resources.files("malpighi.guidelines") / "packs"
    shipped = {Path(file.name).stem: file for file in folder.iterdir() if file.name.endswith(".yaml")}
    if name not in shipped:
        raise ConfigError(f"no pack {name!r}; have {sorted(shipped)}, or give the path of a .yaml file")
    where = f"{name}.yaml"
    return Pack(read_definition(shipped[name].read_text(encoding="utf-8"), where), where)


def _compile(definition: Definition, where: str) -> list[Expression]:
    codes = [observation.code for observation in definition.observations]
    classes = [value.id for value in definition.cell_class.values]
    compiled = []
    for rule in definition.rules:
        try:
            compiled.append(parse(rule.when, codes, classes))
        except ExpressionError as error:
            raise DataError(f"{where}: rule {rule.id!r}: when: {error}") from None
    return compiled


def _verdict(value: Truth) -> Verdict:
    if value is None:
        return "unknown"
    return "satisfied" if value else "failed"


def _entropy(posterior: Mapping[str, float]) -> float:
    return -sum(p * math.log2(p) for p in posterior.values() if p > 0)
