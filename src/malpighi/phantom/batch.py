"""A part of the phantom as one task for a worker process; nothing here loads torch."""

from malpighi.phantom.generate import cell_items, region_items
from malpighi.records import Item

Part = tuple[str, int, int, int]


def render_part(part: Part) -> list[Item]:
    """The items of (kind, seed, first, count); `kind` is `cells` or `regions`."""
    kind, seed, first, count = part
    items = cell_items if kind == "cells" else region_items
    return list(items(seed, count, first=first))
