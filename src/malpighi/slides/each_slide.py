"""One step of a job on one slide: open it at its scale, do the step, close it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from malpighi.slides.opening import open_slide
from malpighi.slides.slide import Slide

Step = Callable[[Slide, Path, Any], dict[str, object]]
"""(slide, folder for its files, settings) -> figures for the summary; a module's function."""


class Scales(msgspec.Struct, frozen=True):
    """What the user says of the slides' scales.

    Attributes:
        mpp: micrometres per level-0 pixel of all slides; None leaves each its own.
        listed: the same by name, as `scale.read_scales` reads it; for slides without `mpp`.
    """

    mpp: float | None = None
    listed: dict[str, float] = {}

    def opened(self, path: Path) -> Slide:
        """The slide, open for reading."""
        return open_slide(path, mpp=self.mpp, scales=self.listed)


class EachSlide(msgspec.Struct, frozen=True):
    """A step with its settings: the work of a job.

    Attributes:
        step: what is done.
        settings: its settings.
        scales: what the user says of scales.
    """

    step: Step
    settings: Any
    scales: Scales = Scales()

    def __call__(self, path: Path, folder: Path) -> dict[str, object]:
        """Do the step on one slide; the row begins with the slide's name and what could not be read of it."""
        with self.scales.opened(path) as slide:
            row = self.step(slide, folder, self.settings)
            return {"slide": path.name, **row, "unreadable": len(slide.damage)}
