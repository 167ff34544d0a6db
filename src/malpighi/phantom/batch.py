"""A part of the phantom as one task for a worker process; nothing here loads torch."""

from pathlib import Path
from typing import NamedTuple

from malpighi.phantom.generate import cell_items, region_items
from malpighi.phantom.slide_items import slide_items
from malpighi.records import Item

PER_PART = {"cells": 60, "regions": 60, "slides": 4}
"""Pictures of each kind that make a task worth a process's while."""


class Part(NamedTuple):
    """What one process is to draw.

    Attributes:
        kind: one of `PER_PART`.
        seed: of the phantom.
        first: index of the first picture.
        number: of pictures.
        slides: folder that slides are drawn into.
    """

    kind: str
    seed: int
    first: int
    number: int
    slides: Path


def parts_of(counts: dict[str, int], seed: int, slides: Path) -> list[Part]:
    """The tasks of drawing so many pictures of each kind."""
    return [
        Part(kind, seed, first, min(PER_PART[kind], count - first), slides)
        for kind, count in counts.items()
        for first in range(0, count, PER_PART[kind])
    ]


def render_part(part: Part) -> list[Item]:
    """The items of a task; slides lie in its folder afterwards."""
    if part.kind == "slides":
        return list(slide_items(part.slides, part.seed, part.number, first=part.first))
    items = cell_items if part.kind == "cells" else region_items
    return list(items(part.seed, part.number, first=part.first))
