"""A ranked sheet of cells, to be looked through in one glance."""

from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from malpighi.errors import DataError
from malpighi.slides.stain_density import Pixels

_LINE = 14
_LETTERS = 11
_GAP = 4
_PAPER, _INK = (255, 255, 255), (0, 0, 0)


class Exhibit(NamedTuple):
    """One picture of a sheet.

    Attributes:
        rgb: the picture (rows x columns x 3).
        caption: one line under it.
    """

    rgb: Pixels
    caption: str


def gallery(exhibits: Sequence[Exhibit], *, columns: int = 8, cell: int = 160) -> Image.Image:
    """Pictures in rows, each with its rank, from 1, and its caption.

    Args:
        exhibits: best first.
        columns: pictures in a row.
        cell: side to which each picture is scaled down, px.

    Raises:
        DataError: there is nothing to show.
    """
    if not exhibits:
        raise DataError("a gallery needs at least one picture; found none")
    width, height = cell + _GAP, cell + _LINE + _GAP
    rows = -(-len(exhibits) // columns)
    sheet = Image.new("RGB", (min(columns, len(exhibits)) * width + _GAP, rows * height + _GAP), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=_LETTERS)
    for index, exhibit in enumerate(exhibits):
        x, y = _GAP + (index % columns) * width, _GAP + (index // columns) * height
        picture = Image.fromarray(exhibit.rgb)
        picture.thumbnail((cell, cell), Image.Resampling.BOX)
        sheet.paste(picture, (x, y))
        draw.text((x + 1, y + cell), f"{index + 1}  {exhibit.caption}", fill=_INK, font=font)
    return sheet
