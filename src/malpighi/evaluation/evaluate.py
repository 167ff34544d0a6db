"""The spine of an examination: run an engine over samples and write one prediction row per sample.

Samples keep their order and are asked in fixed batches, so a run that is killed at any moment and started
again ends with the same bytes as one that was not. Tables and tests need the rows and nothing else.
"""

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from malpighi.errors import ConfigError, DataError
from malpighi.evaluation.rows import RowFile, Settings
from malpighi.inference.engine import Completion, Engine, Sampling
from malpighi.models.prompt import Prompt
from malpighi.records import (
    Boxes,
    Choice,
    Failure,
    Grade,
    MaskRef,
    Prediction,
    Sample,
    Status,
    to_json,
)

log = logging.getLogger(__name__)

PromptOf = Callable[[Sample], Prompt]
GradeOf = Callable[[Sample, Completion, Prompt], Grade]


@dataclass(frozen=True)
class EvaluateOptions:
    """How an examination is run; a file that was begun with other options is refused, not continued.

    Attributes:
        model: name written into every row, e.g. `supervised`.
        batch_size: prompts handed to the engine at once; batch `k` is always samples k*size to (k+1)*size.
        sampling: length, temperature and seed.
        adapter: LoRA adapter of all answers; "" where there is none, or where each completion names its own.
        fingerprint: hash of the weights and prompt settings, so that a retrained model of the same name is
            not mistaken for the one that wrote the first half; "" where unknown.
    """

    model: str
    batch_size: int = 8
    sampling: Sampling = field(default_factory=Sampling)
    adapter: str = ""
    fingerprint: str = ""

    def __post_init__(self) -> None:
        if not self.model:
            raise ConfigError("an examination needs a model name; it is written into every row")
        if self.batch_size < 1:
            raise ConfigError(f"batch_size is {self.batch_size}; it must be 1 or more")


@dataclass(frozen=True)
class Outcome:
    """What an examination left behind.

    Attributes:
        predictions: one row per sample, in sample order.
        failures: the samples that could not be asked or answered; each also has a row that scores 0.
        kept: rows found finished from an earlier run.
        asked: rows written now.
    """

    predictions: list[Prediction]
    failures: list[Failure]
    kept: int
    asked: int


@dataclass(frozen=True)
class _Examiner:
    engine: Engine
    prompt_of: PromptOf
    grade_of: GradeOf
    options: EvaluateOptions


