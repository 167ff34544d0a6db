"""What else lies on a smear: debris, passing squamous cells and leucocytes, clear of the cell in question."""

import numpy as np

from malpighi.phantom.contours import Contour, Floats, coverage, ellipse, polygon, whole
from malpighi.phantom.cytoplasm import cytoplasm_of, paint_cytoplasm
from malpighi.phantom.nuclei import Chromatin, paint_nucleus, smooth_radii
from malpighi.phantom.outlines import Plan
from malpighi.phantom.stain import texture


def paint_debris(
    field_HWS: Floats, keep_out: Contour, amount: float, mpp: float, rng: np.random.Generator
) -> None:
    """Mucus and granular debris of an `amount` from 0 to 1."""
    shape = (field_HWS.shape[0], field_HWS.shape[1])
    clouds = np.clip(texture(rng, shape, 4.0 / mpp) - 1.6 + amount, 0, 1.2)
    grains = np.clip(texture(rng, shape, 0.35 / mpp), 0, 2)
    away = coverage(-keep_out.depth(whole(shape)), 8.0)
    field_HWS[..., 0] += np.float32(0.12) * clouds * (0.4 + grains) * away
    field_HWS[..., 1] += np.float32(0.05) * clouds * away


def paint_passing_cells(field_HWS: Floats, keep_out: Contour, mpp: float, rng: np.random.Generator) -> None:
    """Mature squamous cells that reach in from outside and stay clear of `keep_out`."""
    for _ in range(int(rng.choice([0, 1, 1, 2]))):
        area = rng.uniform(500, 1300) / mpp**2
        radii = polygon(rng, float(area), int(rng.integers(5, 8)), 0.1)
        angle = rng.uniform(0, 2 * np.pi)
        distance = keep_out.reach + float(radii.max()) + rng.uniform(2, 14)
        centre = (keep_out.x + float(distance * np.cos(angle)), keep_out.y + float(distance * np.sin(angle)))
        nucleus = Contour(*centre, smooth_radii(rng, float(rng.uniform(30, 48) / mpp**2), 1.15))
        paint_cytoplasm(
            field_HWS,
            Plan((nucleus,), Contour(*centre, radii)),
            cytoplasm_of("squamous_mature", rng),
            mpp,
            rng,
        )
        paint_nucleus(field_HWS, nucleus, Chromatin(0.55, 0.3 / mpp, 0.0, 0.15), rng)


def paint_leucocytes(
    field_HWS: Floats, keep_out: Contour, count: int, mpp: float, rng: np.random.Generator
) -> None:
    """Neutrophils: two to four dark lobes in a barely visible body of about 11 µm."""
    height, width = field_HWS.shape[:2]
    for _ in range(count):
        x, y = float(rng.uniform(-4, width + 4)), float(rng.uniform(-4, height + 4))
        if np.hypot(x - keep_out.x, y - keep_out.y) < keep_out.reach + 6.5 / mpp:
            continue
        body = Contour(x, y, ellipse(95.0 / mpp**2, rng.uniform(1, 1.2), rng.uniform(0, np.pi)))
        window = body.window((height, width))
        field_HWS[window][..., 1] += np.float32(0.07) * coverage(body.depth(window), 2.0)
        turn, lobes = rng.uniform(0, 2 * np.pi), int(rng.integers(2, 5))
        for k in range(lobes):
            angle = turn + k * 4.2 / lobes
            lobe = Contour(
                x + float(2.1 / mpp * np.cos(angle)),
                y + float(2.1 / mpp * np.sin(angle)),
                ellipse(float(rng.uniform(6, 10) / mpp**2), rng.uniform(1, 1.5), rng.uniform(0, np.pi)),
            )
            paint_nucleus(field_HWS, lobe, Chromatin(1.25, 0.4 / mpp, 0.2, 0.0), rng)
