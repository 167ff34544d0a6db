"""Examine any model on any data: `malpighi evaluate`.

    exam.json                 who was examined, on what, how; one entry per model
    data/                     the corpus, where data sets were read
    predictions/<model>.jsonl one row per sample; of controls `<model>@blank.jsonl` and so on
    answers.sqlite            the request cache
    results.json, controls.json, failures.jsonl, report.html

Several models can be examined in one folder, one after the other; the report then sets them side by side.
Several processes, on several machines too, can be given the same command: they share the work.
"""

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from PIL import Image

from malpighi.claims import Claims
from malpighi.config import digest
from malpighi.durable import replacing
from malpighi.errors import ConfigError
from malpighi.evaluation.controls import (
    BLANK,
    MISMATCHED,
    PERMUTED,
    Controls,
    blanked,
    control_name,
    permutable,
    permuted,
    strangers,
)
from malpighi.evaluation.evaluate import EvaluateOptions, Outcome
from malpighi.evaluation.shards import evaluate_shared
from malpighi.evaluation.tables import Results
from malpighi.geometry import View
from malpighi.grading.grade import Reading
from malpighi.inference.engine import Completion, Sampling
from malpighi.inference.openai_engine import Spent
from malpighi.inference.request_cache import CacheReport
from malpighi.inference.slide_views import SlideViews
from malpighi.models.pictures import Pictures
from malpighi.models.prompt import Prompt, PromptStyle, option_texts
from malpighi.models.segmenter import load_segmenter
from malpighi.pipeline.ahead import end, start
from malpighi.pipeline.context import Tell, unheard
from malpighi.pipeline.exam_report import ExamPage, write_exam
from malpighi.pipeline.exam_settings import Endpoint, ExamSettings
from malpighi.pipeline.examinee import Asking, Examinee, open_examinee
from malpighi.pipeline.marking import Marker
from malpighi.pipeline.material import Material, chosen, open_material
from malpighi.pipeline.run import environment
from malpighi.pixels import decode_image
from malpighi.records import Failure, Grade, Sample
from malpighi.resolution import tokens
from malpighi.slides.steps import tissue_map
from malpighi.slides.tissue import TissueSettings
from malpighi.training.runtime import settle

log = logging.getLogger(__name__)

CACHE = "answers.sqlite"
RECORD = "exam.json"
RECORD_VERSION = 1
_WORD_TOKENS = 0.3
"""Tokens per character of a prompt's words, where no server counts them: English is about 0.25."""


@dataclass(frozen=True)
class ExamRun:
    """What an examination left behind.

    Attributes:
        model: the name in rows and tables.
        what: who was examined, in words.
        predictions: rows by name, controls included: file paths.
        results: the tables, of every model in the folder.
        controls: what the controls say; None where none were asked.
        failures: data that could not be used and samples that could not be asked or answered.
        asked: rows that this process has written.
        kept: rows that were there, or that other processes have written.
        spent: what a server was asked by this process.
        cost: of that, in the unit of the prices.
        cached: what the cache did; None without one.
        report: path of the page.
    """

    model: str
    what: str
    predictions: dict[str, Path]
    results: Results
    controls: Controls | None
    failures: list[Failure]
    asked: int
    kept: int
    spent: Spent
    cost: float
    cached: CacheReport | None
    report: Path

    @property
    def exit_status(self) -> int:
        """3 where items failed, else 0."""
        return 3 if self.failures else 0


@dataclass(frozen=True)
class ExamPlan:
    """What an examination would ask and take.

    Attributes:
        model: the name in rows and tables.
        what: who would be examined, in words.
        exams: exam -> samples.
        requests: questions in all, controls included.
        prompt_tokens: estimate for all of them; counted by the server where one is asked.
        completion_tokens: estimate, from the probe.
        seconds: estimate, from the probe, for one process.
        cost: of the tokens, in the unit of the prices; None where no price is given.
        probed: samples that were asked to estimate it.
        probe_failures: those of them that failed.
    """

    model: str
    what: str
    exams: dict[str, int]
    requests: int
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    cost: float | None
    probed: int
    probe_failures: int


