"""The stage that fills the corpus, from data sets on disk or from the phantom."""

import logging
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import msgspec

from malpighi.corpus import Corpus
from malpighi.datasets.adapter import image_files
from malpighi.datasets.catalogue import ADAPTERS, find_datasets
from malpighi.datasets.picture_table import TABLE as PICTURE_TABLE
from malpighi.datasets.picture_table import PictureTable, find_picture_tables
from malpighi.datasets.slide_tasks import TABLE as SLIDE_TABLE
from malpighi.datasets.slide_tasks import SlideTable, find_tables
from malpighi.datasets.split import Member, SplitPlan, assign, rule_text
from malpighi.datasets.task_table import UNSTATED
from malpighi.datasets.windows import Window, cut
from malpighi.errors import ConfigError, DataError
from malpighi.lifetime import die_with
from malpighi.phantom.batch import parts_of, render_part
from malpighi.pipeline.context import Context, StageResult, Tell, slide_root
from malpighi.pipeline.recipe import Data
from malpighi.records import Boxes, Failure, Item, MaskRef, Sample

log = logging.getLogger(__name__)

PHANTOM = "phantom"


def run_data(context: Context, stage: Data, work: Path) -> StageResult:
    """Fill the corpus of a run; see `fill`."""
    return fill(stage, work, context.recipe.seed, context.tell)


def fill(stage: Data, work: Path, seed: int, tell: Tell) -> StageResult:
    """Fill `work/corpus`; an attempt that was killed starts over, since a corpus is committed as a whole.

    Args:
        stage: what to read or draw.
        work: the folder that the corpus, and drawn slides, go into.
        seed: of splits and of what is drawn.
        tell: progress: (done, total, text).

    Raises:
        DataError: nothing usable was found.
    """
    shutil.rmtree(work / "corpus", ignore_errors=True)  # slides that are drawn already are taken as they are
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    left_out: dict[str, Counter[str]] = defaultdict(Counter)
    failures: list[Failure] = []
    with Corpus.create(work / "corpus") as corpus:
        for done, total, name, item in _items(stage, work, seed, tell):
            tell(done, total, name)
            if isinstance(item, Failure):
                corpus.fail(item)
                failures.append(item)
            elif _boxes(item.sample) > stage.max_boxes:
                left_out[name][f"more than {stage.max_boxes} boxes"] += 1
            else:
                corpus.add(item)
                counts[name][str(item.sample.split)] += 1
    if not counts:
        raise DataError(
            f"no usable sample in {stage.folder}: {len(failures)} items failed, first {failures[:1]}"
        )
    notes = {
        "samples": sum(sum(splits.values()) for splits in counts.values()),
        "sets": [_about(name, counts[name], left_out[name], failures) for name in counts],
    }
    return StageResult(failures, notes)


def listing(folder: Path) -> list[tuple[str, int]]:
    """Relative path and size in bytes of every file below a folder: cheap to take, changes when the data do.

    Raises:
        ConfigError: there is no such folder.
    """
    if not folder.is_dir():
        raise ConfigError(
            f"there is no folder {folder}; give --data a data set or a folder that holds data sets"
        )
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted((path.relative_to(folder).as_posix(), path.stat().st_size) for path in files)


def expected_counts(stage: Data) -> tuple[int, int]:
    """(images, questions) that the stage will find, from settings and file names."""
    if not stage.folder:
        # A cell is asked for its category, description, outline, two observations and an open question; a
        # slide for its diagnosis, ink, focus and caption.
        drawn = stage.phantom
        return drawn.cells + drawn.regions + drawn.slides, 6 * drawn.cells + drawn.regions + 4 * drawn.slides
    listing(Path(stage.folder))
    sets, tables = _sets(stage)
    # Where images lie inside of arrays or tables, no file says how many there are.
    images = sum(
        len(image_files(folder)) or sum(ADAPTERS[name].counts.values()) for name, folder in sets.items()
    )
    images += sum(len(table) for _, table in tables)
    return images, images


