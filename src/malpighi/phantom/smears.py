"""A Papanicolaou smear at low power: pale squamous cells, alone and in clusters, on much empty glass."""

import numpy as np
from numpy.typing import NDArray

from malpighi.phantom.contours import Contour, Floats, coverage, polygon, whole
from malpighi.phantom.cytoplasm import cytoplasm_of, paint_cytoplasm
from malpighi.phantom.nuclei import Chromatin, paint_nucleus, smooth_radii
from malpighi.phantom.outlines import Plan

_CELLS_PER_SQUARE_MICRON = 2.2e-4
_IN_CLUSTERS = 0.6


def draw_smear(
    within: list[Contour], shape: tuple[int, int], mpp: float, rng: np.random.Generator
) -> tuple[Floats, NDArray[np.bool_]]:
    """Squamous cells inside outlines.

    Args:
        within: where cells may have their centres.
        shape: (rows, columns) of the picture.
        mpp: micrometres per pixel.
        rng: source of places and shapes.

    Returns:
        field_HWS, dye concentrations, and cells_HW, where a cell lies.
    """
    field = np.zeros((*shape, 3), dtype=np.float32)
    cells = np.zeros(shape, dtype=bool)
    for outline in within:
        inside = coverage(outline.depth(whole(shape))) > 0
        count = int(_CELLS_PER_SQUARE_MICRON * inside.sum() * mpp**2)
        for x, y in _places(np.argwhere(inside), count, mpp, rng):
            _add_cell(field, cells, (x, y), mpp, rng)
    return field, cells


def _places(free_N2: NDArray, count: int, mpp: float, rng: np.random.Generator) -> list[tuple[float, float]]:
    """(x, y) of cells; most sit within some 60 µm of the middle of a cluster."""
    if not len(free_N2):
        return []
    middles = free_N2[rng.integers(len(free_N2), size=max(count // 14, 1)), ::-1]
    alone = free_N2[rng.integers(len(free_N2), size=count), ::-1]
    near = middles[rng.integers(len(middles), size=count)] + rng.normal(0, 60 / mpp, (count, 2))
    chosen = np.where(rng.random((count, 1)) < _IN_CLUSTERS, near, alone)
    return [(float(x), float(y)) for x, y in chosen]


def _add_cell(
    field: Floats, cells: NDArray, place: tuple[float, float], mpp: float, rng: np.random.Generator
) -> None:
    area = float(rng.uniform(900, 2200)) / mpp**2
    body = Contour(*place, polygon(rng, area, int(rng.integers(5, 9)), 0.12))
    nucleus = Contour(*place, smooth_radii(rng, float(rng.uniform(34, 60)) / mpp**2, 1.15))
    window = body.window((cells.shape[0], cells.shape[1]))
    depth = body.depth(window)
    if depth.size == 0:
        return
    paint_cytoplasm(field, Plan((nucleus,), body), cytoplasm_of("squamous_mature", rng), mpp, rng)
    paint_nucleus(field, nucleus, Chromatin(0.6, 0.3 / mpp, 0.0, 0.15), rng)
    cells[window] |= depth > 0
