"""A judge on the open answers of a run: where its rows and its samples lie, and what is left to ask."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from malpighi.corpus import Corpus
from malpighi.errors import UserError
from malpighi.evaluation.controls import is_control
from malpighi.evaluation.judge import Case, JudgeOptions, Verdict, cases_of, judge, key_of, read_verdicts
from malpighi.evaluation.judged import JudgedRow, judged_rows
from malpighi.evaluation.rows import read_predictions
from malpighi.evaluation.rubric import Rubric
from malpighi.inference.engine import Engine
from malpighi.pipeline.exam_settings import RECORD

VERDICTS = "verdicts.jsonl"
_CHARACTERS_PER_TOKEN = 4


class Judging(NamedTuple):
    """What is to be judged, and what it takes.

    Attributes:
        cases: answers to choices and open questions.
        left: those without a verdict, each distinct answer once.
        tokens: about how many tokens the judge will read for them.
    """

    cases: list[Case]
    left: int
    tokens: int


def corpus_of(run: Path) -> Corpus:
    """The corpus that a run's samples lie in.

    Raises:
        UserError: the folder holds none.
    """
    inside = (run, run / "corpus", run / "data/corpus", *sorted(run.glob("stages/*/corpus")))
    for folder in (*inside, *_examined(run)):
        if (folder / "corpus.json").is_file():
            return Corpus.open(folder)
    raise UserError(
        f"{run} holds no corpus and names none that is still there; "
        "give a run folder of `malpighi run` or `malpighi evaluate`, or a corpus"
    )


def _examined(run: Path) -> list[Path]:
    """The corpora that an examination was given; they lie outside its folder."""
    path = run / RECORD
    if not path.is_file():
        return []
    entries = json.loads(path.read_text(encoding="utf-8"))["models"].values()
    return [Path(entry["corpus"]) for entry in entries if entry.get("corpus")]


def to_judge(run: Path, rubric: Rubric, judge_name: str, models: tuple[str, ...] = ()) -> Judging:
    """The answers of a run that a judge can read.

    Args:
        run: the run folder.
        rubric: by what.
        judge_name: who; verdicts of another judge count for nothing.
        models: whose answers; empty for all but those of controls.

    Raises:
        UserError: no corpus, no predictions, or none of these models.
    """
    samples = {sample.id: sample for sample in corpus_of(run).samples()}
    files = [path for path in sorted((run / "predictions").glob("*.jsonl")) if ".failures" not in path.name]
    rows = [row for path in files for row in read_predictions(path)]
    unknown = set(models) - {row.model for row in rows}
    if unknown or not rows:
        found = ", ".join(sorted({row.model for row in rows})) or "no predictions at all"
        raise UserError(
            f"{run}: no predictions of {', '.join(sorted(unknown)) or 'any model'}; found {found}"
        )
    wanted = [row for row in rows if (row.model in models if models else not is_control(row.model))]
    cases = cases_of(wanted, samples)
    known = {verdict.key for verdict in read_verdicts(run / VERDICTS) if not verdict.fault}
    left = {key: case for case in cases if (key := key_of(case, rubric, judge_name)) not in known}
    rubric_length = len(rubric.instructions) + sum(len(c.name) * 2 + len(c.asks) for c in rubric.criteria)
    letters = sum(
        rubric_length + len(case.asked.question) + len(case.asked.reference) + len(case.asked.candidate)
        for case in left.values()
    )
    return Judging(cases, len(left), letters // _CHARACTERS_PER_TOKEN)


def judge_run(
    run: Path,
    judging: Judging,
    engine: Engine | None,
    rubric: Rubric,
    options: JudgeOptions,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Verdict], list[JudgedRow]]:
    """The verdicts, kept in the run folder, and their table; see `evaluation.judge`."""
    verdicts = judge(engine, judging.cases, rubric, run / VERDICTS, options, on_progress)
    return verdicts, judged_rows(judging.cases, verdicts, rubric)
