"""Supervised learning: alignment on captions and instruction tuning are one loop with two configurations.

Built on TRL's SFTTrainer. The loss is the mean negative log-likelihood of the target tokens alone; prompt and
image tokens are masked by `models/encode.py`, the only file that builds token sequences.
"""

from collections.abc import Sequence
from typing import Any

from peft import LoraConfig
from trl import SFTConfig, SFTTrainer

from datasets import Dataset
from malpighi.errors import ConfigError
from malpighi.models.encode import encode
from malpighi.models.pictures import Pictures
from malpighi.models.prompt import target_text
from malpighi.models.vlm import Vlm
from malpighi.records import Boxes, MaskRef, Sample, Text
from malpighi.training.runtime import Curve, StageRuntime, fit
from malpighi.training.settings import Lora, SupervisedConfig


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
        raise ConfigError(f"no sample to train on for {runtime.folder.name}; check the data")

    def make() -> SFTTrainer:
        trainer = SFTTrainer(
            model=vlm.model,
            args=_arguments(config, runtime, seed),
            train_dataset=Dataset.from_dict({"id": [s.id for s in by_length(samples, config.batch_size)]}),
            data_collator=Batches(vlm, samples, pictures),
            processing_class=vlm.processor,
            peft_config=lora_config(config.lora),
        )
        # TRL divides by the target tokens of the whole step once it is told their number. Qwen's classes say
        # they take no such number, which is true of their own loss; it would give a mean of means.
        trainer.model_accepts_loss_kwargs = True
        return trainer

    return fit(make, vlm, runtime)


def by_length(samples: Sequence[Sample], batch_size: int) -> list[Sample]:
    """The samples with each batch of `batch_size` sorted by length of text, so that micro-batches pad little.

    A batch's gradient does not depend on the order within it.
    """
    ordered: list[Sample] = []
    for start in range(0, len(samples), batch_size):
        ordered += sorted(samples[start : start + batch_size], key=_length)
    return ordered


def _length(sample: Sample) -> int:
    """About how many characters prompt and target have."""
    boxes = len(sample.answer.boxes) if isinstance(sample.answer, Boxes | MaskRef) else 0
    words = sum(len(turn.text) for turn in sample.turns) + sum(len(name) for name in sample.options)
    answer = len(sample.answer.value) if isinstance(sample.answer, Text) else 0
    return words + len(sample.reasoning) + answer + 20 * boxes


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
        adam_beta2=config.beta2,
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
        gradient_checkpointing=config.gradient_checkpointing,
        bf16=config.precision == "bf16",
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        dataloader_pin_memory=False,
        report_to=[],
        disable_tqdm=True,
    )
