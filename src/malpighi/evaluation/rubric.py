"""What a judge is asked, as versioned data, and how its reply is read."""

import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from malpighi.config import digest
from malpighi.errors import ConfigError, DataError
from malpighi.models.prompt import Prompt, prompt_digest
from malpighi.records import Turn

CORRECT = "correct"
_AGAIN = "That was not the JSON object asked for ({fault}). Reply with the JSON object alone."
_FENCE = re.compile(r"```(?:json)?\s*(.*?)```", re.DOTALL)


class Criterion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One thing that is judged.

    Attributes:
        name: key of the JSON object that the judge writes.
        asks: the question to the judge, so put that the highest score is the best.
    """

    name: str
    asks: str


class Rubric(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A list of criteria with its instructions.

    Attributes:
        name: of the rubric.
        version: raised with every change; verdicts of two versions are never mixed.
        lowest: worst score of a criterion.
        highest: best score.
        instructions: what the judge is told; may name `{lowest}` and `{highest}`.
        criteria: what is judged.
    """

    name: str
    version: int
    lowest: int
    highest: int
    instructions: str
    criteria: tuple[Criterion, ...]

    def __post_init__(self) -> None:
        """Refuse a scale without width and names that repeat."""
        names = [criterion.name for criterion in self.criteria]
        if self.lowest >= self.highest or not names or len({*names, CORRECT}) <= len(names):
            raise ConfigError(
                f"rubric '{self.name}': needs a scale from low to high and criteria whose names differ from "
                f"each other and from '{CORRECT}'; found {self.lowest} to {self.highest}, {names}"
            )

    @property
    def mark(self) -> str:
        """Name, version and a hash of the contents: equal marks, equal questions."""
        return f"{self.name}-{self.version}-{digest(self)[:12]}"


class Asked(msgspec.Struct, frozen=True):
    """What is put before the judge.

    Attributes:
        question: as the candidate was asked it.
        reference: the right answer, with its reasoning where there is one.
        candidate: what the candidate wrote.
    """

    question: str
    reference: str
    candidate: str


class Scores(msgspec.Struct, frozen=True):
    """A reply that could be read.

    Attributes:
        criteria: score by criterion, on the rubric's scale.
        correct: whether the judge takes the final answer for right.
    """

    criteria: dict[str, int]
    correct: bool


def load_rubric(name: str = "reasoning") -> Rubric:
    """A rubric that ships, or a file of your own (a path that ends in .yaml).

    Raises:
        ConfigError: no such rubric, or a damaged one.
    """
    shipped = {Path(file.name).stem: file for file in (resources.files(__package__) / "rubrics").iterdir()}
    try:
        if Path(name).suffix in {".yaml", ".yml"}:
            return msgspec.yaml.decode(Path(name).read_bytes(), type=Rubric)
        if name not in shipped:
            raise ConfigError(f"no rubric {name!r}; have {sorted(shipped)}, or give the path of a .yaml file")
        return msgspec.yaml.decode(shipped[name].read_bytes(), type=Rubric)
    except OSError as error:
        raise ConfigError(f"rubric {name}: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise ConfigError(f"rubric {name}: {error}") from error


def ask(rubric: Rubric, asked: Asked, faults: tuple[tuple[str, str], ...] = ()) -> Prompt:
    """The prompt for a judge, without images.

    Args:
        rubric: what is judged.
        asked: question, reference and candidate.
        faults: earlier replies and what was wrong with them, when asking again.
    """
    turns = [Turn("user", _question(rubric, asked))]
    for reply, fault in faults:
        turns += [Turn("assistant", reply or "(nothing)"), Turn("user", _AGAIN.format(fault=fault))]
    system = rubric.instructions.format(lowest=rubric.lowest, highest=rubric.highest)
    return Prompt(system, tuple(turns), (), (), prompt_digest(system, tuple(turns), (), ()))


def read_scores(rubric: Rubric, reply: str) -> Scores:
    """The scores in a judge's reply: the last JSON object outside of its thoughts.

    Raises:
        DataError: no JSON object, a criterion missing, or a score that is no whole number of the scale; never
            rounded, never guessed.
    """
    found = _last_object(reply)
    if found is None:
        raise DataError("no JSON object in it")
    scores: dict[str, int] = {}
    for criterion in rubric.criteria:
        value = found.get(criterion.name)
        if type(value) is not int or not rubric.lowest <= value <= rubric.highest:
            raise DataError(
                f"'{criterion.name}' is {json.dumps(value)[:40]}; expected a whole number from "
                f"{rubric.lowest} to {rubric.highest}"
            )
        scores[criterion.name] = value
    if not isinstance(found.get(CORRECT), bool):
        raise DataError(f"'{CORRECT}' is {json.dumps(found.get(CORRECT))[:40]}; expected true or false")
    return Scores(scores, found[CORRECT])


def _question(rubric: Rubric, asked: Asked) -> str:
    criteria = "\n".join(f"- {criterion.name}: {criterion.asks}" for criterion in rubric.criteria)
    keys = ", ".join(f'"{criterion.name}": n' for criterion in rubric.criteria)
    # As a JSON string, a candidate can write no line of its own that ends what is to be judged.
    candidate = json.dumps(asked.candidate, ensure_ascii=False)
    return (
        f"Question: {asked.question}\n\nReference: {asked.reference}\n\n"
        f"CANDIDATE BEGINS\n{candidate}\nCANDIDATE ENDS\n\nCriteria:\n{criteria}\n"
        f"- {CORRECT}: Does the candidate's final answer say the same as the reference's?\n\n"
        f'Reply with one JSON object and nothing else: {{{keys}, "{CORRECT}": true or false}}'
    )


def _last_object(reply: str) -> dict[str, Any] | None:
    said = reply.rpartition("</think>")[2]
    candidates = [*(fenced.strip() for fenced in _FENCE.findall(said)), said]
    decoder = json.JSONDecoder()
    for text in reversed(candidates):
        for start in [match.start() for match in re.finditer(r"\{", text)][::-1]:
            try:
                value, _ = decoder.raw_decode(text, start)
            except (json.JSONDecodeError, RecursionError):
                continue
            if isinstance(value, dict):
                return value
    return None