class _Sheet(NamedTuple):
    """One file of rows: whose name it bears, what is asked, and how each sample is shown."""

    name: str
    samples: Sequence[Sample]
    prompt_of: Callable[[Sample], Prompt]
    borrowed: bool = False


@dataclass(frozen=True)
class _Room:
    """Everything that asking needs."""

    examinee: Examinee
    material: Material
    samples: list[Sample]
    pictures: Pictures
    marker: Marker
    settings: ExamSettings
    out: Path

    @classmethod
    def open(
        cls, model: str, data: str | Path | Material, out: Path, settings: ExamSettings, tell: Tell
    ) -> "_Room":
        examinee = open_examinee(model, settings)
        material = open_material(data, out, settings, tell)
        frame = examinee.style.facts.frame
        views = SlideViews(material.root, tissue=partial(tissue_map, settings=TissueSettings()), frame=frame)
        pictures = Pictures(material.store.image_bytes, examinee.style, show=views.show)
        marker = Marker(material.store, frame, lambda: load_segmenter(settings.segmenter))
        samples = chosen(material, settings)
        return cls(examinee, material, samples, pictures, marker, settings, out)

    def asking(self) -> Asking:
        cache = self.out / CACHE if self.settings.cache else None
        return Asking(self.examinee, cache, with_chances=self.settings.with_chances)

    def sheets(self) -> list[_Sheet]:
        """The exam itself, then its controls."""
        name, pictures = self.examinee.name, self.pictures
        sheets = [_Sheet(name, self.samples, self.prompt)]
        if BLANK in self.settings.controls:
            pictured = [sample for sample in self.samples if sample.images]
            sheets.append(_Sheet(control_name(name, BLANK), pictured, lambda s: blanked(pictures.prompt(s))))
        if MISMATCHED in self.settings.controls:
            other = strangers(self.samples)
            matched = [sample for sample in self.samples if sample.id in other]

            def strange(sample: Sample) -> Prompt:
                return pictures.prompt(msgspec.structs.replace(sample, images=other[sample.id].images))

            sheets.append(_Sheet(control_name(name, MISMATCHED), matched, strange, borrowed=True))
        if PERMUTED in self.settings.controls:
            turned = [permuted(sample) for sample in self.samples if permutable(sample)]
            sheets.append(_Sheet(control_name(name, PERMUTED), turned, self.prompt))
        return [sheet for sheet in sheets if sheet.samples]

    def grade_of(self, sheet: _Sheet) -> Callable[[Sample, Completion, Prompt], Grade]:
        def grade_completion(sample: Sample, completion: Completion, prompt: Prompt) -> Grade:
            view = prompt.views[0] if prompt.views else None
            if sheet.borrowed and view is not None and not sample.images[0].unmade:
                # Boxes on a borrowed picture are read as if they lay at the same place of the own one.
                view = View(sample.images[0].size, view.resized_size)
            reading = Reading(truncated=completion.finish == "length", ceiling=self.marker.ceiling(sample))
            return self.marker.grade_text(sample, completion.text, view, reading)

        return grade_completion

    def options(self, sheet: _Sheet) -> EvaluateOptions:
        return EvaluateOptions(
            model=sheet.name,
            batch_size=self.examinee.batch_size,
            sampling=self.sampling,
            fingerprint=digest(self.examinee.fingerprint, self.examinee.style, self.settings.with_chances),
        )

    @property
    def sampling(self) -> Sampling:
        asked = self.settings
        return Sampling(asked.max_new_tokens, asked.temperature, asked.seed)

    def page(self) -> ExamPage:
        return ExamPage(
            self.out,
            self.examinee,
            self.settings,
            self.material,
            self.samples,
            self.marker.grade_image,
            self._picture,
            environment(),
        )

    def _picture(self, sample: Sample) -> Image.Image:
        """What a sample shows, as stored; of a slide, what the model saw."""
        ref = sample.images[0]
        if ref.unmade:
            return self.pictures.prompt(sample).images[0]
        return decode_image(self.material.store.image_bytes(ref.key))

    def path(self, sheet: _Sheet) -> Path:
        return self.out / "predictions" / f"{sheet.name}.jsonl"

    def prompt(self, sample: Sample) -> Prompt:
        prompt = self.pictures.prompt(sample)
        if self.settings.with_chances:
            return replace(prompt, answers=option_texts(sample, self.examinee.style))
        return prompt


