"""What each stage costs on this machine, by arithmetic.

Time is estimated from the arithmetic of each stage and a short measurement of this machine: matrix speed, and
the overhead of a small operation, which rules on a CPU with a miniature. `malpighi status` tells what each
finished stage really took.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from malpighi.errors import ConfigError
from malpighi.models.sizes import TinySize
from malpighi.models.task_groups import shipped_groups
from malpighi.pipeline.filling import expected_counts
from malpighi.pipeline.recipe import (
    Build,
    Classify,
    Data,
    Evaluate,
    Experts,
    Recipe,
    Reinforce,
    Report,
    Stage,
    Supervised,
)
from malpighi.training.settings import ReinforceConfig

# Measured on runs of the miniature (two CPU cores): what a typical prompt and answer hold beside the image.
TEXT_TOKENS = 60
ANSWER_TOKENS = 35
_SMALL_OPERATIONS_PER_LAYER = 90
_ROUTER_SECONDS = 10
_BYTES_TRAINED = 16  # fp32 weight, gradient and the two moments of AdamW
_ACTIVATIONS_PER_TOKEN = 40  # times hidden times layers, bytes / 4, kept for the backward pass


@dataclass(frozen=True)
class Estimate:
    """What a stage goes through and takes.

    Attributes:
        count: what it goes through, in words.
        tokens: tokens it passes through the model; 0 where none.
        seconds: time in one process.
        gigabytes: peak memory of one process, beside Python and torch themselves.
        most: seconds if every round of resampling were drawn; None where nothing is drawn anew.
        parts: adapters or models, alike in time, that can go side by side.
    """

    count: str
    tokens: int
    seconds: float
    gigabytes: float
    most: float | None = None
    parts: int = 1


@dataclass(frozen=True)
class Machine:
    """What was measured of this machine.

    Attributes:
        flops: floating-point operations per second in a matrix product of the miniature's size.
        small: seconds that one small operation takes, whatever its size.
    """

    flops: float
    small: float


def measure() -> Machine:
    """Time matrix products and small operations on this machine; about a tenth of a second."""
    a, b = np.ones((1024, 256), np.float32), np.ones((256, 512), np.float32)
    small = np.ones(8, np.float32)
    product = _time(lambda: a @ b, 60)
    return Machine(flops=2 * 1024 * 256 * 512 / product, small=_time(lambda: small + small, 4000))


@dataclass(frozen=True)
class Counts:
    """Sizes that the costs depend on.

    Attributes:
        images: pictures to be read or rendered.
        questions: samples made of them.
        test: the share of samples that is examined.
        parameters: of the model.
        layers: of its language model and vision tower together.
        hidden: width of its language model.
        prompt: tokens of a prompt with its picture.
    """

    images: int
    questions: int
    test: float
    parameters: int
    layers: int
    hidden: int
    prompt: int

    @classmethod
    def of(cls, recipe: Recipe) -> "Counts":
        """Those of a recipe."""
        data = next(stage for stage in recipe.stages.values() if isinstance(stage, Data))
        build = next(stage for stage in recipe.stages.values() if isinstance(stage, Build))
        images, questions = expected_counts(data)
        parameters, layers, hidden = _shape(build)
        picture = min(recipe.prompt.budgets.values())
        return cls(images, questions, data.fractions[2], parameters, layers, hidden, picture + TEXT_TOKENS)


@dataclass(frozen=True)
class Cost:
    """Prices of what every stage does.

    Attributes:
        machine: what computes.
        counts: how much there is to compute.
    """

    machine: Machine
    counts: Counts

    def learning(self, samples: int, length: int) -> float:
        """Seconds of one forward and backward pass over `samples` of `length` tokens."""
        return 3 * self.forward(samples * length)

    def forward(self, num_tokens: int) -> float:
        """Seconds of one forward pass over so many tokens in one batch."""
        arithmetic = 2 * self.counts.parameters * num_tokens / self.machine.flops
        return arithmetic + _SMALL_OPERATIONS_PER_LAYER * self.counts.layers * self.machine.small

    def answering(self, samples: int, length: int) -> float:
        """Seconds to generate `length` tokens for a batch of `samples`."""
        return self.forward(samples * self.counts.prompt) + length * self.forward(samples)

    def gigabytes(self, samples: int, length: int) -> float:
        """Peak memory of learning from a batch."""
        activations = samples * length * self.counts.hidden * self.counts.layers * _ACTIVATIONS_PER_TOKEN * 4
        return (self.counts.parameters * _BYTES_TRAINED + activations) / 1e9


def estimate(stage: Stage, cost: Cost) -> Estimate:
    """What a stage goes through and takes."""
    counts, length = cost.counts, cost.counts.prompt + ANSWER_TOKENS
    match stage:
        case Data():
            text = f"{counts.images:,} images, {counts.questions:,} questions"
            return Estimate(text, 0, counts.images * 0.03, 0.5)
        case Build():
            return Estimate(
                f"{counts.parameters / 1e6:.1f} M parameters", 0, 5.0, counts.parameters * 4 / 1e9
            )
        case Supervised(train=train):
            samples = train.steps * train.batch_size
            seconds = train.steps * cost.learning(train.batch_size, length)
            memory = cost.gigabytes(train.micro_batch, length)
            return Estimate(f"{train.steps} steps of {train.batch_size}", samples * length, seconds, memory)
        case Reinforce(train=train):
            return _reinforced(train, cost)
        case Experts(train=train):
            each = _reinforced(train, cost)
            experts = sum(bool(set(group.tasks) & set(stage.tasks)) for group in shipped_groups().groups)
            return Estimate(
                f"{experts} adapters x {each.count}",
                experts * each.tokens,
                experts * each.seconds + _ROUTER_SECONDS,
                each.gigabytes,
                None if each.most is None else experts * each.most + _ROUTER_SECONDS,
                max(experts, 1),
            )
        case Classify(train=train):
            seconds = train.steps * train.batch_size * _classifier_seconds(train.image_size, cost.machine)
            return Estimate(f"{train.steps} steps of {train.batch_size}", 0, seconds, 1.0)
        case Evaluate(models=models):
            asked = round(counts.questions * counts.test)
            batches = -(-asked // stage.batch_size)
            seconds = len(models) * batches * cost.answering(stage.batch_size, ANSWER_TOKENS)
            text = f"{len(models)} models x about {asked:,} questions"
            memory = cost.gigabytes(stage.batch_size, length) / 3
            return Estimate(text, len(models) * asked * length, seconds, memory, parts=max(len(models), 1))
        case Report():
            return Estimate("one page", 0, 10.0, 0.3)


def _reinforced(train: ReinforceConfig, cost: Cost) -> Estimate:
    """Of one model or adapter; every round of resampling draws at most as much as the step's own rollout."""
    rollouts = train.prompts * train.group
    together = min(train.rollout_batch or rollouts, rollouts)
    decoding = ANSWER_TOKENS * -(-rollouts // together) * cost.forward(together)
    rolling = cost.forward(train.prompts * cost.counts.prompt) + decoding
    tokens = train.prompts * cost.counts.prompt + rollouts * ANSWER_TOKENS
    passes = 4 if train.beta else 3
    seconds = train.steps * (rolling + passes * cost.forward(tokens))
    text = f"{train.steps} steps of {train.prompts} x {train.group} answers"
    return Estimate(
        text + (f", drawn anew up to {train.resample} times" if train.resample else ""),
        train.steps * tokens,
        seconds,
        cost.gigabytes(train.micro_batch, cost.counts.prompt + ANSWER_TOKENS),
        seconds + train.resample * train.steps * rolling if train.resample else None,
    )


def _classifier_seconds(side: int, machine: Machine) -> float:
    """Seconds to learn from one image; EfficientNet-B0 takes 0.39 GFLOP at 224 px, far below matrix speed."""
    return 3 * 2 * 0.39e9 * (side / 224) ** 2 / (0.1 * machine.flops)


def _shape(build: Build) -> tuple[int, int, int]:
    """(parameters, layers, hidden width) of the model that a build stage gives."""
    if build.weights:
        return _saved_shape(build.weights)
    size: TinySize = build.size
    language = size.layers * (3 * size.hidden * size.hidden + 3 * size.hidden * size.feed_forward)
    vision = size.vision_layers * (
        4 * size.vision_hidden**2 + 3 * size.vision_hidden * size.vision_feed_forward
    )
    merger = (4 * size.vision_hidden) ** 2 + 4 * size.vision_hidden * size.hidden
    return (
        language + vision + merger + size.vocabulary * size.hidden,
        size.layers + size.vision_layers,
        size.hidden,
    )


def _saved_shape(folder: str) -> tuple[int, int, int]:
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise ConfigError(f"build.weights: {folder} holds no config.json, so it is no saved model")
    config = json.loads(path.read_text())
    text = config.get("text_config", config)
    layers = text["num_hidden_layers"] + config["vision_config"].get("depth", 0)
    stored = sum(weights.stat().st_size for weights in Path(folder).glob("*.safetensors"))
    width = 4 if config.get("dtype", config.get("torch_dtype")) == "float32" else 2
    return stored // width, layers, text["hidden_size"]


def _time(action: Callable[[], object], repeats: int) -> float:
    for _ in range(repeats // 4):
        action()
    start = time.perf_counter()
    for _ in range(repeats):
        action()
    return (time.perf_counter() - start) / repeats
