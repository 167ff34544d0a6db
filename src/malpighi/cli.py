"""The command line: parse, call, print.

Exit status: 0 done, 2 a mistake the user can mend, 3 finished with failed items, 130 interrupted.
"""

import json
import logging
import os
from pathlib import Path
from typing import Annotated, Any, NoReturn

import msgspec
import typer

from malpighi.data_cli import data_app
from malpighi.errors import ConfigError, UserError
from malpighi.exam_cli import exam_app
from malpighi.figures_cli import figures_app
from malpighi.grading.published import Mode
from malpighi.slide_cli import slide_app
from malpighi.terminal import (
    EXIT_FAILED_ITEMS,
    NOTICE,
    ConsoleListener,
    console,
    duration,
    errors,
    escaped,
    failures_table,
    print_json,
    table,
)

# Every command imports what it needs when it runs: `malpighi --help` must not wait for torch.
# ruff: noqa: PLC0415

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="malpighi",
    help=f"Build, examine and run reasoning pathology co-pilots. {NOTICE}",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(exam_app)
app.add_typer(figures_app)
app.add_typer(data_app, name="data")
app.add_typer(slide_app, name="slide")

RecipeName = Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe's name, e.g. mini.")]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, e.g. runs/mini.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change a setting; repeatable.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
Work = Annotated[Path | None, typer.Option("--work", help="The run folder.", show_default="runs/RECIPE")]
DataFolder = Annotated[
    Path | None,
    typer.Option("--data", help="A data set, or a folder of them.", show_default="the phantom"),
]
Workers = Annotated[
    int,
    typer.Option(
        min=0,
        help="Processes that work at once; the result is the same.",
        show_default="one per core, 1 on a GPU",
    ),
]

# The package whose absence names the extra to install.
_EXTRAS = {
    **dict.fromkeys(("accelerate", "datasets", "peft", "tensorboardX", "timm"), "train"),
    **dict.fromkeys(("torch", "torchvision", "transformers", "trl"), "train"),
    **dict.fromkeys(("imagecodecs", "openslide", "tifffile"), "slides"),
}


def main() -> None:
    """Entry point of the `malpighi` command."""
    logging.captureWarnings(capture=True)
    # Threads that wait by spinning make a training step many times slower on a machine with other work.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Libraries of the hub report their use over the network; a hospital's machine must not.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        app()
    except UserError as error:
        _stop(str(error))
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRAS:
            raise
        _stop(f"{package} is not installed; install it with: pip install 'malpighi[{_EXTRAS[package]}]'")
    except KeyboardInterrupt:
        _stop("interrupted. What is finished is kept: the same command goes on from there.", EXIT_INTERRUPTED)


