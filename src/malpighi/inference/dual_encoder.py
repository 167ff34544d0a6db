"""Models that put pictures and words into one space: CLIP and its kin, from a folder on disk.

    encoder = load_dual_encoder("path/to/quiltnet")
    similarity_NK = encoder.images(pictures) @ encoder.texts(["benign lung tissue", "lung adenocarcinoma"]).T

A folder with `open_clip_config.json` is read by open_clip (QuiltNet, PathGen-CLIP, PathoCLIP), one with
`config.json` by transformers (OpenAI CLIP, PLIP, SigLIP). What needs a package of its own, as CONCH does,
comes in by name: `package.module:function`, a function without arguments that returns a `DualEncoder`.

Shape suffixes: N pictures or texts, D features.
"""

import json
import pkgutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoModel, AutoProcessor

from malpighi.errors import ConfigError, DataError
from malpighi.models.vlm import weights_hash

Features = NDArray[np.float32]


@runtime_checkable
class DualEncoder(Protocol):
    """Pictures and words as unit vectors of one space."""

    @property
    def name(self) -> str:
        """Stands in tables; stored features of another name are never mixed with these."""
        ...

    @property
    def scale(self) -> float:
        """What similarities are multiplied by before a softmax; learnt with the model."""
        ...

    def images(self, pictures: Sequence[Image.Image]) -> Features:
        """features_ND of RGB pictures of any size; rows of length 1."""
        ...

    def texts(self, words: Sequence[str]) -> Features:
        """features_ND of texts, each cut to the model's context; rows of length 1."""
        ...


def load_dual_encoder(where: str, device: str = "cpu") -> DualEncoder:
    """The model in a folder, or what a function of an installed package returns.

    Args:
        where: a folder, or `package.module:function`.
        device: e.g. `cuda`.

    Raises:
        ConfigError: neither of the two; a package that is not installed; a function that returns no encoder.
        DataError: the folder's files are damaged or of an unknown kind.
    """
    folder = Path(where)
    if (folder / "open_clip_config.json").is_file():
        return _loaded(OpenClipEncoder, folder, device)
    if (folder / "config.json").is_file():
        return _loaded(TransformersEncoder, folder, device)
    if not folder.exists() and where.partition(":")[2].isidentifier():
        return _plugged_in(where)
    raise ConfigError(
        f"{where} is no model: expected a folder with open_clip_config.json (open_clip) or config.json "
        "(transformers), or package.module:function"
    )


class OpenClipEncoder:
    """A model saved by open_clip, with its own preprocessing and tokenizer.

    Args:
        folder: holds `open_clip_config.json` and the weights.
        device: where it runs.
    """

    def __init__(self, folder: Path, device: str) -> None:
        where = f"local-dir:{folder}"
        self._model, _, self._prepare = open_clip.create_model_and_transforms(where, device=device)
        self._model.eval()
        self._tokenize = open_clip.get_tokenizer(where)
        self._device = device
        self.name = _name(folder)
        self.scale = float(self._model.logit_scale.detach().exp())

    @torch.inference_mode()
    def images(self, pictures: Sequence[Image.Image]) -> Features:
        """features_ND; see `DualEncoder`."""
        batch = torch.stack([self._prepare(picture.convert("RGB")) for picture in pictures])
        return _unit(self._model.encode_image(batch.to(self._device)))

    @torch.inference_mode()
    def texts(self, words: Sequence[str]) -> Features:
        """features_ND; see `DualEncoder`."""
        return _unit(self._model.encode_text(self._tokenize(list(words)).to(self._device)))


class TransformersEncoder:
    """A model saved by transformers whose class gives image and text features.

    Args:
        folder: as `save_pretrained` writes it, the processor's files included.
        device: where it runs.
    """

    def __init__(self, folder: Path, device: str) -> None:
        self._model: Any = AutoModel.from_pretrained(folder, local_files_only=True).to(device).eval()
        self._processor: Any = AutoProcessor.from_pretrained(folder, local_files_only=True)
        if not hasattr(self._model, "get_text_features"):
            raise DataError(
                f"{folder} holds a {type(self._model).__name__}, which gives no features of texts; "
                "expected a model like CLIP or SigLIP"
            )
        self._context = int(self._model.config.text_config.max_position_embeddings)
        self.name = _name(folder)
        self.scale = float(self._model.logit_scale.detach().exp())

    @torch.inference_mode()
    def images(self, pictures: Sequence[Image.Image]) -> Features:
        """features_ND; see `DualEncoder`."""
        shown = self._processor(images=[p.convert("RGB") for p in pictures], return_tensors="pt")
        return _unit(self._model.get_image_features(**shown.to(self._model.device)))

    @torch.inference_mode()
    def texts(self, words: Sequence[str]) -> Features:
        """features_ND; see `DualEncoder`."""
        # SigLIP was trained with every text filled up to its context, CLIP knows where a text ends.
        fill = "max_length" if "siglip" in self._model.config.model_type else True
        read = self._processor(
            text=list(words), return_tensors="pt", padding=fill, truncation=True, max_length=self._context
        )
        return _unit(self._model.get_text_features(**read.to(self._model.device)))


def _loaded(kind: Callable[[Path, str], DualEncoder], folder: Path, device: str) -> DualEncoder:
    try:
        return kind(folder, device)
    except (OSError, ValueError, RuntimeError, KeyError, json.JSONDecodeError) as error:
        raise DataError(f"{folder} cannot be loaded as a model of pictures and words: {error}") from error


def _plugged_in(where: str) -> DualEncoder:
    try:
        made = pkgutil.resolve_name(where)()
    except ModuleNotFoundError as error:
        raise ConfigError(f"{where}: package {error.name} is not installed") from error
    except AttributeError as error:
        raise ConfigError(f"{where}: {error}") from error
    if not isinstance(made, DualEncoder):
        raise ConfigError(f"{where} returned a {type(made).__name__} without name, scale, images and texts")
    return made


def _unit(features: Any) -> Features:
    tensor = getattr(features, "pooler_output", features)
    unit: Features = torch.nn.functional.normalize(tensor.float(), dim=-1).cpu().numpy()
    return unit


def _name(folder: Path) -> str:
    """The folder's name and the beginning of the hash of its files, which tells two trainings apart."""
    return f"{folder.resolve().name}-{weights_hash(folder)[:8]}"
