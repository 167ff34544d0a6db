"""`malpighi data`: public data sets: what is known of them, fetching, checking a folder."""

import time
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from malpighi.terminal import (
    EXIT_FAILED_ITEMS,
    console,
    errors,
    escaped,
    failures_table,
    print_json,
    progress_bar,
    table,
)

# Each command imports what it needs when it runs: `malpighi --help` must not wait for image libraries.
# ruff: noqa: PLC0415

data_app = typer.Typer(
    help="Public data sets: list and describe what is known, get one, check a folder.", no_args_is_help=True
)

_SECONDS_BETWEEN_LOOKS = 0.2

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="As `malpighi data list` shows it.")]


@data_app.command("list")
def data_list(as_json: Json = False) -> None:  # noqa: FBT002
    """List the data sets that have an adapter, with licence and size."""
    from malpighi.datasets.catalogue import ADAPTERS
    from malpighi.datasets.describe import papers_of
    from malpighi.datasets.download import sources

    known = sources()
    rows: list[dict[str, Any]] = [
        {
            "name": adapter.name,
            "what": adapter.title,
            "papers": ", ".join(papers_of(adapter.name)),
            "access": adapter.access,
            "get": "yes" if adapter.name in known else "",
            "use": adapter.use,
        }
        for adapter in ADAPTERS.values()
    ]
    if as_json:
        more = ({"licence": a.licence, "expected": sum(a.counts.values()), "split": a.split_rule}
                for a in ADAPTERS.values())  # fmt: skip
        print_json({"datasets": [row | about for row, about in zip(rows, more, strict=True)]})
    else:
        console.print(table("Data sets with an adapter", rows))
        console.print("More of each: malpighi data describe NAME", highlight=False)


@data_app.command("describe")
def data_describe(name: Name, as_json: Json = False) -> None:  # noqa: FBT002
    """Tell access, licence, layout, split rule and traps of a data set before anything is on disk."""
    from malpighi.datasets.catalogue import adapter_named
    from malpighi.datasets.describe import describe, rows

    known = describe(adapter_named(name))
    if as_json:
        print_json(known)
    else:
        console.print(table(name, rows(known)))


@data_app.command("get")
def data_get(
    name: Name,
    to: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where it goes.", show_default="a folder NAME")
    ] = None,
    accept_licence: Annotated[  # noqa: FBT002
        bool, typer.Option("--accept-licence", help="I have read the licence and keep to it.")
    ] = False,
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Fetch a data set whose licence permits it: resumed after a cut, checked, unpacked."""
    from malpighi.datasets.catalogue import adapter_named
    from malpighi.datasets.download import download, licence_note

    adapter = adapter_named(name)
    folder = to or Path(name)
    said = errors if as_json else console
    said.print(licence_note(adapter), highlight=False, markup=False)
    with progress_bar(said, name) as show:
        shown = 0.0

        def progress(_: str, done: int, total: int | None) -> None:
            nonlocal shown
            if time.monotonic() - shown > _SECONDS_BETWEEN_LOOKS or done == total:
                shown = time.monotonic()
                show(done, total)

        found = download(adapter, folder, accept_licence=accept_licence, progress=progress)
    if as_json:
        print_json(msgspec.to_builtins(found))
    else:
        size = sum(file.size or 0 for file in found.files) / 1e6
        console.print(f"{folder}: {len(found.files)} files of {size:,.0f} MB, {found.unpacked} unpacked")
        console.print(f"Now: malpighi data check {name} {folder}", highlight=False)


@data_app.command("check")
def data_check(
    name: Name,
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The data set's own folder.")],
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Read a data set whole: count it against what is expected, and list what cannot be used."""
    from malpighi.datasets.catalogue import adapter_named
    from malpighi.datasets.check import check

    found = check(adapter_named(name), path)
    if as_json:
        print_json(
            {
                "name": name,
                "complete": found.complete,
                "counts": found.rows(),
                "splits": found.splits,
                "groups": found.groups,
                "failures": msgspec.to_builtins(found.failures),
                "duplicates": [twins._asdict() for twins in found.twins],
                "licence": found.adapter.licence,
            }
        )
    else:
        _print_check(found)
    raise typer.Exit(EXIT_FAILED_ITEMS if found.failures or not found.complete else 0)


def _print_check(found: Any) -> None:
    adapter = found.adapter
    console.print(table(f"{adapter.name}: {adapter.title}", found.rows(), ("expected", "found")))
    splits = [{"split": s, "samples": n, "groups": found.groups[s]} for s, n in found.splits.items()]
    console.print(table(f"Split: {adapter.split_rule}", splits, ("samples", "groups")))
    console.print(f"Licence: {adapter.licence} (use: {adapter.use})")
    for trap in adapter.traps:
        console.print(f"[yellow]![/] {escaped(trap)}")
    if found.twins:
        kept = (
            "in several groups, which may part over a split"
            if adapter.repeats
            else "more than once; reading keeps the first of each"
        )
        console.print(f"{len(found.twins)} pictures occur {kept}.")
    if found.failures:
        console.print(failures_table(found.failures))
