"""What a stage is given and what it gives back."""

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from malpighi.corpus import Corpus
from malpighi.geometry import Box, Size
from malpighi.grading.grade import Reading, dice_ceiling, grade
from malpighi.inference.slide_views import SlideViews
from malpighi.models.pictures import Pictures
from malpighi.models.prompt import Prompt
from malpighi.models.segmenter import Segmenter, load_segmenter
from malpighi.pipeline.folder import RunFolder
from malpighi.pipeline.recipe import Data, Recipe
from malpighi.records import Failure, Grade, MaskRef, Sample, Split
from malpighi.slides.steps import tissue_map
from malpighi.slides.tissue import TissueSettings

SLIDES = "slides"
"""Folder of the data stage that phantom slides are drawn into."""

Tell = Callable[[int, int, str], None]


def _unheard(done: int, total: int, text: str) -> None:
    """Says nothing."""


def slide_root(stage: Data, work: Path) -> Path:
    """What the paths of slides in the corpus are relative to; `work` is the stage's folder."""
    return Path(stage.folder) if stage.folder else work / SLIDES


class StageResult(NamedTuple):
    """Items that failed, and notes for the report and the status."""

    failures: list[Failure]
    notes: dict[str, Any]


class Context:
    """What every stage may use.

    Args:
        recipe: the whole recipe.
        folder: the run folder.
        name: the stage's name.
        tell: progress: (done, total, text).
        workers: processes that the stage may use, its own included.
    """

    def __init__(
        self, recipe: Recipe, folder: RunFolder, name: str, tell: Tell = _unheard, workers: int = 1
    ) -> None:
        self.recipe = recipe
        self.folder = folder
        self.name = name
        self.tell = tell
        self.workers = workers
        self._ceilings: dict[str, float | None] = {}

    def elsewhere(self) -> "Context":
        """The same for another process, which nobody hears."""
        return Context(self.recipe, self.folder, self.name)

    @cached_property
    def corpus(self) -> Corpus:
        """The corpus that the data stage filled."""
        return Corpus.open(self.folder.stage(self._data[0]) / "corpus")

    @cached_property
    def pictures(self) -> Pictures:
        """Opens images of the corpus, and makes views of slides, at the model's resolution."""
        name, stage = self._data
        root = slide_root(stage, self.folder.stage(name))
        views = SlideViews(root, tissue=partial(tissue_map, settings=TissueSettings()))
        return Pictures(self.corpus.image_bytes, self.recipe.prompt, show=views.show)

    @property
    def _data(self) -> tuple[str, Data]:
        stages = self.recipe.stages.items()
        return next((name, stage) for name, stage in stages if isinstance(stage, Data))

    @cached_property
    def segmenter(self) -> Segmenter | None:
        """What turns boxes into a mask, for rewards and examination alike; None fills the boxes."""
        return load_segmenter(self.recipe.segmenter)

    def samples(self, split: Split) -> list[Sample]:
        """Samples of one split, in corpus order."""
        return self.corpus.samples(split=split)

    def grade_text(self, sample: Sample, text: str, prompt: Prompt, reading: Reading) -> Grade:
        """The verdict on a completion, in the frame that the model speaks.

        Args:
            sample: the question.
            text: what the model wrote.
            prompt: what it was shown.
            reading: what the caller knows of how to read it; frame, view and masks are added here.
        """
        known = replace(
            self.reading(sample, reading),
            view=prompt.views[0] if prompt.views else None,
            frame=self.recipe.prompt.facts.frame,
        )
        return grade(sample, text, known)

    def reading(self, sample: Sample, reading: Reading) -> Reading:
        """What a reading needs of the run to compare masks: the right one, and the one that boxes give."""
        if not isinstance(sample.answer, MaskRef):
            return reading
        segmenter = self.segmenter
        if segmenter is None:
            return replace(reading, load_mask=self.load_mask)

        def segment(size: Size, boxes: tuple[Box, ...]) -> np.ndarray:
            return segmenter.segment(self.corpus.image_bytes(sample.images[0].key), boxes)

        return replace(reading, load_mask=self.load_mask, segment=segment)

    def ceiling(self, sample: Sample) -> float | None:
        """The Dice that the right boxes reach; computed once per sample. None where no mask is asked for."""
        if sample.id not in self._ceilings:
            self._ceilings[sample.id] = dice_ceiling(sample, self.reading(sample, Reading()))
        return self._ceilings[sample.id]

    def load_mask(self, key: str) -> np.ndarray:
        """A mask of the corpus as a boolean array (row, column)."""
        return self.corpus.mask(key) > 0

    def part(self) -> Path:
        """The stage's working folder."""
        return self.folder.part(self.name)