@app.command()
def run(
    recipe: RecipeName,
    work: Work = None,
    data: DataFolder = None,
    settings: Set = None,
    workers: Workers = 0,
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Run a recipe's stages; what is finished in the run folder is kept, what was killed goes on."""
    from malpighi.pipeline.ahead import default_workers
    from malpighi.pipeline.run import run as run_recipe

    chosen, root = _chosen(recipe, work, data, settings)
    workers = workers or default_workers(chosen.threads)
    with ConsoleListener(errors if as_json else console, list(chosen.stages)) as listener:
        result = run_recipe(chosen, root, listener, workers)
    _show(root, as_json=as_json)
    raise typer.Exit(EXIT_FAILED_ITEMS if result.failures else 0)


@app.command()
def plan(
    recipe: RecipeName,
    work: Work = None,
    data: DataFolder = None,
    settings: Set = None,
    workers: Workers = 0,
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Tell what a run would do and cost: stages, counts, tokens, time and memory. Runs nothing."""
    from malpighi.pipeline.ahead import default_workers
    from malpighi.pipeline.folder import RunFolder
    from malpighi.pipeline.plan import at_most, total
    from malpighi.pipeline.plan import plan as plan_of

    chosen, root = _chosen(recipe, work, data, settings)
    rows = plan_of(chosen, RunFolder(root))
    workers = workers or default_workers(chosen.threads)
    seconds, gigabytes = total(rows, workers)
    most = at_most(rows, workers)
    if as_json:
        told = {"workers": workers, "seconds": seconds, "at_most": most, "gigabytes": gigabytes}
        print_json({"stages": msgspec.to_builtins(rows)} | told)
        return
    shown = [
        {
            "stage": row.stage,
            "does": row.kind,
            "over": row.count,
            "tokens": f"{row.tokens:,}" if row.tokens else "",
            "time": "about " + duration(row.seconds),
            "memory": f"{row.gigabytes:.1f} GB",
            "state": row.state,
        }
        for row in rows
    ]
    console.print(
        table(f"{chosen.title} ({chosen.name}, size {chosen.size}) in {root}", shown, ("tokens", "memory"))
    )
    resampled = f" (at most {duration(most)} with every round of resampling)" if most > seconds else ""
    console.print(
        f"To go: about {duration(seconds)}{resampled} with {workers} process{'es' * (workers > 1)}, "
        f"{gigabytes:.1f} GB beside Python and torch. Estimates; a row is one process."
    )


@app.command()
def settings(
    recipe: RecipeName,
    data: DataFolder = None,
    changes: Set = None,
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Show every setting of a recipe, and where its number comes from."""
    from malpighi.config import leaves
    from malpighi.pipeline.recipe import source_of
    from malpighi.recipes.catalogue import recipe_named

    chosen = recipe_named(recipe, changes or [], data)
    rows: list[dict[str, Any]] = [
        {"setting": path.removeprefix("stages."), "value": value, "source": source_of(chosen, path)}
        for path, value in leaves(chosen)
        if not path.startswith("sources") and not path.endswith(".type")
    ]
    if as_json:
        print_json({"settings": rows})
    else:
        console.print(table(f"Settings of {chosen.name}; change one with --set NAME=VALUE", rows))


@app.command()
def status(run: RunPath, as_json: Json = False) -> None:  # noqa: FBT002
    """Tell which stages of a run are finished."""
    from malpighi.pipeline.folder import RunFolder

    folder = RunFolder(run)
    rows = [folder.state(name) for name in folder.recipe().stages]
    if as_json:
        print_json({"stages": rows})
        return
    shown = [row | {"time": duration(float(row["seconds"])) if row["seconds"] else ""} for row in rows]
    keep = ("stage", "state", "time", "failed")
    console.print(table(f"Run {run}", ({key: row[key] for key in keep} for row in shown), ("failed",)))


@app.command()
def report(run: RunPath, as_json: Json = False) -> None:  # noqa: FBT002
    """Show a finished run's tables and where its report lies."""
    _show(run, as_json=as_json)


@app.command()
def ask(
    run: RunPath,
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="A picture file.")],
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="In words.")],
    model: Annotated[str, typer.Option(help="A model of the run.", show_default="the last one")] = "",
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Ask a run's model about a picture."""
    from malpighi.pipeline.ask import ask as ask_model

    reply = ask_model(run, image, question, model=model)
    if as_json:
        print_json(reply._asdict() | {"notice": NOTICE})
        return
    if reply.reasoning:
        console.print(f"[dim]{escaped(reply.reasoning)}[/]")
    console.print(f"[bold]{escaped(reply.answer or reply.text)}[/]")
    console.print(f"[dim]model '{reply.model}'. {NOTICE}[/]")


