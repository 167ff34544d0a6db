"""Commands about figures: comparing runs, published numbers, agreement of annotators, power."""

from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
import typer

from malpighi.errors import ConfigError
from malpighi.terminal import command, console, print_json, table, told

# Each command imports what it needs when it runs: `malpighi --help` must not wait for scipy.
# ruff: noqa: PLC0415

figures_app = typer.Typer()

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]


@figures_app.command()
def published(
    paper: Annotated[str, typer.Argument(metavar="PAPER", help="smartpath-r1, patho-r1 or singpath-vl.")],
    check: Annotated[  # noqa: FBT002
        bool, typer.Option("--check", help="Recompute everything; list what contradicts itself.")
    ] = False,
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Show a paper's tables, or recompute averages, intervals and ranks from their rows."""
    from malpighi.evaluation.published.check import check as check_paper
    from malpighi.evaluation.published.rows import paper as paper_named
    from malpighi.evaluation.published.show import check_tables, tables

    if check:
        report = check_paper(paper)
        if as_json:
            print_json(msgspec.to_builtins(report))
        else:
            console.print(check_tables(report))
    elif as_json:
        found = paper_named(paper)
        rows = [row._asdict() for row in found.rows]
        print_json({"paper": found.name, "title": found.title, "rows": rows})
    else:
        console.print(tables(paper))


class _Compare(NamedTuple):
    """Which runs are set side by side."""

    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run folders, or files of predictions.")
    ]
    beside: Annotated[
        str, typer.Option("--with", metavar="PAPER", help="Set published figures beside: smartpath-r1 ...")
    ] = ""
    against: Annotated[
        str, typer.Option(help="The model that all are compared with.", show_default="all pairs")
    ] = ""
    models: Annotated[list[str] | None, typer.Option("--model", help="Only these; repeatable.")] = None
    exams: Annotated[list[str] | None, typer.Option("--exam", help="Only these; repeatable.")] = None
    suite: Annotated[str, typer.Option(help="Score the tasks of a suite too, e.g. smartpath-r1.")] = ""
    tables: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write every table as CSV and LaTeX too.")
    ] = None
    as_json: Json = False


@command(figures_app)
def compare(asked: _Compare) -> None:
    """Set runs side by side: paired tests, ranks, and where they are not comparable; or beside a paper."""
    from malpighi.evaluation.compare import CompareOptions, compare
    from malpighi.evaluation.exports import sheet_of, write_tables
    from malpighi.evaluation.published.beside import beside
    from malpighi.evaluation.published.show import beside_tables
    from malpighi.evaluation.tables import to_dict, to_rich

    options = CompareOptions(
        against=asked.against,
        models=tuple(asked.models or ()),
        exams=tuple(asked.exams or ()),
        alone=bool(asked.beside or asked.suite),
    )
    found = compare(asked.runs, options)
    published_rows = beside(found, asked.beside) if asked.beside else None
    tasks = _tasks(asked, options) if asked.suite else []
    if asked.tables:
        more = [sheet_of("tasks", f"Tasks of {asked.suite}.", tasks)] if tasks else []
        write_tables(found, asked.tables, more)
    if asked.as_json:
        print_json(
            {"results": to_dict(found), "tasks": tasks, "published": msgspec.to_builtins(published_rows)}
        )
        return
    console.print(to_rich(found))
    if tasks:
        shown = [{name: told(row.get(name)) for name in tasks[0]} for row in tasks]
        console.print(table(f"Tasks of {asked.suite}", shown, ("score", "from", "to", "n", "n of the paper")))
    if published_rows is not None:
        console.print(beside_tables(published_rows))
    if asked.tables:
        console.print(f"Tables: {asked.tables}", highlight=False, soft_wrap=True)


def _tasks(asked: _Compare, options: Any) -> list[dict[str, object]]:
    from malpighi.evaluation.compare import rows_of
    from malpighi.evaluation.suite import load_suite
    from malpighi.evaluation.task_scores import group_means, task_rows, task_scores

    suite = load_suite(asked.suite)
    scores = task_scores(suite, rows_of(asked.runs, options))
    return task_rows(scores, group_means(suite, scores))


