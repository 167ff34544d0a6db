"""A pack as it stands in its YAML file: the schema, and the checks that need no reasoning."""

import math
import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal

import msgspec
import yaml

from malpighi.errors import DataError, FormatVersionError
from malpighi.guidelines.findings import State

FORMAT_VERSION = 1
OUR_CHOICE = "our choice"
"""Stands where a source would stand when no publication supports the line."""
MAX_OBSERVATIONS = 12
"""Every state is enumerated, and there are 2 to the power of this many."""

Confidence = Literal["high", "medium", "low"]
_Text = Annotated[str, msgspec.Meta(min_length=1)]
_Code = Annotated[str, msgspec.Meta(pattern="^[A-Z][A-Z0-9_]*$")]
_Name = Annotated[str, msgspec.Meta(pattern="^[a-z][a-z0-9_]*$")]
_Citations = Annotated[list[_Text], msgspec.Meta(min_length=1)]


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class Source(_Part, frozen=True, kw_only=True):
    """Where a criterion comes from.

    Attributes:
        citation: Author, title, place, year; what it says in our words.
        url: Its address, if it has one.
        read: What the pack's authors read of it.
    """

    citation: _Text
    url: str | None = None
    read: Literal["in full", "page", "abstract", "excerpt", "second hand"]


class Phrases(_Part, frozen=True, kw_only=True):
    """Words that state an observation in a text.

    Attributes:
        present: Say that it is there.
        absent: Say that it is not; a denied phrase of `present` says so too.
    """

    present: list[_Text] = []
    absent: list[_Text] = []


class Observation(_Part, frozen=True, kw_only=True):
    """One thing to look for in a cell.

    Attributes:
        code: Upper-case code used in rules.
        name: English name.
        question: The question put to a person or a model.
        meaning: What "present" means.
        if_present: Clause for counterfactuals, "the nuclear membrane were irregular".
        if_absent: Its opposite.
        abnormal: Whether adding it must never lower the severity.
        reliability: Share of pairs of raters who agree on it, 0.5 (chance) to 1.
        note: Anything a reader should know, such as why it is not abnormal.
        phrases: How texts state it.
    """

    code: _Code
    name: _Text
    question: _Text
    meaning: _Text
    if_present: _Text
    if_absent: _Text
    abnormal: bool
    reliability: Annotated[float, msgspec.Meta(ge=0.5, le=1)]
    note: str = ""
    phrases: Phrases = Phrases()

    @property
    def accuracy(self) -> float:
        """Probability that one rater is right, if raters err equally often and independently.

        Two raters, each right with probability q, agree with probability
        a = q^2 + (1 - q)^2; this solves for q.

        Departs: agreement itself is often used as accuracy; that overstates the error of a single rater.
        """
        return float((1 + (2 * self.reliability - 1) ** 0.5) / 2)


class CellClass(_Part, frozen=True, kw_only=True):
    """One answer to the question which kind of cell this is; `phrases` state it in a text beside `name`."""

    id: _Name
    name: _Text
    meaning: _Text
    phrases: list[_Text] = []


class Context(_Part, frozen=True, kw_only=True):
    """The question that comes before the observations, and its possible answers."""

    question: _Text
    values: Annotated[list[CellClass], msgspec.Meta(min_length=1)]


class Category(_Part, frozen=True, kw_only=True):
    """One category of the guideline; a higher severity is worse, and two categories may share one."""

    id: _Text
    name: _Text
    severity: Annotated[int, msgspec.Meta(ge=0)]
    branch: _Text
    text: _Text


class Threshold(_Part, frozen=True, kw_only=True):
    """How a measurement becomes a finding.

    Attributes:
        observation: The code it decides.
        measure: Name of the measured quantity.
        unit: Its unit.
        definition: Exactly what is measured, against what.
        present: Whether the finding is present from the value upwards or downwards.
        value: The single cut for crisp use.
        grey: Lowest and highest value between which three-valued use says "unknown".
        source: A source id, or "our choice".
        confidence: How far to trust the number.
        note: Known trouble with it.
    """

    observation: _Code
    measure: _Name
    unit: _Text
    definition: _Text
    present: Literal["at least", "at most"]
    value: float
    grey: tuple[float, float] | None = None
    source: _Text
    confidence: Confidence
    note: str = ""

    def is_present(self, measurement: float) -> bool:
        """Crisp use: the measurement against the single cut."""
        return measurement >= self.value if self.present == "at least" else measurement <= self.value

    def state(self, measurement: float) -> State:
        """Three-valued use: unknown inside the grey band.

        Raises:
            DataError: The measurement is not a number.
        """
        if math.isnan(measurement):
            raise DataError(f"{self.measure} is not a number; leave the finding out to make it unknown")
        if self.grey is not None and self.grey[0] < measurement < self.grey[1]:
            return State.UNKNOWN
        return State.PRESENT if self.is_present(measurement) else State.ABSENT


