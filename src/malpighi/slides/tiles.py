"""The pixels of tiles, in order, decoded ahead by threads.

Tiles are read row by row, so that the stored tiles under them are decoded once while the reader still holds
them. Decoding lets go of Python's lock, so threads are enough, and memory is bounded by what is read ahead.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from malpighi.geometry import Region, on_slide
from malpighi.slides.grid import Boxes, Tile
from malpighi.slides.slide import Pixels, Slide

Thing = TypeVar("Thing")
Result = TypeVar("Result")

_AHEAD_PER_THREAD = 8


def read_tile(slide: Slide, tile: Tile) -> Pixels:
    """The picture of one tile: rgb_HW3, H = W = `tile.size`."""
    size = (tile.size, tile.size)
    if tile.resampled:
        return slide.read(Region(tile.x, tile.y, tile.width, tile.height, slide.mpp), size)
    return slide.read_level(tile.level, tile.corner, size)


def iterate_tiles(
    slide: Slide, tiles: Iterable[Tile], *, threads: int = 2, ahead: int | None = None
) -> Iterator[tuple[Tile, Pixels]]:
    """Tiles with their pixels, in the order given.

    Args:
        slide: open for reading.
        tiles: row by row, as a grid gives them.
        threads: that decode at once.
        ahead: tiles decoded before they are asked for; 8 per thread by default. Bounds the memory.

    Raises:
        DataError: the slide cannot be read any more. Missing and corrupt tiles are background and are marked
            in `slide.damage`.
    """
    yield from in_order(lambda tile: read_tile(slide, tile), tiles, threads=threads, ahead=ahead)


def in_order(
    work: Callable[[Thing], Result], things: Iterable[Thing], *, threads: int, ahead: int | None = None
) -> Iterator[tuple[Thing, Result]]:
    """Things with what was made of them by threads, in the order given; see `iterate_tiles`."""
    held = max(ahead if ahead is not None else _AHEAD_PER_THREAD * threads, 1)
    waiting: deque[tuple[Thing, Future[Result]]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="tiles") as pool:
        try:
            for thing in things:
                waiting.append((thing, pool.submit(work, thing)))
                if len(waiting) >= held:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            for _, future in waiting:
                future.cancel()


def damage_under(slide: Slide, boxes_N4: Boxes) -> NDArray[np.int32]:
    """How many stored tiles, found missing or corrupt so far, lie under each box.

    Args:
        slide: its `damage` counts.
        boxes_N4: level-0 px, all of one size, as a grid gives them.
    """
    found = [_place(slide, *place) for place, _ in slide.damage]
    places_D4 = np.array([place for place in found if place is not None]).reshape(-1, 4)
    if not len(places_D4) or not len(boxes_N4):
        return np.zeros(len(boxes_N4), dtype=np.int32)
    # A damaged tile lies under a run of columns and a run of rows: add it at the corners of that block of the
    # lattice, and sum up.
    lefts, columns = np.unique(boxes_N4[:, 0], return_inverse=True)
    tops, rows = np.unique(boxes_N4[:, 1], return_inverse=True)
    steps = np.zeros((len(tops) + 1, len(lefts) + 1), dtype=np.int32)
    width, height = boxes_N4[0, 2:] - boxes_N4[0, :2]
    first, last = (
        np.searchsorted(lefts + width, places_D4[:, 0], "right"),
        np.searchsorted(lefts, places_D4[:, 2]),
    )
    upper, lower = (
        np.searchsorted(tops + height, places_D4[:, 1], "right"),
        np.searchsorted(tops, places_D4[:, 3]),
    )
    for ys, xs, sign in ((upper, first, 1), (upper, last, -1), (lower, first, -1), (lower, last, 1)):
        np.add.at(steps, (ys, xs), sign)
    counts = steps.cumsum(axis=0).cumsum(axis=1)
    return counts[rows, columns].astype(np.int32)


def _place(slide: Slide, level: int, column: int, row: int) -> tuple[float, float, float, float] | None:
    """Corners of a stored tile, level-0 px; None where the reader does not say how long its tiles are."""
    found = slide.levels[level]
    if found.tile is None:
        return None
    width, height = found.tile
    corners = (column * width, row * height, (column + 1) * width, (row + 1) * height)
    place = on_slide((*map(float, corners),), found.downsample, slide.mpp)  # type: ignore[arg-type]
    return (place.x, place.y, place.x + place.width, place.y + place.height)
