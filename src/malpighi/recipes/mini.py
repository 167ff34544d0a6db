"""The whole life of a co-pilot in miniature: build, align, supervise, reinforce, evaluate, report.

    malpighi run mini                       on the phantom
    malpighi run mini --data FOLDER         on real data sets
    malpighi run mini --set size=smoke      every stage in about a minute, to see that it runs

The miniature has the architecture of Qwen2.5-VL or Qwen3-VL and random weights; what it learns, it learns
here. It shows that every part works and is measured; it is no model for any patient.
"""

from typing import NamedTuple

from malpighi.errors import ConfigError
from malpighi.grading.reward import DEFAULT_WEIGHTS
from malpighi.models.prompt import PromptStyle
from malpighi.models.router_settings import RouterSettings
from malpighi.models.sizes import TinySize
from malpighi.pipeline.recipe import (
    Build,
    Classify,
    Data,
    Evaluate,
    Experts,
    Phantom,
    Recipe,
    Report,
    Supervised,
)
from malpighi.records import Scale, TaskKind
from malpighi.training.settings import ClassifyConfig, Lora, ReinforceConfig, SupervisedConfig

TAUGHT = (
    TaskKind.CLASSIFICATION,
    TaskKind.VQA,
    TaskKind.DETECTION,
    TaskKind.SEGMENTATION,
    TaskKind.CAPTION,
)
REWARDED = (TaskKind.DETECTION, TaskKind.SEGMENTATION)
"""What reinforcement is for here: a box is graded by overlap, which the likelihood of its digits is not."""


class Steps(NamedTuple):
    """How much a size takes: pictures, optimizer steps, test samples per exam (0: all), answer length."""

    cells: int
    regions: int
    align: int
    supervise: int
    reinforce: int
    classify: int
    per_exam: int
    answer: int = 96


# Average precision is 0 until boxes overlap by half; the overlap itself tells which way is better before.
REWARDS = {task: dict(parts) for task, parts in DEFAULT_WEIGHTS.items()}
REWARDS[TaskKind.DETECTION] = {"task": 1.0, "soft_f1": 2.0, "format": 1.0}
# A box around the whole picture earns much Dice, as an expert that is paid for Dice alone finds out; one that
# is paid only for what it gains above the whole picture lets the Dice go.
REWARDS[TaskKind.SEGMENTATION] = {"task": 1.0, "dice_gain": 1.0, "format": 1.0}

# Small in language, which is templated here, to leave the time to seeing.
MINIATURE = TinySize(hidden=128, layers=3, heads=4, kv_heads=2, feed_forward=384)

SIZES = {
    "demo": Steps(
        cells=1080, regions=1080, align=150, supervise=400, reinforce=60, classify=100, per_exam=160
    ),
    "smoke": Steps(
        cells=72, regions=72, align=4, supervise=8, reinforce=2, classify=4, per_exam=4, answer=16
    ),
    "real": Steps(cells=0, regions=0, align=40, supervise=500, reinforce=50, classify=250, per_exam=0),
}


def mini(size: str = "", family: str = "qwen2_5_vl", data: str = "", seed: int = 0) -> Recipe:
    """The recipe.

    Args:
        size: `demo` (minutes on two cores), `smoke` (about one minute) or `real` (more steps); "" takes
            `real` with data and `demo` without.
        family: `qwen2_5_vl` or `qwen3_vl`.
        data: a data set or a folder of data sets; "" renders the phantom.
        seed: of every random choice.

    Raises:
        ConfigError: an unknown size.
    """
    size = size or ("real" if data else "demo")
    if size not in SIZES:
        raise ConfigError(f"mini has no size '{size}'; take {', '.join(SIZES)}")
    steps = SIZES[size]
    return Recipe(
        name="mini",
        size=size,
        title="A miniature co-pilot on real data" if data else "A miniature co-pilot on the phantom",
        seed=seed,
        prompt=PromptStyle(
            family=family, system="short", budgets={Scale.CELL: 16, Scale.ROI: 16, Scale.SLIDE: 64}
        ),
        stages={
            "data": Data(
                folder=data,
                phantom=Phantom(cells=steps.cells, regions=steps.regions),
                fractions=(0.7, 0.1, 0.2) if data else (0.7, 0.0, 0.3),
                windows={"dsb2018_he": 80, "ebhi_seg": 256},
                max_boxes=6,
            ),
            "build": Build(size=MINIATURE),
            "align": Supervised(
                start="build",
                tasks=(TaskKind.CAPTION,),
                train=_from_scratch(steps.align),
            ),
            "supervise": Supervised(
                start="align",
                tasks=TAUGHT,
                train=_from_scratch(steps.supervise),
            ),
            "reinforce": Experts(
                start="supervise",
                tasks=REWARDED,
                train=ReinforceConfig(
                    steps=steps.reinforce,
                    prompts=16,
                    micro_batch=32,
                    temperature=0.6,
                    learning_rate=5e-4,
                    warmup_steps=3,
                    max_new_tokens=steps.answer,
                    rewards=REWARDS,
                    lora=Lora(rank=32, alpha=128),
                ),
                router=RouterSettings(phrasings=500, own=10),
            ),
            "classify": Classify(train=ClassifyConfig(steps=steps.classify)),
            "evaluate": Evaluate(
                models={
                    "untrained": "build",
                    "aligned": "align",
                    "supervised": "supervise",
                    "reinforced": "reinforce",
                },
                classifier="classify",
                tasks=TAUGHT,
                per_exam=steps.per_exam,
                max_new_tokens=steps.answer,
            ),
            "report": Report(evaluation="evaluate"),
        },
        sources=SOURCES,
    )


