"""What turns tiles into numbers: statistics of the stain, a convolutional network, a model's vision tower.

Shape suffixes: N tiles, H x W x 3 rows x columns x RGB (uint8), D features of a tile.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from malpighi.models.classifier import ExamClassifier, build_classifier
from malpighi.models.vlm import Vlm
from malpighi.resolution import fit

Pixels = NDArray[np.uint8]
Features = NDArray[np.float32]


class Encoder(Protocol):
    """Anything that turns tiles into features."""

    @property
    def name(self) -> str:
        """Goes with the features into the store; unlike weights, unlike names."""
        ...

    @property
    def width(self) -> int:
        """D."""
        ...

    def __call__(self, tiles: Sequence[Pixels]) -> Features:
        """features_ND of tiles, each H x W x 3."""
        ...


class StainStatistics:
    """How much stain, and how it is spread: what every learned encoder must be better than.

    Per channel of the optical density, -log10((v + 1) / 256): mean, standard deviation and the 5th, 50th and
    95th percentile; and for its mean over channels the standard deviation of what blurring by 1, 2, 4 and 8
    px takes away, which tells fine texture from coarse.
    """

    name = "stain-statistics-1"
    width = 19

    def __call__(self, tiles: Sequence[Pixels]) -> Features:
        """features_ND of tiles; see `Encoder`."""
        return np.stack([_statistics(tile) for tile in tiles])


class BackboneEncoder:
    """The pooled features of a classifier's backbone, a timm network.

    Args:
        classifier: trained, or fresh from `random_backbone`.
        name: of the features.
    """

    def __init__(self, classifier: ExamClassifier, name: str) -> None:
        self.name = name
        self._classifier = classifier.eval()
        self.width = int(classifier.backbone.num_features)

    @torch.inference_mode()
    def __call__(self, tiles: Sequence[Pixels]) -> Features:
        """features_ND of tiles; see `Encoder`."""
        stretched = self._classifier.tensor([Image.fromarray(tile) for tile in tiles])
        features: Features = self._classifier.features(stretched).float().numpy()
        return features


class TowerEncoder:
    """The mean over the tokens that a vision-language model's own tower makes of a tile.

    Args:
        vlm: the model.
        name: of the features.
        tokens: most tokens of one tile.
    """

    def __init__(self, vlm: Vlm, name: str, tokens: int = 64) -> None:
        self.name = name
        self._vlm, self._tokens = vlm, tokens
        self.width = int(vlm.model.config.text_config.hidden_size)

    @torch.inference_mode()
    def __call__(self, tiles: Sequence[Pixels]) -> Features:
        """features_ND of tiles; see `Encoder`."""
        images = [self._resized(Image.fromarray(tile)) for tile in tiles]
        seen: Any = self._vlm.processor.image_processor(images=images, do_resize=False, return_tensors="pt")
        seen = {name: tensor.to(self._vlm.model.device) for name, tensor in seen.items()}
        made = self._vlm.model.get_image_features(seen["pixel_values"], seen["image_grid_thw"])
        return np.stack([tokens.float().mean(dim=0).cpu().numpy() for tokens in made.pooler_output])

    def _resized(self, image: Image.Image) -> Image.Image:
        size = fit(image.size, self._tokens, self._vlm.family.pixels_per_token)
        return image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)


def random_backbone(architecture: str, image_size: int = 128, seed: int = 0) -> BackboneEncoder:
    """A network that has learnt nothing: a floor for learned features, and something to try things with.

    Args:
        architecture: timm model name.
        image_size: side of the square input, px.
        seed: of the weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        classifier = build_classifier(architecture, {"none": ("a", "b")}, image_size)
    return BackboneEncoder(classifier, f"random:{architecture}:{image_size}:{seed}")


def _statistics(tile: Pixels) -> Features:
    density = -np.log10((tile.astype(np.float32) + 1) / 256)
    flat = density.reshape(-1, 3)
    spread = np.percentile(flat, (5, 50, 95), axis=0)
    grey = density.mean(axis=2)
    detail = [np.std(grey - gaussian_filter(grey, sigma)) for sigma in (1, 2, 4, 8)]
    return np.concatenate([flat.mean(axis=0), flat.std(axis=0), spread.ravel(), detail]).astype(np.float32)
