"""Where the nuclei, the halo and the border of a cell lie, so that the wanted observations hold.

Areas come in px² of the picture; K = 256 steps of the angle.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d, maximum_filter1d
from scipy.spatial import ConvexHull

from malpighi.phantom.contours import ANGLES_K, STEPS, Contour, Floats, ellipse, polygon, ripple, to_area
from malpighi.phantom.nuclei import eccentric_aspect, notched_radii, smooth_radii

CELL_SIZE = 128


@dataclass(frozen=True)
class CellSpec:
    """What is asked of the renderer.

    Attributes:
        findings: the nine observation codes and whether each is wanted.
        cell_class: `squamous_mature`, `squamous_immature` or `glandular`.
    """

    findings: dict[str, bool]
    cell_class: str


@dataclass(frozen=True)
class Plan:
    """Outlines of one cell, before anything is painted.

    Attributes:
        nuclei: outlines of its nuclei; they do not touch.
        cell: outline of the whole cell.
        halo: outline of the clear zone around the nuclei, if there is one.
        axis: direction in which a columnar cell is long, radians; None for other cells.
    """

    nuclei: tuple[Contour, ...]
    cell: Contour
    halo: Contour | None = None
    axis: float | None = None


def plan_cell(spec: CellSpec, nucleus_area: float, rim: float, rng: np.random.Generator) -> Plan:
    """Lay out a cell in the middle of the picture.

    Args:
        spec: what is wanted.
        nucleus_area: area of a normal intermediate nucleus, px².
        rim: least width of cytoplasm outside a halo, px.
        rng: source of everything left open.
    """
    nuclei = _place_nuclei(spec.findings, nucleus_area, rng)
    axis = float(rng.uniform(0, 2 * np.pi)) if spec.cell_class == "glandular" and rng.random() < 0.5 else None
    area = sum(nucleus.area for nucleus in nuclei) / _nc_ratio(spec, rng)
    if spec.findings["NCR"]:
        return Plan(nuclei, _mantle(nuclei, area, spec.cell_class, rng), None, axis)
    halo = _halo(nuclei, rng) if spec.findings["KO"] else None
    inner = nuclei if halo is None else (halo.grown(rim),)
    return Plan(nuclei, _border(inner, area, spec.cell_class, axis, rng), halo, axis)


def plan_neighbours(plan: Plan, spec: CellSpec, nucleus_area: float, rng: np.random.Generator) -> list[Plan]:
    """Cells of the same make around a glandular cell: a strip along one side of its axis, or a sheet."""
    if plan.axis is None:
        turns = [rng.uniform(-0.15, 0.15) + k * np.pi / 3 for k in range(6)]
    else:
        turns = [plan.axis + np.pi / 2, plan.axis - np.pi / 2]
    single = CellSpec({**spec.findings, "NC": False}, spec.cell_class)
    neighbours = []
    for turn in turns:
        shape = plan_cell(single, nucleus_area, 0.0, rng)
        nucleus = shape.nuclei[0]
        radii = plan.cell.radii * np.float32(rng.uniform(0.9, 1.05)) * (1 + ripple(rng, range(2, 5), 0.03))
        step = round(turn / (2 * np.pi) * STEPS)
        distance = float(plan.cell.radii[step % STEPS] + radii[(step + STEPS // 2) % STEPS]) - 0.5
        moved_x, moved_y = distance * np.cos(turn), distance * np.sin(turn)
        offset = rng.uniform(-3, 3, 2)
        nucleus = nucleus.moved(
            plan.nuclei[0].x + float(moved_x + offset[0]), plan.nuclei[0].y + float(moved_y + offset[1])
        )
        border = Contour(plan.cell.x + float(moved_x), plan.cell.y + float(moved_y), radii)
        neighbours.append(Plan((nucleus,), border, None, plan.axis))
    return neighbours


def around(centre: tuple[float, float], contours: tuple[Contour, ...]) -> Floats:
    """Radii (K) about a centre of the smallest star-shaped outline that holds all the contours."""
    radii = np.zeros(STEPS, dtype=np.float32)
    for contour in contours:
        points = np.repeat(contour.outline, 4, axis=0)
        points = gaussian_filter1d(points, 2.0, axis=0, mode="wrap") - np.asarray(centre, dtype=np.float32)
        index = (np.arctan2(points[:, 1], points[:, 0]) * (STEPS / (2 * np.pi))).round().astype(int) % STEPS
        np.maximum.at(radii, index, np.hypot(points[:, 0], points[:, 1]))
    return np.asarray(maximum_filter1d(radii, 5, mode="wrap"), dtype=np.float32)


def convex_around(centre: tuple[float, float], contours: tuple[Contour, ...]) -> Floats:
    """Radii (K) about a centre of the convex hull of all the contours."""
    points = np.concatenate([contour.outline for contour in contours]) - np.asarray(centre)
    normals_F3 = ConvexHull(points).equations
    along_FK = normals_F3[:, :1] * np.cos(ANGLES_K) + normals_F3[:, 1:2] * np.sin(ANGLES_K)
    with np.errstate(divide="ignore"):
        crossing_FK = np.where(along_FK > 1e-6, -normals_F3[:, 2:] / along_FK, np.inf)
    return np.asarray(crossing_FK.min(axis=0), dtype=np.float32)


def _nc_ratio(spec: CellSpec, rng: np.random.Generator) -> float:
    if spec.findings["NCR"]:
        return float(
            rng.uniform(0.32, 0.42) if spec.cell_class == "squamous_mature" else rng.uniform(0.36, 0.58)
        )
    if spec.cell_class == "squamous_mature" and not spec.findings["NE"]:
        return float(rng.uniform(0.028, 0.06))
    return float(rng.uniform(0.07, 0.10))


def _place_nuclei(
    findings: dict[str, bool], reference: float, rng: np.random.Generator
) -> tuple[Contour, ...]:
    count = 1 if not findings["NC"] else 3 if not findings["NE"] and rng.random() < 0.25 else 2
    shapes = [_nucleus_radii(findings, reference, rng) for _ in range(count)]
    middle_x, middle_y = (float(v) for v in CELL_SIZE / 2 + rng.uniform(-6, 6, 2) / count)
    if count == 1:
        return (Contour(middle_x, middle_y, shapes[0]),)
    turn = rng.uniform(0, 2 * np.pi)
    ring = [turn + 2 * np.pi * k / count for k in range(count)]
    distance = _clearance(shapes, ring)
    return tuple(
        Contour(middle_x + distance * float(np.cos(a)), middle_y + distance * float(np.sin(a)), shape)
        for a, shape in zip(ring, shapes, strict=True)
    )


def _clearance(shapes: list[Floats], ring: list[float]) -> float:
    """Smallest distance from the middle at which nuclei on a ring leave a gap of 3 px between them."""
    distance = 0.0
    for k in range(len(shapes)):
        other = (k + 1) % len(shapes)
        step = np.array([np.cos(ring[other]) - np.cos(ring[k]), np.sin(ring[other]) - np.sin(ring[k])])
        unit = step / np.hypot(*step)
        here = (Contour(0, 0, shapes[k]).outline @ unit).max()
        there = (Contour(0, 0, shapes[other]).outline @ -unit).max()
        distance = max(distance, float((here + there + 3) / np.hypot(*step)))
    return distance


def _nucleus_radii(findings: dict[str, bool], reference: float, rng: np.random.Generator) -> Floats:
    area = float(reference * (rng.uniform(3.3, 4.2) if findings["NE"] else rng.uniform(0.75, 1.4)))
    aspect = eccentric_aspect(rng.uniform(0.85, 0.92) if findings["NA"] else rng.uniform(0.1, 0.42))
    if findings["NM"]:
        return notched_radii(rng, area, aspect, rng.uniform(0.865, 0.905))
    return smooth_radii(rng, area, aspect)


def _middle(contours: tuple[Contour, ...]) -> tuple[float, float]:
    return (
        sum(contour.x for contour in contours) / len(contours),
        sum(contour.y for contour in contours) / len(contours),
    )


def _halo(nuclei: tuple[Contour, ...], rng: np.random.Generator) -> Contour:
    """A clear zone whose width is about the radius of a nucleus, the nuclei a little off its middle."""
    centre = _middle(nuclei)
    width = rng.uniform(0.95, 1.25) * np.sqrt(nuclei[0].area / np.pi)
    radii = gaussian_filter1d(around(centre, nuclei), 12, mode="wrap") + np.float32(width)
    radii = radii * (1 + ripple(rng, range(2, 6), 0.05))
    shift = rng.uniform(0, 0.3) * width * _unit(rng)
    return Contour(centre[0] + float(shift[0]), centre[1] + float(shift[1]), radii)


def _border(
    inner: tuple[Contour, ...], area: float, cell_class: str, axis: float | None, rng: np.random.Generator
) -> Contour:
    """The border of a cell with plenty of cytoplasm around `inner`."""
    centre = np.array(_middle(inner))
    if cell_class == "squamous_mature":
        radii = polygon(rng, area, int(rng.integers(5, 9)), 0.1)
        shift = rng.uniform(0, 0.3) * float(radii.min()) * _unit(rng)
    elif cell_class == "glandular":
        aspect, long = (1.0, 0.0) if axis is None else (rng.uniform(1.5, 1.9), axis)
        radii = to_area(polygon(rng, area, 6, 0.25) * ellipse(1.0, aspect, long), area)
        shift = 0.3 * np.sqrt(area / np.pi) * np.array([np.cos(long), np.sin(long)]) * (axis is not None)
    else:
        oval = ellipse(area, rng.uniform(1, 1.35), rng.uniform(0, np.pi))
        radii = to_area(oval * (1 + ripple(rng, range(2, 6), 0.03)), area)
        shift = rng.uniform(0, 0.25) * np.sqrt(area / np.pi) * _unit(rng)
    centre = centre + shift
    place = (float(centre[0]), float(centre[1]))
    held = around(place, tuple(contour.grown(2.5) for contour in inner))
    return Contour(*place, np.maximum(radii, held))


def _mantle(nuclei: tuple[Contour, ...], area: float, cell_class: str, rng: np.random.Generator) -> Contour:
    """The border of a cell that its nuclei nearly fill: a thin coat that follows them."""
    centre = _middle(nuclei)
    hull = convex_around(centre, nuclei)
    sharp = 0.5 if cell_class == "squamous_mature" else 0.22
    coat = np.exp(sharp * ripple(rng, range(1, 5), 1.0))
    low, high = 1.2, float(2 * np.sqrt(area / np.pi))
    for _ in range(14):
        width = (low + high) / 2
        radii = hull + np.maximum(width * coat, 1.2)
        low, high = (width, high) if Contour(0, 0, radii).area < area else (low, width)
    return Contour(*centre, np.asarray(gaussian_filter1d(radii, 2, mode="wrap"), dtype=np.float32))


def _unit(rng: np.random.Generator) -> Floats:
    angle = rng.uniform(0, 2 * np.pi)
    return np.array([np.cos(angle), np.sin(angle)], dtype=np.float32)
