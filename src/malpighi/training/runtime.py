"""What every training stage shares: where checkpoints lie, how curves are kept, how progress is told."""

import ctypes
import json
import math
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from tensorboardX import SummaryWriter
from transformers import AutoModelForImageTextToText, PrinterCallback, Trainer, TrainerCallback
from transformers.integrations import TensorBoardCallback
from transformers.trainer_utils import get_last_checkpoint

from malpighi.durable import replacing
from malpighi.errors import DataError
from malpighi.models.adapters import save_adapter
from malpighi.models.vlm import Vlm, quiet_transformers

Curve = list[dict[str, float]]
OnStep = Callable[[int, int, dict[str, float]], None]

# Trainer bookkeeping that says nothing about learning.
_NOT_CURVES = frozenset({"epoch", "step_time", "num_tokens", "total_flos"})

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


class StageRuntime:
    """The folder of one training stage.

    Args:
        folder: the stage's own folder; checkpoints go to `folder/checkpoints`, the model to `folder/model`.
        on_step: called with (step, total steps, logged values) whenever the trainer logs.
    """

    def __init__(self, folder: Path, on_step: OnStep | None = None) -> None:
        self.folder = folder
        self.checkpoints = folder / "checkpoints"
        self.model = folder / "model"
        self.on_step = on_step
        self.checkpoints.mkdir(parents=True, exist_ok=True)

    def last_checkpoint(self) -> str | None:
        """The newest whole checkpoint to go on from; None at a fresh start.

        A checkpoint killed while being written lacks the trainer state, saved last; it is dropped.
        """
        whole = [c for c in self.checkpoints.glob("checkpoint-*") if _readable(c / "trainer_state.json")]
        for broken in set(self.checkpoints.glob("checkpoint-*")) - set(whole):
            shutil.rmtree(broken)
        return get_last_checkpoint(str(self.checkpoints)) if whole else None

    def save(self, vlm: Vlm, model: Any) -> None:
        """Save what was trained; an adapter is merged, and kept beside."""
        save_trained(vlm, model, self.model)


def _readable(path: Path) -> bool:
    try:
        json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return True


def step_of(checkpoint: str) -> int:
    """The optimizer steps that were done when a checkpoint was written.

    Example:
        >>> step_of("run/checkpoints/checkpoint-20")
        20
    """
    return int(Path(checkpoint).name.removeprefix("checkpoint-"))


class ExpertRuntime(StageRuntime):
    """The folder of one adapter's training, which ends in a folder of experts.

    Args:
        folder: of this adapter's own training.
        experts: the folder of experts that the adapter joins.
        base: folder of the model that carries it.
        on_step: as in `StageRuntime`.
    """

    def __init__(self, folder: Path, experts: Path, base: Path, on_step: OnStep | None = None) -> None:
        super().__init__(folder, on_step)
        self.experts = experts
        self.base = base

    def save(self, vlm: Vlm, model: Any) -> None:
        """Put the adapter among the experts, under the name of its training's folder."""
        save_adapter(model, self.experts, self.folder.name, self.base)


class Progress(TrainerCallback):
    """Tells the stage's listener what the trainer logs, and stops a run whose loss is no number any more."""

    def __init__(self, on_step: OnStep | None) -> None:
        self.on_step = on_step

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any
    ) -> None:
        """Pass the logged numbers on; raise when the loss is not finite."""
        values = {k: float(v) for k, v in (logs or {}).items() if isinstance(v, int | float)}
        for name in ("loss", "grad_norm"):
            value = values.get(name, 0.0)
            if not math.isfinite(value):
                raise DataError(
                    f"the {name} became {value} at step {state.global_step}; "
                    "lower the learning rate and run again"
                )
        if self.on_step is not None:
            self.on_step(int(state.global_step), int(state.max_steps), values)


