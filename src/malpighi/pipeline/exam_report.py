"""Tables and the page of an examination, from the rows in its folder."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from PIL import Image

from malpighi.durable import replacing
from malpighi.errors import DataError
from malpighi.evaluation.cases import Case, case_of
from malpighi.evaluation.cells import gather
from malpighi.evaluation.compare import what_differs
from malpighi.evaluation.controls import BLANK, CONTROLS, Controls, control_name, controls_of, is_control
from malpighi.evaluation.exports import sheet_of, write_tables
from malpighi.evaluation.majority import MODEL as MAJORITY
from malpighi.evaluation.majority import majority_predictions
from malpighi.evaluation.report import DatasetRow, Panel, ReportInput, styles_of, write_report
from malpighi.evaluation.rows import read_predictions, write_predictions
from malpighi.evaluation.statistics import Bootstrap, Estimate
from malpighi.evaluation.suite import load_suite
from malpighi.evaluation.tables import Results, exam_confusions, tabulate, to_dict
from malpighi.evaluation.task_scores import group_means, task_rows, task_scores
from malpighi.pipeline.exam_settings import ExamSettings
from malpighi.pipeline.examinee import Examinee
from malpighi.pipeline.material import Material, training
from malpighi.records import Failure, Grade, Prediction, Sample, Split, to_json

RESULTS = "results.json"
CONTROL_RESULTS = "controls.json"
FAILURES = "failures.jsonl"


@dataclass(frozen=True)
class ExamPage:
    """What the page is made of.

    Attributes:
        out: the run folder.
        examinee: who was examined last.
        settings: how.
        material: on what.
        samples: what was asked.
        grade_image: grades an answer whose boxes are in image px.
        picture_of: what a sample shows.
        environment: name -> version or value.
        panels: further sections, e.g. on leakage.
    """

    out: Path
    examinee: Examinee
    settings: ExamSettings
    material: Material
    samples: Sequence[Sample]
    grade_image: Callable[[Sample, str], Grade]
    picture_of: Callable[[Sample], Image.Image]
    environment: dict[str, str]
    panels: Sequence[Panel] = ()


class Written(NamedTuple):
    """The tables, what the controls say (None without any), further sections, and the page."""

    results: Results
    controls: Controls | None
    panels: list[Panel]
    report: Path


def write_exam(page: ExamPage, failures: Sequence[Failure]) -> Written:
    """Write the majority's rows, the tables, the failures and `report.html`, of all models in the folder."""
    folder, name = page.out / "predictions", page.examinee.name
    rows = [row for path in _files(folder, name) for row in read_predictions(path)]
    answered = {row.sample for row in rows}  # of any model in the folder: they may have taken other exams
    asked = [sample for sample in page.material.samples if sample.id in answered]
    constant = majority_predictions(training(page.material), asked, page.grade_image)
    write_predictions(folder / f"{MAJORITY}.jsonl", constant)
    rows = [*constant, *rows]
    bootstrap = Bootstrap(draws=page.settings.draws, seed=page.settings.seed)
    plain = [row for row in rows if not is_control(row.model)]  # controls are no contestants
    cells, pairs = gather(plain), _pairs({row.model for row in plain}, name)
    notes = [*_seen_in_training(page), *what_differs(cells, [pair for pair in pairs if MAJORITY not in pair])]
    found = tabulate(cells, pairs, bootstrap, notes)
    controls = controls_of(name, rows, bootstrap) if page.settings.controls else None
    _write(page.out / RESULTS, json.dumps(to_dict(found)).encode())
    if controls is not None:
        _write(page.out / CONTROL_RESULTS, msgspec.json.format(msgspec.json.encode(controls), indent=1))
    _write(page.out / FAILURES, b"".join(to_json(failure) + b"\n" for failure in failures))
    report = page.out / "report.html"
    panels = [*_task_panels(page, plain, bootstrap), *page.panels, *_control_panels(controls)]
    write_report(
        ReportInput(
            title=f"Examination of {name}",
            summary=_summary(page, controls),
            datasets=[_dataset(about) for about in page.material.sets],
            panels=panels,
            results=found,
            confusions=exam_confusions(plain),
            cases=_cases(page, plain, found),
            failures=failures,
            environment=page.environment | _provenance(page),
        ),
        report,
    )
    write_tables(found, page.out / "tables", [sheet_of(p.name, p.note, p.rows) for p in panels if p.rows])
    return Written(found, controls, panels, report)


