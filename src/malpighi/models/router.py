"""Which adapter answers a request, from its words: a stated task, then templates, then a text classifier.

Where nothing speaks clearly the base model answers. A request never chooses by naming an adapter: only the
caller's `task` does. Every decision carries its reasons. No torch is involved.

Source: SmartPath-R1, section 4.1: "a routing mechanism selects the most appropriate LoRA module based on the
input language prompt"; the paper says no more. The three steps, the threshold and the fallback are ours.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from malpighi.durable import mending, replacing
from malpighi.errors import DataError
from malpighi.models.phrasings import OTHER
from malpighi.models.prompt import Prompt
from malpighi.models.prompt_classifier import PromptClassifier, Reading, normalise
from malpighi.models.task_groups import LONGEST_TEXT, TaskGroups, check_groups, find_templates
from malpighi.models.versioned import from_json

FORMAT_VERSION = 1
ROUTER = "router.json"
CLASSIFIER = "router.npz"
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")

_REMEDY = "train the experts and their router first"
_QUOTED = re.compile(r"“([^”]+)”|\"([^\"]+)\"|「([^」]+)」|(?<!\w)['‘]([^'’]+)['’](?!\w)")
_SENTENCE_ENDS = re.compile(r"[.?!。;]+")
_COURTESY = 2
"""Words that may stand beside a template without changing what is asked, such as `Please`."""

Step = Literal["task", "template", "classifier", "fallback"]


class Route(msgspec.Struct, frozen=True):
    """A decision.

    Attributes:
        adapter: whose weights answer; "" is the base model.
        by: the step that decided; `fallback` where none did.
        group: the task group that was recognised; "" where none was. Without an adapter of that name in the
            folder, the base answers.
        confidence: probability of the group by the classifier; 1 for a task or a template; 0 where nothing
            was recognised.
        reasons: why, in words, most telling first.
        scores: the classifier's probabilities; empty where it was not asked.
    """

    adapter: str
    by: Step
    group: str
    confidence: float
    reasons: tuple[str, ...]
    scores: dict[str, float] = {}


class Limit(msgspec.Struct, frozen=True):
    """A number that decides, and where it comes from."""

    value: float
    reason: str


class Limits(msgspec.Struct, frozen=True):
    """When the classifier's word counts.

    Attributes:
        confidence: least probability of the best group.
        known: least share of the text's words and word pairs that training knew.
        length: most characters of the text, lists of options aside.
    """

    confidence: Limit
    known: Limit
    length: Limit


class RouterFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The contents of `router.json`.

    Attributes:
        format_version: of the file.
        groups: the task groups with their templates.
        wordings: whole requests that the training data repeats -> their group.
        limits: when the classifier's word counts.
        classifier_sha256: of `router.npz`, hexadecimal.
        trained_on: what the classifier learned from, and how it did on held-out families; for people.
    """

    format_version: int
    groups: TaskGroups
    wordings: dict[str, str]
    limits: Limits
    classifier_sha256: str = ""
    trained_on: dict[str, float | int | str] = {}


