"""The stage that turns predictions into tables and one page."""

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from malpighi.evaluation.cases import Case, case_of
from malpighi.evaluation.exports import write_tables
from malpighi.evaluation.majority import MODEL as MAJORITY
from malpighi.evaluation.report import DatasetRow, ReportInput, styles_of, write_report
from malpighi.evaluation.rows import read_predictions
from malpighi.evaluation.statistics import Bootstrap
from malpighi.evaluation.tables import Results, exam_confusions, results, to_dict
from malpighi.pipeline.context import Context, StageResult
from malpighi.pipeline.folder import RunFolder
from malpighi.pipeline.recipe import CLASSIFIER, Data, Evaluate, Recipe, Report
from malpighi.pixels import decode_image
from malpighi.records import Failure, Prediction, Sample

RESULTS = "results.json"
TABLES = "tables"
"""Folder of the run that holds every table as CSV and LaTeX."""


def run_report(context: Context, stage: Report, work: Path) -> StageResult:
    """Tables as JSON in the stage's folder; `report.html` and `tables/` in the run folder."""
    evaluation = context.recipe.stages[stage.evaluation]
    assert isinstance(evaluation, Evaluate)
    rows = predictions(context.folder, evaluation)
    answered = {row.model for row in rows}
    pairs = [pair for pair in stage.pairs or compared(list(evaluation.models)) if answered.issuperset(pair)]
    table = results(rows, pairs, Bootstrap(draws=stage.draws, seed=context.recipe.seed))
    context.tell(1, 3, "tables")
    (work / RESULTS).write_text(json.dumps(to_dict(table)))
    write_tables(table, context.folder.root / TABLES)
    cases = _cases(context, stage, rows, table)
    context.tell(2, 3, "pictures")
    write_report(_page(context, table, rows, cases), context.folder.report)
    context.tell(3, 3, "page")
    return StageResult([], {"report": context.folder.report.name, "exams": len({row.exam for row in rows})})


def predictions(folder: RunFolder, evaluation: Evaluate) -> list[Prediction]:
    """All rows of an evaluation, models in the order of the tables."""
    names = [MAJORITY, *([CLASSIFIER] if evaluation.classifier else []), *evaluation.models]
    return [row for name in names for row in read_predictions(folder.predictions / f"{name}.jsonl")]


def compared(models: Sequence[str]) -> list[tuple[str, str]]:
    """The pairs tested unless told: each with the next, the first and the classifier with the last."""
    pairs = list(pairwise(models))
    if len(models) > 2:
        pairs.append((models[0], models[-1]))
    return [*pairs, *((CLASSIFIER, model) for model in models[-1:])]


def all_failures(recipe: Recipe, folder: RunFolder) -> list[Failure]:
    """Every item that failed in the finished stages."""
    return [failure for name in recipe.stages for failure in folder.failures(name)]


def _page(context: Context, table: Results, rows: list[Prediction], cases: list[Case]) -> ReportInput:
    recipe, folder = context.recipe, context.folder
    environment = folder.environment() | {
        "seed": str(recipe.seed),
        "recipe": f"{recipe.name}, size {recipe.size}",
    }
    return ReportInput(
        title=recipe.title,
        summary=_summary(context),
        plan=_stages(recipe, folder),
        datasets=_datasets(recipe, folder),
        results=table,
        curves=_curves(recipe, folder),
        confusions=exam_confusions(rows),
        cases=cases,
        failures=all_failures(recipe, folder),
        environment=environment,
    )


def _summary(context: Context) -> str:
    recipe = context.recipe
    data = next(stage for stage in recipe.stages.values() if isinstance(stage, Data))
    source = (
        f"real data in {Path(data.folder).name}"
        if data.folder
        else "the phantom: synthetic pictures with exact labels"
    )
    return (
        f"Learnt from and examined on {source}. The model is of family {recipe.prompt.family}; it was "
        "examined on groups (patients, slides) that no stage has seen."
    )


def _stages(recipe: Recipe, folder: RunFolder) -> list[dict[str, Any]]:
    rows = []
    for name, stage in recipe.stages.items():
        done = folder.done(name)
        if done is not None:
            kind = type(stage).__name__.lower()
            rows.append(
                {
                    "stage": name,
                    "kind": kind,
                    "what": _told(done.notes),
                    "minutes": f"{done.seconds / 60:.1f}",
                }
            )
    return rows


def _told(notes: Mapping[str, Any]) -> str:
    plain = {k: v for k, v in notes.items() if isinstance(v, str | int | float)}
    return ", ".join(
        f"{name} {value:,}" if isinstance(value, int) else f"{name} {value}" for name, value in plain.items()
    )


def _datasets(recipe: Recipe, folder: RunFolder) -> list[DatasetRow]:
    rows = []
    for name, stage in recipe.stages.items():
        done = folder.done(name)
        if isinstance(stage, Data) and done is not None:
            rows += [_dataset(about) for about in done.notes["sets"]]
    return rows


def _dataset(about: Mapping[str, Any]) -> DatasetRow:
    left_out = [f"{count} samples left out: {reason}" for reason, count in about["left_out"].items()]
    return DatasetRow(
        name=about["name"],
        counts=about["counts"],
        licence=about["licence"],
        split_rule=about["split_rule"],
        traps=[*about["traps"], *left_out],
        failed=about["failed"],
    )


def _curves(recipe: Recipe, folder: RunFolder) -> dict[str, list[dict[str, float]]]:
    curves = {}
    for name in recipe.stages:
        path = folder.stage(name) / "curves.jsonl"
        if path.is_file():
            curves[name] = [json.loads(line) for line in path.read_text().splitlines()]
    return curves


def _cases(context: Context, stage: Report, rows: list[Prediction], table: Results) -> list[Case]:
    """Per exam `shown` samples that the last model did not answer right and `shown` others, drawn by seed."""
    samples = {sample.id: sample for sample in context.corpus.samples()}
    rng = np.random.default_rng(context.recipe.seed)
    exams: dict[str, list[str]] = {}
    for row in rows:
        ids = exams.setdefault(row.exam, [])
        if row.model == table.models[-1]:
            ids.append(row.sample)
    by_sample: dict[str, list[Prediction]] = {}
    for row in rows:
        by_sample.setdefault(row.sample, []).append(row)
    last = {row.sample: row.grade for row in rows if row.model == table.models[-1]}
    chosen = []
    for exam in sorted(exams):
        drawn = rng.permutation(exams[exam]).tolist()
        missed = [key for key in drawn if last[key].score < 1]
        right = [key for key in drawn if last[key].score >= 1]
        chosen += [*missed[: stage.shown], *right[: stage.shown]]
    styles = styles_of(table.models)
    return [case_of(samples[key], _image(context, samples[key]), by_sample[key], styles) for key in chosen]


def _image(context: Context, sample: Sample) -> Any:
    ref = sample.images[0]
    if ref.unmade:  # a slide: what the models saw of it
        return context.pictures.prompt(sample).images[0]
    return decode_image(context.corpus.image_bytes(ref.key))
