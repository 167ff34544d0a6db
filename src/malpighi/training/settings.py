"""Settings of the training stages; kept apart from the loops, which need torch."""

from typing import Literal

import msgspec

from malpighi.config import Settings
from malpighi.errors import ConfigError
from malpighi.grading.published import Mode
from malpighi.grading.reward import DEFAULT_WEIGHTS
from malpighi.records import TaskKind


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
        beta2: of AdamW: how long it remembers squared gradients.
        schedule: learning-rate schedule by its transformers name.
        warmup_steps: steps of linear warm-up.
        max_grad_norm: gradient clipping.
        log_every: steps between two curve points.
        save_every: steps between two checkpoints.
        gradient_checkpointing: compute activations again in the backward pass rather than keep them.
        precision: `fp32`, or `bf16` for automatic mixed precision.
        lora: adapter instead of full fine-tuning.
    """

    steps: int
    batch_size: int = 32
    micro_batch: int = 32
    learning_rate: float = 1e-4
    weight_decay: float = 0.1
    beta2: float = 0.999
    schedule: str = "cosine"
    warmup_steps: int = 0
    max_grad_norm: float = 1.0
    log_every: int = 10
    save_every: int = 100
    gradient_checkpointing: bool = False
    precision: Literal["fp32", "bf16"] = "fp32"
    lora: Lora = Lora()

    def __post_init__(self) -> None:
        """Refuse at once what would end the stage after those before it are trained."""
        if self.batch_size % self.micro_batch:
            raise ConfigError(f"micro_batch {self.micro_batch} does not divide batch_size {self.batch_size}")


class ReinforceConfig(Settings, frozen=True):
    """Settings of the reinforcement stage.

    Attributes:
        steps: optimizer steps.
        prompts: questions per step.
        updates: steps made from one rollout of `updates` x `prompts` questions. With 1 every completion is
            learned from under the very weights that drew it: its ratio is 1, and nothing is ever clipped.
        group: completions per question (G).
        max_new_tokens: longest completion, tokens.
        temperature: of sampling.
        learning_rate: peak of the schedule.
        weight_decay: of AdamW.
        schedule: learning-rate schedule by its transformers name.
        warmup_steps: steps of linear warm-up.
        max_grad_norm: gradient clipping.
        beta: weight of the KL penalty to the supervised model; 0 keeps no reference model.
        epsilon: lower clip of the probability ratio.
        epsilon_high: upper clip (DAPO's clip-higher).
        loss: `grpo` (mean per sequence) or `dapo` (mean over tokens).
        scale_rewards: `group` divides advantages by the group's standard deviation, `none` does not.
        micro_batch: completions a forward pass of learning holds; divides prompts * group.
        rollout_batch: completions decoded at once, to bound the memory of a rollout; 0 decodes all. Groups
            stay whole where one fits; else a prompt is read once and its group decoded in parts. What is
            drawn does not depend on it, but for rounding. vLLM bounds its own memory.
        log_every: steps between two curve points.
        save_every: steps between two checkpoints.
        rewards: weights over grade parts per task kind.
        mode: how completions are graded: `robust`, or `paper` with the published graders' holes.
        guideline: pack whose rules give the part `inconsistent`; "" for none.
        overlong_buffer: last tokens before `max_new_tokens` over which the part `overlong` grows (DAPO's
            L_cache).
        resample: rounds of further questions a step draws in the place of those whose completions all earn
            the same (DAPO's dynamic sampling); 0 keeps these.
        patience: steps without any difference between rewards, or with every completion cut off, after which
            the stage stops as collapsed; 0 never stops.
        gradient_checkpointing: compute activations again in the backward pass rather than keep them.
        precision: `fp32`, or `bf16` for automatic mixed precision.
        vllm: who draws the completions: "" the model itself, `colocate` vLLM on the same GPU, or the address
            of a vLLM server, e.g. `http://localhost:8000`.
        vllm_memory: share of the GPU's memory that vLLM takes where it is colocated.
        lora: adapter instead of full fine-tuning.
    """

    steps: int
    prompts: int = 8
    updates: int = 1
    group: int = 8
    max_new_tokens: int = 96
    temperature: float = 1.0
    learning_rate: float = 1e-5
    weight_decay: float = 0.1
    schedule: str = "cosine"
    warmup_steps: int = 0
    max_grad_norm: float = 1.0
    beta: float = 0.001
    epsilon: float = 0.2
    epsilon_high: float = 0.2
    loss: Literal["grpo", "dapo"] = "grpo"
    scale_rewards: Literal["group", "none"] = "group"
    micro_batch: int = 64
    rollout_batch: int = 0
    log_every: int = 5
    save_every: int = 20
    rewards: dict[TaskKind, dict[str, float]] = msgspec.field(
        default_factory=lambda: {task: dict(parts) for task, parts in DEFAULT_WEIGHTS.items()}
    )
    mode: Mode = Mode.ROBUST
    guideline: str = ""
    overlong_buffer: int = 0
    resample: int = 0
    patience: int = 30
    gradient_checkpointing: bool = False
    precision: Literal["fp32", "bf16"] = "fp32"
    vllm: str = ""
    vllm_memory: float = 0.3
    lora: Lora = Lora()

    def __post_init__(self) -> None:
        """Refuse at once what would end the stage after those before it are trained."""
        if (self.prompts * self.group) % self.micro_batch:
            raise ConfigError(f"micro_batch {self.micro_batch} does not divide {self.prompts} x {self.group}")
        if self.rollout_batch < 0:
            raise ConfigError(f"rollout_batch {self.rollout_batch} is below 0; 0 decodes all at once")
        if self.save_every % self.updates:
            raise ConfigError(
                f"save_every {self.save_every} is no multiple of updates {self.updates}; a checkpoint "
                "between two steps of one rollout would lose the rest of it"
            )


class ClassifyConfig(Settings, frozen=True):
    """Settings of the classifier stage.

    Attributes:
        steps: optimizer steps.
        batch_size: images per step.
        image_size: side of the square input, px.
        architecture: timm model name.
        learning_rate: peak of a one-cycle schedule.
        weight_decay: of AdamW.
        log_every: steps between two curve points.
    """

    steps: int
    batch_size: int = 32
    image_size: int = 112
    architecture: str = "efficientnet_b0"
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    log_every: int = 10
