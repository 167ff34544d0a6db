"""The stages that make models: build, supervise, reinforce, classify."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from malpighi.errors import ConfigError
from malpighi.models.adapters import read_experts, start_experts
from malpighi.models.experts import load_experts
from malpighi.models.phrasings import Phrase
from malpighi.models.prompt import Prompt, target_text
from malpighi.models.router import Router
from malpighi.models.router_training import train_router
from malpighi.models.task_groups import shipped_groups
from malpighi.models.tiny import build_tiny
from malpighi.models.vlm import Vlm, load_vlm
from malpighi.pipeline.ahead import lanes
from malpighi.pipeline.context import Context, StageResult
from malpighi.pipeline.folder import RunFolder
from malpighi.pipeline.process import set_up
from malpighi.pipeline.recipe import Build, Classify, Experts, Reinforce, Supervised
from malpighi.pipeline.routing import EXPERTS_FOLDER
from malpighi.records import Choice, Failure, Sample, Split, TaskKind
from malpighi.training.classify import train_classifier
from malpighi.training.reinforce import ROLLOUTS, train_reinforce
from malpighi.training.rollouts import faults
from malpighi.training.runtime import Curve, ExpertRuntime, OnStep, StageRuntime, load_curves, save_curves
from malpighi.training.supervised import train_supervised

CURVES = "curves.jsonl"


def run_build(context: Context, stage: Build, work: Path) -> StageResult:
    """Load weights from disk, or build the miniature whose tokenizer is trained on the run's own texts."""
    family = context.recipe.prompt.family
    if stage.weights:
        vlm = load_vlm(Path(stage.weights))
        if vlm.family.name != family:
            raise ConfigError(
                f"{stage.weights} holds a {vlm.family.name} model but prompt.family is {family}; "
                f"add --set prompt.family={vlm.family.name}"
            )
        vlm.save(work / "model")
    else:
        build_tiny(family, work / "model", _texts(context), seed=context.recipe.seed, size=stage.size)
        vlm = load_vlm(work / "model")
    parameters = sum(p.numel() for p in vlm.model.parameters())
    return StageResult(
        [], {"parameters": parameters, "family": family, "weights": stage.weights or "miniature"}
    )


def run_supervised(context: Context, stage: Supervised, work: Path) -> StageResult:
    """Alignment or instruction tuning from another stage's model."""
    vlm = start_model(context, stage.start)
    pool = _pool(context, stage.tasks)
    if not pool:
        return _unchanged(context, vlm, stage.tasks, work)
    drawn = mixture(pool, stage.train.steps * stage.train.batch_size, stage.balance, context.recipe.seed)
    runtime = StageRuntime(work, _on_step(context))
    rows = train_supervised(vlm, drawn, context.pictures, stage.train, runtime, context.recipe.seed)
    return _learned(work, rows, drawn)


def run_reinforce(context: Context, stage: Reinforce, work: Path) -> StageResult:
    """Reinforcement from another stage's model."""
    vlm = start_model(context, stage.start)
    pool = _pool(context, stage.tasks)
    if not pool:
        return _unchanged(context, vlm, stage.tasks, work)
    drawn = mixture(
        pool,
        stage.train.steps * stage.train.prompts,
        stage.balance,
        context.recipe.seed + 1,
        stage.shares or None,
    )
    runtime = StageRuntime(work, _on_step(context))
    rows = train_reinforce(
        vlm, drawn, context.pictures, stage.train, runtime, context.grade_text, context.recipe.seed
    )
    learned = _learned(work, rows, drawn)
    return learned._replace(failures=faults(work / ROLLOUTS, context.name))