def _from_scratch(steps: int) -> SupervisedConfig:
    """Rates for random weights: far above those for trained ones, and a short memory of gradients."""
    return SupervisedConfig(steps=steps, micro_batch=16, learning_rate=2e-3, beta2=0.95, warmup_steps=20)


_CHOICE = "our choice"
_SMARTPATH = "paper: SmartPath-R1"
_LORA = f"{_SMARTPATH} 4.6 has rank 32, alpha 128; the miniature trains every weight"

# Where each number comes from; a name stands for everything below it.
SOURCES: dict[str, str] = {
    "seed": _CHOICE,
    "threads": f"{_CHOICE}: steps this small are no faster on two",
    "prompt": _CHOICE,
    "prompt.budgets": f"{_CHOICE}: 16 tokens a picture, so that a step takes half a second on two cores "
    f"({_SMARTPATH} 4.6 has 256 for regions and 1024 for slides)",
    "segmenter": f"{_CHOICE}: needs no weights",
    "stages.data": _CHOICE,
    "stages.data.windows": f"{_CHOICE}: a window holds a handful of objects, whose boxes fit the answer",
    "stages.data.max_boxes": f"{_CHOICE}: six boxes are about 90 tokens",
    "stages.build": _CHOICE,
    "stages.build.size": f"{_CHOICE}: about 1.5 M parameters, half of them see",
    "stages.align": _CHOICE,
    "stages.supervise": _CHOICE,
    "stages.align.train.weight_decay": f"{_SMARTPATH} 4.6",
    "stages.supervise.train.weight_decay": f"{_SMARTPATH} 4.6",
    "stages.align.train.max_grad_norm": "upstream default: transformers",
    "stages.supervise.train.max_grad_norm": "upstream default: transformers",
    "stages.align.train.lora": _LORA,
    "stages.supervise.train.lora": _LORA,
    "stages.reinforce": _CHOICE,
    "stages.reinforce.train.group": f"{_SMARTPATH} 4.6: G = 8",
    "stages.reinforce.train.beta": f"{_SMARTPATH} 4.6",
    "stages.reinforce.train.epsilon": f"{_SMARTPATH} 4.6",
    "stages.reinforce.train.epsilon_high": f"{_SMARTPATH} 4.6: symmetric (Patho-R1's DAPO clips higher)",
    "stages.reinforce.train.weight_decay": f"{_SMARTPATH} 4.6",
    "stages.reinforce.train.rewards": f"{_SMARTPATH} eq. 5: task + lambda * format, lambda = 1; "
    "the overlap beside average precision, and Dice above the whole picture beside Dice, are our choice",
    "stages.reinforce.train.temperature": f"{_CHOICE}: nearer to the likeliest answer, which is examined",
    "stages.reinforce.tasks": f"{_CHOICE}: where the grade is not the likelihood",
    "stages.reinforce.router": f"{_CHOICE}: fitted in seconds; more phrasings know more wordings",
    "stages.reinforce.train.max_grad_norm": "upstream default: transformers",
    "stages.reinforce.train.lora": f"{_SMARTPATH} 4.6: rank 32, alpha 128",
    "stages.classify": _CHOICE,
    "stages.evaluate": _CHOICE,
    "stages.report": _CHOICE,
}