def _task_panels(page: ExamPage, rows: Sequence[Prediction], bootstrap: Bootstrap) -> list[Panel]:
    """The tasks of the suite that was asked, as its paper scores them."""
    if not page.settings.suite:
        return []
    suite = load_suite(page.settings.suite)
    scores = task_scores(suite, rows, bootstrap, negatives=page.settings.negatives)
    told = task_rows(scores, group_means(suite, scores))
    note = (
        "Each task by its own metric, with its interval over groups; means are unweighted over the tasks "
        "that were examined. `malpighi compare --with PAPER` sets published figures beside them and says "
        "where protocols differ."
    )
    return [Panel("tasks", suite.title, note, told)]


def _provenance(page: ExamPage) -> dict[str, str]:
    """What else it takes to ask the same again."""
    style, asked = page.examinee.style, page.settings
    budgets = ", ".join(f"{scale} {tokens}" for scale, tokens in style.budgets.items())
    return {
        "model": page.examinee.what,
        "fingerprint": page.examinee.fingerprint,
        "prompt": f"{style.system}, family {style.family}, tokens a picture: {budgets}",
        "answers": f"{asked.max_new_tokens} tokens at most, temperature {asked.temperature:g}",
        "seed": str(asked.seed),
        "samples": f"{len(page.samples)}, {asked.suite or ', '.join(asked.exams)}"
        + (f", {asked.per_exam} an exam at most" if asked.per_exam else ""),
        "all settings": "exam.json",
    }


def _seen_in_training(page: ExamPage) -> list[str]:
    """What to say where training samples are examined, as some papers' protocols do."""
    count = sum(sample.split is Split.TRAIN for sample in page.samples)
    if not count:
        return []
    who = f"suite {page.settings.suite} asks for" if page.settings.suite else "were asked for"
    return [
        f"{count} of {len(page.samples)} samples are of the training split of these data, which {who}: "
        "a model that was trained on it has seen them, and the majority answer is learnt from them"
    ]


def _files(folder: Path, name: str) -> list[Path]:
    """The rows of other models, then those of the model at hand with its controls."""
    last = [name, *(control_name(name, control) for control in CONTROLS)]
    there = sorted(
        path
        for path in folder.glob("*.jsonl")
        if not path.name.endswith(".failures.jsonl") and path.name != f"{MAJORITY}.jsonl"
    )
    rank = {model: place + 1 for place, model in enumerate(last)}
    return sorted(there, key=lambda path: rank.get(path.name.removesuffix(".jsonl"), 0))


def _pairs(models: set[str], name: str) -> list[tuple[str, str]]:
    """Every other model against the one at hand."""
    return [(other, name) for other in (MAJORITY, *sorted(models - {name, MAJORITY})) if other in models]


def _summary(page: ExamPage, controls: Controls | None) -> str:
    splits = Counter(str(sample.split or "no") for sample in page.samples)
    parts = ", ".join(f"{count} of the {split} split" for split, count in sorted(splits.items()))
    told = [f"Examined: {page.examinee.what}, on {len(page.samples)} samples ({parts})."]
    if controls is None:
        return told[0]
    for look in controls.looks:
        if look.exam in ("all exams", _only([each.exam for each in controls.looks])):
            shown = "a blank image" if look.control == BLANK else "another sample's image"
            gain = _span(look.difference.estimate, "+")
            told.append(f"With the image it scores {gain} against {shown} (p = {look.difference.p:.2g}).")
    for same in controls.consistency:
        if same.exam in ("all exams", _only([each.exam for each in controls.consistency])):
            told.append(f"With permuted options it names the same one in {_span(same.share)} of {same.n}.")
    return " ".join(told)


