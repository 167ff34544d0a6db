"""`malpighi slide`: what is done with whole slides, one or thousands at once.

Every command but `info` writes a job's folder (see `slides.job`): started again it goes on, started twice at
once it is shared.
"""

import json
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
import typer
from rich.console import Console

from malpighi.errors import ConfigError
from malpighi.records import Failure
from malpighi.terminal import ConsoleListener, failures_table, log_width, table

# Each command imports what it needs when it runs: `malpighi --help` must not wait for image libraries.
# ruff: noqa: PLC0415

log = logging.getLogger(__name__)

EXIT_FAILED_ITEMS = 3
SHOWN_ROWS = 30
_LOOKED_AT = 10

slide_app = typer.Typer(
    help="Whole slides: look, read, find tissue, cut into tiles. PATH is a file, a folder or a pattern.",
    no_args_is_help=True,
)
console = log_width(Console())
errors = Console(stderr=True)

Paths = Annotated[
    list[str],
    typer.Argument(
        metavar="PATH...", help="Slides, folders of slides (DICOM too), or patterns like '*.svs'."
    ),
]
Out = Annotated[
    Path, typer.Option("--out", "-o", help="Folder for the results; the same command goes on in it.")
]
Workers = Annotated[
    int, typer.Option(min=0, help="Processes at once; the result is the same.", show_default="one per core")
]
Mpp = Annotated[
    float | None,
    typer.Option(help="Micrometres per level-0 pixel, for all slides.", show_default="the file's"),
]
MppCsv = Annotated[
    Path | None, typer.Option("--mpp-csv", help="A table `slide,mpp` for slides whose files do not say.")
]
Retry = Annotated[bool, typer.Option("--retry", help="Try slides again that failed earlier.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]


class _How(NamedTuple):
    """What all jobs are asked: where to, over what, with which scales, how."""

    paths: list[str]
    out: Path
    workers: int
    mpp: float | None
    mpp_csv: Path | None
    retry: bool
    as_json: bool


@slide_app.command()
def info(
    paths: Paths,
    mpp: Mpp = None,
    mpp_csv: MppCsv = None,
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Show size, levels, scale and reader of slides."""
    from malpighi.slides.job import failure_of
    from malpighi.slides.listing import list_slides

    scales, rows, failures = _scales(mpp, mpp_csv), [], []
    for path in list_slides(paths):
        try:
            with scales.opened(path) as slide:
                rows.append(_facts(slide))
        except Exception as error:  # on a damaged file a reader may raise nearly anything
            failures.append(failure_of(path, "info", error))
    if as_json:
        _print_json({"slides": rows, "failed": msgspec.to_builtins(failures)})
    elif rows:
        console.print(table(f"{len(rows)} slides", [_shown_facts(row) for row in rows], ("levels", "um/px")))
        for row in rows:
            for note in row["notes"]:
                console.print(f"[yellow]![/] {_escaped(row['slide'])}: {_escaped(note)}", highlight=False)
    _end(failures, "", as_json=as_json)


@slide_app.command()
def read(
    paths: Paths,
    out: Out,
    region: Annotated[
        str, typer.Option(metavar="X,Y,W,H", help="Level-0 px.", show_default="the whole slide")
    ] = "",
    size: Annotated[str, typer.Option(metavar="WxH", help="Size of the picture, px.")] = "",
    at: Annotated[float | None, typer.Option(help="Micrometres per pixel of the picture.")] = None,
    workers: Workers = 0,
    mpp: Mpp = None,
    mpp_csv: MppCsv = None,
    retry: Retry = False,  # noqa: FBT002
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Read a region of each slide into a PNG."""
    from malpighi.slides.read_slide import PICTURE, ReadSettings, read_slide

    settings = ReadSettings(
        region=_numbers(region, ",", 4, float, "--region") if region else None,
        size=_numbers(size.lower(), "x", 2, int, "--size") if size else None,
        mpp=at,
    )
    how = _How(paths, out, workers, mpp, mpp_csv, retry, as_json)
    result = _job("read", read_slide, settings, how)
    _show("read", result, how, f"Pictures: {out}/slides/*/{PICTURE}")


@slide_app.command()
def tiles(
    paths: Paths,
    out: Out,
    size: Annotated[int, typer.Option(min=1, help="Side of a tile, px.")] = 256,
    at: Annotated[
        float, typer.Option(min=0, help="Micrometres per pixel of a tile; 0 takes level 0 as it is.")
    ] = 0.5,
    overlap: Annotated[int, typer.Option(min=0, help="Px of a tile shared with the next.")] = 0,
    edges: Annotated[
        str, typer.Option(help="Tiles over the edge: drop, pad (with background) or shift (inwards).")
    ] = "drop",
    tissue: Annotated[float, typer.Option(min=0, max=1, help="Least part that is tissue.")] = 0.5,
    verify: Annotated[bool, typer.Option("--verify", help="Decode every kept tile; count damage.")] = False,
    h5: Annotated[
        str, typer.Option(help="Coordinates besides for: clam, trident.", show_default="none")
    ] = "",
    from_h5: Annotated[
        Path | None, typer.Option("--from-h5", help="Take tiles from such files: FOLDER/SLIDE[_patches].h5.")
    ] = None,
    patches: Annotated[Path | None, typer.Option(help="Put the tiles' pictures into this corpus.")] = None,
    licence: Annotated[str, typer.Option(help="Of the slides; must be given with --patches.")] = "",
    workers: Workers = 0,
    mpp: Mpp = None,
    mpp_csv: MppCsv = None,
    retry: Retry = False,  # noqa: FBT002
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Cut slides into tiles: a Parquet table, a picture to look at, coordinates for CLAM and TRIDENT, patches."""
    from malpighi.slides.grid import Edges, GridSettings
    from malpighi.slides.patches import PatchSettings
    from malpighi.slides.coordinates_h5 import Layout
    from malpighi.slides.tile_slide import MERGED, TilesSettings, joined, tiles_slide

    grid = GridSettings(size, at or None, overlap, _one_of(Edges, edges, "--edges"), tissue)
    layout = _one_of(Layout, h5, "--h5") if h5 else None
    settings = TilesSettings(grid, layout, verify, None if from_h5 is None else str(from_h5.absolute()))
    wanted = None if patches is None else PatchSettings(licence=licence)
    how = _How(paths, out, workers, mpp, mpp_csv, retry, as_json)
    result = _job("tiles", tiles_slide, settings, how, merge=joined(settings), estimate=grid)
    told = f"Tiles: {out}/{MERGED}; pictures to look at: {out}/slides/*/contact.jpg"
    if patches is not None and wanted is not None:
        counts, failed = _patches(result, patches, wanted, how)
        result.failures.extend(failed)
        made = ", ".join(f"{count} {kind}" for kind, count in counts.items()) or "none new"
        told += f"\nPatches in {patches}: {made}"
    _show("tiles", result, how, told)


def _job(
    verb: str,
    step: Callable[..., dict[str, object]],
    settings: Any,
    how: _How,
    *,
    merge: Any = None,
    estimate: Any = None,
) -> Any:
    """Say what will be done, and do it on every slide."""
    from malpighi.config import digest
    from malpighi.slides.each_slide import EachSlide
    from malpighi.slides.job import JobSettings, cores, run_job
    from malpighi.slides.listing import list_slides

    slides, scales = list_slides(how.paths), _scales(how.mpp, how.mpp_csv)
    workers = min(how.workers or cores(), len(slides))
    to = errors if how.as_json else console
    begun = "; goes on from what is there" if (how.out / "job.json").exists() else ""
    bytes_ = sum(path.stat().st_size for path in slides if path.is_file())
    to.print(
        f"{verb}: {len(slides)} slides ({bytes_ / 1e9:.2f} GB) into {how.out}, {workers} at once{begun}"
        + (_tiles_ahead(slides, scales, estimate) if estimate is not None else ""),
        highlight=False,
        soft_wrap=True,
    )
    settled = JobSettings(digest(verb, settings, scales), workers, how.retry, merge)
    began = time.monotonic()
    with ConsoleListener(to, [verb]) as listener:
        listener.started(verb, resumed=bool(begun))
        result = run_job(slides, how.out, verb, EachSlide(step, settings, scales), settled, listener)
        listener.finished(verb, time.monotonic() - began, skipped=False)
    return result


def _tiles_ahead(slides: Sequence[Path], scales: Any, grid: Any) -> str:
    """How many tiles a grid would have at most, from the first slides that can be opened."""
    from malpighi.slides.grid import make_grid

    counts = []
    for path in slides[:_LOOKED_AT]:
        try:
            with scales.opened(path) as slide:
                counts.append(len(make_grid(slide, grid)))
        except Exception:  # the job itself will say what is wrong with it
            log.debug("%s is not counted in the estimate", path, exc_info=True)
    if not counts:
        return ""
    return f"; at most about {sum(counts) * len(slides) // len(counts):,} tiles before tissue is looked for"


def _patches(result: Any, corpus: Path, settings: Any, how: _How) -> tuple[dict[str, int], list[Failure]]:
    """Put the tiles of all finished slides into a corpus; one process at a time."""
    from malpighi.slides.claims import Claims
    from malpighi.slides.patches import add_patches
    from malpighi.slides.tile_slide import TABLE

    scales = _scales(how.mpp, how.mpp_csv)
    to = errors if how.as_json else console
    began, total = time.monotonic(), len(result.finished)
    with (
        Claims(how.out / "claims.lock") as claims,
        claims.holding("patches", wait=True),
        ConsoleListener(to, ["patches"]) as listener,
    ):
        listener.started("patches", resumed=(corpus / "corpus.json").exists())

        def each() -> Any:
            for number, (done, folder) in enumerate(result.finished):
                listener.progressed(number, total, Path(done.path).name)
                yield done.id, Path(done.path), folder / TABLE

        added = add_patches(corpus, each(), settings, scales.opened)
        listener.finished("patches", time.monotonic() - began, skipped=False)
    return added


def _show(verb: str, result: Any, how: _How, told: str) -> None:
    """The summary, the failures, and the exit status."""
    rows = [done.row for done, _ in result.finished]
    if how.as_json:
        found = [{**done.row, "path": done.path, "folder": str(folder)} for done, folder in result.finished]
        tree = {"out": str(how.out), "finished": found, "failed": msgspec.to_builtins(result.failures)}
        _print_json(tree)
    else:
        more = f"; the first {SHOWN_ROWS}, all are in summary.csv" if len(rows) > SHOWN_ROWS else ""
        numbers = [name for row in rows[:1] for name, value in row.items() if not isinstance(value, str)]
        shown = [{name: _cell(value) for name, value in row.items()} for row in rows[:SHOWN_ROWS]]
        if shown:
            console.print(table(f"{verb}: {len(rows)} slides done{more}", shown, numbers))
        console.print(told, highlight=False, soft_wrap=True)
    listed = str(how.out / "manifest.json")
    _end(result.failures, listed, as_json=how.as_json)


def _end(failures: Sequence[Failure], listed: str, *, as_json: bool) -> None:
    if failures and not as_json:
        console.print(failures_table(failures, listed or "the list"))
    raise typer.Exit(EXIT_FAILED_ITEMS if failures else 0)


def _facts(slide: Any) -> dict[str, Any]:
    facts = slide.facts
    return {
        "slide": slide.path.name,
        "path": str(slide.path),
        "width": slide.size[0],
        "height": slide.size[1],
        "levels": [
            {
                "width": level.size[0],
                "height": level.size[1],
                "downsample": level.downsample,
                "tile": level.tile,
            }
            for level in facts.levels
        ],
        "mpp": facts.mpp,
        "mpp_source": facts.mpp_source,
        "objective": facts.objective,
        "reader": facts.reader,
        "vendor": facts.vendor,
        "notes": list(facts.notes),
        "unreadable": len(slide.damage),
    }


def _shown_facts(row: dict[str, Any]) -> dict[str, object]:
    steps = " ".join(f"{level['downsample']:.4g}" for level in row["levels"])
    return {
        "slide": row["slide"],
        "size": f"{row['width']} x {row['height']}",
        "levels": steps,
        "um/px": "none" if row["mpp"] is None else f"{row['mpp']:.4g}",
        "from": row["mpp_source"],
        "reader": row["reader"],
        "vendor": row["vendor"],
        "unreadable": row["unreadable"] or "",
    }


def _scales(mpp: float | None, mpp_csv: Path | None) -> Any:
    from malpighi.slides.each_slide import Scales
    from malpighi.slides.scale import read_scales

    if mpp is not None and not 0 < mpp < float("inf"):
        raise ConfigError(
            f"--mpp {mpp}: give micrometres per level-0 pixel, above 0 (40x is often near 0.25)"
        )
    return Scales(mpp, read_scales(mpp_csv) if mpp_csv is not None else {})


def _numbers(text: str, between: str, count: int, kind: Callable[[str], Any], option: str) -> Any:
    try:
        found = tuple(kind(part) for part in text.split(between))
    except ValueError:
        found = ()
    if len(found) != count:
        raise ConfigError(f"{option} {text!r}: give {count} numbers with {between!r} between them")
    return found


def _one_of(kind: Any, text: str, option: str) -> Any:
    if text not in list(kind):
        raise ConfigError(f"{option} {text!r} is not known; choose one of: {', '.join(kind)}")
    return kind(text)


def _cell(value: object) -> object:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else value


def _print_json(value: dict[str, Any]) -> None:
    typer.echo(json.dumps(value))


def _escaped(text: str) -> str:
    return text.replace("[", r"\[")
