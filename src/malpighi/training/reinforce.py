"""Reinforcement: GRPO and DAPO on TRL, each prompt computed once for its group, rewarded by our graders.

Source: SmartPath-R1 eq. 2-5 and section 4.6 (GRPO: beta .001, epsilon .2, G = 8, reward = task + lambda *
format); DAPO (arXiv 2503.14476: token-level loss, clip-higher, no KL), which Patho-R1 3.4 names.
Departs: SmartPath-R1's eq. 2 has one ratio for a whole output; TRL's `grpo` has one per token, and its mean.
The task reward is the robust grader's score by default (order-free detection, effective-order BLEU):
the paper's AP50 pays for listing boxes for ever, its BLEU-4 gives nothing to a right answer of three words.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from msgspec.structs import replace
from trl import GRPOConfig, GRPOTrainer

from datasets import Dataset
from malpighi.errors import ConfigError
from malpighi.grading.conduct import Length
from malpighi.grading.grade import Reading
from malpighi.grading.reward import reward
from malpighi.guidelines.pack import load_pack
from malpighi.models.encode import Encoded, encode_one
from malpighi.models.families import PAD_TOKEN, TURN_END, VISION_TOKENS
from malpighi.models.pictures import Pictures
from malpighi.models.prompt import Prompt
from malpighi.models.rollout import Drawing
from malpighi.models.vlm import Vlm
from malpighi.records import Grade, Sample
from malpighi.training.collapse import Collapse
from malpighi.training.dynamic_sampling import Resampling
from malpighi.training.rollouts import Rollout, RolloutFile
from malpighi.training.runtime import Curve, StageRuntime, fit, step_of
from malpighi.training.settings import ReinforceConfig
from malpighi.training.shared_prefix import SharedPrefixTrainer, row_of
from malpighi.training.supervised import lora_config
from malpighi.training.vllm_rollout import sampling

ROLLOUTS = "rollouts.jsonl"
"""Name of the file, in the stage's folder, that keeps every completion with its grade."""

GradeText = Callable[[Sample, str, Prompt, Reading], Grade]
"""(sample, completion, prompt, what training knows of how to read it) -> its grade."""


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
        config: ReinforceConfig,
        eos_ids: Sequence[int],
        rollouts: RolloutFile,
    ) -> None:
        self.samples = {sample.id: sample for sample in samples}
        self.pictures = pictures
        self.grade_text = grade_text
        self.config = config
        self.pack = load_pack(config.guideline) if config.guideline else None
        self.eos_ids = frozenset(eos_ids)
        self.rollouts = rollouts
        self._judged: dict[tuple[str, tuple[int, ...]], list[Rollout]] = {}

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
            self._known(key, tokens)
            or self._graded(trainer_state.global_step, key, completion[-1]["content"], tokens)
            for completion, tokens, key in zip(completions, completion_ids, id, strict=True)
        ]
        passed_over = [replace(row, dropped=True) for rows in self._judged.values() for row in rows]
        self._judged.clear()
        self.rollouts.add([*rows, *passed_over])
        for row in rows:
            if row.fault:
                continue
            log_metric(f"score/{self.samples[row.sample].task}", row.parts.get("task", 0.0))
            log_metric("format", row.parts.get("format", 0.0))
        log_metric("ungraded", sum(bool(row.fault) for row in rows) / len(rows))
        return [row.reward for row in rows]

    def judge(self, key: str, text: str, tokens: list[int], step: int) -> float | None:
        """The reward of a completion that may not be kept; graded once, recorded with the step's others."""
        row = self._graded(step, key, text, tokens)
        self._judged.setdefault((key, tuple(tokens)), []).append(row)
        return row.reward

    def _known(self, key: str, tokens: Sequence[int]) -> Rollout | None:
        judged = self._judged.get((key, tuple(tokens)))
        return judged.pop() if judged else None

    def _graded(self, step: int, key: str, text: str, tokens: Sequence[int]) -> Rollout:
        truncated = not tokens or tokens[-1] not in self.eos_ids
        row = Rollout(step=step, sample=key, text=text, length=len(tokens), truncated=truncated, reward=None)
        sample, config = self.samples[key], self.config
        reading = Reading(
            truncated=truncated,
            mode=config.mode,
            length=Length(len(tokens), config.max_new_tokens, config.overlong_buffer),
            pack=self.pack,
        )
        try:
            grade = self.grade_text(sample, text, self.pictures.prompt(sample), reading)
            value = reward(grade, sample.task, config.rewards)
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
        grade_text: grades a completion.
        seed: of data order and sampling.

    Returns:
        One row per logged step: step, loss, reward, reward_std, length, entropy, kl, format, score/<task>...
    """
    if len(samples) < config.prompts:
        raise ConfigError(f"{len(samples)} samples are fewer than the {config.prompts} prompts of one step")
    checkpoint = runtime.last_checkpoint()
    rollouts = RolloutFile(runtime.folder / ROLLOUTS, step_of(checkpoint) if checkpoint else 0)
    by_id = {sample.id: sample for sample in samples}
    ends = (vlm.token_id(TURN_END), vlm.token_id(PAD_TOKEN))
    drawing = Drawing(
        config.max_new_tokens,
        config.temperature,
        ends,
        tuple(vlm.token_id(token) for token in VISION_TOKENS),
        config.rollout_batch,
    )

    @lru_cache(maxsize=4 * config.prompts * config.updates)
    def ask(key: str) -> Encoded:
        return encode_one(pictures.prompt(by_id[key]), None, vlm)

    rewards = Rewards(samples, pictures, grade_text, config, ends, rollouts)
    questions = [sample.id for sample in samples]
    resampling = Resampling(config.resample, questions, rewards.judge, seed) if config.resample else None

    def make() -> GRPOTrainer:
        return SharedPrefixTrainer(
            vlm,
            ask,
            drawing,
            resampling,
            lambda key: pictures.prompt(by_id[key]).images,
            reward_funcs=rewards,
            callbacks=[Collapse(config.patience)],
            args=_arguments(config, runtime, drawing.suppressed, seed),
            train_dataset=_dataset(samples),
            peft_config=lora_config(config.lora),
        )

    return fit(make, vlm, runtime)


def _dataset(samples: Sequence[Sample]) -> Dataset:
    return Dataset.from_list([row_of(sample.id) for sample in samples])


def _arguments(
    config: ReinforceConfig, runtime: StageRuntime, suppressed: Sequence[int], seed: int
) -> GRPOConfig:
    return GRPOConfig(
        output_dir=str(runtime.checkpoints),
        max_steps=config.steps,
        per_device_train_batch_size=config.micro_batch,
        gradient_accumulation_steps=config.prompts * config.group // config.micro_batch,
        steps_per_generation=config.updates * config.prompts * config.group // config.micro_batch,
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
        gradient_checkpointing=config.gradient_checkpointing,
        bf16=config.precision == "bf16",
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        report_to=[],
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        use_vllm=bool(config.vllm),
        vllm_mode="colocate" if config.vllm in ("", "colocate") else "server",
        vllm_server_base_url=config.vllm if config.vllm not in ("", "colocate") else None,
        vllm_gpu_memory_utilization=config.vllm_memory,
        generation_kwargs=sampling(config.group, suppressed) if config.vllm else None,
    )