def _control_panels(controls: Controls | None) -> list[Panel]:
    """What the controls say, exam by exam."""
    if controls is None:
        return []
    looks: list[dict[str, object]] = [
        {
            "exam": look.exam,
            "without": "any image" if look.control == BLANK else "its own image",
            "better with it by": look.difference.estimate.value,
            "from": look.difference.estimate.low,
            "to": look.difference.estimate.high,
            "p": look.difference.p,
            "samples": look.difference.n,
            "looks": "not shown" if look.warning else "yes",
        }
        for look in controls.looks
    ]
    same: list[dict[str, object]] = [
        {
            "exam": one.exam,
            "same option": one.share.value,
            "from": one.share.low,
            "to": one.share.high,
            "samples": one.n,
        }
        for one in controls.consistency
    ]
    whole = ("all exams", _only([look.exam for look in controls.looks]))
    warnings = [look.warning for look in controls.looks if look.warning and look.exam in whole]
    note = "The same samples with a blank image, and with another sample's image of the same exam, paired."
    order = "How often the same option is named when the options stand in another order."
    return [
        *([Panel("controls", "Does it look?", note, looks, warnings)] if looks else []),
        *([Panel("order", "Order of the options", order, same)] if same else []),
    ]


def _only(exams: Sequence[str]) -> str:
    return exams[0] if len(set(exams)) == 1 else ""


def _span(estimate: Estimate, sign: str = "") -> str:
    text = f"{estimate.value:{sign}.3f}"
    return text if estimate.low is None else f"{text} ({estimate.low:{sign}.3f} to {estimate.high:{sign}.3f})"


def _dataset(about: dict[str, Any]) -> DatasetRow:
    return DatasetRow(
        name=about["name"],
        counts=about["counts"],
        licence=about["licence"],
        split_rule=about["split_rule"],
        traps=about["traps"],
        failed=about["failed"],
    )


def _cases(page: ExamPage, rows: Sequence[Prediction], found: Results) -> list[Case]:
    """Per exam samples that the model at hand got wrong and as many that it got right, drawn by the seed."""
    rng = np.random.default_rng(page.settings.seed)
    exams: dict[str, list[Sample]] = {}
    for sample in page.samples:
        exams.setdefault(sample.exam, []).append(sample)
    by_sample: dict[str, list[Prediction]] = {}
    for row in rows:
        by_sample.setdefault(row.sample, []).append(row)
    styles = styles_of(found.models)
    cases = []
    for _, members in sorted(exams.items()):
        drawn = [members[place] for place in rng.permutation(len(members))]
        for sample in _wrong_and_right(drawn, by_sample, page):
            try:
                image = page.picture_of(sample)
            except (DataError, IndexError):  # no picture, or one that is among the failures
                continue
            cases.append(case_of(sample, image, by_sample.get(sample.id, []), styles))
    return cases


def _wrong_and_right(
    drawn: Sequence[Sample], rows: Mapping[str, Sequence[Prediction]], page: ExamPage
) -> list[Sample]:
    scores = {
        row.sample: row.grade.score
        for found in rows.values()
        for row in found
        if row.model == page.examinee.name
    }
    wrong = [sample for sample in drawn if scores.get(sample.id, 0.0) < 1]
    right = [sample for sample in drawn if scores.get(sample.id, 0.0) >= 1]
    return [*wrong[: page.settings.shown], *right[: page.settings.shown]]


def _write(path: Path, data: bytes) -> None:
    with replacing(path) as file:
        file.write(data)