def curves(log_history: list[dict[str, float]]) -> Curve:
    """The trainer's log as rows {step, loss, reward, length, entropy, ...} under our short names."""
    names = {"completions/mean_length": "length", "mean_token_accuracy": "token_accuracy"}
    return [
        {
            names.get(k, k): float(v)
            for k, v in row.items()
            if isinstance(v, int | float) and k not in _NOT_CURVES
        }
        for row in log_history
        if "loss" in row
    ]


def save_curves(rows: Curve, path: Path) -> None:
    """Write curve rows as JSONL, one logged step a line."""
    with replacing(path) as file:
        file.writelines(json.dumps(row, sort_keys=True).encode() + b"\n" for row in rows)


def load_curves(path: Path) -> Curve:
    """The rows that `save_curves` wrote."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def fit(make_trainer: Callable[[], Trainer], vlm: Vlm, runtime: StageRuntime) -> Curve:
    """Train from the last whole checkpoint, if there is one, and save the model.

    Args:
        make_trainer: builds the trainer.
        vlm: what the training starts from.
        runtime: the stage's folder and listener.

    Returns:
        The curve over all steps, those before a resume included.
    """
    with _quiet():
        checkpoint = runtime.last_checkpoint()
        if checkpoint is not None:
            load_weights(vlm, Path(checkpoint))
        trainer = make_trainer()
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(Progress(runtime.on_step))
        trainer.add_callback(_tensorboard(runtime.folder, step_of(checkpoint) if checkpoint else 0))
        trainer.train(resume_from_checkpoint=checkpoint)
        _refuse_broken(trainer.model, runtime.folder)
        runtime.save(vlm, trainer.model)
    return curves(trainer.state.log_history)


def _refuse_broken(model: torch.nn.Module, folder: Path) -> None:
    broken = [name for name, weight in model.named_parameters() if not torch.isfinite(weight).all()]
    if broken:
        raise DataError(
            f"training left {len(broken)} weights that are no numbers in {folder.name}, first {broken[0]}; "
            "lower the learning rate and run again"
        )


def _tensorboard(folder: Path, done: int) -> TensorBoardCallback:
    """Writes the curves for TensorBoard into `folder/tensorboard`; what a resumed run repeats is replaced."""
    return TensorBoardCallback(SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1))


@contextmanager
def _quiet() -> Iterator[None]:
    """Our listener tells the progress; a deprecation that TRL's defaults trigger is not the user's affair."""
    with quiet_transformers(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*gradient_checkpointing.*", category=FutureWarning)
        yield


def load_weights(vlm: Vlm, checkpoint: Path) -> None:
    """Put a checkpoint's weights into the model; an adapter's are left to the trainer.

    The trainer reads tensors by their names in memory, but Qwen2.5-VL is saved under its published names: it
    would load none of them, say so in a warning, and go on from the first weights.
    """
    if (checkpoint / "config.json").is_file():
        saved = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=vlm.model.dtype)
        vlm.model.load_state_dict(saved.state_dict())


def save_trained(vlm: Vlm, model: Any, folder: Path) -> None:
    """Save a trained model so that `load_vlm` reads it; an adapter is kept beside it and merged into it.

    Args:
        vlm: what the training started from.
        model: the trainer's model, perhaps wrapped by PEFT.
        folder: where the whole model goes; the adapter alone goes to `adapter` beside it.
    """
    if isinstance(model, PeftModel):
        model.save_pretrained(folder.parent / "adapter")
        model = model.merge_and_unload()
    replace(vlm, model=model).save(folder)


def settle(num_threads: int) -> None:
    """Make this process compute repeatably, and keep the memory that it frees.

    The same number of threads gives the same sums, so a resumed run repeats a whole one. A training step
    frees and takes the same sizes again and again; by default glibc hands each back to the system and takes
    it anew, page fault by page fault, up to half of the time of a small model's step on a CPU.
    """
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    # Filling fresh memory shows a read of uninitialised values; results are the same without.
    torch.utils.deterministic.fill_uninitialized_memory = False
    if num_threads > 0:
        torch.set_num_threads(num_threads)
    _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Set glibc's two thresholds for giving memory back so high that they never act; elsewhere do nothing."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 2**30)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