class _Agreement(NamedTuple):
    """Who labelled what."""

    labels: Annotated[
        Path, typer.Argument(metavar="LABELS.csv", help="Columns item, group and one per annotator.")
    ]
    as_json: Json = False


@command(figures_app)
def agreement(asked: _Agreement) -> None:
    """Tell how far annotators agree: the ceiling that a model's accuracy is read against."""
    from malpighi.evaluation.agreement import agreement as agree
    from malpighi.evaluation.agreement import label_matrix, read_labels

    table_of = read_labels(asked.labels)
    found = agree(label_matrix(table_of.rows), table_of.groups)
    if asked.as_json:
        print_json({"raters": list(table_of.raters), "agreement": msgspec.to_builtins(found)})
        return
    named = [("percent agreement", found.percent), ("Fleiss' kappa", found.kappa), ("Gwet's AC1", found.ac1)]
    for first, second, _, kappa in found.pairs:
        named.append((f"Cohen's kappa, {table_of.raters[first]} and {table_of.raters[second]}", kappa))
    rows = [
        {"agreement": name, "value": told(e.value), "from": told(e.low), "to": told(e.high)}
        for name, e in named
    ]
    title = f"{found.raters} annotators, {found.items} items with two labels or more in {found.groups} groups"
    console.print(table(title, rows, ("value", "from", "to")))


class _Power(NamedTuple):
    """What is to be seen, or with what."""

    difference: Annotated[
        float | None, typer.Option(help="A difference of accuracy, or of mean grade, to be seen.")
    ] = None
    samples: Annotated[int | None, typer.Option(min=1, help="Samples that both models answer.")] = None
    discordant: Annotated[
        float, typer.Option(help="Share of samples that only one of the two gets right.")
    ] = 0.2
    deviation: Annotated[
        float | None, typer.Option(help="Graded scores instead: standard deviation of the paired difference.")
    ] = None
    power: Annotated[float, typer.Option(help="Chance to see it.")] = 0.8
    alpha: Annotated[float, typer.Option(help="Chance to see what is not there.")] = 0.05
    group_size: Annotated[float, typer.Option(help="Samples of one patient or slide.")] = 1.0
    correlation: Annotated[float, typer.Option(help="How alike they are: intra-class correlation.")] = 0.0
    as_json: Json = False


@command(figures_app)
def power(asked: _Power) -> None:
    """Tell how many samples see a difference of two models, or what difference so many can see."""
    from malpighi.evaluation import power as powers

    if (asked.difference is None) == (asked.samples is None):
        raise ConfigError("give either --difference or --samples")
    effect = powers.design_effect(asked.group_size, asked.correlation)
    aim = powers.Aim(asked.power, asked.alpha, effect)
    if asked.difference is not None:
        needed = (
            powers.samples_needed_right_wrong(asked.difference, asked.discordant, aim)
            if asked.deviation is None
            else powers.samples_needed_graded(asked.difference, asked.deviation, aim)
        )
        answer: dict[str, Any] = {"difference": asked.difference, "samples": needed}
    else:
        count = asked.samples or 1
        seen = (
            powers.visible_right_wrong(count, asked.discordant, aim)
            if asked.deviation is None
            else powers.visible_graded(count, asked.deviation, aim)
        )
        answer = {"samples": count, "difference": seen}
    if asked.as_json:
        print_json(answer | {"design_effect": effect})
    elif answer["difference"] is None:
        console.print(
            f"{answer['samples']:,} samples cannot show any difference with a chance of {asked.power:.0%}"
        )
    else:
        console.print(
            f"{answer['samples']:,} samples show a difference of {answer['difference']:.4g} with a chance of "
            f"{asked.power:.0%} (two-sided, {asked.alpha:g}; one independent sample in {effect:.3g})"
        )
