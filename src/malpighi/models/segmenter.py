"""Segmenters by name: what makes a mask of the boxes that a model answers with.

boxes       the boxes themselves, filled
classical   colour and shape inside each box; no weights (`classical_segmenter.py`)
FOLDER      MedSAM, or another SAM in transformers' format (`medsam.py`)
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from malpighi.config import digest
from malpighi.errors import DataError
from malpighi.geometry import Box
from malpighi.models.adapters import base_fingerprint
from malpighi.models.classical_segmenter import VERSION, ClassicalSegmenter
from malpighi.models.medsam import check_sam, load_medsam

BOXES = "boxes"
CLASSICAL = "classical"


class Segmenter(Protocol):
    """Makes one mask of an image and boxes; keeps what it computed of recent images, by their bytes."""

    def segment(self, data: bytes, boxes: Sequence[Box]) -> NDArray[np.bool_]:
        """The union of the masks of some boxes.

        Args:
            data: the image file.
            boxes: in image px; any number, anywhere.

        Returns:
            mask_HW: bool, of the image's size; empty without boxes.

        Raises:
            DataError: the image cannot be decoded.
        """


@lru_cache(maxsize=1)
def load_segmenter(name: str) -> Segmenter | None:
    """The segmenter of a name, loaded once per process; None fills the boxes.

    Args:
        name: `boxes`, `classical`, or the folder of a SAM, which goes to the GPU where there is one.

    Raises:
        ConfigError: the folder holds no SAM, or it cannot be loaded.
    """
    if name == BOXES:
        return None
    if name == CLASSICAL:
        return ClassicalSegmenter()
    return load_medsam(Path(name), "cuda" if torch.cuda.is_available() else "cpu")


def fingerprint(name: str) -> str:
    """Hash of what a segmenter's masks depend on; of a checkpoint the configuration and the weights.

    Weights that are no safetensors are told apart by the sizes of their files alone.

    Raises:
        ConfigError: the folder holds no SAM.
    """
    if name == BOXES:
        return digest(name)
    if name == CLASSICAL:
        return digest(name, VERSION)
    folder = Path(name)
    check_sam(folder)
    weights: object
    try:
        weights = base_fingerprint(folder)
    except DataError:
        weights = sorted((path.name, path.stat().st_size) for path in folder.iterdir() if path.is_file())
    return digest((folder / "config.json").read_text(encoding="utf-8"), weights)
