"""Patho-R1 (its training stages): continued pre-training on captions, supervision, then GRPO or DAPO.

    malpighi run patho_r1 --data FOLDER --set weights=FOLDER     Qwen2.5-VL weights, on a GPU
    malpighi run patho_r1 --set algorithm=dapo                   every stage in miniature, to see that it runs

Source: Patho-R1, sections 3.2 to 3.4. The paper gives stages, data and rewards, and hardly a number; those
here are DAPO's own or our choice, and `malpighi settings patho_r1` says so of each.
"""

from typing import NamedTuple

from malpighi.errors import ConfigError
from malpighi.models.prompt import PromptStyle
from malpighi.models.sizes import TinySize
from malpighi.pipeline.recipe import Build, Data, Evaluate, Phantom, Recipe, Reinforce, Report, Supervised
from malpighi.records import Scale, TaskKind
from malpighi.training.settings import ReinforceConfig, SupervisedConfig

TAUGHT = (TaskKind.CLASSIFICATION, TaskKind.VQA, TaskKind.CAPTION, TaskKind.CONVERSATION)
REWARDED = (TaskKind.CLASSIFICATION,)
"""Questions with options: the paper rewards ten thousand of them, on diagnosis."""

ALGORITHMS = ("grpo", "dapo")


class Steps(NamedTuple):
    """What a size takes: steps, questions a step, completions in memory, answer length, test samples."""

    pretrain: int
    supervise: int
    reinforce: int
    prompts: int
    micro_batch: int
    answer: int
    per_exam: int
    on_gpu: bool


SIZES = {
    "paper": Steps(27_000, 16_000, 600, prompts=16, micro_batch=16, answer=2048, per_exam=0, on_gpu=True),
    "smoke": Steps(4, 8, 2, prompts=2, micro_batch=16, answer=16, per_exam=4, on_gpu=False),
}


def patho_r1(
    size: str = "",
    family: str = "qwen2_5_vl",
    weights: str = "",
    data: str = "",
    algorithm: str = "dapo",
    seed: int = 0,
) -> Recipe:
    """The recipe.

    Args:
        size: `paper`, or `smoke` (a miniature, minutes); "" takes `paper` with weights and `smoke` without.
        family: `qwen2_5_vl`, as published, or `qwen3_vl`.
        weights: folder of the base model; "" builds a miniature with random weights.
        data: a data set or a folder of data sets; "" renders the phantom.
        algorithm: `grpo` or `dapo`; the paper trains both.
        seed: of every random choice.

    Raises:
        ConfigError: an unknown size or algorithm, or `paper` without weights.
    """
    size = size or ("paper" if weights else "smoke")
    for what, found, known in (
        ("size", size, tuple(SIZES)),
        ("algorithm", algorithm, ALGORITHMS),
    ):
        if found not in known:
            raise ConfigError(f"patho_r1 has no {what} '{found}'; take {', '.join(known)}")
    if size == "paper" and not weights:
        raise ConfigError("size=paper trains a published model; add --set weights=FOLDER with Qwen2.5-VL")
    steps = SIZES[size]
    return Recipe(
        name="patho_r1",
        size=size,
        title=f"Patho-R1's training, {algorithm.upper()}" + ("" if weights else ", in miniature"),
        seed=seed,
        prompt=PromptStyle(
            family=family, system="patho_r1", budgets={Scale.CELL: 256, Scale.ROI: 256, Scale.SLIDE: 1024}
        ),
        stages={
            "data": Data(folder=data, phantom=Phantom(cells=72, regions=72)),
            "build": Build(weights=weights, size=TinySize()),
            "pretrain": Supervised(
                start="build", tasks=(TaskKind.CAPTION,), train=_supervised(steps.pretrain, steps, 1e-5)
            ),
            "supervise": Supervised(
                start="pretrain", tasks=TAUGHT, train=_supervised(steps.supervise, steps, 1e-5)
            ),
            "reinforce": Reinforce(
                start="supervise", tasks=REWARDED, train=_reinforced(steps, dapo=algorithm == "dapo")
            ),
            "evaluate": Evaluate(
                models={
                    "base": "build",
                    "pretrained": "pretrain",
                    "supervised": "supervise",
                    "reinforced": "reinforce",
                },
                tasks=TAUGHT,
                per_exam=steps.per_exam,
                max_new_tokens=steps.answer,
            ),
            "report": Report(evaluation="evaluate"),
        },
        sources=SOURCES | (DAPO_SOURCES if algorithm == "dapo" else {}),
    )


