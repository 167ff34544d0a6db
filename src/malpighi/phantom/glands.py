"""Glands cut across: normal crypts with goblet cells, adenoma-like and carcinoma-like ones."""

from dataclasses import dataclass

import numpy as np

from malpighi.phantom.contours import ANGLES_K, STEPS, Contour, coverage, ellipse, ripple, to_area
from malpighi.phantom.sections import (
    DYSPLASTIC,
    EOSIN,
    EPITHELIAL,
    HAEMATOXYLIN,
    NEOPLASTIC,
    NucleusKind,
    Section,
    add_body,
    add_nucleus,
)


@dataclass(frozen=True)
class GlandKind:
    """How a gland is built.

    Attributes:
        nucleus: type of its nuclei.
        rows: depth of the nuclei's centres below the outline, µm, one entry per row.
        spacing: distance between nuclei in a row, µm.
        wall: thickness of the epithelium, µm.
        goblets: share of the wall that mucus takes, 0 to 1.
        wobble: irregularity of the outline.
        haematoxylin: density of the cytoplasm's blue.
        lumina: most lumina; more than one makes a solid, cribriform gland full of nuclei.
    """

    nucleus: NucleusKind
    rows: tuple[float, ...]
    spacing: float
    wall: float
    goblets: float
    wobble: float
    haematoxylin: float
    lumina: int = 1


NORMAL = GlandKind(EPITHELIAL, (5.0,), 6.6, 24.0, 0.8, 0.03, 0.16)
ADENOMA = GlandKind(DYSPLASTIC, (7.0, 17.0), 4.4, 30.0, 0.08, 0.05, 0.34)
CARCINOMA = GlandKind(NEOPLASTIC, (7.5,), 12.0, 40.0, 0.0, 0.12, 0.28, 3)


def gland_contour(
    kind: GlandKind, place: tuple[float, float], area: float, rng: np.random.Generator
) -> Contour:
    """The outline of a gland of an area (px²) at a place (x, y)."""
    oval = ellipse(area, float(rng.uniform(1.0, 1.5)), float(rng.uniform(0, np.pi)))
    return Contour(*place, to_area(oval * (1 + ripple(rng, range(2, 7), kind.wobble)), area))


def add_gland(section: Section, kind: GlandKind, contour: Contour, rng: np.random.Generator) -> None:
    """Draw a gland: a pale cleft around it, its wall, mucus, lumen and nuclei."""
    add_body(section, contour.grown(rng.uniform(1.0, 2.6) / section.mpp), 0.06, 0.02)
    add_body(section, contour, 0.40, kind.haematoxylin, keep=0.0)
    if kind.goblets:
        _add_goblets(section, kind, contour, rng)
    _add_lumina(section, kind, contour, rng)
    for depth in kind.rows:
        _add_row(section, kind, contour, depth / section.mpp, rng)
    if kind.lumina > 1:
        _fill(section, kind, contour.grown(-kind.rows[0] / section.mpp), rng)


def _fill(section: Section, kind: GlandKind, inside: Contour, rng: np.random.Generator) -> None:
    """Nuclei at random inside an outline, as many as find room."""
    for _ in range(int(2.5 * inside.area * section.mpp**2 / kind.spacing**2)):
        angle = float(rng.uniform(0, 2 * np.pi))
        away = float(np.sqrt(rng.random())) * float(inside.radii[int(angle / (2 * np.pi) * STEPS) % STEPS])
        place = (inside.x + away * float(np.cos(angle)), inside.y + away * float(np.sin(angle)))
        if not _is_empty(section, place):
            add_nucleus(section, kind.nucleus, place, angle, rng, gap=0.8)


def _add_goblets(section: Section, kind: GlandKind, contour: Contour, rng: np.random.Generator) -> None:
    """Mucus drops that point from the wall to the lumen."""
    middle = contour.grown(-0.56 * kind.wall / section.mpp)
    around = 2 * np.pi * float(middle.radii.mean()) * section.mpp
    count = max(int(around / 8.5), 4)
    for k in range(count):
        if rng.random() > kind.goblets:
            continue
        angle = 2 * np.pi * (k + rng.uniform(-0.2, 0.2)) / count
        away = float(middle.radii[int(angle / (2 * np.pi) * STEPS) % STEPS])
        area = float(rng.uniform(40, 85)) / section.mpp**2
        place = (contour.x + away * float(np.cos(angle)), contour.y + away * float(np.sin(angle)))
        _clear(section, Contour(*place, ellipse(area, float(rng.uniform(1.3, 2.0)), angle)), 0.05, 0.09)


def _add_lumina(section: Section, kind: GlandKind, contour: Contour, rng: np.random.Generator) -> None:
    if kind.lumina == 1:
        width = np.maximum(contour.radii - np.float32(kind.wall / section.mpp), 0)
        radii = np.maximum(width, 0.1 * contour.radii) * (1 + ripple(rng, range(2, 9), 0.07))
        _clear(section, Contour(contour.x, contour.y, radii), 0.03, 0.03)
        return
    for _ in range(int(rng.integers(1, kind.lumina + 1))):
        angle = float(rng.uniform(0, 2 * np.pi))
        away = float(rng.uniform(0, 0.55)) * float(contour.radii[int(angle / (2 * np.pi) * STEPS) % STEPS])
        radii = ellipse(float(rng.uniform(80, 420)) / section.mpp**2, float(rng.uniform(1, 2)), angle)
        radii = radii * (1 + ripple(rng, range(2, 7), 0.12))
        place = (contour.x + away * float(np.cos(angle)), contour.y + away * float(np.sin(angle)))
        _clear(section, Contour(*place, radii), 0.04, 0.03)


def _clear(section: Section, contour: Contour, eosin: float, haematoxylin: float) -> None:
    """An empty or mucous space in place of what was there."""
    window = contour.window(section.shape)
    depth = contour.depth(window)
    if depth.size == 0:
        return
    cover = coverage(depth, 1.8)
    patch = section.field[window]
    patch *= (1 - 0.96 * cover)[..., None]
    patch[..., EOSIN] += np.float32(eosin) * cover
    patch[..., HAEMATOXYLIN] += np.float32(haematoxylin) * cover * (1 + 0.3 * section.coarse[window])


def _add_row(
    section: Section, kind: GlandKind, contour: Contour, depth: float, rng: np.random.Generator
) -> None:
    """Nuclei along the outline at a depth (px), their long axes towards the lumen; none in an empty space."""
    line = contour.grown(-depth)
    if float(line.radii.min()) < 2:
        return
    steps = np.hypot(*(np.roll(line.outline, -1, axis=0) - line.outline).T)
    length = np.concatenate([[0.0], np.cumsum(steps)])
    count = max(int(length[-1] * section.mpp / kind.spacing), 1)
    for k in range(count):
        along = (k + rng.uniform(-0.25, 0.25)) % count / count * length[-1]
        angle = float(np.interp(along, length, np.append(ANGLES_K, 2 * np.pi)))
        away = float(np.interp(angle, ANGLES_K, line.radii)) + float(rng.normal(0, 1.2)) / section.mpp
        place = (contour.x + away * float(np.cos(angle)), contour.y + away * float(np.sin(angle)))
        if not _is_empty(section, place):
            add_nucleus(section, kind.nucleus, place, angle + float(rng.normal(0, 0.25)), rng, gap=0.15)


def _is_empty(section: Section, place: tuple[float, float]) -> bool:
    row, column = int(place[1]), int(place[0])
    if not (0 <= row < section.shape[0] and 0 <= column < section.shape[1]):
        return False
    return bool(section.field[row, column].sum() < 0.15)