class Router:
    """Chooses adapters.

    Args:
        data: groups, templates and limits.
        classifier: reads what no template fits.
        served: groups that have an adapter; None for all.
    """

    def __init__(
        self, data: RouterFile, classifier: PromptClassifier, served: Iterable[str] | None = None
    ) -> None:
        self.data = data
        self.classifier = classifier
        self.served = frozenset(data.groups.names if served is None else served)

    def route(self, text: str, task: str | None = None) -> Route:
        """The decision for one request.

        Args:
            text: the words of the request, options and form of the answer included.
            task: a task group or kind of task that the caller states; it overrules the words.

        Raises:
            ConfigError: no such task.
        """
        if task is not None:
            group = self.data.groups.of_task(task)
            why = f"the task was stated: {task}" + ("" if group else ", which no group holds")
            return self._to(group, "task", 1.0, (why,))
        if not text.strip():
            return _fallback("the request is empty")
        if len(text) > LONGEST_TEXT:
            return _fallback(f"{len(text)} characters, over {LONGEST_TEXT}: too long for a request")
        return self._by_template(text) or self._by_classifier(text)

    def adapter_for(self, prompt: Prompt) -> str:
        """The adapter for a prompt, by its last turn alone; "" is the base model."""
        return self.route(prompt.turns[-1].text).adapter

    def save(self, folder: str | Path) -> None:
        """Write `router.npz` and, last, `router.json` into a folder.

        Raises:
            UserError: the folder cannot be written to.
        """
        folder = Path(folder)
        with mending(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self.classifier.save(folder / CLASSIFIER)
            data = msgspec.structs.replace(self.data, classifier_sha256=_sha256(folder / CLASSIFIER))
            with replacing(folder / ROUTER) as file:
                file.write(json.dumps(msgspec.to_builtins(data), indent=1, ensure_ascii=False).encode())

    @classmethod
    def load(cls, folder: str | Path) -> "Router":
        """The router in a folder of experts; groups whose adapter is not there go to the base.

        Raises:
            DataError: no router there, or its files are damaged or do not belong together.
            FormatVersionError: written by another release.
        """
        folder = Path(folder)
        data = from_json(folder / ROUTER, RouterFile, FORMAT_VERSION, _REMEDY)
        check_groups(data.groups, str(folder / ROUTER))
        path = folder / CLASSIFIER
        if not path.is_file() or _sha256(path) != data.classifier_sha256:
            raise DataError(f"{path} is missing or not the one that {ROUTER} names; save the router again")
        return cls(data, PromptClassifier.load(path), adapters_in(folder, data.groups.names))

    def _to(
        self,
        group: str,
        by: Step,
        confidence: float,
        reasons: tuple[str, ...],
        scores: dict[str, float] | None = None,
    ) -> Route:
        adapter = group if group in self.served else ""
        if group and not adapter:
            reasons = (*reasons, f"there is no adapter for {group}: the base answers")
        return Route(adapter, by, group, confidence, reasons, scores or {})

    def _by_template(self, text: str) -> Route | None:
        group = self.data.wordings.get(_plain(text), "")
        if group:
            return self._to(
                group, "template", 1.0, (f"the training data of {group} repeats these very words",)
            )
        matches = find_templates(text, self.data.groups.groups)
        if not matches:
            return None
        best, found = matches[0], sorted({match.group for match in matches})
        if len(found) > 1:
            return _fallback(f"templates of several groups: {', '.join(found)}")
        if best.rest:
            outside = f"the template of {best.group} stands among {best.rest} other words"
            return None if best.rest <= _COURTESY else _fallback(outside)
        # A question before the list is what the list answers; only an instruction is a second task.
        asked = [group.name for group in self.data.groups.groups if not group.templates]
        for filling in best.fillings:
            second = self._second_task(filling, (best.group, *asked))
            if second:
                return _fallback(f"the template of {best.group}, but {second}")
        return self._to(best.group, "template", 1.0, (f"template: {best.template}",))

    def _by_classifier(self, text: str) -> Route:
        limits = self.data.limits
        plain = normalise(text)
        if len(plain) > limits.length.value:
            return _fallback(
                f"{len(plain)} characters, over {limits.length.value:.0f}: longer than what was learned from"
            )
        reading = self.classifier.read(text)
        best, confidence = reading.best, reading.probabilities[reading.best]
        why = self._doubt(text, reading)
        if why:
            return _fallback(why, reading.probabilities)
        words = self.classifier.telling(text, best)
        reasons = (
            f"the words {', '.join(map(repr, words))} speak for {best}"
            if words
            else f"parts of words speak for {best}",
            f"probability {confidence:.2f}, at least {limits.confidence.value:.2f} is needed",
            f"{reading.known:.0%} of its words and word pairs are known",
        )
        return self._to(best, "classifier", confidence, reasons, reading.probabilities)

    def _doubt(self, text: str, reading: Reading) -> str:
        """Why the classifier's best group should not be believed; "" where nothing speaks against it."""
        limits, best = self.data.limits, reading.best
        confidence = reading.probabilities[best]
        if reading.known < limits.known.value:
            return (
                f"{reading.known:.0%} of its words and word pairs are known, under {limits.known.value:.0%}: "
                "far from what was learned from"
            )
        if best == OTHER:
            return f"it asks for nothing that a group serves (probability {confidence:.2f})"
        if confidence < limits.confidence.value:
            return (
                f"{best} is likeliest with probability {confidence:.2f}, under {limits.confidence.value:.2f}"
            )
        for quoted in quotations(text):
            if self._clear(quoted) not in ("", OTHER):
                return f"it quotes a request rather than making one: {quoted[:60]!r}"
        return self._second_task(text, (best,))

    def _second_task(self, text: str, expected: Sequence[str]) -> str:
        """What in a part of the text clearly asks for a group that is not expected; "" where nothing does."""
        for part in parts(text, self.data.groups.joins):
            other = self._clear(part)
            if other not in ("", OTHER, *expected):
                return f"a part of it asks for {other}: {part!r}"
        return ""

    def _clear(self, text: str) -> str:
        """The class of a text where the classifier is sure; "" where it is not."""
        reading = self.classifier.read(text)
        sure = reading.probabilities[reading.best] >= self.data.limits.confidence.value
        return reading.best if sure else ""


def quotations(text: str) -> list[str]:
    """What stands in quotation marks.

    Example:
        >>> quotations("What's “segment the glands” mean?")
        ['segment the glands']
    """
    return ["".join(found).strip() for found in _QUOTED.findall(text)]


def parts(text: str, joins: Sequence[str]) -> list[str]:
    """A request in the parts that could each ask for something, without the names in its lists of options.

    Example:
        >>> parts("Segment glands and classify. (A) Tumour, (B) Stroma", [" and "])
        ['segment glands', 'classify', 'optionlist']
    """
    pieces = _SENTENCE_ENDS.split(normalise(text))
    for join in joins:
        pieces = [smaller for piece in pieces for smaller in piece.split(join)]
    return [piece.strip() for piece in pieces if piece.strip()]


def adapters_in(folder: Path, groups: Sequence[str]) -> list[str]:
    """The groups that have an adapter in a folder of experts."""
    return [group for group in groups if all((folder / group / name).is_file() for name in ADAPTER_FILES)]


def plain_wording(text: str) -> str:
    """A whole request as `RouterFile.wordings` keeps it: white space and capitals do not count."""
    return _plain(text)


def _plain(text: str) -> str:
    return " ".join(text.split()).lower()


def _fallback(reason: str, scores: dict[str, float] | None = None) -> Route:
    return Route("", "fallback", "", 0.0, (reason,), scores or {})


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