def _supervised(count: int, steps: Steps, rate: float) -> SupervisedConfig:
    return SupervisedConfig(
        steps=count,
        batch_size=128 if steps.on_gpu else 32,
        micro_batch=8,
        learning_rate=rate,
        gradient_checkpointing=steps.on_gpu,
        precision="bf16" if steps.on_gpu else "fp32",
    )


def _reinforced(steps: Steps, *, dapo: bool) -> ReinforceConfig:
    parts = {"task": 1.0, "format": 1.0} | ({"overlong": -1.0} if dapo else {})
    return ReinforceConfig(
        steps=steps.reinforce,
        prompts=steps.prompts,
        group=8,
        micro_batch=steps.micro_batch,
        max_new_tokens=steps.answer,
        learning_rate=1e-6,
        loss="dapo" if dapo else "grpo",
        updates=4 if dapo else 1,
        beta=0.0 if dapo else 0.04,
        epsilon_high=0.28 if dapo else 0.2,
        resample=9 if dapo else 0,
        overlong_buffer=steps.answer // 4 if dapo else 0,
        rewards=dict.fromkeys(TaskKind, parts),
        gradient_checkpointing=steps.on_gpu,
        precision="bf16" if steps.on_gpu else "fp32",
    )


_CHOICE = "our choice"
_PAPER = "paper: Patho-R1"
_UNSAID = f"{_CHOICE}; the paper gives none"
_DAPO = "upstream: DAPO (paper 4.1 and its script), which Patho-R1 3.4 names without a number"
_CLIP = "upstream default: transformers"

SOURCES: dict[str, str] = {
    "seed": _CHOICE,
    "threads": _CHOICE,
    "prompt": _CHOICE,
    "prompt.system": f"{_CHOICE}: our words for what the authors' README describes",
    "prompt.budgets": f"{_CHOICE}: SmartPath-R1's",
    "segmenter": f"{_CHOICE}: nothing here asks for a mask",
    "stages.data": _CHOICE,
    "stages.build": _CHOICE,
    "stages.build.weights": f"{_PAPER} 3.2: Qwen2.5-VL of 3 or 7 billion parameters",
    "stages.pretrain": f"{_PAPER} 3.2: captions",
    "stages.pretrain.balance": _UNSAID,
    "stages.pretrain.train": _UNSAID,
    "stages.pretrain.train.steps": f"{_CHOICE}: about one epoch of the paper's 3.5 million pairs",
    "stages.pretrain.train.max_grad_norm": _CLIP,
    "stages.supervise": f"{_PAPER} 3.3",
    "stages.supervise.balance": _UNSAID,
    "stages.supervise.train": _UNSAID,
    "stages.supervise.train.steps": f"{_CHOICE}: about four epochs of the paper's 500 thousand samples",
    "stages.supervise.train.max_grad_norm": _CLIP,
    "stages.reinforce": f"{_PAPER} 3.4: questions with options",
    "stages.reinforce.balance": _UNSAID,
    "stages.reinforce.train": _UNSAID,
    "stages.reinforce.train.steps": f"{_CHOICE}: about one epoch of the paper's 10 thousand questions",
    "stages.reinforce.train.max_grad_norm": _CLIP,
    "stages.reinforce.train.beta": "upstream: DeepSeekMath's GRPO",
    "stages.reinforce.train.rewards": f"{_PAPER} 3.4: accuracy + format; equal weights are our reading",
    "stages.reinforce.train.mode": f"{_CHOICE}: a named option counts too; the paper takes bare letters",
    "stages.evaluate": _CHOICE,
    "stages.report": _CHOICE,
}

DAPO_SOURCES: dict[str, str] = {
    "stages.reinforce.train.loss": _DAPO,
    "stages.reinforce.train.epsilon": _DAPO,
    "stages.reinforce.train.epsilon_high": _DAPO,
    "stages.reinforce.train.beta": f"{_DAPO}: no KL",
    "stages.reinforce.train.learning_rate": _DAPO,
    "stages.reinforce.train.resample": f"{_DAPO}: up to ten draws",
    "stages.reinforce.train.overlong_buffer": f"{_CHOICE}: a quarter of the length (DAPO: a fifth)",
    "stages.reinforce.train.updates": f"{_CHOICE}: DAPO's script makes sixteen steps from one rollout",
    "stages.reinforce.train.rewards": f"{_PAPER} 3.4: accuracy, format, soft overlong penalty; equal weights "
    "are our reading",
}