def run_experts(context: Context, stage: Experts, work: Path) -> StageResult:
    """One adapter per group of tasks on another stage's model, and their router."""
    experts = work / EXPERTS_FOLDER
    start_experts(experts, context.folder.stage(stage.start) / "model")
    lessons = _lessons(context, stage)
    taught = [lesson for lesson in lessons if lesson.samples]
    with lanes(taught, context.workers, partial(_teach_ahead, context.elsewhere(), stage, work)) as mine:
        _teach(context, stage, work, mine)
    _teach(context, stage, work, taught)
    train_router(_requests(context), settings=stage.router).save(experts)
    failures = [
        _lacking(context, lesson.tasks, f"no adapter for {lesson.group}; the base answers")
        for lesson in lessons
        if not lesson.samples
    ]
    rows: Curve = []
    trends: dict[str, str] = {}
    for lesson in taught:
        curve = load_curves(work / lesson.group / CURVES)
        rows += [row | {"step": row["step"] + lesson.before} for row in curve]
        trends |= {f"{lesson.group} {name}": trend for name, trend in _trends(curve).items()}
        failures += faults(work / lesson.group / ROLLOUTS, context.name)
    drawn = [sample for lesson in taught for sample in lesson.samples]
    save_curves(rows, work / CURVES)
    return StageResult(failures, _asked(drawn) | trends)


class _Lesson(NamedTuple):
    """What one adapter learns: its group, the kinds of task, the questions, and the steps of those before."""

    group: str
    tasks: list[TaskKind]
    samples: list[Sample]
    before: int


def _lessons(context: Context, stage: Experts) -> list[_Lesson]:
    lessons, steps = [], stage.train.steps
    groups = [group for group in shipped_groups().groups if set(group.tasks) & set(stage.tasks)]
    for index, group in enumerate(groups):
        tasks = [task for task in stage.tasks if task in group.tasks]
        drawn = mixture(
            _pool(context, tasks), steps * stage.train.prompts, stage.balance, context.recipe.seed + 1 + index
        )
        lessons.append(_Lesson(group.name, tasks, drawn, index * steps))
    return lessons


def _teach(context: Context, stage: Experts, work: Path, lessons: Sequence[_Lesson]) -> None:
    """Train the adapters that are not trained yet."""
    base, experts = context.folder.stage(stage.start) / "model", work / EXPERTS_FOLDER
    for lesson in lessons:
        own = work / lesson.group
        if not (own / CURVES).is_file():
            runtime = ExpertRuntime(own, experts, base, _on_step(context, lesson.group))
            curve = train_reinforce(
                start_model(context, stage.start), lesson.samples, context.pictures, stage.train,
                runtime, context.grade_text, context.recipe.seed,
            )  # fmt: skip
            save_curves(curve, own / CURVES)


def _teach_ahead(context: Context, stage: Experts, work: Path, lessons: Sequence[_Lesson]) -> None:
    set_up(context.recipe.threads, context.folder.log)
    _teach(context, stage, work, lessons)


def run_classify(context: Context, stage: Classify, work: Path) -> StageResult:
    """The small network to compare with."""
    tasks = (TaskKind.CLASSIFICATION, TaskKind.VQA)
    pool = [sample for sample in _pool(context, tasks) if isinstance(sample.answer, Choice)]
    if not pool:
        return StageResult([_lacking(context, tasks, "no classifier to compare with")], {"samples": 0})
    rows = train_classifier(
        pool, context.pictures, stage.train, work / "model", context.recipe.seed, _on_step(context)
    )
    return _learned(work, rows, pool)


def start_model(context: Context, stage: str) -> Vlm:
    """The model that an earlier stage made."""
    return load_vlm(context.folder.stage(stage) / "model")


def answering(folder: RunFolder, stage: str) -> tuple[Vlm, Callable[[Prompt], str] | None]:
    """The model of a finished stage as it answers, and what routes prompts where it carries experts."""
    experts = folder.stage(stage) / EXPERTS_FOLDER
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if not experts.is_dir():
        return load_vlm(folder.stage(stage) / "model", device=device), None
    base = load_vlm(experts / read_experts(experts).base, device=device)
    return load_experts(base, experts), Router.load(experts).adapter_for


