"""Commands about exams: examining models and encoders, judging answers, looking for leaks."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import typer

from malpighi.errors import ConfigError
from malpighi.records import Failure
from malpighi.terminal import (
    EXIT_FAILED_ITEMS,
    NOTICE,
    ConsoleListener,
    command,
    console,
    duration,
    errors,
    failures_table,
    print_json,
    progress_bar,
    table,
    told,
)

# Each command imports what it needs when it runs: `malpighi --help` must not wait for torch.
# ruff: noqa: PLC0415

exam_app = typer.Typer()

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]

_KEY = "MALPIGHI_API_KEY"


class _Exam(NamedTuple):
    """Who is examined on what."""

    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="Weights, http://host/v1#name, module:function, scripted:WORDS."
        ),
    ]
    data: Annotated[str, typer.Argument(metavar="DATA", help="Data sets, a corpus, or `phantom`.")]
    out: Annotated[Path, typer.Option("--out", "-o", help="The run folder.")]
    suite: Annotated[str, typer.Option(help="A suite of exams, e.g. smartpath-r1, or a .yaml file.")] = ""
    exams: Annotated[
        list[str] | None, typer.Option("--exam", help="An exam or pattern; repeatable.", show_default="all")
    ] = None
    per_exam: Annotated[int, typer.Option(min=0, help="Most samples of an exam; 0 for all.")] = 0
    controls: Annotated[str, typer.Option(help="Of blank,mismatched,permuted.")] = ""
    workers: Annotated[int, typer.Option(min=1, help="Processes that ask; the result is the same.")] = 1
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Any other setting; repeatable.")
    ] = None
    plan: Annotated[bool, typer.Option("--plan", help="Ask a few, tell what all would take, stop.")] = False
    as_json: Json = False


@command(exam_app)
def evaluate(asked: _Exam) -> None:
    """Examine any model on any data; killed it goes on, started several times it shares the work.

    The key of a hosted server is read from the environment variable MALPIGHI_API_KEY.
    """
    from malpighi.evaluation.tables import to_dict, to_rich
    from malpighi.pipeline.exam_plan import plan_exam
    from malpighi.pipeline.examining import examine

    settings = _exam_settings(asked)
    said = errors if asked.as_json else console
    if asked.plan:
        with progress_bar(said, "a few samples") as show:
            planned = plan_exam(asked.model, asked.data, asked.out, settings, lambda d, t, _: show(d, t))
        if asked.as_json:
            print_json(asdict(planned))
        else:
            _print_plan(planned)
        return
    with ConsoleListener(said, ["exam"]) as listener:
        listener.started("exam", resumed=asked.out.exists())
        found = examine(asked.model, asked.data, asked.out, settings, listener.progressed)
    if asked.as_json:
        answer = {"results": to_dict(found.results), "controls": msgspec.to_builtins(found.controls)}
        answer["panels"] = msgspec.to_builtins(found.panels)
        more = {"asked": found.asked, "kept": found.kept, "cost": found.cost, "report": str(found.report)}
        print_json(answer | more | {"failures": msgspec.to_builtins(found.failures)})
    else:
        console.print(to_rich(found.results))
        for panel in found.panels:
            _print_panel(panel)
        console.print(f"\nReport: [bold]{found.report}[/]   {NOTICE}", highlight=False, soft_wrap=True)
    _end(found.failures, as_json=asked.as_json)


class _Leaks(NamedTuple):
    """What is looked for where."""

    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder or corpus; its test split.")]
    train: Annotated[
        Path | None,
        typer.Option(help="A run, a corpus or an export that was trained on.", show_default="RUN's own"),
    ] = None
    policy: Annotated[Literal["flag", "refuse"], typer.Option(help="Whether a leak is an error.")] = "flag"
    ignore: Annotated[
        list[str] | None, typer.Option(help="Kinds of source that do not count, e.g. article; repeatable.")
    ] = None
    export: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write the training split's fingerprints and stop.")
    ] = None
    as_json: Json = False


@command(exam_app)
def leaks(asked: _Leaks) -> None:
    """Tell which test samples training has seen: by pixels, by words, by source."""
    from malpighi.evaluation.leaks import LeakSettings, leak_table
    from malpighi.pipeline.screening import check_leaks, export_fingerprints
    from malpighi.records import Split

    said = errors if asked.as_json else console
    with progress_bar(said, "leak check") as show:

        def tell(done: float, total: float, _: str) -> None:
            show(done, total)

        if asked.export:
            count = export_fingerprints(asked.run, Split.TRAIN, asked.export, tell)
        else:
            settings = LeakSettings(ignore=tuple(asked.ignore or ()))
            found = check_leaks(asked.run, asked.train, policy=asked.policy, settings=settings, tell=tell)
    if asked.export:
        said.print(f"{asked.export}: fingerprints of {count} samples, without pixels and words")
        return
    if asked.as_json:
        print_json(msgspec.to_builtins(found))
    else:
        console.print(leak_table(found))
        for leak in found.leaks[:20]:
            console.print(f"{leak.test}: {leak.evidence}, as {leak.train}", highlight=False, markup=False)
    _end(found.failures, as_json=asked.as_json)


class _Judge(NamedTuple):
    """Which answers are judged, and by whom."""

    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder with predictions and corpus.")]
    judge_name: Annotated[str, typer.Option("--judge", metavar="NAME", help="The judging model's name.")]
    server: Annotated[
        str, typer.Option(metavar="URL", help="Where it is served, up to /v1; none replays what is there.")
    ] = ""
    rubric: Annotated[str, typer.Option(help="A rubric that ships, or a .yaml file.")] = "reasoning"
    models: Annotated[
        list[str] | None, typer.Option("--model", help="Whose answers; repeatable.", show_default="all")
    ] = None
    concurrency: Annotated[int, typer.Option(min=1, help="Requests at once.")] = 8
    timeout: Annotated[float, typer.Option(help="Seconds without an answer until a request failed.")] = 300.0
    plan: Annotated[bool, typer.Option("--plan", help="Tell what it would ask and stop.")] = False
    as_json: Json = False


@command(exam_app)
def judge(asked: _Judge) -> None:
    """Let a language model score open answers by a rubric; every verdict is kept and never asked twice.

    The key of a hosted server is read from the environment variable MALPIGHI_API_KEY.
    """
    from malpighi.evaluation.judge import JudgeOptions
    from malpighi.evaluation.rubric import load_rubric
    from malpighi.pipeline.judging import judge_run, to_judge

    rubric = load_rubric(asked.rubric)
    todo = to_judge(asked.run, rubric, asked.judge_name, tuple(asked.models or ()))
    said = errors if asked.as_json else console
    said.print(f"{len(todo.cases)} answers, {todo.left} not judged yet, about {todo.tokens:,} tokens to read")
    if asked.plan:
        if asked.as_json:
            print_json({"answers": len(todo.cases), "left": todo.left, "tokens": todo.tokens})
        return
    with progress_bar(said, "judged") as show:
        options = JudgeOptions(asked.judge_name)
        verdicts, rows = judge_run(asked.run, todo, _server(asked), rubric, options, show)
    missing = [
        Failure(case.prediction.sample, "judge", verdict.fault)
        for case, verdict in zip(todo.cases, verdicts, strict=True)
        if verdict.fault
    ]
    if asked.as_json:
        print_json({"rubric": rubric.mark, "rows": msgspec.to_builtins(rows), "missing": len(missing)})
    else:
        title = f"Judged by {asked.judge_name} with {rubric.mark}; 0 to 1 of its scale"
        console.print(table(title, map(_judged, rows), ("n", "missing", "score", "right", "agrees", "kappa")))
    _end(missing, as_json=asked.as_json)


class _Probe(NamedTuple):
    """What is asked of which encoder."""

    encoder: Annotated[
        str,
        typer.Argument(metavar="ENCODER", help="A CLIP-like model: a folder, or package.module:function."),
    ]
    data: Annotated[Path, typer.Option(help="A run folder, or any folder with a corpus.")]
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the results.")]
    shots: Annotated[str, typer.Option(help="Pictures per class.")] = "2,8,16,32,64,128"
    draws: Annotated[int, typer.Option(min=1, help="Draws of each size.")] = 10
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu"
    as_json: Json = False


@command(exam_app)
def probe(asked: _Probe) -> None:
    """Examine an encoder of pictures and words: zero-shot, few labels, retrieval."""
    from malpighi.evaluation.few_shot import FewShotSettings
    from malpighi.inference.dual_encoder import load_dual_encoder
    from malpighi.pipeline.judging import corpus_of
    from malpighi.pipeline.probing import ProbeSettings, probe_tables
    from malpighi.pipeline.probing import probe as examine

    settings = ProbeSettings(few_shot=FewShotSettings(shots=_whole(asked.shots), draws=asked.draws))
    corpus = corpus_of(asked.data)
    encoder = load_dual_encoder(asked.encoder, asked.device)
    with progress_bar(errors if asked.as_json else console, "pictures") as show:
        found = examine(encoder, corpus, asked.out, settings, lambda done, total, _: show(done, total))
    if asked.as_json:
        print_json(msgspec.to_builtins(found))
    else:
        console.print(probe_tables(found, asked.out))
    _end(found.failures, as_json=asked.as_json)


def _exam_settings(asked: _Exam) -> Any:
    from malpighi.config import override
    from malpighi.pipeline.exam_settings import ExamSettings

    settings = ExamSettings(
        suite=asked.suite,
        exams=tuple(asked.exams or ("*",)),
        per_exam=asked.per_exam,
        controls=tuple(filter(None, asked.controls.replace(" ", "").split(","))),
        workers=asked.workers,
    )
    return override(settings, asked.settings or [])


def _print_panel(panel: Any) -> None:
    rows = [{column: told(row.get(column)) for column in panel.columns} for row in panel.rows]
    if rows:
        console.print(table(panel.title, rows, tuple(panel.numbers)))
    else:
        console.print(f"{panel.title}: {panel.note}", highlight=False, markup=False)
    for warning in panel.warnings:
        console.print(f"! {warning}", highlight=False, markup=False)


def _print_plan(planned: Any) -> None:
    rows = [{"exam": exam, "samples": count} for exam, count in planned.exams.items()]
    console.print(table(f"{planned.model}: {planned.what}", rows, ("samples",)))
    console.print(
        f"{planned.requests:,} requests, about {planned.prompt_tokens:,} tokens to read and "
        f"{planned.completion_tokens:,} to write, {duration(planned.seconds)} in one process, "
        f"cost {'not known' if planned.cost is None else f'{planned.cost:.2f}'}",
        highlight=False,
    )
    if planned.probe_failures:
        console.print(f"[yellow]![/] {planned.probe_failures} of {planned.probed} tried samples failed")


def _server(asked: _Judge) -> Any:
    """Who is asked; None where nothing is to be asked."""
    from malpighi.inference.openai_engine import OpenAIEngine, Server

    if not asked.server:
        return None
    key, name = os.environ.get(_KEY, ""), asked.judge_name
    return OpenAIEngine(Server(asked.server, name, key, concurrency=asked.concurrency, timeout=asked.timeout))


def _judged(row: Any) -> dict[str, object]:
    def told(value: Any) -> str:
        return "" if value is None else f"{value:.3f}"

    def span(value: Any) -> str:
        return "" if value is None or value.low is None else f"{value.low:.3f}–{value.high:.3f}"

    return {
        "exam": row.exam,
        "model": row.model,
        "n": row.n,
        "missing": row.missing or "",
        "score": told(row.score and row.score.value),
        "interval": f"{row.score.low:.3f}–{row.score.high:.3f}"
        if row.score and row.score.low is not None
        else "",
        "right": told(row.correct and row.correct.value),
        "right by exact scoring": told(row.exact),
        "agrees": told(row.agreement),
        "kappa": told(row.kappa),
    }


def _whole(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"'{text}': give whole numbers with commas between them, e.g. 2,8,16") from error


def _end(failures: list[Failure], *, as_json: bool) -> None:
    if failures and not as_json:
        console.print(failures_table(failures, "the run folder"))
    raise typer.Exit(EXIT_FAILED_ITEMS if failures else 0)
