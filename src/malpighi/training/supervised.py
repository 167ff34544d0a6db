"""Supervised learning: alignment on captions and instruction tuning are one loop with two configurations.

Built on TRL's SFTTrainer. The loss is the mean negative log-likelihood of the target tokens alone; prompt and
image tokens are masked by `models/encode.py`, the only file that builds token sequences.
"""

from collections.abc import Sequence
from typing import Any

from peft import LoraConfig
from trl import SFTConfig, SFTTrainer

from datasets import Dataset
from malpighi.config import Settings
from malpighi.errors import ConfigError
from malpighi.models.encode import encode
from malpighi.models.pictures import Pictures
from malpighi.models.prompt import target_text
from malpighi.models.vlm import Vlm
from malpighi.records import Sample
from malpighi.training.runtime import Curve, StageRuntime, fit


class Lora(Settings, frozen=True):
    """A low-rank adapter; rank 0 trains every weight instead.

    Attributes:
        rank: r of LoRA; 0 = full fine-tuning.
        alpha: scaling; the update is multiplied by alpha / rank.
        dropout: dropout on the adapter's input while training.
    """

    rank: int = 0
    alpha: int = 128
    dropout: float = 0.0


class SupervisedConfig(Settings, frozen=True):
    """Settings of one supervised stage.

    Attributes:
        steps: optimizer steps.
        batch_size: samples an optimizer step learns from.
        micro_batch: samples a forward pass holds; divides batch_size.
        learning_rate: peak of the schedule.
        weight_decay: of AdamW.
        schedule: learning-rate schedule by its transformers name.
        warmup_steps: steps of linear warm-up.
        max_grad_norm: gradient clipping.
        log_every: steps between two curve points.
        save_every: steps between two checkpoints.
        lora: adapter instead of full fine-tuning.
    """

    steps: int
    batch_size: int = 32
    micro_batch: int = 32
    learning_rate: float = 1e-4
    weight_decay: float = 0.1
    schedule: str = "cosine"
    warmup_steps: int = 0
    max_grad_norm: float = 1.0
    log_every: int = 10
    save_every: int = 100
    lora: Lora = Lora()


class Batches:
    """Collator: rows that name samples become padded tensors with labels on the target tokens only."""

    def __init__(self, vlm: Vlm, samples: Sequence[Sample], pictures: Pictures) -> None:
        self.vlm = vlm
        self.samples = {sample.id: sample for sample in samples}
        self.pictures = pictures

    def __call__(self, rows: list[dict[str, str]]) -> dict[str, Any]:
        """Tensors of one batch, right-padded."""
        chosen = [self.samples[row["id"]] for row in rows]
        prompts = [self.pictures.prompt(sample) for sample in chosen]
        targets = [
            target_text(sample, prompt.views, self.pictures.style)
            for sample, prompt in zip(chosen, prompts, strict=True)
        ]
        return encode(prompts, targets, self.vlm)


def train_supervised(
    vlm: Vlm,
    samples: Sequence[Sample],
    pictures: Pictures,
    config: SupervisedConfig,
    runtime: StageRuntime,
    seed: int,
) -> Curve:
    """Teach the model to write each sample's target; goes on from the last checkpoint if there is one.

    Args:
        vlm: the model to train, in place.
        samples: what to learn from, in this order.
        pictures: opens a sample's images at the model's resolution.
        config: the stage's settings.
        runtime: the stage's folder and listener; the trained model is saved in `runtime.model`.
        seed: of adapter initialisation and dropout.

    Returns:
        One row per logged step: step, loss, entropy, token_accuracy, grad_norm, learning_rate.
    """
    if not samples:
        raise ConfigError(
            f"no sample to train on for {runtime.folder.name}; check the stage's tasks against the data"
        )
    if config.batch_size % config.micro_batch:
        raise ConfigError(f"micro_batch {config.micro_batch} does not divide batch_size {config.batch_size}")

    def make() -> SFTTrainer:
        return SFTTrainer(
            model=vlm.model,
            args=_arguments(config, runtime, seed),
            train_dataset=Dataset.from_dict({"id": [sample.id for sample in samples]}),
            data_collator=Batches(vlm, samples, pictures),
            processing_class=vlm.processor,
            peft_config=lora_config(config.lora),
        )

    return fit(make, vlm, runtime)


def lora_config(lora: Lora) -> LoraConfig | None:
    """PEFT's configuration on every linear layer of the language model; None for full fine-tuning.

    The vision tower is left out: engines that serve adapters drop vision adapters silently.
    """
    if lora.rank == 0:
        return None
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)",
        task_type="CAUSAL_LM",
    )


def _arguments(config: SupervisedConfig, runtime: StageRuntime, seed: int) -> SFTConfig:
    return SFTConfig(
        output_dir=str(runtime.checkpoints),
        max_steps=config.steps,
        per_device_train_batch_size=config.micro_batch,
        gradient_accumulation_steps=config.batch_size // config.micro_batch,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        lr_scheduler_type=config.schedule,
        warmup_steps=config.warmup_steps,
        max_grad_norm=config.max_grad_norm,
        logging_steps=config.log_every,
        logging_nan_inf_filter=False,
        logging_first_step=True,
        save_steps=config.save_every,
        save_total_limit=2,
        seed=seed,
        data_seed=seed,
        max_length=None,
        gradient_checkpointing=False,
        bf16=False,
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        dataloader_pin_memory=False,
        report_to=[],
        disable_tqdm=True,
    )