def examine(
    model: str,
    data: str | Path | Material,
    out: Path,
    settings: ExamSettings | None = None,
    tell: Tell = unheard,
) -> ExamRun:
    """Let a model take exams, and write rows, tables and the report; what is done already is kept.

    Args:
        model: a folder of weights, `https://host/v1#model-name`, or `scripted:WORDS`; see `open_examinee`.
        data: a data set, a folder of them, a corpus, `phantom`, or a `Material`; see `open_material`.
        out: the run folder.
        settings: what is asked and how.
        tell: progress: (rows done, rows in all, name with time left and cost so far).

    Raises:
        UserError: model or data cannot be used, the server cannot be reached or refuses the key, or the
            folder was begun otherwise.

    Returns:
        The run; `exit_status` is 3 where items failed.
    """
    settings = settings or ExamSettings()
    room = _Room.open(model, data, out, settings, tell)
    asking = room.asking()
    if settings.workers > 1 and isinstance(data, Material):
        raise ConfigError("workers share a corpus on disk; samples in memory are asked by one process")
    _record(room)
    others = [start(_help, model, data, out, settings) for _ in range(1, settings.workers)]
    try:
        outcomes = _ask(room, asking, tell)
    finally:
        end(others)
    failures = [*room.material.failures, *(f for outcome in outcomes.values() for f in outcome.failures)]
    with Claims(out / "report.claims") as claims, claims.holding("report", wait=True):
        written = write_exam(room.page(), failures)
    return ExamRun(
        model=room.examinee.name,
        what=room.examinee.what,
        predictions={name: out / "predictions" / f"{name}.jsonl" for name in outcomes},
        results=written.results,
        controls=written.controls,
        failures=failures,
        asked=sum(outcome.asked for outcome in outcomes.values()),
        kept=sum(outcome.kept for outcome in outcomes.values()),
        spent=asking.spent,
        cost=cost_of(asking.spent, settings.endpoint),
        cached=asking.cached,
        report=written.report,
    )


def plan_exam(
    model: str,
    data: str | Path | Material,
    out: Path,
    settings: ExamSettings | None = None,
    tell: Tell = unheard,
) -> ExamPlan:
    """What `examine` would ask and take; asks a few samples, of different exams, to measure it.

    Args:
        model: as for `examine`; and so are all others.
        data: is read in as `examine` would, so that it is known what is asked.
        out: the run folder.
        settings: what is asked and how.
        tell: progress.

    Raises:
        UserError: as `examine`.
    """
    settings = settings or ExamSettings()
    room = _Room.open(model, data, out, settings, tell)
    asking = room.asking()
    probes = _probes(room.samples, settings.probe)
    prompts = [room.prompt(sample) for sample in probes]
    asking.uncached(prompts[:1], msgspec.structs.replace(room.sampling, max_new_tokens=1))  # loads the model
    before, began = asking.spent, time.monotonic()
    said = asking.uncached(prompts, room.sampling)
    seconds = time.monotonic() - began
    used = Spent(*(now - then for now, then in zip(asking.spent, before, strict=True)))
    requests = sum(len(sheet.samples) for sheet in room.sheets())
    share = requests / max(len(prompts), 1)
    words = sum(_prompt_tokens(prompt, room.examinee.style) for prompt in prompts)
    counted = Spent(
        requests,
        round((used.prompt_tokens or words) * share),
        round((used.completion_tokens or sum(c.tokens for c in said)) * share),
    )
    priced = settings.endpoint.price_in or settings.endpoint.price_out
    return ExamPlan(
        model=room.examinee.name,
        what=room.examinee.what,
        exams=dict(Counter(sample.exam for sample in room.samples)),
        requests=requests,
        prompt_tokens=counted.prompt_tokens,
        completion_tokens=counted.completion_tokens,
        seconds=seconds * share,
        cost=cost_of(counted, settings.endpoint) if priced else None,
        probed=len(prompts),
        probe_failures=sum(completion.finish == "error" for completion in said),
    )