def evaluate(
    engine: Engine,
    samples: Sequence[Sample],
    prompt_of: PromptOf,
    grade_of: GradeOf,
    out: Path,
    options: EvaluateOptions,
    on_progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Ask every sample once and write the rows; continue where an earlier run stopped.

    Rows go to `out` (JSON lines, no timestamps), the samples that failed to `<out>.failures.jsonl`, and what
    the file was begun with to `<out>.settings.json`. Each batch is on disk before the next is asked.

    Args:
        engine: produces completions.
        samples: what is asked, in the order of the rows; ids are unique.
        prompt_of: a sample's prompt; a `DataError` sets that sample aside and the run goes on.
        grade_of: the verdict on one completion; a `DataError` likewise.
        out: the predictions file, e.g. `predictions/supervised.jsonl`.
        options: model name, batches, sampling.
        on_progress: called with (rows done, rows in all), first with what was kept.

    Raises:
        UserError: ids repeat, or `out` holds rows of other samples, another model or other options.

    Returns:
        All rows, the failures, and how many rows were kept and written.
    """
    refuse_repeats(samples)
    size = options.batch_size
    examiner = _Examiner(engine, prompt_of, grade_of, options)
    with RowFile.open(out, settings_of(samples, options), _keys(samples, options), size) as rows:
        kept = len(rows.predictions)
        if kept:
            log.info("%s: %d of %d rows are there already and are kept", out, kept, len(samples))
        _report(on_progress, kept, len(samples))
        for batch in _batches(samples, kept, size):
            rows.append(*_ask(examiner, batch))
            _report(on_progress, len(rows.predictions), len(samples))
        if rows.failures:
            log.warning("%d of %d samples failed; see %s", len(rows.failures), len(samples), rows.failed)
        return Outcome(rows.predictions, rows.failures, kept, len(rows.predictions) - kept)


def truth_of(sample: Sample) -> Any:
    """The right answer as a prediction row carries it.

    Returns:
        For a choice `{"index": i, "options": [...]}`; for boxes and masks a list of `[x0, y0, x1, y1]` in
        image px; for words the text.

    Example:
        >>> from malpighi.records import Provenance, Scale, TaskKind, Text, Turn
        >>> truth_of(Sample(id="a", dataset="d", exam="d/e", task=TaskKind.VQA, scale=Scale.CELL, images=(),
        ...     turns=(Turn("user", "Why?"),), answer=Text("HPV"), group="g", licence="CC0-1.0",
        ...     provenance=Provenance("test")))
        'HPV'
    """
    match sample.answer:
        case Choice(index=index):
            return {"index": index, "options": list(sample.options)}
        case Boxes(boxes=boxes) | MaskRef(boxes=boxes):
            return [list(box.corners) for box in boxes]
        case text:
            return text.value


def image_hash(sample: Sample, prompt: Prompt | None = None) -> str:
    """SHA-256 over the keys of the images that were shown, in order; "" without images.

    Args:
        sample: names its images.
        prompt: what was shown: of a slide, the pixels of its view; None where nothing could be.
    """
    refs = (prompt.refs if prompt else ()) or sample.images
    if not refs:
        return ""
    return hashlib.sha256("\n".join(ref.key for ref in refs).encode()).hexdigest()


def _ask(examiner: _Examiner, batch: Sequence[Sample]) -> tuple[list[Prediction], list[Failure]]:
    options = examiner.options
    prompts = [_prompt(examiner, sample) for sample in batch]
    good = [prompt for prompt in prompts if not isinstance(prompt, DataError)]
    completions = examiner.engine.generate(good, options.sampling) if good else []
    if len(completions) != len(good):
        raise RuntimeError(f"the engine gave {len(completions)} completions for {len(good)} prompts")
    answers = iter(completions)
    predictions, failures = [], []
    for sample, prompt in zip(batch, prompts, strict=True):
        if isinstance(prompt, DataError):
            row, reason = _row(sample, options, Grade(0.0, Status.MALFORMED)), str(prompt)
        else:
            row, reason = _graded(examiner, sample, next(answers), prompt)
        predictions.append(row)
        if reason:
            log.warning("%s failed: %s", sample.id, reason)
            failures.append(Failure(sample.id, "evaluate", reason.encode(errors="replace").decode()))
    return predictions, failures


def _prompt(examiner: _Examiner, sample: Sample) -> Prompt | DataError:
    try:
        return examiner.prompt_of(sample)
    except DataError as error:
        return error


def _graded(
    examiner: _Examiner, sample: Sample, completion: Completion, prompt: Prompt
) -> tuple[Prediction, str]:
    options = examiner.options
    if completion.finish == "error":
        reason = completion.error or "the engine gave no reason"
        return _row(sample, options, Grade(0.0, Status.NO_ANSWER), prompt), reason
    try:
        completion.text.encode()  # a server can send half a surrogate pair, which no file can hold
        grade = examiner.grade_of(sample, completion, prompt)
    except (DataError, UnicodeEncodeError) as error:
        return _row(sample, options, Grade(0.0, Status.MALFORMED), prompt), str(error)
    return _row(sample, options, grade, prompt, completion), ""


def _row(
    sample: Sample,
    options: EvaluateOptions,
    grade: Grade,
    prompt: Prompt | None = None,
    completion: Completion | None = None,
) -> Prediction:
    return Prediction(
        model=options.model,
        exam=sample.exam,
        sample=sample.id,
        group=sample.group,
        task=sample.task,
        text=completion.text if completion else "",
        grade=grade,
        truth=truth_of(sample),
        tokens=completion.tokens if completion else 0,
        prompt_hash=prompt.digest if prompt else "",
        image_hash=image_hash(sample, prompt),
        adapter=(completion.adapter if completion else "") or options.adapter,
        seed=options.sampling.seed,
        looks=completion.looks if completion else (),
        chances=completion.chances if completion else (),
    )


def _batches(samples: Sequence[Sample], first: int, size: int) -> Iterator[Sequence[Sample]]:
    for start in range(first, len(samples), size):
        yield samples[start : start + size]


def settings_of(samples: Sequence[Sample], options: EvaluateOptions) -> Settings:
    """What a predictions file of these samples is begun with."""
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(to_json(sample) + b"\n")
    return Settings(
        model=options.model,
        adapter=options.adapter,
        fingerprint=options.fingerprint,
        batch_size=options.batch_size,
        max_new_tokens=options.sampling.max_new_tokens,
        temperature=options.sampling.temperature,
        seed=options.sampling.seed,
        samples=digest.hexdigest(),
    )


def _keys(samples: Sequence[Sample], options: EvaluateOptions) -> list[tuple[str, str]]:
    return [(options.model, sample.id) for sample in samples]


def refuse_repeats(samples: Sequence[Sample]) -> None:
    """Refuse samples of which two have one id: a predictions file could not tell them apart.

    Raises:
        DataError: naming the id.
    """
    seen: set[str] = set()
    for sample in samples:
        if sample.id in seen:
            raise DataError(f"sample id {sample.id!r} occurs twice; a predictions file needs unique ids")
        seen.add(sample.id)


def _report(on_progress: Callable[[int, int], None] | None, done: int, total: int) -> None:
    if on_progress is not None:
        on_progress(done, total)