def mixture(
    pool: Sequence[Sample],
    count: int,
    balance: float,
    seed: int,
    shares: Mapping[TaskKind, float] | None = None,
) -> list[Sample]:
    """`count` samples drawn so that an exam of n samples is seen in proportion to n ** balance.

    Within an exam the samples come round in shuffled rounds: none is seen twice before all are seen once.

    Args:
        pool: what to draw from.
        count: how many to draw.
        balance: 1 draws exams as large as they are, 0 draws all exams alike.
        seed: of the draw.
        shares: kind of task -> its weight against the other kinds, 1 for kinds not named; None leaves the
            kinds as their exams' sizes make them.
    """
    rng = np.random.default_rng(seed)
    exams: dict[str, list[Sample]] = {}
    for sample in pool:
        exams.setdefault(sample.exam, []).append(sample)
    if not exams:
        return []
    sizes = np.array([len(members) for members in exams.values()], dtype=float) ** balance
    if shares is not None:
        kinds = [members[0].task for members in exams.values()]
        total = {kind: sizes[[k is kind for k in kinds]].sum() for kind in set(kinds)}
        sizes = sizes / [total[kind] for kind in kinds] * [shares.get(kind, 1.0) for kind in kinds]
    counts = rng.multinomial(count, sizes / sizes.sum())
    drawn: list[Sample] = []
    for members, wanted in zip(exams.values(), counts, strict=True):
        rounds = -(-int(wanted) // len(members))
        order = [int(i) for _ in range(rounds) for i in rng.permutation(len(members))]
        drawn += [members[i] for i in order[: int(wanted)]]
    return [drawn[i] for i in rng.permutation(len(drawn))]


def _pool(context: Context, tasks: Sequence[TaskKind]) -> list[Sample]:
    return [sample for sample in context.samples(Split.TRAIN) if sample.task in tasks]


def _lacking(context: Context, tasks: Sequence[TaskKind], outcome: str) -> Failure:
    """A stage that the data have nothing for does not end the run, and is not silent."""
    reason = f"no training sample of {' or '.join(tasks)}: {outcome}"
    return Failure(f"{context.name}/{'+'.join(tasks)}", context.name, reason)


def _unchanged(context: Context, vlm: Vlm, tasks: Sequence[TaskKind], work: Path) -> StageResult:
    vlm.save(work / "model")
    return StageResult([_lacking(context, tasks, "the model goes on as it was")], {"samples": 0})


def _texts(context: Context) -> list[str]:
    """Every word the miniature must read or write, from the training split alone."""
    style = context.recipe.prompt
    texts: list[str] = []
    for sample in context.samples(Split.TRAIN):
        prompt = context.pictures.prompt(sample)
        texts += [
            prompt.system,
            *(turn.text for turn in prompt.turns),
            target_text(sample, prompt.views, style),
        ]
    return texts


def _requests(context: Context) -> list[Phrase]:
    """The training prompts as the router reads them; without a group's task, the base is to answer."""
    return [
        Phrase(context.pictures.prompt(sample).turns[-1].text, str(sample.task), sample.exam)
        for sample in context.samples(Split.TRAIN)
    ]


def _learned(work: Path, rows: Curve, samples: Sequence[Sample]) -> StageResult:
    save_curves(rows, work / CURVES)
    return StageResult([], _asked(samples) | _trends(rows))


def _asked(samples: Sequence[Sample]) -> dict[str, Any]:
    exams = Counter(sample.exam for sample in samples)
    return {"samples": len(samples), "of_exams": dict(sorted(exams.items()))}


def _trends(rows: Curve) -> dict[str, str]:
    """First and last of what a curve tells."""
    found = {name: [row[name] for row in rows if name in row] for name in ("loss", "reward", "accuracy")}
    return {name: f"{values[0]:.3f} to {values[-1]:.3f}" for name, values in found.items() if values}


def _on_step(context: Context, what: str = "") -> OnStep:
    def tell(step: int, total: int, values: dict[str, float]) -> None:
        shown = ((name, values[name]) for name in ("loss", "reward", "accuracy") if name in values)
        told = (f"{name} {value:.3f}" for name, value in shown)
        context.tell(step, total, "  ".join((what, *told)).strip())

    return tell
