"""A contact sheet: what a set of items looks like, with the right answers drawn and written."""

import io
from collections.abc import Iterable
from textwrap import wrap

from PIL import Image, ImageDraw, ImageFont

from malpighi.errors import DataError
from malpighi.records import Boxes, Choice, Item, MaskRef, Text

_LINE = 11
_MARK = (0, 190, 0)


def sheet(items: Iterable[Item], *, columns: int = 5, cell: int = 224, lines: int = 5) -> Image.Image:
    """One picture with every item's first image, its exam and its answer; boxes are drawn in.

    Args:
        items: what to show, row by row.
        columns: pictures in a row.
        cell: width that each picture is scaled to, px.
        lines: lines of caption under each.

    Raises:
        DataError: there are no items.
    """
    tiles = [_tile(item, cell, lines) for item in items]
    if not tiles:
        raise DataError("a contact sheet needs at least one item; found none")
    width, height = cell + 6, cell + lines * _LINE + 6
    page = Image.new("RGB", (min(columns, len(tiles)) * width, -(-len(tiles) // columns) * height), "white")
    for number, tile in enumerate(tiles):
        page.paste(tile, ((number % columns) * width, (number // columns) * height))
    return page


def _tile(item: Item, cell: int, lines: int) -> Image.Image:
    sample = item.sample
    data = next(blob.data for blob in item.blobs if blob.key == sample.images[0].key)
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    scale = cell / max(picture.size)
    picture = picture.resize(
        (round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BICUBIC
    )
    tile = Image.new("RGB", (cell, cell + lines * _LINE), "white")
    tile.paste(picture, (0, 0))
    draw = ImageDraw.Draw(tile)
    if isinstance(sample.answer, Boxes | MaskRef):
        for box in sample.answer.boxes:
            draw.rectangle(tuple(v * scale for v in box.corners), outline=_MARK)
    font = ImageFont.load_default(size=9)
    text = f"{sample.exam}: {_answer(item)}. {sample.reasoning}"
    for number, line in enumerate(wrap(text, width=max(cell // 5, 12))[:lines]):
        draw.text((1, cell + number * _LINE), line, fill="black", font=font)
    return tile


def _answer(item: Item) -> str:
    answer = item.sample.answer
    if isinstance(answer, Choice):
        return item.sample.options[answer.index]
    if isinstance(answer, Text):
        return answer.value
    return f"{item.sample.question.rstrip('.')}: {len(answer.boxes)}"
