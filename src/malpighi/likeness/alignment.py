"""Whether two pictures are the same picture: decided on aligned pixels, not on hashes.

Two tiles of one tissue have like colours and like hashes at times, but their nuclei do not lie at the same
places. So the fine structure of both is compared where it should coincide, block by block: a label that was
burnt in spoils a few blocks, a change of stain or compression hardly any, another picture nearly all.

Shape legend: H x W = rows x columns.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import irfft2, next_fast_len, rfft2
from scipy.ndimage import gaussian_filter

from malpighi.likeness.pdq import turned

Floats = NDArray[np.float32]

SIDE = 96
SCALES = (1.0, 0.98, 1.02, 0.96, 1.04, 0.94, 1.06)
SHIFT = 6
BLOCK = 16
_FINE, _COARSE = 1.0, 4.0
_FAINT = 0.6
_ALIKE = 0.5
_CERTAIN = 0.9
LEAST_BLOCKS = 4
SAME = 0.6


class Agreement(NamedTuple):
    """How far the structure of two pictures coincides.

    Attributes:
        share: of the blocks with structure, those whose correlation is above one half; 0 to 1.
        correlation: median correlation of the blocks with structure, -1 to 1.
        blocks: number of blocks with structure in both.
        scale: size of the second picture's content relative to the first's.
        shift: (x, y) by which it was moved, px of 96 px.
    """

    share: float
    correlation: float
    blocks: int
    scale: float
    shift: tuple[int, int]

    @property
    def same(self) -> bool:
        """Whether both show the same: enough blocks with structure, and most of them agree."""
        return self.blocks >= LEAST_BLOCKS and self.share >= SAME


def thumbnail(rgb_HW3: NDArray[np.uint8]) -> Floats:
    """What is compared: luminance, 96 x 96, whatever the shape of the picture; float32, 0 to 255."""
    small = Image.fromarray(rgb_HW3).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32)


def agreement(first: Floats, second: Floats, turn: int = 0) -> Agreement:
    """The best agreement of two thumbnails over small crops and shifts.

    Args:
        first: from `thumbnail`.
        second: from `thumbnail`.
        turn: the second is compared after this turn or flip (see `pdq.turned`).

    Source: normalised cross-correlation (Lewis 1995), by Fourier transform; our choice: the band of sizes
    (Gaussians of 1 and 4 px of 96), blocks of 16 px, and the thresholds, which are measured.
    """
    fixed = _structure(first)
    peak, best = -np.inf, Agreement(0.0, 0.0, 0, 1.0, (0, 0))
    for height, scale, shift, moved in _aligned(fixed, np.ascontiguousarray(turned(second, turn))):
        if height > peak:
            peak, best = height, _blockwise(fixed, moved, scale, shift)
        if best.share > _CERTAIN:
            break
    return best


_Aligned = tuple[float, float, tuple[int, int], Floats]


def _aligned(fixed: Floats, image: Floats) -> Iterator[_Aligned]:
    """Per scale: peak of the correlation, scale, shift (x, y), and the picture's structure moved there."""
    size = next_fast_len(SIDE + 2 * SHIFT)
    spectrum = rfft2(fixed, (size, size))
    reach = np.r_[0 : SHIFT + 1, -SHIFT:0]
    for scale in SCALES:
        other = _structure(_scaled(image, scale))
        product = irfft2(spectrum * np.conj(rfft2(other, (size, size))), (size, size))[np.ix_(reach, reach)]
        row, column = np.unravel_index(int(product.argmax()), product.shape)
        dy, dx = int(reach[row]), int(reach[column])
        peak = float(product[row, column] / max(float(np.linalg.norm(other)), 1e-6))
        yield peak, scale, (dx, dy), _moved(other, dx, dy)


def _structure(image: Floats) -> Floats:
    """Details between the two sizes, NaN-free, zero mean."""
    return np.asarray(gaussian_filter(image, _FINE) - gaussian_filter(image, _COARSE), dtype=np.float32)


def _scaled(image: Floats, scale: float) -> Floats:
    """The picture enlarged about its middle, cut or padded (by its edges) to its own size."""
    if scale == 1.0:
        return image
    margin = SIDE * (1 - 1 / scale) / 2
    padded = np.pad(image, 4, mode="edge")
    box = (4 + margin, 4 + margin, 4 + SIDE - margin, 4 + SIDE - margin)
    found = Image.fromarray(padded).resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=box)
    return np.asarray(found, dtype=np.float32)


def _moved(image: Floats, dx: int, dy: int) -> Floats:
    moved = np.zeros_like(image)
    rows, columns = (slice(max(step, 0), SIDE + min(step, 0)) for step in (dy, dx))
    back_rows, back_columns = (slice(max(-step, 0), SIDE + min(-step, 0)) for step in (dy, dx))
    moved[rows, columns] = image[back_rows, back_columns]
    return moved


def _blockwise(first: Floats, second: Floats, scale: float, shift: tuple[int, int]) -> Agreement:
    a, b = (_blocks(image) for image in (first, second))
    norms = np.sqrt((a**2).mean(axis=1)), np.sqrt((b**2).mean(axis=1))
    solid = (norms[0] > _FAINT) & (norms[1] > _FAINT)
    if not solid.any():
        return Agreement(0.0, 0.0, 0, scale, shift)
    correlation = (a * b).mean(axis=1)[solid] / (norms[0] * norms[1])[solid]
    share = float((correlation > _ALIKE).mean())
    return Agreement(share, float(np.median(correlation)), int(solid.sum()), scale, shift)


def _blocks(image: Floats) -> Floats:
    """Blocks as rows, each of zero mean."""
    count = SIDE // BLOCK
    blocks = image.reshape(count, BLOCK, count, BLOCK).swapaxes(1, 2).reshape(count * count, -1)
    return np.asarray(blocks - blocks.mean(axis=1, keepdims=True))
