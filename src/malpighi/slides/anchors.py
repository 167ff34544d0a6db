"""A cell in its surroundings, marked by a drawn box: how Singpath-CytoText shows the cell in question.

Source: Singpath-VL: an image tile of a cervical slide per description; the released tiles carry a drawn box
around the cell that is meant, and neighbours stay in sight. Neither paper nor release states the tile's size,
nor colour and width of the box: those below are our choice. The box stays clear of the nucleus, so that
nothing of it is painted over.
"""

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from malpighi.config import Settings
from malpighi.errors import ConfigError
from malpighi.geometry import Box, Frame, Region, View, to_microns, to_pixels
from malpighi.slides.cells import Cell
from malpighi.slides.slide import Slide
from malpighi.slides.stain_density import Pixels

ANCHOR_COLOUR = (255, 0, 0)
ANCHOR_WIDTH = 2
"""Px of the crop."""


class CropSettings(Settings, frozen=True):
    """How a cell is cut out.

    Attributes:
        microns: side of the crop, micrometres; a mature squamous cell is about 50 wide.
        pixels: its side, px; fewer where level 0 is coarser than that, since nothing is enlarged.
        clearance: between nucleus and box, micrometres.
    """

    microns: float = 96.0
    pixels: int = 384
    clearance: float = 2.0

    def __post_init__(self) -> None:
        """Refuse crops in which no cell can be seen."""
        if not self.microns > 0 or self.pixels < 32 or self.clearance < 0:
            raise ConfigError(
                f"crop: microns={self.microns}, pixels={self.pixels}, clearance={self.clearance}; "
                "give micrometres above 0, at least 32 px and a clearance of at least 0"
            )


class CellCrop(NamedTuple):
    """A cell in its surroundings.

    Attributes:
        rgb: the picture (rows x columns x 3), the box drawn in.
        region: what it shows, level-0 px; white beyond the slide's edge.
        box: the nucleus, px of the crop; the drawn box lies around it.
        mpp: micrometres per px of the crop.
    """

    rgb: Pixels
    region: Region
    box: Box
    mpp: float


def crop_cell(slide: Slide, cell: Cell, settings: CropSettings | None = None) -> CellCrop:
    """A cell in the middle of its surroundings, with the anchor box drawn.

    Raises:
        MissingScaleError: the slide states no scale.
    """
    settings = settings or CropSettings()
    side = to_pixels(settings.microns, slide.mpp)
    pixels = max(1, min(settings.pixels, round(side)))
    region = Region(cell.x - side / 2, cell.y - side / 2, side, side, slide.mpp)
    view = View((pixels, pixels), region=region)
    box = view.clip(view.convert(cell.box, Frame.IMAGE))
    mpp = to_microns(side, slide.mpp) / pixels
    rgb = slide.read(region, (pixels, pixels))
    return CellCrop(draw_anchor(rgb, box, to_pixels(settings.clearance, mpp)), region, box, mpp)


def draw_anchor(rgb: Pixels, box: Box, clearance: float) -> Pixels:
    """A copy with a box drawn around `box`, `clearance` px away from it, as far as the picture reaches."""
    picture = Image.fromarray(rgb)
    reach = round(clearance) + ANCHOR_WIDTH
    corners = (
        max(round(box.x0) - reach, 0),
        max(round(box.y0) - reach, 0),
        min(round(box.x1) + reach, picture.width) - 1,
        min(round(box.y1) + reach, picture.height) - 1,
    )
    ImageDraw.Draw(picture).rectangle(corners, outline=ANCHOR_COLOUR, width=ANCHOR_WIDTH)
    return np.asarray(picture)
