"""MedSAM: a picture and boxes in, one mask out, as published, on transformers' `SamModel`.

SAM's own processor is not used: it keeps the aspect, pads and normalises by ImageNet's colours, and MedSAM
was trained without all three.

Shape legend: H x W = rows x columns of the picture, S = side of the square input (1024 as published),
N = boxes, C x E x E = channels and grid of an image's embedding, L = side of the decoder's masks.
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.transform import resize
from torch import Tensor
from torch.nn import functional
from transformers import SamModel

from malpighi.errors import ConfigError
from malpighi.geometry import Box, Size, View
from malpighi.models.vlm import quiet_transformers
from malpighi.pixels import decode_image

KEPT_IMAGES = 64
_BOXES_AT_ONCE = 16  # a decoder pass holds some 50 MB per box at 1024 px
_GET_ONE = "`hf download wanglab/medsam-vit-base --local-dir weights/medsam`"


class MedSam:
    """A promptable segmenter.

    An image is encoded once for all its boxes, and again only after `KEPT_IMAGES` others; images are told
    apart by their bytes.

    Args:
        model: in evaluation mode; its configuration says the side of the square input.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._side: int = model.config.vision_config.image_size
        self._embedded = lru_cache(maxsize=KEPT_IMAGES)(self._embed)

    def segment(self, data: bytes, boxes: Sequence[Box]) -> NDArray[np.bool_]:
        """The union of the masks of some boxes.

        Args:
            data: the image file.
            boxes: in image px; they are clipped to the image, and those without area give nothing.

        Returns:
            mask_HW: bool; not confined to the boxes.

        Raises:
            DataError: the image cannot be decoded.

        Source: Ma et al. 2024, Segment anything in medical images; the authors' `MedSAM_Inference.py`.
        Departs: several boxes instead of one; the union is what a semantic Dice compares.
        """
        size, embedding_1CEE = self._embedded(data)
        inside = [box for box in map(View(size).clip, boxes) if box.area > 0]
        mask_HW = np.zeros((size[1], size[0]), dtype=np.bool_)
        for start in range(0, len(inside), _BOXES_AT_ONCE):
            prompts_N4 = scaled(inside[start : start + _BOXES_AT_ONCE], size, self._side)
            mask_HW |= self._masks(embedding_1CEE, prompts_N4, size).any(axis=0)
        return mask_HW

    def _embed(self, data: bytes) -> tuple[Size, Tensor]:
        pixels_HW3 = np.asarray(decode_image(data))
        square_1SS = torch.from_numpy(preprocessed(pixels_HW3, self._side)).to(self._model.device)
        with torch.inference_mode():
            embedding_1CEE = self._model.get_image_embeddings(square_1SS)
        return (pixels_HW3.shape[1], pixels_HW3.shape[0]), embedding_1CEE

    @torch.inference_mode()
    def _masks(self, embedding_1CEE: Tensor, prompts_N4: NDArray[np.float32], size: Size) -> Any:
        """masks_NHW: bool."""
        prompts = torch.from_numpy(prompts_N4)[None].to(embedding_1CEE.device)
        found = self._model(image_embeddings=embedding_1CEE, input_boxes=prompts, multimask_output=False)
        chances_N1LL = torch.sigmoid(found.pred_masks[0])
        resized = functional.interpolate(chances_N1LL, (size[1], size[0]), mode="bilinear")
        return (resized[:, 0] > 0.5).cpu().numpy()


def preprocessed(pixels_HW3: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
    """An image as MedSAM is given it: squeezed into a square, its own range stretched to 0..1.

    Returns:
        square_13SS: float32.

    Source: the authors' `MedSAM_Inference.py`: cubic, anti-aliased, cut to whole grey levels, then minimum
    and maximum over the three channels together; no colour means, no padding.
    """
    square: NDArray[np.float64] = resize(
        pixels_HW3, (side, side), order=3, preserve_range=True, anti_aliasing=True
    )
    levels_3SS = np.moveaxis(square.astype(np.uint8), -1, 0).astype(np.float64)
    low, high = float(levels_3SS.min()), float(levels_3SS.max())
    return ((levels_3SS - low) / max(high - low, 1e-8)).astype(np.float32)[None]


def scaled(boxes: Sequence[Box], size: Size, side: int) -> NDArray[np.float32]:
    """Boxes in image px as corners in px of the square, each axis by its own factor.

    Returns:
        corners_N4: float32 (x0, y0, x1, y1).

    Example:
        >>> scaled([Box(10, 10, 20, 40)], (100, 50), 1000).tolist()
        [[100.0, 200.0, 200.0, 800.0]]
    """
    width, height = size
    corners = np.array([box.corners for box in boxes], dtype=np.float64)
    return (corners * side / [width, height, width, height]).astype(np.float32)


def load_medsam(folder: Path, device: str = "cpu") -> MedSam:
    """The segmenter in a folder; nothing is ever downloaded.

    Args:
        folder: a checkpoint of `SamModel` as transformers saves it: MedSAM, or SAM itself.
        device: where the weights go.

    Raises:
        ConfigError: the folder holds no SAM, or it cannot be loaded.
    """
    check_sam(folder)
    try:
        # The run's random numbers must not depend on when its first mask is asked for.
        with quiet_transformers(), torch.random.fork_rng(devices=[]):
            model, loading = SamModel.from_pretrained(folder, local_files_only=True, output_loading_info=True)
    except Exception as error:  # the loader raises whatever the damaged file made it stumble over
        raise ConfigError(
            f"cannot load the segmenter in {folder}: {type(error).__name__}: {error}"
        ) from error
    missing = sorted(loading["missing_keys"])
    if missing:
        raise ConfigError(
            f"the weights in {folder} lack {len(missing)} tensors, first {missing[0]}; the copy is "
            "incomplete, or the weights belong to another configuration"
        )
    return MedSam(model.to(device).eval())


def check_sam(folder: Path) -> None:
    """Refuse a folder whose configuration is not that of a SAM.

    Raises:
        ConfigError: no such folder, no readable config.json, or a model of another kind.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ConfigError(
            f"the segmenter {folder} is no folder with a config.json; set segmenter to classical, boxes, or "
            f"the folder of a SAM in transformers' format, e.g. after {_GET_ONE}"
        )
    try:
        found = json.loads(path.read_text(encoding="utf-8")).get("model_type")
    except (ValueError, AttributeError) as error:
        raise ConfigError(f"{path} is not a model configuration in JSON: {error}") from error
    if found != "sam":
        raise ConfigError(
            f"{path} describes a model of type '{found}', not 'sam'; take a SAM in transformers' format, "
            f"e.g. after {_GET_ONE}"
        )
