"""Adapters of experts on disk: one LoRA adapter per task group, all on one base.

A folder of experts:

experts.json               which base the adapters belong to, and their hashes
<group>/                   an ordinary PEFT adapter: adapter_config.json, adapter_model.safetensors
router.json, router.npz    which adapter answers what; see router.py

Source: SmartPath-R1, sections 4.1 and 5: several LoRA modules of rank 32 and alpha 128, each trained on a
group of tasks, one of them chosen by the prompt.

An adapter changes linear layers of the language model alone. A vision tower sees patches, not rows, so no row
of a mixed batch could have its own; and vLLM drops adapter weights of a vision tower with a warning (vllm
issues 17660, 23796, 32541). An adapter that holds such weights is refused when saved and when loaded.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from peft import PeftModel
from safetensors import SafetensorError, safe_open

from malpighi.durable import mending, replacing
from malpighi.errors import ConfigError, DataError
from malpighi.models.router import ADAPTER_FILES
from malpighi.models.task_groups import check_name
from malpighi.models.versioned import from_json

FORMAT_VERSION = 1
EXPERTS = "experts.json"
CONFIG, WEIGHTS = ADAPTER_FILES

_TENSOR = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
_INSIDE = ".language_model."

# What makes an adapter more than two matrices per layer. Neither a mixed batch nor vLLM can do it.
_MORE_THAN_LORA = (
    "modules_to_save",
    "use_dora",
    "lora_bias",
    "alora_invocation_tokens",
    "layer_replication",
    "use_bdlora",
    "use_qalora",
    "arrow_config",
    "target_parameters",
    "trainable_token_indices",
)
# Starts that leave the base as it is; others, such as PiSSA, move weights from it into the adapter.
_STARTS = (True, False, "gaussian", "eva", "orthogonal", "lora_ga")


class ExpertsFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The contents of `experts.json`.

    Attributes:
        format_version: of the file.
        base: path of the base model, from this folder.
        base_fingerprint: see `base_fingerprint`.
        adapters: group -> SHA-256 of its weights file, hexadecimal.
    """

    format_version: int
    base: str
    base_fingerprint: str
    adapters: dict[str, str]


def save_adapter(
    model: PeftModel, folder: str | Path, group: str, base: str | Path, *, adapter: str = "default"
) -> Path:
    """Put a trained adapter into a folder of experts; one that has the same name is replaced.

    Args:
        model: the model with the adapter, as training left it.
        folder: the folder of experts; made where missing.
        group: the task group that the adapter was trained for.
        base: folder of the model that the adapter was trained on.
        adapter: its name inside `model`.

    Returns:
        The adapter's folder.

    Raises:
        ConfigError: no such adapter in the model, or the folder's other adapters belong to another base.
        DataError: the adapter is more than LoRA on linear layers of the language model.
        UserError: the folder cannot be written to.
    """
    folder = Path(folder)
    check_name(group, str(folder))
    if adapter not in getattr(model, "peft_config", {}):
        raise ConfigError(f"the model has no adapter '{adapter}' to save as '{group}'")
    start_experts(folder, base)
    final = folder / group
    with mending(folder), _scratch(folder / f"{group}.part") as part:
        model.save_pretrained(str(part), selected_adapters=[adapter], save_embedding_layers=False)
        made = part if adapter == "default" else part / adapter
        _portable(made / CONFIG)
        check_adapter(made)
        shutil.rmtree(final, ignore_errors=True)
        final.mkdir()
        for name in ADAPTER_FILES:
            (made / name).replace(final / name)
        with _alone(folder):
            entries = read_experts(folder)
            adapters = entries.adapters | {group: sha256(final / WEIGHTS)}
            _write(folder, msgspec.structs.replace(entries, adapters=adapters))
    return final