class Rule(_Part, frozen=True, kw_only=True):
    """One line of reasoning: when the expression holds and no earlier rule did, the cell has the category."""

    id: _Text
    category: _Text
    when: _Text
    text: _Text
    cite: _Citations
    confidence: Confidence


class Definition(_Part, frozen=True, kw_only=True):
    """A whole pack file. Rules are in priority order: the first that holds decides."""

    format_version: int
    id: _Name
    guideline: _Text
    edition: _Text
    reviewed_by: _Text
    use: Literal["research"]
    confidence: Confidence
    limits: list[_Text]
    sources: dict[str, Source]
    cell_class: Context
    observations: Annotated[list[Observation], msgspec.Meta(min_length=1, max_length=MAX_OBSERVATIONS)]
    categories: Annotated[list[Category], msgspec.Meta(min_length=1)]
    thresholds: list[Threshold]
    rules: Annotated[list[Rule], msgspec.Meta(min_length=1)]


def read_definition(text: str, where: str) -> Definition:
    """Read and check a pack's text.

    Args:
        text: YAML.
        where: The file's name, for messages.

    Raises:
        FormatVersionError: The file is of another version.
        DataError: Anything else that is wrong, with the file and the rule, observation or threshold.
    """
    raw = _read_yaml(text, where)
    version = raw.get("format_version")
    if version != FORMAT_VERSION:
        raise FormatVersionError(
            f"{where}: format_version is {version!r}; this release reads {FORMAT_VERSION}. "
            "Update the pack or use the release that wrote it."
        )
    try:
        definition = msgspec.convert(raw, Definition)
    except msgspec.ValidationError as error:
        raise DataError(f"{where}: {_name_item(str(error), raw)}. Mend the file.") from None
    _check_names(definition, where)
    _check_references(definition, where)
    return definition


class _Loader(yaml.SafeLoader):
    """Safe YAML without repeated keys, of which PyYAML silently keeps the last, and without aliases."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(
                None,
                None,
                "aliases are not read; a few of them can stand for gigabytes",
                self.peek_event().start_mark,
            )
        return super().compose_node(parent, index)


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    repeated = _repeated(str(key) for key in keys)
    if repeated:
        raise yaml.constructor.ConstructorError(
            None, None, f"the key {repeated!r} is given twice", node.start_mark
        )
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def _read_yaml(text: str, where: str) -> dict[str, Any]:
    try:
        raw = yaml.load(text, _Loader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise DataError(f"{where}: not readable as YAML: {error}") from None
    if not isinstance(raw, dict):
        raise DataError(
            f"{where}: found {type(raw).__name__} at the top, expected a mapping of the pack's fields"
        )
    return raw


def _name_item(message: str, raw: dict[str, Any]) -> str:
    """Put the id of a rule in place of its number in a message of the schema check."""
    place = re.search(r"\$\.(rules|observations|thresholds|categories)\[(\d+)\]", message)
    if place is None:
        return message
    item = raw[place[1]][int(place[2])]
    keys = [key for key in ("id", "code", "observation") if isinstance(item, dict) and key in item]
    return f"{place[1]}: {item[keys[0]]!r}: {message}" if keys else message


def _repeated(names: Iterable[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _check_names(definition: Definition, where: str) -> None:
    lists = {
        "rule": [rule.id for rule in definition.rules],
        "category": [category.id for category in definition.categories],
        "observation": [observation.code for observation in definition.observations],
        "cell class": [value.id for value in definition.cell_class.values],
        "threshold of": [threshold.observation for threshold in definition.thresholds],
    }
    for kind, names in lists.items():
        repeated = _repeated(names)
        if repeated:
            raise DataError(f"{where}: {kind} {repeated!r} is defined twice; give each its own name")


def _check_references(definition: Definition, where: str) -> None:
    known = {*definition.sources, OUR_CHOICE}
    codes = {observation.code for observation in definition.observations}
    categories = {category.id for category in definition.categories}
    for rule in definition.rules:
        at = f"{where}: rule {rule.id!r}"
        if rule.category not in categories:
            raise DataError(f"{at}: category {rule.category!r} is not defined; have {', '.join(categories)}")
        for source in rule.cite:
            if source not in known:
                raise DataError(f"{at}: source {source!r} is not under `sources`, nor `{OUR_CHOICE}`")
    for threshold in definition.thresholds:
        at = f"{where}: threshold of {threshold.observation!r}"
        if threshold.observation not in codes:
            raise DataError(f"{at}: no such observation; have {', '.join(sorted(codes))}")
        if threshold.source not in known:
            raise DataError(f"{at}: source {threshold.source!r} is not under `sources`, nor `{OUR_CHOICE}`")
        if not math.isfinite(threshold.value):
            raise DataError(f"{at}: value {threshold.value} is not a finite number")
        if threshold.grey is not None and not threshold.grey[0] <= threshold.value <= threshold.grey[1]:
            raise DataError(f"{at}: value {threshold.value} is outside its grey band {list(threshold.grey)}")
