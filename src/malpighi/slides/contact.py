"""What was cut from a slide, to look at: a small picture of the slide with its tiles outlined."""

import numpy as np
from PIL import Image, ImageDraw

from malpighi.geometry import Region, on_level
from malpighi.slides.grid import Boxes
from malpighi.slides.slide import Slide

SIDE = 1200
_KEPT, _SHADE = (0, 150, 60), 0.55
_LEAST_OUTLINE = 4


def contact(slide: Slide, boxes_N4: Boxes, *, side: int = SIDE) -> Image.Image:
    """The slide, with what is not in any tile shaded and the tiles outlined.

    Args:
        slide: open for reading.
        boxes_N4: the tiles, level-0 px.
        side: longest side of the picture, px; small slides are not enlarged.
    """
    step = max(max(slide.size) / side, 1.0)
    size = (max(1, round(slide.size[0] / step)), max(1, round(slide.size[1] / step)))
    rgb = slide.read(slide.whole, size)
    kept = Image.new("L", size, 0)
    draw = ImageDraw.Draw(kept)
    corners = [
        on_level(Region(x0, y0, x1 - x0, y1 - y0), step) for x0, y0, x1, y1 in np.asarray(boxes_N4).tolist()
    ]
    for x0, y0, x1, y1 in corners:
        draw.rectangle(
            (round(x0), round(y0), max(round(x1) - 1, round(x0)), max(round(y1) - 1, round(y0))), 255
        )
    shaded = np.where(
        np.asarray(kept)[..., None] > 0, rgb, (rgb * _SHADE + 255 * (1 - _SHADE)).astype(np.uint8)
    )
    picture = Image.fromarray(shaded.astype(np.uint8))
    lines = ImageDraw.Draw(picture)
    for x0, y0, x1, y1 in corners:
        if x1 - x0 >= _LEAST_OUTLINE:
            lines.rectangle((round(x0), round(y0), round(x1), round(y1)), outline=_KEPT)
    return picture