@app.command()
def route(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, or a folder of experts.")],
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="The request, in words.")],
    task: Annotated[
        str | None, typer.Option(help="State the task: a group or kind of task; it overrules the words.")
    ] = None,
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Tell which adapter would answer a request, and why; runs no model."""
    from malpighi.pipeline.routing import route_in

    decided = route_in(run, prompt, task)
    if as_json:
        print_json(msgspec.to_builtins(decided))
        return
    console.print(f"[bold]{decided.adapter or 'base'}[/]  [dim]by {decided.by}[/]", highlight=False)
    for reason in decided.reasons:
        console.print(f"  {escaped(reason)}", highlight=False)
    if decided.scores:
        ranked = sorted(decided.scores.items(), key=lambda pair: -pair[1])
        console.print(f"  [dim]{'  '.join(f'{name} {p:.3f}' for name, p in ranked)}[/]", highlight=False)


@app.command()
def phantom(
    out: Annotated[Path, typer.Argument(metavar="OUT.png", help="Where to write the sheet.")],
    count: Annotated[int, typer.Option(help="Pictures of cells; half as many regions.", min=2, max=200)] = 24,
    seed: Annotated[int, typer.Option(help="Another seed, other pictures.")] = 0,
) -> None:
    """Draw a contact sheet of the phantom: synthetic pictures, no patient."""
    from itertools import chain

    from malpighi.durable import mending, replacing
    from malpighi.phantom.generate import cell_items, region_items
    from malpighi.phantom.sheet import sheet

    items = chain(cell_items(seed, count, observations=0), region_items(seed, count // 2))
    one_each = {item.sample.images[0].key: item for item in reversed(list(items))}
    made = sheet(reversed(list(one_each.values())))
    with mending(out.parent), replacing(out) as file:
        made.save(file, "PNG")
    console.print(f"{out}: {made.width} x {made.height} px. Synthetic pictures; no patient.")


@app.command()
def grade(
    samples: Annotated[Path, typer.Argument(metavar="SAMPLES.jsonl", help="Questions and right answers.")],
    completions: Annotated[Path, typer.Argument(metavar="COMPLETIONS.jsonl", help="What a model wrote.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="GRADES.jsonl", help="Where the grades go.")],
    mode: Annotated[
        Mode, typer.Option(help="Our rules, or the published ones, holes included.")
    ] = Mode.ROBUST,
    guideline: Annotated[
        str, typer.Option(help="A pack, e.g. tbs: do the observations fit the category?", show_default="none")
    ] = "",
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Grade a file of completions against a file of samples, as rewards and evaluation do."""
    from malpighi.grading.grade import Reading
    from malpighi.grading.grade_files import grade_files
    from malpighi.guidelines.pack import load_pack

    reading = Reading(mode=mode, pack=load_pack(guideline) if guideline else None)
    done = grade_files(samples, completions, out, reading)
    if as_json:
        print_json({"mode": mode, "out": str(out), **msgspec.to_builtins(done)})
    else:
        shown = (
            {
                "task": task.task,
                "grades": task.grades,
                "score": f"{task.score:.3f}",
                "format": f"{task.parts['format']:.3f}",
                "answers": ", ".join(f"{status} {count}" for status, count in task.statuses.items()),
            }
            for task in done.tasks
        )
        console.print(table(f"Grades ({mode}) in {out}", shown, ("grades", "score", "format")))
        if done.failed:
            console.print(failures_table(done.failures, done.failed))
    raise typer.Exit(EXIT_FAILED_ITEMS if done.failures else 0)


def _chosen(name: str, work: Path | None, data: Path | None, settings: list[str] | None) -> tuple[Any, Path]:
    """The resolved recipe and its run folder."""
    from malpighi.recipes.catalogue import recipe_named

    chosen = recipe_named(name, settings or [], data)
    return chosen, work or Path("runs") / name


def _show(root: Path, *, as_json: bool) -> None:
    """The final tables of a run, its failed items and the report's path."""
    from malpighi.evaluation.tables import Results, to_rich
    from malpighi.pipeline.folder import RunFolder
    from malpighi.pipeline.reporting import RESULTS, all_failures

    folder = RunFolder(root)
    recipe = folder.recipe()
    last = list(recipe.stages)[-1]
    path = folder.stage(last) / RESULTS
    if not path.is_file():
        raise ConfigError(
            f"{root} has no report yet; finish the run with: malpighi run {recipe.name} --work {root}"
        )
    failures = all_failures(recipe, folder)
    if as_json:
        failed = msgspec.to_builtins(failures)
        print_json(
            {"results": json.loads(path.read_text()), "failures": failed, "report": str(folder.report)}
        )
        return
    console.print(to_rich(msgspec.json.decode(path.read_bytes(), type=Results)))
    if failures:
        console.print(failures_table(failures))
    console.print(f"\nReport: [bold]{folder.report}[/]   {NOTICE}", highlight=False, soft_wrap=True)


def _stop(message: str, code: int = EXIT_USER_ERROR) -> NoReturn:
    errors.print(f"[bold red]Error:[/] {escaped(message)}", highlight=False, soft_wrap=True)
    raise SystemExit(code)
