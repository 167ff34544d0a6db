"""Picture hashes that hardly change when a picture is recompressed, resized or stained a little otherwise.

PDQ's 256 bits decide; 64 bits of the lowest frequencies alone (a pHash) change less under a crop, those
of the middle of the picture not at all under a label in a corner; but they are shared by more pictures that
are not the same: they find candidates.

Shape legend: H x W = rows x columns, V = 8 turns and flips, 16 x 16 = rows x columns of frequencies.

Source: PDQ and TMK + PDQF (Meta, 2019), section PDQ: luminance, two box filters, 64 x 64 samples, the cosine
transform's frequencies 1 to 16 along both axes, one bit per coefficient above the median; the quality is the
sum of the steps between neighbouring samples.
Departs: box filters, sampling and transform are one matrix per axis, as all are linear; values differ in the
last digits of a float32, and so can bits of coefficients that equal the median. The hashes of turns and flips
are those of the turned picture itself. Meta changes the signs of the coefficients in place of that, which is
up to 48 bits off on tiles of 224 px, because the box filter and the choice of samples are not symmetric.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Words = NDArray[np.uint64]

MIN_SIDE = 5
LOW_QUALITY = 50
"""Below this quality Meta advises not to match: the bits of a blank picture are noise."""

_SIDE = 64
_FREQUENCIES = 16
_LOW = 8
_LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)


class PictureHash(NamedTuple):
    """The fingerprint of a picture.

    Attributes:
        pdq: uint64, 8 x 4, the 256 bits of the picture and of its seven turns and flips, in the order of
            `turned`; row 0 is the picture as it is.
        low: uint64, 8 x 2, likewise the 64 bits of the 8 x 8 lowest frequencies, against their own median: of
            the whole picture, and of its middle without an eighth on each side.
        quality: 0 (blank) to 100 (rich in structure).
    """

    pdq: Words
    low: Words
    quality: int


def picture_hash(rgb_HW3: NDArray[np.uint8]) -> PictureHash:
    """The fingerprint of a picture and of its turns and flips.

    Args:
        rgb_HW3: 8 bits per channel, at least 5 px along both axes.

    Raises:
        ValueError: a picture with a shorter side.

    Source: as above. Mirroring a picture is mirroring the matrix of that axis, so the turns cost little.
    """
    height, width = rgb_HW3.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise ValueError(f"a picture of {width} x {height} px; PDQ needs at least {MIN_SIDE} px per side")
    grey_HW = rgb_HW3.astype(np.float32) @ _LUMINANCE
    quality = _quality(_sampler(height) @ grey_HW @ _sampler(width).T)
    turns = _turned_cosines(grey_HW)
    middle = _turned_cosines(grey_HW[height // 8 : height - height // 8, width // 8 : width - width // 8])
    low = np.stack(
        [[_pack(cosines[:_LOW, :_LOW])[0] for cosines in pair] for pair in zip(turns, middle, strict=True)]
    )
    return PictureHash(np.stack([_pack(cosines) for cosines in turns]), low, quality)


def turned(image: NDArray, turn: int) -> NDArray:
    """A picture after one of the eight turns and flips; `turn` 0 leaves it as it is.

    Turns 1 to 3 mirror left-right, top-bottom and both; 4 to 7 mirror likewise and transpose then.
    """
    image = image[:, ::-1] if turn & 1 else image
    image = image[::-1] if turn & 2 else image
    return image.swapaxes(0, 1) if turn & 4 else image


def hamming(a: Words, b: Words) -> NDArray[np.int64]:
    """Number of differing bits between hashes (... x words), broadcast against each other."""
    return np.asarray(np.bitwise_count(a ^ b).sum(axis=-1, dtype=np.int64))


def _turned_cosines(grey_HW: Floats) -> list[Floats]:
    """The coefficients (16 x 16) of the eight turns and flips of a picture, in the order of `turned`."""
    rows, columns = (_cosines() @ _sampler(length) for length in grey_HW.shape)
    along_rows = [grey_HW @ matrix.T for matrix in (columns, columns[:, ::-1])]
    upright = [matrix @ half for matrix in (rows, rows[:, ::-1]) for half in along_rows]
    return upright + [cosines.T for cosines in upright]


def _pack(cosines: Floats) -> Words:
    middle = cosines.size // 2 - 1
    bits = cosines > np.partition(cosines, middle, axis=None)[middle]
    return np.packbits(bits, bitorder="little").view("<u8").astype(np.uint64)


def _quality(small: Floats) -> int:
    steps = sum(np.abs(np.trunc(np.diff(small, axis=axis) * (100 / 255))).sum() for axis in (0, 1))
    return min(int(steps / 90), 100)


@lru_cache(maxsize=256)
def _sampler(length: int) -> Floats:
    """Two box filters and the choice of 64 samples along one axis: float32, 64 x length."""
    window = (length + 2 * _SIDE - 1) // (2 * _SIDE)
    places = np.arange(length)
    # A window of n covers n // 2 samples to the right, the rest to the left, and is cut off at the edges.
    first = np.maximum(places - (window + 1) // 2 + 1, 0)
    last = np.minimum(places + window // 2, length - 1)
    inside = (places >= first[:, None]) & (places <= last[:, None])
    box = inside / inside.sum(axis=1, keepdims=True)
    chosen = ((np.arange(_SIDE) + 0.5) * length / _SIDE).astype(int)
    return np.asarray(box[chosen] @ box, dtype=np.float32)


@lru_cache(maxsize=1)
def _cosines() -> Floats:
    """The transform's frequencies 1 to 16 over 64 samples: float32, 16 x 64."""
    frequency = np.arange(1, _FREQUENCIES + 1)[:, None]
    phase = np.pi / (2 * _SIDE) * frequency * (2 * np.arange(_SIDE) + 1)
    return np.asarray(np.sqrt(2 / _SIDE) * np.cos(phase), dtype=np.float32)
