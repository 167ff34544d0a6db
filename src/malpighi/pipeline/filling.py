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
from malpighi.datasets.split import Member, SplitPlan, assign, rule_text
from malpighi.datasets.windows import Window, cut
from malpighi.errors import ConfigError, DataError
from malpighi.lifetime import die_with
from malpighi.phantom.batch import render_part
from malpighi.pipeline.context import Context, StageResult
from malpighi.pipeline.recipe import Data
from malpighi.records import Boxes, Failure, Item, MaskRef, Sample

log = logging.getLogger(__name__)

PHANTOM = "phantom"
PER_PART = 60


def run_data(context: Context, stage: Data, work: Path) -> StageResult:
    """Fill `work/corpus`; an attempt that was killed starts over, since a corpus is committed as a whole."""
    shutil.rmtree(work / "corpus", ignore_errors=True)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    left_out: dict[str, Counter[str]] = defaultdict(Counter)
    failures: list[Failure] = []
    with Corpus.create(work / "corpus") as corpus:
        for done, total, name, item in _items(context, stage):
            context.tell(done, total, name)
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
        # A cell is asked for its category, description, outline, two observations and an open question.
        return stage.phantom.cells + stage.phantom.regions, 6 * stage.phantom.cells + stage.phantom.regions
    listing(Path(stage.folder))
    sets = find_datasets(stage.folder)
    images = sum(len(image_files(folder)) for folder in sets.values())
    return images, images


def _items(context: Context, stage: Data) -> Iterator[tuple[int, int, str, Item | Failure]]:
    """(units done, units in all, data set, item or failure)."""
    plan = SplitPlan(*stage.fractions, seed=context.recipe.seed)
    if not stage.folder:
        yield from _phantom(context, stage, plan)
        return
    folders = find_datasets(stage.folder)
    for index, (name, folder) in enumerate(folders.items()):
        for item in ADAPTERS[name].read(folder, plan):
            pieces = _pieces(item, stage.windows.get(name, 0))
            yield from ((index, len(folders), name, piece) for piece in pieces)


def _pieces(item: Item | Failure, side: int) -> Iterator[Item | Failure]:
    if isinstance(item, Failure) or not side:
        yield item
    else:
        yield from cut(item, Window(side, side, side, keep_empty=False))


def _phantom(
    context: Context, stage: Data, plan: SplitPlan
) -> Iterator[tuple[int, int, str, Item | Failure]]:
    wanted = stage.phantom
    parts = [
        (kind, context.recipe.seed, first, min(PER_PART, count - first))
        for kind, count in (("cells", wanted.cells), ("regions", wanted.regions))
        for first in range(0, count, PER_PART)
    ]
    items: list[Item] = []
    # Fresh processes: a fork of a process that runs torch's threads may hang.
    processes = min(os.cpu_count() or 1, len(parts) or 1)
    with ProcessPoolExecutor(processes, get_context("spawn"), die_with, (os.getpid(),)) as pool:
        for done, rendered in enumerate(pool.map(render_part, parts), 1):
            items += rendered
            context.tell(done * PER_PART, len(parts) * PER_PART, "rendering")
    splits = assign((Member(item.sample.group, item.sample.scale) for item in items), plan)
    for item in items:
        sample = msgspec.structs.replace(item.sample, split=splits[item.sample.group])
        yield len(parts) * PER_PART, len(parts) * PER_PART, PHANTOM, Item(sample, item.blobs)


def _boxes(sample: Sample) -> int:
    return len(sample.answer.boxes) if isinstance(sample.answer, Boxes | MaskRef) else 0


def _about(
    name: str, counts: Counter[str], left_out: Counter[str], failures: list[Failure]
) -> dict[str, Any]:
    """What the report says of a data set."""
    adapter = ADAPTERS.get(name)
    return {
        "name": name,
        "title": adapter.title if adapter else "synthetic cells and regions with exact ground truth",
        "licence": adapter.licence if adapter else "Apache-2.0 (generated)",
        "use": adapter.use if adapter else "any",
        "split_rule": adapter.split_rule if adapter else rule_text("phantom patient"),
        "traps": list(adapter.traps)
        if adapter
        else ["synthetic: shows that the parts work, not how models do"],
        "counts": dict(counts),
        "left_out": dict(left_out),
        "failed": sum(failure.id.startswith(f"{name}/") for failure in failures),
    }
