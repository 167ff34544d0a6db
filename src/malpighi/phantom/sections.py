"""A haematoxylin and eosin section in the making: dyes, an instance mask, and nuclei of several kinds."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from malpighi.phantom.contours import Contour, Floats, coverage, ellipse, ripple, to_area
from malpighi.phantom.stain import Pixels, Stain, develop, texture

HAEMATOXYLIN, EOSIN, ERYTHROCYTE = 0, 1, 2


@dataclass(frozen=True)
class NucleusKind:
    """How the nuclei of one type of cell look.

    Attributes:
        name: what an answer calls them, in the plural.
        area: range, µm².
        aspect: range of long over short axis.
        density: range of mean optical density.
        clumping: 0 = even chromatin, 1 = clumps between gaps.
        rim: extra density of the membrane.
        nucleoli: most nucleoli.
        wobble: root mean square departure of the outline from an ellipse, as a share of its radius.
    """

    name: str
    area: tuple[float, float]
    aspect: tuple[float, float]
    density: tuple[float, float]
    clumping: float
    rim: float
    nucleoli: int
    wobble: float


LYMPHOCYTE = NucleusKind("lymphocytes", (26, 38), (1.0, 1.15), (1.25, 1.5), 0.45, 0.0, 0, 0.01)
FIBROBLAST = NucleusKind("fibroblasts", (26, 42), (3.0, 4.6), (0.95, 1.2), 0.2, 0.1, 0, 0.03)
EPITHELIAL = NucleusKind("benign epithelial nuclei", (36, 52), (1.15, 1.6), (0.8, 1.0), 0.2, 0.25, 0, 0.01)
DYSPLASTIC = NucleusKind("dysplastic nuclei", (46, 70), (2.2, 3.0), (1.15, 1.4), 0.35, 0.15, 0, 0.02)
NEOPLASTIC = NucleusKind("neoplastic nuclei", (95, 160), (1.05, 1.6), (0.8, 1.15), 0.7, 0.55, 2, 0.06)
KINDS = (LYMPHOCYTE, FIBROBLAST, EPITHELIAL, DYSPLASTIC, NEOPLASTIC)


@dataclass
class Section:
    """The picture while it is being drawn.

    Attributes:
        field: dye concentrations (H x W x 3).
        labels: instance mask of the nuclei (H x W), 0 = none.
        kinds: kind of nucleus `k` at `k - 1`.
        mpp: micrometres per pixel.
        fine: chromatin grain that nuclei share (H x W), zero mean.
        coarse: the same for clumps.
    """

    field: Floats
    labels: NDArray[np.int32]
    kinds: list[NucleusKind]
    mpp: float
    fine: Floats
    coarse: Floats

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return (self.field.shape[0], self.field.shape[1])


def new_section(shape: tuple[int, int], mpp: float, rng: np.random.Generator) -> Section:
    """An empty section of (rows, columns) px."""
    return Section(
        np.zeros((*shape, 3), dtype=np.float32),
        np.zeros(shape, dtype=np.int32),
        [],
        mpp,
        texture(rng, shape, max(0.25 / mpp, 0.5)),
        texture(rng, shape, max(0.45 / mpp, 0.6)),
    )


def add_nucleus(
    section: Section,
    kind: NucleusKind,
    place: tuple[float, float],
    angle: float,
    rng: np.random.Generator,
    *,
    gap: float = 0.6,
) -> bool:
    """Draw one nucleus, unless another one is closer than `gap` µm or it lies outside the picture.

    Args:
        section: drawn into.
        kind: its type.
        place: centre (x, y), px.
        angle: direction of its long axis, radians.
        rng: source of size, darkness and shape.
        gap: least distance from other nuclei, µm.

    Returns:
        Whether it was drawn.
    """
    if _is_taken(section, place):
        return False
    contour = nucleus_contour(kind, place, angle, section.mpp, rng)
    window = contour.window(section.shape)
    depth = contour.depth(window)
    inside = depth > 0
    if not inside.any() or section.labels[window][depth > -gap / section.mpp].any():
        return False
    section.kinds.append(kind)
    section.labels[window][inside] = len(section.kinds)
    cover = coverage(depth, 1.3)
    patch = section.field[window]
    patch *= (1 - 0.85 * cover)[..., None]
    clumps = 0.35 + 0.8 / (1 + np.exp(-4 * (section.coarse[window] + 0.1)))
    pattern = (1 - kind.clumping) * (1 + 0.1 * section.fine[window]) + kind.clumping * clumps
    pattern += kind.rim * np.exp(-(((depth - 0.8) / 0.9) ** 2))
    density = rng.uniform(*kind.density)
    patch[..., HAEMATOXYLIN] += cover * pattern * np.float32(density / pattern[inside].mean())
    for _ in range(int(rng.integers(1, kind.nucleoli + 1)) if kind.nucleoli else 0):
        _add_nucleolus(section, contour, density, rng)
    return True


def nucleus_contour(
    kind: NucleusKind, place: tuple[float, float], angle: float, mpp: float, rng: np.random.Generator
) -> Contour:
    """An outline of this kind at a place."""
    area = float(rng.uniform(*kind.area)) / mpp**2
    radii = ellipse(area, float(rng.uniform(*kind.aspect)), angle)
    return Contour(*place, to_area(radii * (1 + ripple(rng, range(2, 6), kind.wobble)), area))


def add_stroma(section: Section, angle: float, rng: np.random.Generator, *, density: float = 0.42) -> None:
    """Wavy collagen bundles along a direction, with cracks between them."""
    rows = np.arange(section.shape[0], dtype=np.float32)[:, None]
    columns = np.arange(section.shape[1], dtype=np.float32)[None, :]
    across = (columns * -np.sin(angle) + rows * np.cos(angle)).astype(np.float32) * section.mpp
    bend = texture(rng, section.shape, 16 / section.mpp)
    wave = texture(rng, section.shape, 4 / section.mpp)
    phase = across / 3.4 + 1.5 * bend + 0.4 * wave
    fibre = 0.5 + 0.5 * np.sin(2 * np.pi * phase / 2)
    cracks = np.clip(np.sin(2 * np.pi * phase / 5.3 + wave) - 0.74 + 0.3 * wave, 0, 0.5) * 2
    body = (0.62 + 0.38 * fibre + 0.09 * section.fine + 0.1 * bend) * (1 - 0.85 * cracks)
    section.field[..., EOSIN] += np.clip(body, 0.05, None) * np.float32(density)
    section.field[..., HAEMATOXYLIN] += np.clip(body, 0.05, None) * np.float32(0.13 * density)


def add_body(
    section: Section, contour: Contour, eosin: float, haematoxylin: float, *, keep: float = 0.1
) -> None:
    """Cytoplasm in place of what was there, of which a share `keep` shines through."""
    window = contour.window(section.shape)
    depth = contour.depth(window)
    if depth.size == 0:
        return
    cover = coverage(depth, 1.6)
    patch = section.field[window]
    patch *= (1 - (1 - keep) * cover)[..., None]
    mottle = cover * (1 + 0.12 * section.coarse[window] + 0.35 * np.exp(-(((depth - 0.8) / 0.9) ** 2)))
    patch[..., EOSIN] += np.float32(eosin) * mottle
    patch[..., HAEMATOXYLIN] += np.float32(haematoxylin) * mottle


def add_erythrocytes(section: Section, count: int, rng: np.random.Generator) -> None:
    """Red cells of about 6 µm, in a loose row."""
    x, y = (float(v) for v in rng.uniform(0, 1, 2) * section.shape[::-1])
    for _ in range(count):
        x, y = (float(v) for v in np.array([x, y]) + rng.normal(0, 5 / section.mpp, 2))
        disc = Contour(x, y, ellipse(28 / section.mpp**2, rng.uniform(1, 1.3), rng.uniform(0, np.pi)))
        window = disc.window(section.shape)
        depth = disc.depth(window)
        if depth.size:
            cover = coverage(depth, 1.4) * (section.labels[window] == 0)
            section.field[window] *= (1 - 0.8 * cover)[..., None]
            section.field[window][..., ERYTHROCYTE] += np.float32(0.75) * cover


def finish(section: Section, stain: Stain, rng: np.random.Generator) -> Pixels:
    """The picture of the section (H x W x 3)."""
    return develop(section.field, stain, rng)


def _is_taken(section: Section, place: tuple[float, float]) -> bool:
    """Whether a nucleus lies at a place, or the place is too far outside for one to be seen."""
    row, column = int(place[1]), int(place[0])
    if 0 <= row < section.shape[0] and 0 <= column < section.shape[1]:
        return bool(section.labels[row, column])
    beyond = max(-row, -column, row - section.shape[0], column - section.shape[1])
    return beyond * section.mpp > 12


def _add_nucleolus(section: Section, contour: Contour, density: float, rng: np.random.Generator) -> None:
    size = float(rng.uniform(0.8, 1.25)) / section.mpp
    away = 0.4 * float(contour.radii.min()) * rng.uniform(-1, 1, 2)
    disc = Contour(contour.x + float(away[0]), contour.y + float(away[1]), ellipse(np.pi * size**2, 1.0, 0))
    window = disc.window(section.shape)
    depth = disc.depth(window)
    if depth.size:
        cover = coverage(depth, 1.2)
        section.field[window][..., HAEMATOXYLIN] += cover * np.float32(0.6 * density)
        section.field[window][..., ERYTHROCYTE] += cover * np.float32(0.6 * density)