def _sets(stage: Data) -> tuple[dict[str, Path], list[tuple[str, SlideTable | PictureTable]]]:
    """The known data sets in the stage's folder, and those that a table of the user's own makes.

    Raises:
        DataError: neither is there.
    """
    folder = Path(stage.folder)
    tables: list[tuple[str, SlideTable | PictureTable]] = [
        *find_tables(folder).items(),
        *find_picture_tables(folder).items(),
    ]
    try:
        return find_datasets(stage.folder), tables
    except DataError as error:
        if tables:
            return {}, tables
        raise DataError(f"{error}, or one with a table {SLIDE_TABLE} or {PICTURE_TABLE}") from error


def _items(stage: Data, work: Path, seed: int, tell: Tell) -> Iterator[tuple[int, int, str, Item | Failure]]:
    """(units done, units in all, data set, item or failure)."""
    plan = SplitPlan(*stage.fractions, seed=seed)
    if not stage.folder:
        yield from _phantom(stage, plan, work, tell)
        return
    folders, tables = _sets(stage)
    total = len(folders) + len(tables)
    for index, (name, folder) in enumerate(folders.items()):
        for item in ADAPTERS[name].read(folder, plan, root=Path(stage.folder)):
            pieces = _pieces(item, stage.windows.get(name, ADAPTERS[name].window))
            yield from ((index, total, name, piece) for piece in pieces)
    for index, (name, table) in enumerate(tables, len(folders)):
        yield from ((index, total, name, item) for item in table.read(plan))


def _pieces(item: Item | Failure, side: int) -> Iterator[Item | Failure]:
    if isinstance(item, Failure) or not side:
        yield item
    else:
        yield from cut(item, Window(side, side, side, keep_empty=False))


def _phantom(
    stage: Data, plan: SplitPlan, work: Path, tell: Tell
) -> Iterator[tuple[int, int, str, Item | Failure]]:
    counts = {"cells": stage.phantom.cells, "regions": stage.phantom.regions, "slides": stage.phantom.slides}
    total = sum(counts.values())
    parts = parts_of(counts, plan.seed, slide_root(stage, work))
    items: list[Item] = []
    # Fresh processes: a fork of a process that runs torch's threads may hang.
    processes = min(os.cpu_count() or 1, len(parts) or 1)
    with ProcessPoolExecutor(processes, get_context("spawn"), die_with, (os.getpid(),)) as pool:
        done = 0
        for part, rendered in zip(parts, pool.map(render_part, parts), strict=True):
            items += rendered
            done += part.number
            tell(done, total, "rendering")
    splits = assign((Member(item.sample.group, item.sample.scale) for item in items), plan)
    for item in items:
        sample = msgspec.structs.replace(item.sample, split=splits[item.sample.group])
        yield total, total, PHANTOM, Item(sample, item.blobs)


def _boxes(sample: Sample) -> int:
    return len(sample.answer.boxes) if isinstance(sample.answer, Boxes | MaskRef) else 0


def _facts(name: str) -> dict[str, Any]:
    if name == PHANTOM:
        return {
            "title": "synthetic cells, regions and slides with exact ground truth",
            "licence": "Apache-2.0 (generated)",
            "use": "any",
            "split_rule": rule_text("phantom patient"),
            "traps": ["synthetic: shows that the parts work, not how models do"],
        }
    adapter = ADAPTERS.get(name)
    if adapter is None:
        rule = f"the table's where it names one; else: {rule_text('group of the table')}"
        about = {
            "title": f"questions of {SLIDE_TABLE} or {PICTURE_TABLE}",
            "licence": UNSTATED,
            "use": "as its owner allows",
        }
        return about | {"split_rule": rule, "traps": []}
    return {
        "title": adapter.title,
        "licence": adapter.licence,
        "use": adapter.use,
        "split_rule": adapter.split_rule,
        "traps": list(adapter.traps),
    }


def _about(
    name: str, counts: Counter[str], left_out: Counter[str], failures: list[Failure]
) -> dict[str, Any]:
    """What the report says of a data set."""
    return _facts(name) | {
        "name": name,
        "counts": dict(counts),
        "left_out": dict(left_out),
        "failed": sum(failure.id.startswith(f"{name}/") for failure in failures),
    }
