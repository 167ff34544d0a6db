"""How completions are graded where samples lie in a corpus: in the model's frame, with its segmenter."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from malpighi.geometry import Box, Frame, Size, View
from malpighi.grading.grade import Reading, dice_ceiling, grade
from malpighi.models.segmenter import Segmenter
from malpighi.records import Grade, MaskRef, Sample


class Store(NamedTuple):
    """Where images and masks lie.

    Attributes:
        image_bytes: stored bytes of an image's key.
        mask: a mask's key to its labels, 0 for background.
    """

    image_bytes: Callable[[str], bytes]
    mask: Callable[[str], np.ndarray]


class Marker:
    """Grades completions.

    Args:
        store: images and masks.
        frame: the frame that the model speaks.
        segmenter: makes a mask of boxes; gives None where boxes are filled. Called when first needed.
    """

    def __init__(self, store: Store, frame: Frame, segmenter: Callable[[], Segmenter | None]) -> None:
        self._store = store
        self._frame = frame
        self._segmenter = segmenter
        self._ceilings: dict[str, float | None] = {}

    def grade_text(self, sample: Sample, text: str, view: View | None, reading: Reading) -> Grade:
        """The verdict on a completion, in the frame that the model speaks.

        Args:
            sample: the question.
            text: what the model wrote.
            view: how the frames of what it was shown hang together; None where nothing was.
            reading: what the caller knows of how to read it; frame, view and masks are added here.
        """
        return grade(sample, text, replace(self.reading(sample, reading), view=view, frame=self._frame))

    def grade_image(self, sample: Sample, text: str) -> Grade:
        """The verdict on an answer whose boxes are in image px."""
        view = View(sample.images[0].size) if sample.images else None
        reading = Reading(view=view, frame=Frame.IMAGE, ceiling=self.ceiling(sample))
        return grade(sample, text, self.reading(sample, reading))

    def reading(self, sample: Sample, reading: Reading) -> Reading:
        """What a reading needs to compare masks: the right one, and the one that boxes give."""
        if not isinstance(sample.answer, MaskRef):
            return reading
        segmenter = self._segmenter()
        if segmenter is None:
            return replace(reading, load_mask=self.load_mask)

        def segment(size: Size, boxes: tuple[Box, ...]) -> np.ndarray:
            return segmenter.segment(self._store.image_bytes(sample.images[0].key), boxes)

        return replace(reading, load_mask=self.load_mask, segment=segment)

    def ceiling(self, sample: Sample) -> float | None:
        """The Dice that the right boxes reach; computed once per sample. None where no mask is asked for."""
        if sample.id not in self._ceilings:
            self._ceilings[sample.id] = dice_ceiling(sample, self.reading(sample, Reading()))
        return self._ceilings[sample.id]

    def load_mask(self, key: str) -> np.ndarray:
        """A mask as a boolean array (row, column)."""
        return self._store.mask(key) > 0