def start_experts(folder: Path, base: str | Path) -> None:
    """Make a folder of experts that has no adapter yet: the base answers everything.

    Args:
        folder: made where missing; left as it is where it holds experts of this base.
        base: folder of the model that adapters will be trained on.

    Raises:
        ConfigError: the folder's adapters belong to another base.
        UserError: the folder cannot be written to.
    """
    with mending(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        _write(folder, _with_base(folder, Path(base)))


def read_experts(folder: Path) -> ExpertsFile:
    """What a folder says of its experts.

    Raises:
        DataError: no experts there, or the file is damaged.
        FormatVersionError: written by another release.
    """
    return from_json(folder / EXPERTS, ExpertsFile, FORMAT_VERSION, "train the experts first")


def base_fingerprint(folder: Path) -> str:
    """A hash over the first bytes of every tensor in a model's folder: other weights, other hash.

    Merged adapters change some tensors only, so all are asked; reading them whole would take minutes.

    Raises:
        DataError: no weights there, or files that are no safetensors.
    """
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise DataError(f"{folder} holds no weights (model*.safetensors)")
    told = hashlib.sha256()
    for path in files:
        for name, entry, data in _starts_of_tensors(path):
            told.update(f"{name} {entry['dtype']} {entry['shape']} ".encode() + data)
    return told.hexdigest()


def check_adapter(folder: Path) -> dict[str, tuple[int, ...]]:
    """Tensor name -> shape of a saved adapter, after refusing what cannot be served.

    Raises:
        DataError: files missing or damaged, or more than LoRA on linear layers of the language model.
    """
    try:
        config = json.loads((folder / CONFIG).read_bytes())
        with safe_open(folder / WEIGHTS, "pt") as tensors:
            shapes = {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    except (OSError, ValueError, SafetensorError) as error:
        raise DataError(f"{folder} holds no whole adapter ({error}); save it again") from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise DataError(f"{folder / CONFIG} describes no LoRA adapter; only LoRA is served")
    more = [name for name in _MORE_THAN_LORA if config.get(name)]
    more += ["bias"] if config.get("bias", "none") != "none" else []
    more += ["init_lora_weights"] if config.get("init_lora_weights", True) not in _STARTS else []
    if more:
        raise DataError(
            f"{folder} uses {', '.join(more)}: such an adapter cannot share a batch with others, nor does "
            "vLLM serve it; train a plain LoRA adapter"
        )
    _check_places(shapes, folder)
    return shapes


def _check_places(shapes: dict[str, tuple[int, ...]], folder: Path) -> None:
    odd = [name for name in shapes if not _TENSOR.fullmatch(name)]
    if odd or not shapes:
        raise DataError(f"{folder / WEIGHTS} holds what is no LoRA matrix: {', '.join(odd[:3]) or 'nothing'}")
    outside = sorted({module_of(name) for name in shapes if _INSIDE not in f".{module_of(name)}."})
    if outside:
        raise DataError(
            f"{folder} changes {len(outside)} layers outside the language model, first {outside[0]}. vLLM "
            "drops the weights of a vision tower with a mere warning, and no row of a batch could have its "
            "own; train with target_modules in the language model alone, or merge it into the base"
        )


def module_of(tensor: str) -> str:
    """The layer that an adapter's tensor belongs to, as the model names it; "" if it is no matrix of LoRA."""
    match = _TENSOR.fullmatch(tensor)
    return match[1] if match else ""


def _with_base(folder: Path, base: Path) -> ExpertsFile:
    fingerprint = base_fingerprint(base)
    if not (folder / EXPERTS).is_file():
        path = Path(os.path.relpath(base.resolve(), folder.resolve())).as_posix()
        return ExpertsFile(FORMAT_VERSION, path, fingerprint, {})
    entries = read_experts(folder)
    if entries.base_fingerprint != fingerprint:
        raise ConfigError(
            f"the adapters in {folder} belong to another base ({entries.base}) than {base}; "
            "take another folder"
        )
    return entries


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Adapters may be trained in several processes; one at a time changes what the folder says of them."""
    with mending(folder), (folder / "experts.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _write(folder: Path, entries: ExpertsFile) -> None:
    entries = msgspec.structs.replace(entries, adapters=dict(sorted(entries.adapters.items())))
    with replacing(folder / EXPERTS) as file:
        file.write(msgspec.json.format(msgspec.json.encode(entries), indent=1))


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    shutil.rmtree(folder, ignore_errors=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _portable(path: Path) -> None:
    """Take the machine's paths out of a saved configuration, and give its lists one order."""
    config = json.loads(path.read_bytes())
    config["base_model_name_or_path"] = None
    if isinstance(config.get("target_modules"), list):
        config["target_modules"] = sorted(config["target_modules"])
    path.write_text(json.dumps(config, indent=1, sort_keys=True), encoding="utf-8")


def _starts_of_tensors(path: Path, most: int = 1024) -> Iterator[tuple[str, dict[str, Any], bytes]]:
    """Name, header entry and first bytes of every tensor in a safetensors file, by name."""
    with path.open("rb") as file:
        try:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            for name, entry in sorted(header.items()):
                start, end = entry["data_offsets"]
                file.seek(8 + length + start)
                yield name, entry, file.read(min(most, end - start))
        except (struct.error, ValueError, LookupError, AttributeError, MemoryError, OverflowError) as error:
            raise DataError(f"{path} is no safetensors file: {error}") from error


def sha256(path: Path) -> str:
    """Of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
