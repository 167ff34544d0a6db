"""What a model is examined on: data sets on disk, a corpus, the phantom, or samples that the caller holds."""

import fnmatch
import json
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from malpighi.claims import Claims
from malpighi.config import digest
from malpighi.corpus import Corpus
from malpighi.durable import mending, replacing
from malpighi.errors import ConfigError, UserError
from malpighi.evaluation.suite import Draw, Selection, load_suite
from malpighi.pipeline.context import Tell, slide_root
from malpighi.pipeline.evaluating import drawn_by_exam
from malpighi.pipeline.exam_settings import ExamSettings
from malpighi.pipeline.filling import PHANTOM, fill, listing
from malpighi.pipeline.marking import Store
from malpighi.pipeline.recipe import Data
from malpighi.records import Failure, Sample, Split

log = logging.getLogger(__name__)

NOTES = "data.json"
_ANY_BOXES = 2**31


@dataclass(frozen=True)
class Material:
    """Samples with what belongs to them.

    Attributes:
        samples: all of them, with their splits; those of training make the majority answer.
        store: images and masks.
        root: what the paths of slides are relative to.
        sets: per data set what a report says of it: name, counts, licence, split_rule, traps, failed.
        failures: items that could not be used.
        corpus: the folder of the corpus; None where the samples are in memory.
    """

    samples: Sequence[Sample]
    store: Store
    root: Path = Path()
    sets: Sequence[dict[str, Any]] = ()
    failures: Sequence[Failure] = field(default_factory=tuple)
    corpus: Path | None = None


def open_material(data: str | Path | Material, out: Path, settings: ExamSettings, tell: Tell) -> Material:
    """What is asked, read into a corpus in the run folder where it lies in data sets.

    Args:
        data: a data set or a folder of them, as `malpighi run --data` reads it; a corpus; `phantom`; or
            the samples themselves.
        out: the run folder; several processes may come with the same data, one reads it.
        settings: splits, windows and seed.
        tell: progress: (done, total, text).

    Raises:
        UserError: nothing usable is there, or the run folder was begun with other data.
    """
    if isinstance(data, Material):
        return data
    if (Path(data) / "corpus.json").is_file():
        corpus = Corpus.open(data)
        store = Store(corpus.image_bytes, corpus.mask)
        return Material(corpus.samples(), store, Path(data), corpus=Path(data))
    stage = Data(
        folder="" if str(data) == PHANTOM else str(data),
        phantom=settings.phantom,
        fractions=settings.fractions,
        windows=settings.windows,
        max_boxes=_ANY_BOXES,
    )
    source = digest(stage, settings.seed, listing(Path(stage.folder)) if stage.folder else [])
    with mending(out):
        (out / "data").mkdir(parents=True, exist_ok=True)
    with Claims(out / "data" / "claims.lock") as claims, claims.holding("data", wait=True):
        notes = _filled(stage, out / "data", source, settings.seed, tell)
    corpus = Corpus.open(out / "data" / "corpus")
    store = Store(corpus.image_bytes, corpus.mask)
    return Material(
        corpus.samples(),
        store,
        slide_root(stage, out / "data"),
        notes["sets"],
        corpus.failures(),
        out / "data" / "corpus",
    )


def chosen(material: Material, settings: ExamSettings) -> list[Sample]:
    """The samples that are asked: of a suite, or of the split and the exams named; at most so many of each.

    Raises:
        ConfigError: a name or pattern matches no exam, or no task of the suite any; the message says what
            there is.
    """
    if settings.suite:
        found = of_suite(material, settings)
        if not found.samples:
            raise ConfigError(
                f"no sample answers to a task of suite '{settings.suite}'; the first of them: "
                f"{found.missing[0].task.name}: {found.missing[0].reason}"
            )
        return list(found.samples)
    asked = [sample for sample in material.samples if sample.split in (settings.split, None)]
    there = sorted({sample.exam for sample in asked})
    for pattern in settings.exams:
        if not fnmatch.filter(there, pattern):
            raise ConfigError(
                f"no exam is named '{pattern}' in the {settings.split} split; there are: "
                f"{', '.join(there) or 'none at all'}"
            )
    named = {exam for pattern in settings.exams for exam in fnmatch.filter(there, pattern)}
    taken = (sample for sample in asked if sample.exam in named)
    return drawn_by_exam(taken, settings.per_exam, settings.seed)


def of_suite(material: Material, settings: ExamSettings) -> Selection:
    """The samples that answer to each task of the settings' suite, and the tasks that none answers to."""
    draw = Draw(per_exam=settings.per_exam, seed=settings.seed, negatives=settings.negatives)
    return load_suite(settings.suite).select(material.samples, draw)


def training(material: Material) -> Iterable[Sample]:
    """The samples that the majority answer is learnt from."""
    return (sample for sample in material.samples if sample.split is Split.TRAIN)


def _filled(stage: Data, work: Path, source: str, seed: int, tell: Callable[..., None]) -> dict[str, Any]:
    path = work / NOTES
    if path.is_file():
        notes: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if notes["source"] != source:
            raise UserError(
                f"{work.parent} was begun with other data or splits; give another folder, or delete it"
            )
        return notes
    found = fill(stage, work, seed, tell)
    notes = {"source": source, **found.notes}
    with replacing(path) as file:
        file.write(json.dumps(notes, indent=1).encode())
    return notes
