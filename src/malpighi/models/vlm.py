"""Loading and saving a vision-language model: real weights and miniatures take the same way."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.utils import logging as transformers_logging

from malpighi.config import digest
from malpighi.errors import ConfigError, DataError
from malpighi.models.families import FAMILIES, SPECIAL_TOKENS, Family

DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

_PARTS = ("*.safetensors", "*.bin", "*.pt", "*.json", "*.jinja", "*.model", "*.txt")


@dataclass(frozen=True, eq=False)
class Vlm:
    """A model with what belongs to it.

    Attributes:
        model: the `transformers` model, in evaluation mode after loading.
        processor: its processor: tokenizer, chat template, image processor.
        family: the facts of its family.
        folder: where it was loaded from.
    """

    model: Any
    processor: Any
    family: Family
    folder: Path

    @property
    def tokenizer(self) -> Any:
        """The processor's tokenizer."""
        return self.processor.tokenizer

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of the adapters that it carries; see `models/experts.py`."""
        return tuple(getattr(self.model, "peft_config", ()))

    def token_id(self, token: str) -> int:
        """Id of a special token."""
        return int(self.tokenizer.convert_tokens_to_ids(token))

    def save(self, folder: str | Path) -> Path:
        """Write model and processor so that `load_vlm` reads them back; returns the folder."""
        folder = Path(folder)
        with quiet_transformers():
            self.model.save_pretrained(folder)
            self.processor.save_pretrained(folder)
        return folder


def load_vlm(folder: str | Path, *, dtype: str = "float32", device: str = "cpu") -> Vlm:
    """The model in a folder; nothing is ever downloaded.

    Args:
        folder: a checkpoint as `transformers` saves it.
        dtype: `float32`, `bfloat16` or `float16`.
        device: where the weights go, e.g. `cpu`, `cuda`.

    Raises:
        ConfigError: unknown dtype, or a device that is not there.
        DataError: the folder, its configuration, processor files or weights are missing or do not fit.
    """
    folder = Path(folder)
    family = family_in(folder)
    _need_processor(folder)
    model, processor = load_parts(folder, dtype, device)
    vlm = Vlm(model, processor, family, folder)
    _check_tokenizer(vlm)
    return vlm


def load_parts(folder: Path, dtype: str, device: str) -> tuple[Any, Any]:
    """Model, ready to answer, and processor of any checkpoint that takes images and words; see `load_vlm`."""
    if dtype not in DTYPES:
        raise ConfigError(f"unknown dtype '{dtype}'; known: {', '.join(DTYPES)}")
    need_weights(folder)
    with quiet_transformers():
        processor = open_saved(AutoProcessor, folder, "processor")
        model, loading = open_saved(
            AutoModelForImageTextToText, folder, "model", dtype=DTYPES[dtype], output_loading_info=True
        )
    missing = sorted(loading["missing_keys"])
    if missing:
        raise DataError(
            f"the weights in {folder} lack {len(missing)} tensors, first {missing[0]}; the copy is "
            "incomplete, or the weights belong to another configuration"
        )
    return moved(model, device).eval(), processor


def family_in(folder: Path) -> Family:
    """The family of the checkpoint in a folder, from its `config.json`.

    Raises:
        DataError: no such folder, no readable configuration, or a model of another family.
    """
    if not folder.is_dir():
        raise DataError(
            f"no model folder {folder}; download a checkpoint first, e.g. "
            f"`hf download Qwen/Qwen2.5-VL-3B-Instruct --local-dir {folder}`, or build a miniature"
        )
    path = folder / "config.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8")).get("model_type")
    except FileNotFoundError as error:
        raise DataError(f"{folder} holds no config.json, so it is no saved model") from error
    except (ValueError, AttributeError) as error:
        raise DataError(f"{path} is not a model configuration in JSON: {error}") from error
    if found not in FAMILIES:
        raise DataError(f"{path} describes a model of type '{found}'; supported types: {', '.join(FAMILIES)}")
    return FAMILIES[found]


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars of `transformers` inside: ours say what is going on."""
    was_on = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            transformers_logging.enable_progress_bar()


def _need_processor(folder: Path) -> None:
    needed = {
        "a tokenizer": ("tokenizer.json", "vocab.json"),
        "an image processor": ("preprocessor_config.json", "processor_config.json"),
        "a chat template": ("chat_template.jinja", "chat_template.json", "tokenizer_config.json"),
    }
    for what, names in needed.items():
        if not any((folder / name).is_file() for name in names):
            raise DataError(f"{folder} holds no {what.split(' ', 1)[1]}: none of {', '.join(names)} is there")


def need_weights(folder: Path) -> None:
    """Refuse a folder without the weights that it should hold.

    Raises:
        DataError: naming the first file that is missing.
    """
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, LookupError, AttributeError, TypeError) as error:
            raise DataError(f"{index} is not an index of weights: {error}") from error
        absent = [name for name in shards if not (folder / name).is_file()]
        if absent:
            raise DataError(f"{folder} lacks {len(absent)} of {len(shards)} weight files, first {absent[0]}")
    elif not (folder / "model.safetensors").is_file():
        raise DataError(f"{folder} holds no weights: neither model.safetensors nor {index.name} is there")


def weights_hash(folder: Path) -> str:
    """Hash over what a folder's answers depend on: weights, configuration, tokenizer, processor.

    Every byte counts, so two trainings never share it, wherever they differ.

    Raises:
        DataError: a file cannot be read.
    """
    paths = sorted({path for pattern in _PARTS for path in folder.glob(pattern)})
    try:
        hashed = []
        for path in paths:
            with path.open("rb") as file:
                hashed.append((path.name, hashlib.file_digest(file, "sha256").hexdigest()))
    except OSError as error:
        raise DataError(f"cannot read the weights in {folder}: {error.strerror}") from error
    return digest(hashed)


def open_saved(loader: Any, folder: Path, what: str, **options: Any) -> Any:
    """What a class of `transformers` loads from a folder, never from the network.

    Raises:
        DataError: naming `what` and the folder, in place of anything that the loader raises.
    """
    try:
        return loader.from_pretrained(folder, local_files_only=True, **options)
    except Exception as error:  # the loader raises whatever the damaged file made it stumble over
        raise DataError(f"cannot load the {what} in {folder}: {type(error).__name__}: {error}") from error


def moved(model: Any, device: str) -> Any:
    """The model on a device.

    Raises:
        ConfigError: the device is not there, or too small.
    """
    try:
        return model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"cannot put the model on device '{device}': {error}; try device=cpu") from error


def _check_tokenizer(vlm: Vlm) -> None:
    vocabulary = vlm.tokenizer.get_vocab()
    absent = [token for token in SPECIAL_TOKENS if token not in vocabulary]
    if absent:
        raise DataError(
            f"the tokenizer in {vlm.folder} lacks {', '.join(absent)}; it belongs to another model"
        )
    if not vlm.processor.chat_template:
        raise DataError(f"the processor in {vlm.folder} has no chat template")
