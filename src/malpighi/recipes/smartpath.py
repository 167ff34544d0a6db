"""SmartPath-R1 (its training stages): scale-dependent supervision, then experts by task-aware reinforcement.

    malpighi run smartpath --data FOLDER --set weights=FOLDER    Qwen2.5-VL weights, on a GPU
    malpighi run smartpath                                       every stage in miniature, to see that it runs

Source: SmartPath-R1, sections 4.1, 4.2 and 4.6. The paper gives neither batch sizes nor lengths of training;
those here are our choice, and `malpighi settings smartpath` says so of each number.
"""

from typing import Literal, NamedTuple

from malpighi.errors import ConfigError
from malpighi.grading.published import Mode
from malpighi.models.prompt import PromptStyle
from malpighi.models.router_settings import RouterSettings
from malpighi.models.sizes import TinySize
from malpighi.pipeline.recipe import Build, Data, Evaluate, Experts, Phantom, Recipe, Report, Supervised
from malpighi.records import Scale, TaskKind
from malpighi.training.settings import Lora, ReinforceConfig, SupervisedConfig

TASKS = (TaskKind.CLASSIFICATION, TaskKind.VQA, TaskKind.DETECTION, TaskKind.SEGMENTATION)


class Steps(NamedTuple):
    """What a size takes: steps, questions a step, completions in memory, answer length, test samples."""

    supervise: int
    reinforce: int
    prompts: int
    micro_batch: int
    answer: int
    per_exam: int
    on_gpu: bool


SIZES = {
    "paper": Steps(20_000, 1_000, prompts=32, micro_batch=16, answer=1024, per_exam=0, on_gpu=True),
    "smoke": Steps(8, 2, prompts=2, micro_batch=16, answer=16, per_exam=4, on_gpu=False),
}


def smartpath(
    size: str = "",
    family: str = "qwen2_5_vl",
    weights: str = "",
    data: str = "",
    reward: str = "robust",
    seed: int = 0,
) -> Recipe:
    """The recipe.

    Args:
        size: `paper`, or `smoke` (a miniature, minutes); "" takes `paper` with weights and `smoke` without.
        family: `qwen2_5_vl`, as published, or `qwen3_vl`.
        weights: folder of the base model; "" builds a miniature with random weights.
        data: a data set or a folder of data sets; "" renders the phantom.
        reward: `robust`, or `paper` with the published graders, holes included.
        seed: of every random choice.

    Raises:
        ConfigError: an unknown size or reward, or `paper` without weights.
    """
    size = size or ("paper" if weights else "smoke")
    if size not in SIZES:
        raise ConfigError(f"smartpath has no size '{size}'; take {', '.join(SIZES)}")
    if reward not in list(Mode):
        raise ConfigError(f"smartpath has no reward '{reward}'; take {', '.join(Mode)}")
    if size == "paper" and not weights:
        raise ConfigError("size=paper trains a published model; add --set weights=FOLDER with Qwen2.5-VL")
    steps = SIZES[size]
    precision: Literal["fp32", "bf16"] = "bf16" if steps.on_gpu else "fp32"
    lora = Lora(rank=32, alpha=128)
    return Recipe(
        name="smartpath",
        size=size,
        title="SmartPath-R1's training" + ("" if weights else " in miniature"),
        seed=seed,
        prompt=PromptStyle(
            family=family, system="smartpath", budgets={Scale.CELL: 256, Scale.ROI: 256, Scale.SLIDE: 1024}
        ),
        stages={
            "data": Data(folder=data, phantom=Phantom(cells=72, regions=72, slides=24), max_boxes=40),
            "build": Build(weights=weights, size=TinySize()),
            "supervise": Supervised(
                start="build",
                tasks=TASKS,
                train=SupervisedConfig(
                    steps=steps.supervise, batch_size=32, micro_batch=8, learning_rate=1e-4, weight_decay=0.1,
                    gradient_checkpointing=steps.on_gpu, precision=precision, lora=lora,
                ),
            ),
            "experts": Experts(
                start="supervise",
                tasks=TASKS,
                train=ReinforceConfig(
                    steps=steps.reinforce, prompts=steps.prompts, group=8, micro_batch=steps.micro_batch,
                    max_new_tokens=steps.answer, temperature=1.0, learning_rate=1e-5, weight_decay=0.1,
                    beta=0.001, epsilon=0.2, epsilon_high=0.2, mode=Mode(reward),
                    gradient_checkpointing=steps.on_gpu, precision=precision, lora=lora,
                ),
                router=RouterSettings() if steps.on_gpu else RouterSettings(phrasings=500, own=10),
            ),
            "evaluate": Evaluate(
                models={"base": "build", "supervised": "supervise", "experts": "experts"},
                tasks=TASKS,
                per_exam=steps.per_exam,
                max_new_tokens=steps.answer,
            ),
            "report": Report(evaluation="evaluate"),
        },
        sources=SOURCES,
    )  # fmt: skip


_CHOICE = "our choice"
_PAPER = "paper: SmartPath-R1"
_GIVEN = f"{_PAPER} 4.6"
_UNSAID = f"{_CHOICE}; the paper gives none"
_OPTIMISER = {
    "train": _UNSAID,
    "train.weight_decay": _GIVEN,
    "train.schedule": f"{_GIVEN}: cosine",
    "train.learning_rate": _GIVEN,
    "train.max_grad_norm": "upstream default: transformers",
    "train.lora": f"{_GIVEN}: rank 32; a scaling factor of 128 is read as alpha",
    "train.lora.dropout": _UNSAID,
}

SOURCES: dict[str, str] = {
    "seed": _CHOICE,
    "threads": _CHOICE,
    "prompt": _CHOICE,
    "prompt.system": f"{_PAPER}, Table 1",
    "prompt.budgets": f"{_PAPER} 4.2: 256 tokens a region, 1024 a slide; 256 for cells is our choice",
    "segmenter": f"{_CHOICE}, needs no weights; {_PAPER} eq. 8 has MedSAM: segmenter=FOLDER",
    "stages.data": _CHOICE,
    "stages.build": _CHOICE,
    "stages.build.weights": f"{_PAPER} 4.1: Qwen2.5-VL; its size is not said",
    "stages.supervise": f"{_PAPER} 4.2",
    "stages.supervise.balance": _UNSAID,
    **{f"stages.supervise.{name}": source for name, source in _OPTIMISER.items()},
    "stages.experts": f"{_PAPER} 4.1, 4.2",
    "stages.experts.balance": _UNSAID,
    **{f"stages.experts.{name}": source for name, source in _OPTIMISER.items()},
    "stages.experts.train.group": f"{_GIVEN}: G = 8",
    "stages.experts.train.beta": _GIVEN,
    "stages.experts.train.epsilon": _GIVEN,
    "stages.experts.train.epsilon_high": f"{_GIVEN}: symmetric",
    "stages.experts.train.rewards": f"{_PAPER} eq. 5, lambda = 1",
    "stages.experts.train.mode": f"{_CHOICE}: graders that gain by no trick; reward=paper has the published",
    "stages.experts.router": f"{_CHOICE}; the paper says that the prompt decides, not how",
    "stages.evaluate": _CHOICE,
    "stages.report": _CHOICE,
}
