"""Steps that stand on the slide's tissue: its view within a token budget, and its cells."""

from functools import partial
from pathlib import Path

from malpighi.config import Settings
from malpighi.geometry import on_slide
from malpighi.slides.cell_files import CellFileSettings, cells_slide
from malpighi.slides.pieces import TissueMap
from malpighi.slides.slide import Slide
from malpighi.slides.tissue import TissueSettings, find_tissue
from malpighi.slides.view_files import ViewFileSettings, view_slide


class ViewStep(Settings, frozen=True):
    """A slide as a model sees it.

    Attributes:
        show: what is shown, and how.
        tissue: how tissue is found.
    """

    show: ViewFileSettings = ViewFileSettings()
    tissue: TissueSettings = TissueSettings(focus=False)


class CellsStep(Settings, frozen=True):
    """The cells of a slide.

    Attributes:
        show: what is looked for, and what is written.
        tissue: how tissue is found, where cells are looked for.
    """

    show: CellFileSettings = CellFileSettings()
    tissue: TissueSettings = TissueSettings(focus=False)


def view_step(slide: Slide, out: Path, settings: ViewStep) -> dict[str, object]:
    """Write the view of a slide, cropped to its tissue; see `view_files.view_slide`."""
    return view_slide(slide, out, settings.show, tissue=partial(tissue_map, settings=settings.tissue))


def cells_step(slide: Slide, out: Path, settings: CellsStep) -> dict[str, object]:
    """Write the cells of a slide; see `cell_files.cells_slide`."""
    return cells_slide(slide, out, settings.show, tissue=partial(tissue_map, settings=settings.tissue))


def tissue_map(slide: Slide, settings: TissueSettings) -> TissueMap:
    """Where the tissue of a slide lies, as its view and its cells ask for it."""
    found = find_tissue(slide, settings)
    height, width = found.mask.shape
    return TissueMap(found.mask, on_slide((0, 0, width, height), found.downsample, slide.mpp))
