"""Reinforcement: GRPO and DAPO on TRL, each prompt computed once for its group, rewarded by our graders.

Source: SmartPath-R1 eq. 2-5 and section 4.6 (GRPO: beta .001, epsilon .2, G = 8, reward = task + lambda *
format); Patho-R1 3.4 (DAPO: token-level loss, clip-higher, no KL).
Departs: the task reward is the robust grader's score by default (order-free detection, effective-order BLEU):
the paper's AP50 pays for listing boxes for ever, its BLEU-4 gives nothing to a right answer of three words.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from msgspec.structs import replace
from trl import GRPOConfig, GRPOTrainer

from datasets import Dataset
from malpighi.errors import ConfigError
from malpighi.grading.reward import RewardWeights, reward
from malpighi.models.encode import Encoded, encode_one
from malpighi.models.families import PAD_TOKEN, TURN_END, VISION_TOKENS
from malpighi.models.pictures import Pictures
from malpighi.models.prompt import Prompt
from malpighi.models.rollout import Drawing
from malpighi.models.vlm import Vlm
from malpighi.records import Grade, Sample
from malpighi.training.rollouts import Rollout, RolloutFile
from malpighi.training.runtime import Curve, StageRuntime, fit, step_of
from malpighi.training.settings import ReinforceConfig
from malpighi.training.shared_prefix import SharedPrefixTrainer
from malpighi.training.supervised import lora_config

ROLLOUTS = "rollouts.jsonl"
"""Name of the file, in the stage's folder, that keeps every completion with its grade."""

GradeText = Callable[[Sample, str, Prompt, bool], Grade]


class Rewards:
    """TRL's reward function over our graders: one grade per completion, weighted by the recipe.

    A completion that cannot be graded (the grader raises, the reward is no finite number) earns nothing and
    teaches nothing: TRL leaves it out of its group. It is recorded with the reason.
    """

    __name__ = "grade"

    def __init__(
        self,
        samples: Sequence[Sample],
        pictures: Pictures,
        grade_text: GradeText,
        weights: RewardWeights,
        eos_ids: Sequence[int],
        rollouts: RolloutFile,
    ) -> None:
        self.samples = {sample.id: sample for sample in samples}
        self.pictures = pictures
        self.grade_text = grade_text
        self.weights = weights
        self.eos_ids = frozenset(eos_ids)
        self.rollouts = rollouts

    def __call__(
        self,
        completions: list[Any],
        completion_ids: list[list[int]],
        id: list[str],
        trainer_state: Any,
        log_metric: Callable[[str, float], None],
        **_: Any,
    ) -> list[float | None]:
        """Rewards in the order of the completions; the mean of every grade part is logged by task kind."""
        rows = [
            self._graded(trainer_state.global_step, key, completion[-1]["content"], tokens)
            for completion, tokens, key in zip(completions, completion_ids, id, strict=True)
        ]
        self.rollouts.add(rows)
        for row in rows:
            if row.fault:
                continue
            log_metric(f"score/{self.samples[row.sample].task}", row.parts.get("task", 0.0))
            log_metric("format", row.parts.get("format", 0.0))
        log_metric("ungraded", sum(bool(row.fault) for row in rows) / len(rows))
        return [row.reward for row in rows]

    def _graded(self, step: int, key: str, text: str, tokens: Sequence[int]) -> Rollout:
        truncated = not tokens or tokens[-1] not in self.eos_ids
        row = Rollout(step=step, sample=key, text=text, length=len(tokens), truncated=truncated, reward=None)
        sample = self.samples[key]
        try:
            grade = self.grade_text(sample, text, self.pictures.prompt(sample), truncated)
            value = reward(grade, sample.task, self.weights)
        except ConfigError:
            raise
        except Exception as error:  # one completion must not end the stage, whatever its grader stumbled over
            return replace(row, fault=f"{type(error).__name__}: {error}")
        if not math.isfinite(value):
            return replace(row, fault=f"the reward is {value}")
        return replace(row, reward=value, status=str(grade.status), parts=grade.parts)


def train_reinforce(
    vlm: Vlm,
    samples: Sequence[Sample],
    pictures: Pictures,
    config: ReinforceConfig,
    runtime: StageRuntime,
    grade_text: GradeText,
    seed: int,
) -> Curve:
    """Reinforce the model on graded completions; goes on from the last checkpoint if there is one.

    Args:
        vlm: the supervised model, trained in place; with `beta` > 0 its folder also gives the reference.
        samples: the questions; shuffled by `seed`.
        pictures: opens a sample's images at the model's resolution.
        config: the stage's settings.
        runtime: the stage's folder and listener; the trained model is saved in `runtime.model`.
        grade_text: (sample, completion, prompt, truncated) -> Grade.
        seed: of data order and sampling.

    Returns:
        One row per logged step: step, loss, reward, reward_std, length, entropy, kl, format, score/<task>...
    """
    if len(samples) < config.prompts:
        raise ConfigError(f"{len(samples)} samples are fewer than the {config.prompts} prompts of one step")
    if (config.prompts * config.group) % config.micro_batch:
        raise ConfigError(
            f"micro_batch {config.micro_batch} does not divide {config.prompts} x {config.group}"
        )
    checkpoint = runtime.last_checkpoint()
    rollouts = RolloutFile(runtime.folder / ROLLOUTS, step_of(checkpoint) if checkpoint else 0)
    by_id = {sample.id: sample for sample in samples}
    ends = (vlm.token_id(TURN_END), vlm.token_id(PAD_TOKEN))
    drawing = Drawing(
        config.max_new_tokens,
        config.temperature,
        ends,
        tuple(vlm.token_id(token) for token in VISION_TOKENS),
    )

    def ask(key: str) -> Encoded:
        return encode_one(pictures.prompt(by_id[key]), None, vlm)

    def make() -> GRPOTrainer:
        return SharedPrefixTrainer(
            vlm,
            ask,
            drawing,
            reward_funcs=Rewards(samples, pictures, grade_text, config.rewards, ends, rollouts),
            args=_arguments(config, runtime, seed),
            train_dataset=_dataset(samples),
            peft_config=lora_config(config.lora),
        )

    return fit(make, vlm, runtime)


def _dataset(samples: Sequence[Sample]) -> Dataset:
    """Rows that name their question; the trainer encodes it."""
    ids = [sample.id for sample in samples]
    return Dataset.from_dict({"id": ids, "prompt": [[{"role": "user", "content": key}] for key in ids]})


def _arguments(config: ReinforceConfig, runtime: StageRuntime, seed: int) -> GRPOConfig:
    return GRPOConfig(
        output_dir=str(runtime.checkpoints),
        max_steps=config.steps,
        per_device_train_batch_size=config.micro_batch,
        gradient_accumulation_steps=config.prompts * config.group // config.micro_batch,
        num_generations=config.group,
        max_completion_length=config.max_new_tokens,
        temperature=config.temperature,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        lr_scheduler_type=config.schedule,
        warmup_steps=config.warmup_steps,
        max_grad_norm=config.max_grad_norm,
        beta=config.beta,
        epsilon=config.epsilon,
        epsilon_high=config.epsilon_high,
        loss_type=config.loss,
        scale_rewards=config.scale_rewards,
        logging_steps=config.log_every,
        logging_nan_inf_filter=False,
        logging_first_step=True,
        save_steps=config.save_every,
        save_total_limit=2,
        seed=seed,
        data_seed=seed,
        gradient_checkpointing=False,
        bf16=False,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        report_to=[],
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
    )
