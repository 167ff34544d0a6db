"""A base that carries one adapter per task group, and batches whose rows each use their own.

Shapes: B rows of a batch, L tokens, D inputs and O outputs of a layer, R ranks of all adapters in use.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import (
    PeftConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from torch.nn import functional as nnf

from malpighi.errors import ConfigError, DataError
from malpighi.models.adapters import (
    CONFIG,
    WEIGHTS,
    base_fingerprint,
    check_adapter,
    module_of,
    read_experts,
    sha256,
)
from malpighi.models.vlm import Vlm


def load_experts(vlm: Vlm, folder: str | Path) -> Vlm:
    """The model with all adapters of a folder; without being told which, it answers as the base.

    `vlm.model` itself gets the adapters' layers, whose weights cost about 2 * rank * (D + O) numbers each.

    Args:
        vlm: the base that the adapters were trained on.
        folder: a folder of experts.

    Raises:
        ConfigError: the model carries adapters already, or is not the adapters' base.
        DataError: no experts there; files missing, damaged or changed; an adapter that is more than LoRA on
            the language model, or does not fit the model.
        FormatVersionError: written by another release.
    """
    folder = Path(folder)
    entries = read_experts(folder)
    if vlm.adapters:
        raise ConfigError(
            f"the model carries adapters already: {', '.join(vlm.adapters)}; load the base anew"
        )
    if base_fingerprint(vlm.folder) != entries.base_fingerprint:
        raise ConfigError(
            f"the adapters in {folder} were trained on another base ({entries.base}) than {vlm.folder}; "
            "they would answer nonsense. Load that base"
        )
    for group, expected in entries.adapters.items():
        _check_fit(vlm, check_adapter(folder / group), folder / group)
        if sha256(folder / group / WEIGHTS) != expected:
            raise DataError(
                f"{folder / group / WEIGHTS} has changed since it was saved; save the adapter again"
            )
    model = vlm.model
    if not entries.adapters:
        return vlm
    for group in entries.adapters:
        model = _with_adapter(model, group, folder / group)
    model.base_model.set_adapter([])
    return replace(vlm, model=model.eval())


@contextmanager
def each_row_its_own(model: Any, adapters: Sequence[str]) -> Iterator[None]:
    """Inside, every row of a batch uses its own adapter, in one pass.

    The adapters in use are laid side by side, so a layer does two products for the whole batch, however many
    adapters there are, and each row keeps its own ranks between them.

    Departs: PEFT's `adapter_names` does the same, adapter by adapter, with rows gathered and scattered; our
    tests compare with it, and `benchmarks/router.py` measures both.

    Args:
        model: as `load_experts` returns it, in evaluation mode.
        adapters: one name per row; "" is the base.

    Raises:
        ConfigError: an adapter that the model does not carry, or one that is active for all rows anyway.
    """
    names = sorted({name for name in adapters if name})
    unknown = [name for name in names if name not in getattr(model, "peft_config", {})]
    if unknown:
        carried = ", ".join(getattr(model, "peft_config", {})) or "none"
        raise ConfigError(f"the model carries no adapter '{unknown[0]}'; it carries: {carried}")
    if names and model.base_model.active_adapters:
        raise ConfigError("an adapter of the model is active for all rows; load it with load_experts")
    layers = [layer for layer in model.modules() if isinstance(layer, LoraLayer)] if names else []
    handles = [layer.register_forward_hook(_addition(layer, names, adapters)) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _check_fit(vlm: Vlm, shapes: dict[str, tuple[int, ...]], folder: Path) -> None:
    layers = dict(vlm.model.named_modules())
    for name, shape in shapes.items():
        layer = layers.get(module_of(name))
        layer = getattr(layer, "base_layer", layer)
        side, axis = ("in_features", 1) if "lora_A" in name else ("out_features", 0)
        size = getattr(layer, side, None)
        if size is None or size != shape[axis]:
            raise DataError(
                f"{folder}: {name} {shape} does not fit the model in {vlm.folder}, which has "
                + (f"{size} there" if size is not None else "no such layer")
            )


def _with_adapter(model: Any, group: str, folder: Path) -> Any:
    with warnings.catch_warnings():
        # PEFT asks transformers under a name that is on its way out; it is not the user's affair.
        warnings.filterwarnings("ignore", message=".*gradient_checkpointing.*", category=FutureWarning)
        config = PeftConfig.from_pretrained(str(folder))
        if isinstance(model, PeftModel):
            model.add_adapter(group, config, autocast_adapter_dtype=False)
        else:
            model = get_peft_model(model, config, adapter_name=group, autocast_adapter_dtype=False)
        tensors = load_file(folder / WEIGHTS)
        wanted = get_peft_model_state_dict(model, adapter_name=group, save_embedding_layers=False)
        absent = sorted(set(wanted) - set(tensors))
        if absent or set(tensors) - set(wanted):
            raise DataError(
                f"{folder}: {CONFIG} and {WEIGHTS} do not belong together; "
                f"first tensor that only one of them has: {(absent or sorted(set(tensors) - set(wanted)))[0]}"
            )
        set_peft_model_state_dict(model, tensors, adapter_name=group)
    return model


def _addition(
    layer: Any, names: Sequence[str], adapters: Sequence[str]
) -> Callable[[Any, tuple[Any, ...], torch.Tensor], torch.Tensor]:
    """A hook that adds to a layer's output what each row's adapter adds."""
    here = [name for name in names if name in layer.lora_A]
    device = layer.weight.device
    if not here:
        return lambda module, inputs, output_blo: output_blo
    a_rd = torch.cat([layer.lora_A[name].weight for name in here])
    b_or = torch.cat([layer.lora_B[name].weight * layer.scaling[name] for name in here], dim=1)
    owners = [name for name in here for _ in range(layer.lora_A[name].weight.shape[0])]
    foreign_b1r = torch.tensor([[[owner != row for owner in owners]] for row in adapters], device=device)

    def add(module: Any, inputs: tuple[Any, ...], output_blo: torch.Tensor) -> torch.Tensor:
        x_bld = inputs[0]
        if len(x_bld) != len(adapters):
            raise RuntimeError(f"a batch of {len(x_bld)} rows, but adapters for {len(adapters)}")
        own_blr = nnf.linear(x_bld.to(a_rd.dtype), a_rd).masked_fill(foreign_b1r, 0)
        return (output_blo + nnf.linear(own_blr, b_or)).to(output_blo.dtype)

    return add