def cost_of(spent: Spent, prices: Endpoint) -> float:
    """What tokens cost, in the unit of the prices.

    Example:
        >>> cost_of(Spent(1, 2_000_000, 500_000), Endpoint(price_in=0.5, price_out=2.0))
        2.0
    """
    return (spent.prompt_tokens * prices.price_in + spent.completion_tokens * prices.price_out) / 1e6


def _help(model: str, data: str | Path, out: Path, settings: ExamSettings) -> None:
    """What a further process does: it asks, and leaves the rest to the first."""
    room = _Room.open(model, data, out, settings, unheard)
    _ask(room, room.asking(), unheard)


def _ask(room: _Room, asking: Asking, tell: Tell) -> dict[str, Outcome]:
    if room.examinee.kind in ("trained", "chat"):
        settle(room.settings.threads)
    sheets = room.sheets()
    progress = _Progress(sum(len(sheet.samples) for sheet in sheets), asking, room.settings.endpoint, tell)
    outcomes = {}
    for sheet in sheets:
        outcomes[sheet.name] = evaluate_shared(
            asking,
            sheet.samples,
            sheet.prompt_of,
            room.grade_of(sheet),
            room.path(sheet),
            room.options(sheet),
            progress.of(sheet.name),
        )
        progress.before += len(sheet.samples)
    return outcomes


class _Progress:
    """Says how far the rows are, how long the rest takes at the pace so far, and what it has cost."""

    def __init__(self, total: int, asking: Asking, prices: Endpoint, tell: Tell) -> None:
        self.before = 0
        self._total = total
        self._asking = asking
        self._prices = prices
        self._tell = tell
        self._first: tuple[float, int] | None = None

    def of(self, name: str) -> Callable[[int, int], None]:
        def told(done: int, _: int) -> None:
            now, rows = time.monotonic(), self.before + done
            self._first = self._first or (now, rows)
            self._tell(rows, self._total, f"{name}{self._left(now, rows)}{self._cost()}")

        return told

    def _left(self, now: float, rows: int) -> str:
        began, kept = self._first or (now, rows)
        if rows <= kept:
            return ""
        seconds = (now - began) / (rows - kept) * (self._total - rows)
        return f", {seconds / 60:.0f} min left" if seconds >= 90 else f", {seconds:.0f} s left"

    def _cost(self) -> str:
        cost = cost_of(self._asking.spent, self._prices)
        return f", cost {cost:.2f}" if cost else ""


def _record(room: _Room) -> None:
    """Note who is examined, on what and how; one entry per model, the last settings of each."""
    path = room.out / RECORD
    path.parent.mkdir(parents=True, exist_ok=True)
    (room.out / "predictions").mkdir(exist_ok=True)
    with Claims(room.out / "report.claims") as claims, claims.holding("record", wait=True):
        models: dict[str, Any] = {}
        if path.is_file():
            models = json.loads(path.read_text(encoding="utf-8"))["models"]
        models[room.examinee.name] = {
            "what": room.examinee.what,
            "kind": room.examinee.kind,
            "fingerprint": room.examinee.fingerprint,
            "prompt": msgspec.to_builtins(room.examinee.style),
            "frame": str(room.examinee.style.facts.frame),
            "settings": msgspec.to_builtins(room.settings),
            "samples": len(room.samples),
            "sets": [about["name"] for about in room.material.sets],
            "environment": environment(),
        }
        with replacing(path) as file:
            file.write(json.dumps({"version": RECORD_VERSION, "models": models}, indent=1).encode())


def _probes(samples: Sequence[Sample], count: int) -> list[Sample]:
    """A few samples, of as many exams as there can be."""
    exams: dict[str, list[Sample]] = {}
    for sample in samples:
        exams.setdefault(sample.exam, []).append(sample)
    rounds = zip_longest(*exams.values())
    return [sample for each in rounds for sample in each if sample is not None][:count]


def _prompt_tokens(prompt: Prompt, style: PromptStyle) -> int:
    """About how many tokens a prompt is; pictures exactly, words by their letters."""
    side = style.facts.pixels_per_token
    pictures = sum(max(tokens(image.size, side), style.facts.fixed) for image in prompt.images)
    words = len(prompt.system) + sum(len(turn.text) for turn in prompt.turns)
    return pictures + round(words * _WORD_TOKENS)
