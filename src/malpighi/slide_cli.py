"""`malpighi slide`: what is done with whole slides, one or thousands at once.

Every command but `info` writes a job's folder (see `slides.job`): started again it goes on, started twice at
once it is shared.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
import typer

from malpighi.errors import ConfigError
from malpighi.records import Failure
from malpighi.slides.choices import Edges, Layout
from malpighi.terminal import (
    EXIT_FAILED_ITEMS,
    ConsoleListener,
    command,
    console,
    errors,
    escaped,
    failures_table,
    print_json,
    table,
)

# Each command imports what it needs when it runs: `malpighi --help` must not wait for image libraries.
# ruff: noqa: PLC0415

log = logging.getLogger(__name__)

SHOWN_ROWS = 30
_LOOKED_AT = 10

slide_app = typer.Typer(
    help="Look at whole slides, cut, view and export them. PATH is a file, a folder or a pattern.",
    no_args_is_help=True,
)


class _Which(NamedTuple):
    """Which slides, and what the user says of them."""

    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...", help="Slides, folders of them (DICOM too), or patterns like '*.svs'."
        ),
    ]
    mpp: Annotated[
        float | None, typer.Option(help="Micrometres per level-0 pixel of all.", show_default="the file's")
    ] = None
    mpp_csv: Annotated[
        Path | None, typer.Option("--mpp-csv", help="A table `slide,mpp` for slides whose files do not say.")
    ] = None
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False


class _How(NamedTuple):
    """Where the results of a job go, and how it runs."""

    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the results; the same command goes on in it.")
    ]
    workers: Annotated[
        int,
        typer.Option(min=0, help="Processes at once; the result is the same.", show_default="one per core"),
    ] = 0
    retry: Annotated[bool, typer.Option("--retry", help="Try slides again that failed earlier.")] = False


class _Read(NamedTuple):
    """What `read` is asked."""

    region: Annotated[
        str, typer.Option(metavar="X,Y,W,H", help="Level-0 px.", show_default="the whole slide")
    ] = ""
    size: Annotated[str, typer.Option(metavar="WxH", help="Size of the picture, px.")] = ""
    at: Annotated[float | None, typer.Option(help="Micrometres per pixel of the picture.")] = None


class _Tiles(NamedTuple):
    """What `tiles` is asked."""

    size: Annotated[int, typer.Option(min=1, help="Side of a tile, px.")] = 256
    at: Annotated[
        float, typer.Option(min=0, help="Micrometres per pixel of a tile; 0 takes level 0 as it is.")
    ] = 0.5
    overlap: Annotated[int, typer.Option(min=0, help="Px of a tile shared with the next.")] = 0
    edges: Annotated[
        Edges, typer.Option(help="Tiles over the edge: none, padded with background, or shifted inwards.")
    ] = Edges.DROP
    tissue: Annotated[float, typer.Option(min=0, max=1, help="Least part that is tissue.")] = 0.5
    quality: Annotated[
        bool, typer.Option("--quality", help="Decode every kept tile: score it, count damage.")
    ] = False
    h5: Annotated[Layout | None, typer.Option(help="Write coordinates for these, too.")] = None
    from_h5: Annotated[
        Path | None, typer.Option("--from-h5", help="Take tiles from FOLDER/SLIDE.h5 or SLIDE_patches.h5.")
    ] = None
    patches: Annotated[Path | None, typer.Option(help="Put the tiles' pictures into this corpus.")] = None
    licence: Annotated[str, typer.Option(help="Of the slides; must be given with --patches.")] = ""


class _Set(NamedTuple):
    """Changes of settings."""

    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B=C", help="Change a setting; repeatable. A wrong name lists them."),
    ] = None


class _View(NamedTuple):
    """What `view` is asked."""

    tokens: Annotated[int, typer.Option(min=1, help="What all pictures together may cost.")] = 1024
    family: Annotated[str, typer.Option(help="Who will look: qwen3_vl or qwen2_5_vl.")] = "qwen3_vl"
    regions: Annotated[int, typer.Option(min=0, help="Most regions beside the overview.")] = 0


class _Export(NamedTuple):
    """What `export` is asked."""

    source: Annotated[
        str,
        typer.Option("--from", help="Annotations or tiles; {name} is the slide's name, {folder} its folder."),
    ]
    format: Annotated[str, typer.Option("--to", help="A format; a wrong one lists them.")] = "geojson"


class _Cells(NamedTuple):
    """What `cells` is asked."""

    ranked: Annotated[int, typer.Option(min=1, help="Cells in the gallery.")] = 48
    crops: Annotated[bool, typer.Option("--crops", help="Keep their crops as files of their own.")] = False


_command = command(slide_app)


@_command
def info(which: _Which) -> None:
    """Show size, levels, scale and reader of slides."""
    from malpighi.slides.job import failure_of
    from malpighi.slides.listing import list_slides

    scales, rows, failures = _scales(which), [], []
    for path in list_slides(which.paths):
        try:
            with scales.opened(path) as slide:
                rows.append(_facts(slide))
        except Exception as error:  # on a damaged file a reader may raise nearly anything
            failures.append(failure_of(path, "info", error))
    if which.as_json:
        print_json({"slides": rows, "failed": msgspec.to_builtins(failures)})
    elif rows:
        console.print(table(f"{len(rows)} slides", [_shown_facts(row) for row in rows], ("levels", "um/px")))
        for row in rows:
            for note in row["notes"]:
                _note(row["slide"], note)
    _end(failures, "", as_json=which.as_json)


@_command
def read(which: _Which, how: _How, asked: _Read) -> None:
    """Read a region of each slide into a PNG."""
    from malpighi.slides.read_slide import PICTURE, ReadSettings, read_slide

    settings = ReadSettings(
        region=_numbers(asked.region, ",", 4, float, "--region") if asked.region else None,
        size=_numbers(asked.size.lower(), "x", 2, int, "--size") if asked.size else None,
        mpp=asked.at,
    )
    result = _job("read", read_slide, settings, which, how)
    _show("read", result, which, how, f"Pictures: {how.out}/slides/*/{PICTURE}")


@_command
def tissue(which: _Which, how: _How, changes: _Set) -> None:
    """Find the tissue of each slide, and ink, blur, folds and air: a mask, and a picture to look at."""
    from malpighi.config import override
    from malpighi.slides.overlay import tissue_slide
    from malpighi.slides.tissue import TissueSettings

    result = _job("tissue", tissue_slide, override(TissueSettings(), changes.settings or []), which, how)
    _show("tissue", result, which, how, f"Pictures to look at: {how.out}/slides/*/overlay.jpg")


@_command
def view(which: _Which, how: _How, asked: _View, changes: _Set) -> None:
    """Show each slide as a model sees it: within a token budget, with the way back to the slide."""
    from malpighi.config import override
    from malpighi.models.families import family_named
    from malpighi.slides.steps import ViewStep, view_step
    from malpighi.slides.view import ViewSettings
    from malpighi.slides.view_files import ViewFileSettings

    family = family_named(asked.family)
    shown = ViewSettings(tokens=asked.tokens, pixels_per_token=family.pixels_per_token, frame=family.frame)
    step = ViewStep(ViewFileSettings(view=shown, regions=asked.regions))
    settings = override(step, changes.settings or [])
    result = _job("view", view_step, settings, which, how)
    _show("view", result, which, how, f"Pictures and view.json: {how.out}/slides/*/")


@_command
def cells(which: _Which, how: _How, asked: _Cells, changes: _Set) -> None:
    """Propose the cells of each slide: a table of all, a gallery of those that stand out."""
    from malpighi.config import override
    from malpighi.slides.steps import CellsStep, cells_step

    wanted = [f"show.ranked={asked.ranked}", f"show.crops={str(asked.crops).lower()}"]
    settings = override(CellsStep(), [*wanted, *(changes.settings or [])])
    result = _job("cells", cells_step, settings, which, how)
    _show("cells", result, which, how, f"Galleries: {how.out}/slides/*/gallery.jpg")


@_command
def export(which: _Which, how: _How, asked: _Export, changes: _Set) -> None:
    """Write annotations in another format: QuPath, COCO, YOLO, tables, DICOM, OME-Zarr, heat maps."""
    from malpighi.config import override
    from malpighi.slides.exchange.formats import ExportSettings, export_slide

    step = ExportSettings(source=asked.source, format=asked.format)
    settings = override(step, changes.settings or [])
    result = _job("export", export_slide, settings, which, how)
    for done, _ in result.finished:
        if done.row["failed"]:
            reason = f"{done.row['failed']} features were left out; the first: {done.row['first_failure']}"
            result.failures.append(Failure(done.path, "export", reason))
    _show("export", result, which, how, f"Files: {how.out}/slides/*/")


@_command
def tiles(which: _Which, how: _How, asked: _Tiles) -> None:
    """Cut slides into tiles: a Parquet table, a picture to look at, coordinates, patches for a corpus."""
    from malpighi.slides.grid import GridSettings
    from malpighi.slides.patches import PatchSettings
    from malpighi.slides.tile_slide import MERGED, TilesSettings, joined, tiles_slide

    grid = GridSettings(asked.size, asked.at or None, asked.overlap, asked.edges, asked.tissue)
    coordinates = None if asked.from_h5 is None else str(asked.from_h5.absolute())
    settings = TilesSettings(grid, asked.h5, asked.quality, coordinates)
    wanted = None if asked.patches is None else PatchSettings(licence=asked.licence)
    result = _job("tiles", tiles_slide, settings, which, how, merge=joined(settings))
    told = f"Tiles: {how.out}/{MERGED}; pictures to look at: {how.out}/slides/*/contact.jpg"
    if asked.patches is not None and wanted is not None:
        counts, failed = _patches(result, asked.patches, wanted, which, how)
        result.failures.extend(failed)
        made = ", ".join(f"{count} {kind}" for kind, count in counts.items()) or "none new"
        told += f"\nPatches in {asked.patches}: {made}"
    _show("tiles", result, which, how, told)


def _job(
    verb: str,
    step: Callable[..., dict[str, object]],
    settings: Any,
    which: _Which,
    how: _How,
    *,
    merge: Any = None,
) -> Any:
    """Say what will be done, and do it on every slide.

    Args:
        verb: the command's name.
        step: a module's function: (slide, folder for its files, settings) -> figures for the summary.
        settings: its settings.
        which: the slides.
        how: where to, and how.
        merge: joins the results once all are there.
    """
    from malpighi.config import digest
    from malpighi.slides.each_slide import EachSlide
    from malpighi.slides.job import JobSettings, cores, run_job
    from malpighi.slides.listing import list_slides

    slides, scales = list_slides(which.paths), _scales(which)
    workers = min(how.workers or cores(), len(slides))
    to = errors if which.as_json else console
    goes_on = (how.out / "job.json").exists()
    size = sum(path.stat().st_size for path in slides if path.is_file()) / 1e9
    begun = "; goes on from what is there" if goes_on else ""
    plan = f"{verb}: {len(slides)} slides ({size:.2f} GB) into {how.out}, {workers} at once{begun}"
    grid = getattr(settings, "grid", None)
    to.print(plan + _tiles_ahead(slides, scales, grid), highlight=False, soft_wrap=True)
    job = JobSettings(digest(verb, settings, scales), workers, how.retry, merge)
    began = time.monotonic()
    with ConsoleListener(to, [verb]) as listener:
        listener.started(verb, resumed=goes_on)
        result = run_job(slides, how.out, verb, EachSlide(step, settings, scales), job, listener)
        listener.finished(verb, time.monotonic() - began, skipped=False)
    return result


def _tiles_ahead(slides: Sequence[Path], scales: Any, grid: Any) -> str:
    """How many tiles a grid would have at most, from the first slides that can be opened."""
    from malpighi.slides.grid import make_grid

    counts = []
    for path in slides[:_LOOKED_AT] if grid is not None else ():
        try:
            with scales.opened(path) as slide:
                counts.append(len(make_grid(slide, grid)))
        except Exception:  # the job itself will say what is wrong with it
            log.debug("%s is not counted in the estimate", path, exc_info=True)
    if not counts:
        return ""
    return f"; at most about {sum(counts) * len(slides) // len(counts):,} tiles before tissue is looked for"


def _patches(
    result: Any, corpus: Path, settings: Any, which: _Which, how: _How
) -> tuple[dict[str, int], list[Failure]]:
    """Put the tiles of all finished slides into a corpus; one process at a time."""
    from malpighi.claims import Claims
    from malpighi.slides.patches import add_patches
    from malpighi.slides.tile_slide import TABLE

    began, total = time.monotonic(), len(result.finished)
    with (
        Claims(how.out / "claims.lock") as claims,
        claims.holding("patches", wait=True),
        ConsoleListener(errors if which.as_json else console, ["patches"]) as listener,
    ):
        listener.started("patches", resumed=(corpus / "corpus.json").exists())

        def each() -> Iterator[tuple[str, Path, Path]]:
            for number, (done, folder) in enumerate(result.finished):
                listener.progressed(number, total, Path(done.path).name)
                yield done.id, Path(done.path), folder / TABLE

        added = add_patches(corpus, each(), settings, _scales(which).opened)
        listener.finished("patches", time.monotonic() - began, skipped=False)
    return added


def _show(verb: str, result: Any, which: _Which, how: _How, told: str) -> None:
    """The summary, the failures, and the exit status."""
    rows = [done.row for done, _ in result.finished]
    if which.as_json:
        found = [{**done.row, "path": done.path, "folder": str(folder)} for done, folder in result.finished]
        print_json({"out": str(how.out), "finished": found, "failed": msgspec.to_builtins(result.failures)})
    else:
        more = f"; the first {SHOWN_ROWS}, all are in summary.csv" if len(rows) > SHOWN_ROWS else ""
        numbers = [name for row in rows[:1] for name, value in row.items() if not isinstance(value, str)]
        shown = [{name: _cell(row[name]) for name in row if name != "notes"} for row in rows[:SHOWN_ROWS]]
        if shown:
            console.print(table(f"{verb}: {len(rows)} slides done{more}", shown, numbers))
        for row in rows[:SHOWN_ROWS]:
            if row.get("notes"):
                _note(row["slide"], row["notes"])
        console.print(told, highlight=False, soft_wrap=True)
    _end(result.failures, str(how.out / "manifest.json"), as_json=which.as_json)


def _note(slide: str, note: str) -> None:
    console.print(f"[yellow]![/] {escaped(slide)}: {escaped(note)}", highlight=False, soft_wrap=True)


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


def _scales(which: _Which) -> Any:
    """What the user says of scales."""
    from malpighi.slides.each_slide import Scales
    from malpighi.slides.scale import read_scales

    mpp = which.mpp
    if mpp is not None and not 0 < mpp < float("inf"):
        raise ConfigError(
            f"--mpp {mpp}: give micrometres per level-0 pixel, above 0 (40x is often near 0.25)"
        )
    return Scales(mpp, read_scales(which.mpp_csv) if which.mpp_csv is not None else {})


def _numbers(text: str, between: str, count: int, kind: Callable[[str], Any], option: str) -> Any:
    try:
        found = tuple(kind(part) for part in text.split(between))
    except ValueError:
        found = ()
    if len(found) != count:
        raise ConfigError(f"{option} {text!r}: give {count} numbers with {between!r} between them")
    return found


def _cell(value: object) -> object:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else value
