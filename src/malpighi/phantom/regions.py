"""H&E-like regions: nuclei of several types, glands, and whole tissues, with exact masks.

Shape legend: H x W = rows x columns of the picture.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from malpighi.geometry import Box
from malpighi.phantom.contours import Contour, ellipse, polygon
from malpighi.phantom.glands import ADENOMA, CARCINOMA, NORMAL, GlandKind, add_gland, gland_contour
from malpighi.phantom.sections import (
    DYSPLASTIC,
    EPITHELIAL,
    FIBROBLAST,
    KINDS,
    LYMPHOCYTE,
    NEOPLASTIC,
    NucleusKind,
    Section,
    add_body,
    add_erythrocytes,
    add_nucleus,
    add_stroma,
    finish,
    new_section,
)
from malpighi.phantom.stain import Pixels, Stain

TISSUES = ("normal glands", "adenoma", "carcinoma", "lymphoid tissue", "stroma")


@dataclass(frozen=True)
class RenderedRegion:
    """A picture of a region with what is exactly known about it.

    Attributes:
        rgb: the picture (H x W x 3).
        nuclei: instance mask of all nuclei (H x W), 0 = none.
        kinds: kind of nucleus `k` at `k - 1`.
        glands: instance mask of the glands (H x W), 0 = none.
        mpp: micrometres per pixel.
    """

    rgb: Pixels
    nuclei: NDArray[np.int32]
    kinds: tuple[NucleusKind, ...]
    glands: NDArray[np.uint8]
    mpp: float

    def boxes(self, kind: NucleusKind) -> tuple[Box, ...]:
        """Bounding boxes of the nuclei of one kind, image px, in order of drawing."""
        wanted = {k for k, other in enumerate(self.kinds, start=1) if other is kind}
        return tuple(box for k, box in enumerate(mask_boxes(self.nuclei), start=1) if k in wanted)

    def shares(self) -> dict[str, float]:
        """Share of each kind in the area of all nuclei that are seen."""
        area = np.bincount(self.nuclei.ravel(), minlength=len(self.kinds) + 1)[1:]
        total = max(int(area.sum()), 1)
        return {
            kind.name: float(sum(a for a, other in zip(area, self.kinds, strict=True) if other is kind))
            / total
            for kind in KINDS
        }


def mask_boxes(mask: NDArray) -> list[Box]:
    """Bounding boxes of the labels 1..n of an instance mask (H x W), image px; half-open.

    Example:
        >>> mask_boxes(np.array([[0, 1, 1], [0, 1, 0]]))[0].corners
        (1.0, 0.0, 3.0, 2.0)
    """
    return [
        Box(float(s[1].start), float(s[0].start), float(s[1].stop), float(s[0].stop))
        for s in find_objects(mask)
        if s is not None
    ]


def render_nuclei(stain: Stain, mpp: float, rng: np.random.Generator, size: int = 112) -> RenderedRegion:
    """A few large nuclei of two or three types in stroma, every one whole."""
    section = new_section((size, size), mpp, rng)
    direction = float(rng.uniform(0, np.pi))
    add_stroma(section, direction, rng, density=float(rng.uniform(0.3, 0.45)))
    add_erythrocytes(section, int(rng.choice([0, 0, 3])), rng)
    kinds = [NEOPLASTIC, LYMPHOCYTE, FIBROBLAST, EPITHELIAL]
    chosen = [kinds[k] for k in rng.permutation(4)[: int(rng.integers(2, 4))]]
    for kind in sorted(chosen, key=lambda kind: -kind.area[1]):
        for _ in range(int(rng.integers(1, 4))):
            _drop(section, kind, direction, rng)
    return _rendered(section, np.zeros(section.shape, dtype=np.uint16), stain, rng)


def render_glands(stain: Stain, mpp: float, rng: np.random.Generator, size: int = 224) -> RenderedRegion:
    """One to three whole glands in a cellular stroma."""
    section = new_section((size, size), mpp, rng)
    add_stroma(section, float(rng.uniform(0, np.pi)), rng, density=0.34)
    labels = np.zeros(section.shape, dtype=np.uint16)
    kind = (NORMAL, ADENOMA)[int(rng.integers(2))]
    wanted = int(rng.integers(1, 4))
    for _ in range(40):
        if int(labels.max()) == wanted:
            break
        area = float(rng.uniform(3600, 7000 if wanted == 3 else 9500)) / mpp**2
        reach = 1.15 * np.sqrt(area / np.pi)
        place = tuple(float(v) for v in rng.uniform(reach, size - reach, 2))
        _try_gland(section, labels, kind, gland_contour(kind, (place[0], place[1]), area, rng), rng)
    scatter(section, (LYMPHOCYTE, LYMPHOCYTE, FIBROBLAST), 0.0016, labels, rng)
    return _rendered(section, labels, stain, rng)


def render_tissue(
    tissue: str, stain: Stain, mpp: float, rng: np.random.Generator, size: int = 224
) -> RenderedRegion:
    """A region that one of the `TISSUES` fills."""
    section = new_section((size, size), mpp, rng)
    direction = float(rng.uniform(0, np.pi))
    faint = 0.5 if tissue == "lymphoid tissue" else 1.0
    add_stroma(section, direction, rng, density=faint * float(rng.uniform(0.34, 0.5)))
    labels = np.zeros(section.shape, dtype=np.uint16)
    if tissue == "lymphoid tissue":
        scatter(section, (LYMPHOCYTE,), 0.03, labels, rng)
    elif tissue == "stroma":
        add_erythrocytes(section, int(rng.integers(0, 9)), rng)
        scatter(section, (FIBROBLAST,) * 7 + (LYMPHOCYTE,), 0.0028, labels, rng, direction)
    else:
        kind = {"normal glands": NORMAL, "adenoma": ADENOMA, "carcinoma": CARCINOMA}[tissue]
        fill_with_glands(section, labels, kind, rng)
        scatter(section, (LYMPHOCYTE, FIBROBLAST), 0.0012, labels, rng)
    return _rendered(section, labels, stain, rng)


def tissue_of(region: RenderedRegion) -> str:
    """The tissue that the nuclei of a region make it, by their share of the nuclear area."""
    shares = region.shares()
    rules = (
        (NEOPLASTIC, 0.5, "carcinoma"),
        (DYSPLASTIC, 0.5, "adenoma"),
        (EPITHELIAL, 0.4, "normal glands"),
        (LYMPHOCYTE, 0.6, "lymphoid tissue"),
    )
    for kind, least, tissue in rules:
        if shares[kind.name] >= least:
            return tissue
    return "stroma"


def _rendered(
    section: Section, glands: NDArray[np.uint16], stain: Stain, rng: np.random.Generator
) -> RenderedRegion:
    return RenderedRegion(
        finish(section, stain, rng),
        section.labels,
        tuple(section.kinds),
        glands.astype(np.uint8),
        section.mpp,
    )


def _drop(section: Section, kind: NucleusKind, direction: float, rng: np.random.Generator) -> None:
    """Put one whole nucleus, with its cytoplasm, where there is room."""
    reach = float(np.sqrt(kind.area[1] * kind.aspect[1] / np.pi)) / section.mpp + 3
    for _ in range(12):
        x, y = (float(v) for v in rng.uniform(reach, section.shape[0] - reach, 2))
        around = Contour(x, y, ellipse(float(np.pi * (reach + 3) ** 2), 1.0, 0.0))
        window = around.window(section.shape)
        if section.labels[window][around.depth(window) > 0].any():
            continue
        if kind is NEOPLASTIC or kind is EPITHELIAL:
            area = float(rng.uniform(1.9, 2.6)) * np.mean(kind.area) / section.mpp**2
            cytoplasm = (0.34, 0.24) if kind is NEOPLASTIC else (0.36, 0.06)
            add_body(section, Contour(x, y, polygon(rng, float(area), 6, 0.25)), *cytoplasm)
        angle = direction + float(rng.normal(0, 0.3 if kind is FIBROBLAST else 3))
        add_nucleus(section, kind, (x, y), angle, rng)
        return


def _try_gland(
    section: Section, labels: NDArray[np.uint16], kind: GlandKind, contour: Contour, rng: np.random.Generator
) -> None:
    """Draw a gland, unless another one is closer than 6 µm or it lies outside the picture."""
    gap = 6 / section.mpp
    if _crosses(contour, labels):
        return
    window = contour.window(section.shape, gap)
    depth = contour.depth(window)
    if not (depth > 0).any() or labels[window][depth > -gap].any():
        return
    add_gland(section, kind, contour, rng)
    labels[window][depth > 0] = int(labels.max()) + 1


def _crosses(contour: Contour, labels: NDArray[np.uint16]) -> bool:
    """Whether the centre or a few points of an outline lie on a label: a quick test before the exact one."""
    points = np.vstack([contour.outline[::8], [[contour.x, contour.y]]]).astype(int)
    seen = (points >= 0).all(axis=1) & (points < labels.shape[::-1]).all(axis=1)
    return bool(labels[points[seen, 1], points[seen, 0]].any())


def fill_with_glands(
    section: Section,
    labels: NDArray[np.uint16],
    kind: GlandKind,
    rng: np.random.Generator,
    within: Box | None = None,
) -> None:
    """Glands side by side, cut by the border of the picture.

    Args:
        section: drawn into.
        labels: instance mask of the glands (H x W), written into; where it is not 0, nothing is drawn.
        kind: which glands.
        rng: source of places and shapes.
        within: where their centres may lie, image px; everywhere by default.
    """
    height, width = section.shape
    within = within or Box(-0.1 * width, -0.1 * height, 1.1 * width, 1.1 * height)
    areas = (5000, 12000) if kind is CARCINOMA else (4200, 7500)
    for _ in range(int(within.area * section.mpp**2 / 300)):
        area = float(rng.uniform(*areas)) / section.mpp**2
        place = (float(rng.uniform(within.x0, within.x1)), float(rng.uniform(within.y0, within.y1)))
        _try_gland(section, labels, kind, gland_contour(kind, place, area, rng), rng)


def scatter(
    section: Section,
    kinds: tuple[NucleusKind, ...],
    density: float,
    keep_out: NDArray,
    rng: np.random.Generator,
    direction: float | None = None,
) -> None:
    """Nuclei at random, about `density` of them per µm², outside the glands."""
    height, width = section.shape
    count = int(density * height * width * section.mpp**2 * 1.8)
    for x, y in rng.uniform(0, 1, (count, 2)) * (width, height):
        if keep_out[int(y), int(x)] == 0:
            kind = kinds[int(rng.integers(len(kinds)))]
            angle = float(rng.uniform(0, np.pi) if direction is None else direction + rng.normal(0, 0.25))
            add_nucleus(section, kind, (float(x), float(y)), angle, rng)
