"""What a stage is given and what it gives back."""

from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from malpighi.corpus import Corpus
from malpighi.grading.grade import Reading
from malpighi.inference.slide_views import SlideViews
from malpighi.models.pictures import Pictures
from malpighi.models.prompt import Prompt
from malpighi.models.segmenter import Segmenter, load_segmenter
from malpighi.pipeline.folder import RunFolder
from malpighi.pipeline.marking import Marker, Store
from malpighi.pipeline.recipe import Data, Recipe
from malpighi.records import Failure, Grade, Sample, Split
from malpighi.slides.steps import tissue_map
from malpighi.slides.tissue import TissueSettings

SLIDES = "slides"
"""Folder of the data stage that phantom slides are drawn into."""

Tell = Callable[[int, int, str], None]


def unheard(done: int, total: int, text: str) -> None:
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
        self, recipe: Recipe, folder: RunFolder, name: str, tell: Tell = unheard, workers: int = 1
    ) -> None:
        self.recipe = recipe
        self.folder = folder
        self.name = name
        self.tell = tell
        self.workers = workers

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

    @cached_property
    def marker(self) -> Marker:
        """Grades completions as the run does."""
        store = Store(self.corpus.image_bytes, self.corpus.mask)
        return Marker(store, self.recipe.prompt.facts.frame, lambda: self.segmenter)

    def grade_text(self, sample: Sample, text: str, prompt: Prompt, reading: Reading) -> Grade:
        """The verdict on a completion; see `Marker.grade_text`."""
        return self.marker.grade_text(sample, text, prompt.views[0] if prompt.views else None, reading)

    def ceiling(self, sample: Sample) -> float | None:
        """The Dice that the right boxes reach; see `Marker.ceiling`."""
        return self.marker.ceiling(sample)

    def load_mask(self, key: str) -> np.ndarray:
        """A mask of the corpus as a boolean array (row, column)."""
        return self.marker.load_mask(key)

    def part(self) -> Path:
        """The stage's working folder."""
        return self.folder.part(self.name)
