"""Outlines to pixels and pixels to outlines.

A pixel belongs to an outline where its middle does: by the even-odd rule, holes left free. Outlines of pixels
run along the pixels' edges, so what is painted, traced and painted again is the same.

Shape legend: H x W = rows x columns of a raster, N = geometries, S = spans.
"""

from typing import Any, NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from malpighi.slides.annotations import Geometries

Ints = NDArray[np.int64]


class Spans(NamedTuple):
    """Pixels in a row that lie inside of a geometry, one span after the other; columns of length S.

    Attributes:
        owners: index of the geometry, ascending.
        rows: row of the raster.
        firsts: first column.
        ends: column after the last.
    """

    owners: Ints
    rows: Ints
    firsts: Ints
    ends: Ints


def spans(geometries_N: Geometries, shape: tuple[int, int]) -> Spans:
    """The pixels of a raster of `shape` (rows, columns) inside of polygons that are in its px."""
    pieces, owner = shapely.get_parts(geometries_N, return_index=True)
    areal = shapely.get_type_id(pieces) == 3
    rings, piece = shapely.get_rings(pieces[areal], return_index=True)
    owner = owner[areal][piece]
    points_M2, ring = shapely.get_coordinates(rings, return_index=True)
    same = np.flatnonzero(ring[1:] == ring[:-1])
    owners, rows, columns = _crossings(points_M2[same], points_M2[same + 1], owner[ring[same]], shape[0])
    order = np.lexsort((columns, rows, owners))
    owners, rows, columns = owners[order], rows[order], columns[order]
    firsts, ends = (np.clip(np.ceil(columns[i::2] - 0.5), 0, shape[1]).astype(np.int64) for i in (0, 1))
    full = ends > firsts
    return Spans(owners[::2][full], rows[::2][full], firsts[full], ends[full])


def paint(raster_HW: NDArray[Any], geometries_N: Geometries, values_N: NDArray[Any]) -> None:
    """Paint geometries, in the raster's px, into it; a later one over an earlier one.

    Points paint the pixel they lie in; lines paint nothing.
    """
    found = spans(geometries_N, (raster_HW.shape[0], raster_HW.shape[1]))
    owners, rows, firsts, ends = (column.tolist() for column in found)
    for owner, row, first, end in zip(owners, rows, firsts, ends, strict=True):
        raster_HW[row, first:end] = values_N[owner]
    points, owner_of_point = shapely.get_parts(geometries_N, return_index=True)
    single = shapely.get_type_id(points) == 0
    columns_rows = np.floor(shapely.get_coordinates(points[single])).astype(np.int64)
    inside = ((columns_rows >= 0) & (columns_rows < raster_HW.shape[1::-1])).all(axis=1)
    column, row = columns_rows[inside].T
    raster_HW[row, column] = values_N[owner_of_point[single][inside]]


def outline(mask_HW: NDArray[np.bool_]) -> BaseGeometry:
    """The polygon around the pixels that are true, along their edges, in the mask's px."""
    edges = np.diff(np.pad(mask_HW.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    rows, firsts = np.nonzero(edges == 1)
    ends = np.nonzero(edges == -1)[1]
    found: BaseGeometry = shapely.union_all(shapely.box(firsts, rows, ends, rows + 1))
    return found


def _crossings(
    starts_E2: NDArray[np.float64], ends_E2: NDArray[np.float64], owners_E: Ints, rows: int
) -> tuple[Ints, Ints, NDArray[np.float64]]:
    """(owner, row, x) wherever an edge passes through the middle of a row."""
    down = (starts_E2[:, 1] <= ends_E2[:, 1])[:, None]
    upper, lower = np.where(down, starts_E2, ends_E2), np.where(down, ends_E2, starts_E2)
    first = np.clip(np.ceil(upper[:, 1] - 0.5), 0, rows).astype(np.int64)
    count = np.clip(np.ceil(lower[:, 1] - 0.5), 0, rows).astype(np.int64) - first
    edge = np.repeat(np.arange(len(count)), count)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    height = (lower - upper)[edge]
    x = upper[edge, 0] + (row + 0.5 - upper[edge, 1]) / height[:, 1] * height[:, 0]
    return owners_E[edge], row, x
