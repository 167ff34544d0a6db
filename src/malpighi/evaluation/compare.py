"""Any number of runs side by side: paired by sample, tested, ranked, and told where they do not compare."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from malpighi.errors import UserError
from malpighi.evaluation.cells import Cells, gather
from malpighi.evaluation.controls import is_control
from malpighi.evaluation.rows import models_in, stream_predictions
from malpighi.evaluation.statistics import Bootstrap
from malpighi.evaluation.tables import Results, tabulate
from malpighi.records import Prediction

PREDICTIONS = "predictions"


@dataclass(frozen=True)
class CompareOptions:
    """What of the runs is compared.

    Attributes:
        against: the model that all others are compared with, as the table names it; "" for every pair.
        models: models taken into account, by the name in their rows; empty for all but controls.
        exams: exams taken into account; empty for all.
        bootstrap: draws, seed and level of the intervals.
        alone: whether one model is enough, as beside published figures.
    """

    against: str = ""
    models: tuple[str, ...] = ()
    exams: tuple[str, ...] = ()
    bootstrap: Bootstrap = field(default_factory=Bootstrap)
    alone: bool = False


@dataclass(frozen=True)
class _Source:
    """A predictions file, and the run it belongs to."""

    run: str
    path: Path


def compare(runs: Sequence[Path], options: CompareOptions | None = None) -> Results:
    """Tables, paired tests (Holm over exams), average ranks and Friedman's test over runs.

    A model that several runs hold is named with its run, as `model (run)`. Samples are paired by id within an
    exam; where two models disagree on the right answer of a sample, it is left out of their pairs. Different
    prompts, pictures and right answers are told in `Results.notes`.

    Args:
        runs: run folders (with `predictions/*.jsonl`) or predictions files.
        options: what is compared.

    Raises:
        UserError: a path holds no predictions, a file is damaged, a model answers a sample twice within one
            run, or a model, exam or `against` that nothing is known of.
    """
    options = options or CompareOptions()
    cells = gather(rows_of(runs, options))
    models = list(dict.fromkeys(model for _, model in cells))
    _refuse_unknown(cells, models, options)
    pairs = [(options.against, model) for model in models if model != options.against]
    if not options.against:
        pairs = list(combinations(models, 2))
    return tabulate(cells, pairs, options.bootstrap, what_differs(cells, pairs))


def rows_of(runs: Sequence[Path], options: CompareOptions) -> Iterator[Prediction]:
    """The rows of runs, of the models and exams that the options name; models of several runs with their run.

    Raises:
        UserError: a path holds no predictions, or the same run is given twice.
    """
    sources = [
        source for run, path in zip(_run_names(runs), runs, strict=True) for source in _files(run, path)
    ]
    return _rows(sources, _in_several_runs(sources), options)


def _run_names(runs: Sequence[Path]) -> list[str]:
    """A name for each run: the folder's, with as many parents as it takes to tell it from the others."""
    if len({run.resolve() for run in runs}) < len(runs):
        raise UserError("the same run is given twice; name each once")
    whole = [run.resolve().with_suffix("") if run.is_file() else run.resolve() for run in runs]
    names = []
    for path in whole:
        others = [other for other in whole if other != path]
        depth = 1
        while depth < len(path.parts) and any(
            other.parts[-depth:] == path.parts[-depth:] for other in others
        ):
            depth += 1
        names.append("/".join(path.parts[-depth:]))
    return names


def _files(run: str, path: Path) -> list[_Source]:
    if path.is_file():
        return [_Source(run, path)]
    folder = path / PREDICTIONS if (path / PREDICTIONS).is_dir() else path
    found = [
        file
        for file in sorted(folder.glob("*.jsonl"))
        if not file.name.endswith(".failures.jsonl") and not file.name.startswith(".")
    ]
    if not found:
        raise UserError(
            f"{path}: no predictions; expected a run folder with {PREDICTIONS}/*.jsonl, or such a file. "
            "Run the examination first"
        )
    return [_Source(run, file) for file in found]


def _in_several_runs(sources: Sequence[_Source]) -> set[str]:
    """Models that more than one run holds."""
    runs: dict[str, set[str]] = defaultdict(set)
    for source in sources:
        for model in models_in(source.path):
            runs[model].add(source.run)
    return {model for model, found in runs.items() if len(found) > 1}


def _rows(sources: Sequence[_Source], shared: set[str], options: CompareOptions) -> Iterator[Prediction]:
    for source in sources:
        for row in stream_predictions(source.path):
            named = row.model in options.models if options.models else not is_control(row.model)
            if not named or (options.exams and row.exam not in options.exams):
                continue
            yield replace(row, model=f"{row.model} ({source.run})") if row.model in shared else row


def _refuse_unknown(cells: Cells, models: Sequence[str], options: CompareOptions) -> None:
    if len(models) < (1 if options.alone else 2):
        raise UserError(f"comparing takes two models or more; found {', '.join(models) or 'no rows'}")
    missing = set(options.exams) - {exam for exam, _ in cells}
    if missing:
        raise UserError(f"no predictions of exam {', '.join(sorted(missing))}")
    known = {*models, *(model.rpartition(" (")[0] for model in models)}
    for model in options.models:
        if model not in known:
            raise UserError(f"no predictions of model {model!r}; found {', '.join(models)}")
    if options.against and options.against not in models:
        raise UserError(f"no model {options.against!r} to compare with; found {', '.join(models)}")


_CHECKS: tuple[tuple[str, Callable[[Prediction], Any]], ...] = (
    ("another right answer (left out of the comparison)", lambda row: row.truth),
    ("another prompt", lambda row: row.prompt_hash or None),
    ("another picture", lambda row: row.image_hash or None),
    ("another group", lambda row: row.group),
)


def what_differs(cells: Cells, pairs: Sequence[tuple[str, str]]) -> list[str]:
    """What differs in the samples that two models share, and what only one of them answered: sentences."""
    notes = []
    exams = sorted({exam for exam, _ in cells})
    for pair in pairs:
        differing: Counter[str] = Counter()
        examples: dict[str, str] = {}
        shared = lonely = 0
        for exam in exams:
            first, second = ({row.sample: row for row in cells.get((exam, model), [])} for model in pair)
            if not first or not second:
                continue
            both = [(first[sample], second[sample]) for sample in first.keys() & second.keys()]
            shared += len(both)
            lonely += len(first.keys() ^ second.keys())
            for what, value in _CHECKS:
                odd = [one.sample for one, other in both if _differ(value(one), value(other))]
                differing[what] += len(odd)
                if odd:
                    examples.setdefault(what, min(odd))
        names = f"{pair[0]} and {pair[1]}"
        if not shared:
            notes.append(f"{names} share no sample; their exams cannot be compared in pairs")
            continue
        if lonely:
            notes.append(f"{names}: {lonely} samples of shared exams were answered by only one of them")
        notes += [
            f"{names}: {count} of {shared} shared samples have {what}, e.g. {examples[what]}"
            for what, count in differing.items()
            if count
        ]
    return notes


def _differ(one: Any, other: Any) -> bool:
    """A hash that one file does not know tells nothing."""
    return one is not None and other is not None and one != other
