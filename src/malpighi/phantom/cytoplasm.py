"""The body of a cell: thickness, colour, granules, folds and the clear zone of a koilocyte."""

from dataclasses import dataclass

import numpy as np

from malpighi.phantom.contours import Contour, Floats, coverage, ellipse
from malpighi.phantom.outlines import Plan
from malpighi.phantom.stain import texture


@dataclass(frozen=True)
class Cytoplasm:
    """How a cell's body takes up the stain.

    Attributes:
        density: mean optical density of the body.
        eosin: share of eosin in it, 0 (blue-green) to 1 (pink).
        edge: extra density at the border, as a share of `density`.
        edge_width: width of that, µm.
        mottle: relative strength of the slow unevenness.
        vacuoles: number of pale vacuoles.
        folds: number of folds.
        granules: number of dark granules.
    """

    density: float
    eosin: float
    edge: float
    edge_width: float
    mottle: float
    vacuoles: int = 0
    folds: int = 0
    granules: int = 0


def cytoplasm_of(cell_class: str, rng: np.random.Generator) -> Cytoplasm:
    """A cytoplasm such as cells of this class have."""
    if cell_class == "squamous_mature":
        pink = rng.random() < 0.4
        return Cytoplasm(
            density=float(rng.uniform(0.11, 0.2)),
            eosin=float(rng.uniform(0.75, 1.0) if pink else rng.uniform(0.0, 0.15)),
            edge=0.5,
            edge_width=0.45,
            mottle=0.13,
            folds=int(rng.integers(0, 3)),
            granules=int(rng.integers(0, 14)),
        )
    if cell_class == "glandular":
        return Cytoplasm(float(rng.uniform(0.15, 0.24)), float(rng.uniform(0, 0.2)), 0.7, 0.5, 0.22, 3)
    metaplastic = rng.random() < 0.4
    return Cytoplasm(
        density=float(rng.uniform(0.22, 0.34)),
        eosin=float(rng.uniform(0.0, 0.15)),
        edge=0.35,
        edge_width=1.1,
        mottle=0.12,
        vacuoles=3 if metaplastic else 0,
    )


def paint_cytoplasm(
    field_HWS: Floats, plan: Plan, cytoplasm: Cytoplasm, mpp: float, rng: np.random.Generator
) -> None:
    """Lay a cell's body over what is there; light passes through both."""
    shape = (field_HWS.shape[0], field_HWS.shape[1])
    window = plan.cell.window(shape, 4)
    depth = plan.cell.depth(window)
    if depth.size == 0:
        return
    size = (depth.shape[0], depth.shape[1])
    body = 1 + cytoplasm.mottle * texture(rng, size, 2.2 / mpp) + 0.09 * texture(rng, size, 0.3 / mpp)
    body += cytoplasm.edge * np.exp(-(((depth - 1) * mpp / cytoplasm.edge_width) ** 2))
    for _ in range(cytoplasm.folds):
        body += _fold(plan, window, mpp, rng)
    for _ in range(cytoplasm.vacuoles):
        body *= 1 - 0.5 * _speck(plan.cell, window, rng.uniform(1.0, 2.2) / mpp, rng)
    if plan.halo is not None:
        away = -plan.halo.depth(window)
        body += 1.1 * np.exp(-((np.maximum(away, 0) * mpp / 2.4) ** 2))
        body *= 1 - 0.94 * coverage(-away, 1.6)
    layer = np.clip(body, 0, None) * coverage(depth, 1.6) * np.float32(cytoplasm.density)
    dyes = np.array([0.12, 0.88 - 0.88 * cytoplasm.eosin, 0.88 * cytoplasm.eosin], dtype=np.float32)
    field_HWS[window] += layer[..., None] * dyes
    for _ in range(cytoplasm.granules):
        field_HWS[window][..., 0] += 0.35 * _speck(plan.cell, window, rng.uniform(0.2, 0.4) / mpp, rng)


def _fold(plan: Plan, window: tuple[slice, slice], mpp: float, rng: np.random.Generator) -> Floats:
    """A darker crease that passes the nuclei at a distance."""
    inner = plan.halo or plan.nuclei[0]
    free = inner.reach + sum(np.hypot(n.x - inner.x, n.y - inner.y) + n.reach for n in plan.nuclei[1:])
    angle = rng.uniform(0, 2 * np.pi)
    offset = free + rng.uniform(2.0, 9.0) / mpp
    rows = np.arange(window[0].start, window[0].stop, dtype=np.float32)[:, None] - inner.y
    columns = np.arange(window[1].start, window[1].stop, dtype=np.float32)[None, :] - inner.x
    across = columns * np.cos(angle) + rows * np.sin(angle) - offset
    along = columns * -np.sin(angle) + rows * np.cos(angle)
    across = across - np.abs(rng.uniform(0, 0.006)) * along**2
    crease = np.exp(-((across * mpp / 0.5) ** 2)) + 0.35 * ((across > 0) & (across * mpp < 3))
    return np.asarray(rng.uniform(0.5, 1.0) * crease, dtype=np.float32)


def _speck(cell: Contour, window: tuple[slice, slice], radius: float, rng: np.random.Generator) -> Floats:
    """A small disc anywhere in the cell but near its middle."""
    angle = rng.uniform(0, 2 * np.pi)
    away = np.sqrt(rng.uniform(0.2, 0.95)) * float(cell.radii[int(angle / (2 * np.pi) * 256) % 256])
    disc = Contour(
        cell.x + float(away * np.cos(angle)),
        cell.y + float(away * np.sin(angle)),
        ellipse(float(np.pi * radius**2), 1.0, 0.0),
    )
    return coverage(disc.depth(window), 1.2)
