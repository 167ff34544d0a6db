"""The stage that lets every model answer the test samples."""

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, partial
from pathlib import Path

from malpighi.config import digest
from malpighi.evaluation.evaluate import EvaluateOptions, evaluate, image_hash, truth_of
from malpighi.evaluation.majority import MODEL as MAJORITY
from malpighi.evaluation.majority import majority_predictions
from malpighi.evaluation.rows import write_predictions
from malpighi.evaluation.suite import Draw, drawn
from malpighi.grading.grade import Reading
from malpighi.inference.engine import Completion, Sampling
from malpighi.inference.transformers_engine import TransformersEngine
from malpighi.models.classifier import load_classifier
from malpighi.models.prompt import Prompt
from malpighi.pipeline.ahead import lanes
from malpighi.pipeline.context import Context, StageResult
from malpighi.pipeline.folder import RunFolder
from malpighi.pipeline.learning import answering
from malpighi.pipeline.process import set_up
from malpighi.pipeline.recipe import CLASSIFIER, Evaluate
from malpighi.records import Choice, Failure, Grade, Prediction, Sample, Split

log = logging.getLogger(__name__)


def run_evaluate(context: Context, stage: Evaluate, work: Path) -> StageResult:
    """Every model's predictions on the test split, then the classifier's and the majority answer's."""
    _drop_stale(context, work / "begun")
    test = chosen_samples(context, stage)
    rest = partial(_ask_ahead, context.elsewhere(), stage, test)
    with lanes(list(stage.models), context.workers, rest) as mine:
        _ask_models(context, stage, test, mine)
    failures = _ask_models(context, stage, test, list(stage.models))
    constant = majority_predictions(context.samples(Split.TRAIN), test, context.marker.grade_image)
    write_predictions(context.folder.predictions / f"{MAJORITY}.jsonl", constant)
    if stage.classifier:
        rows = _classifier_rows(context, stage, test)
        write_predictions(context.folder.predictions / f"{CLASSIFIER}.jsonl", rows)
    return StageResult(failures, {"samples": len(test), "models": list(stage.models)})


def _ask_models(
    context: Context, stage: Evaluate, test: Sequence[Sample], names: Sequence[str]
) -> list[Failure]:
    """Let models answer what they have not answered yet."""
    failures: list[Failure] = []
    for index, name in enumerate(names):
        tell = _tell(context, index * len(test), len(names) * len(test), name)
        failures += _ask_model(context, stage, test, (name, stage.models[name]), tell)
    return failures


def _ask_ahead(context: Context, stage: Evaluate, test: Sequence[Sample], names: Sequence[str]) -> None:
    set_up(context.recipe.threads, context.folder.log)
    _ask_models(context, stage, test, names)


def _drop_stale(context: Context, marker: Path) -> None:
    """A working folder without the marker is new: rows that lie about are of other models or settings."""
    if not marker.exists():
        for path in context.folder.predictions.iterdir():
            path.unlink()
        marker.touch()


def chosen_samples(context: Context, stage: Evaluate) -> list[Sample]:
    """The test samples that are examined, exam by exam; at most `per_exam` of each, drawn by the run's seed.

    Answers of one exam are about equally long, so batches of one exam end together.
    """
    asked = (sample for sample in context.samples(Split.TEST) if sample.task in stage.tasks)
    return drawn_by_exam(asked, stage.per_exam, context.recipe.seed)


def drawn_by_exam(samples: Iterable[Sample], per_exam: int, seed: int) -> list[Sample]:
    """Samples exam by exam, exams sorted by name; at most `per_exam` of each (0: all); see `suite.drawn`."""
    exams: dict[str, list[Sample]] = {}
    for sample in samples:
        exams.setdefault(sample.exam, []).append(sample)
    draw = Draw(per_exam=per_exam, seed=seed)
    return [sample for _, members in sorted(exams.items()) for sample in drawn(members, draw)]


class _Late:
    """The engine of a stage's model, which is not loaded where nothing is left to ask."""

    def __init__(self, folder: RunFolder, source: str, batch_size: int) -> None:
        self.folder = folder
        self.source = source
        self.batch_size = batch_size

    @cached_property
    def _engine(self) -> TransformersEngine:
        vlm, route = answering(self.folder, self.source)
        return TransformersEngine(vlm, batch_size=self.batch_size, route=route)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """The answers, in the order of the prompts."""
        return self._engine.generate(prompts, sampling)


def _ask_model(
    context: Context,
    stage: Evaluate,
    test: Sequence[Sample],
    model: tuple[str, str],
    on_progress: Callable[[int, int], None],
) -> list[Failure]:
    name, source = model
    engine = _Late(context.folder, source, stage.batch_size)
    made_from = context.folder.done(source)
    options = EvaluateOptions(
        model=name,
        batch_size=stage.batch_size,
        sampling=Sampling(max_new_tokens=stage.max_new_tokens, temperature=0.0, seed=0),
        fingerprint=digest(made_from.inputs if made_from else "", context.recipe.prompt),
    )

    def grade_completion(sample: Sample, completion: Completion, prompt: Prompt) -> Grade:
        cut = completion.finish == "length"
        reading = Reading(truncated=cut, ceiling=context.ceiling(sample))
        return context.grade_text(sample, completion.text, prompt, reading)

    out = context.folder.predictions / f"{name}.jsonl"
    outcome = evaluate(engine, test, context.pictures.prompt, grade_completion, out, options, on_progress)
    log.info("%s: %d rows kept, %d asked", name, outcome.kept, outcome.asked)
    return outcome.failures


def _classifier_rows(context: Context, stage: Evaluate, test: Sequence[Sample]) -> list[Prediction]:
    """The classifier's answers to the exams it was trained on, said in words and graded like any other."""
    folder = context.folder.stage(stage.classifier) / "model"
    if not folder.is_dir():  # the data had no choices to learn; the training stage has said so
        return []
    model = load_classifier(folder)
    asked = [s for s in test if isinstance(s.answer, Choice) and model.exams.get(s.exam) == s.options]
    rows: list[Prediction] = []
    for start in range(0, len(asked), stage.batch_size):
        batch = asked[start : start + stage.batch_size]
        images = [context.pictures.prompt(sample).images[0] for sample in batch]
        chosen = model.choose(images, [sample.exam for sample in batch])
        rows += [_classifier_row(context, sample, index) for sample, index in zip(batch, chosen, strict=True)]
    return rows


def _classifier_row(context: Context, sample: Sample, index: int) -> Prediction:
    text = f"<answer>{sample.options[index]}</answer>"
    return Prediction(
        model=CLASSIFIER,
        exam=sample.exam,
        sample=sample.id,
        group=sample.group,
        task=sample.task,
        text=text,
        grade=context.marker.grade_image(sample, text),
        truth=truth_of(sample),
        image_hash=image_hash(sample),
    )


def _tell(context: Context, before: int, total: int, name: str) -> Callable[[int, int], None]:
    def progress(done: int, _: int) -> None:
        context.tell(before + done, total, name)

    return progress
