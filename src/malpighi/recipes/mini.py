"""The whole life of a co-pilot in miniature: build, align, supervise, reinforce, evaluate, report.

    malpighi run mini                       on the phantom
    malpighi run mini --data FOLDER         on real data sets
    malpighi run mini --set size=smoke      every stage in about a minute, to see that it runs

The miniature has the architecture of Qwen2.5-VL or Qwen3-VL and random weights; what it learns, it learns here. It
shows that every part works and is measured; it is no model for any patient.
"""

from malpighi.errors import ConfigError
from malpighi.models.prompt import PromptStyle
from malpighi.models.tiny import TinySize
from malpighi.pipeline.recipe import (
    Build,
    Classify,
    Data,
    Evaluate,
    Phantom,
    Recipe,
    Reinforce,
    Report,
    Supervised,
)
from malpighi.records import Scale, TaskKind
from malpighi.training.classify import ClassifyConfig
from malpighi.training.reinforce import ReinforceConfig
from malpighi.training.supervised import SupervisedConfig

ANSWERED = (TaskKind.CLASSIFICATION, TaskKind.VQA, TaskKind.DETECTION, TaskKind.SEGMENTATION)


def mini(size: str = "demo", family: str = "qwen2_5_vl", data: str = "", seed: int = 0) -> Recipe:
    """The recipe.

    Args:
        size: `demo` (minutes on two cores) or `smoke` (about one minute).
        family: `qwen2_5_vl` or `qwen3_vl`.
        data: a data set or a folder of data sets; "" renders the phantom.
        seed: of every random choice.

    Raises:
        ConfigError: an unknown size.
    """
    if size not in ("demo", "smoke"):
        raise ConfigError(f"mini has no size '{size}'; take demo or smoke")
    recipe = _smoke if size == "smoke" else _real if data else _demo
    return recipe(family, data, seed)


def _demo(family: str, data: str, seed: int) -> Recipe:
    return Recipe(
        name="mini",
        size="demo",
        title="A miniature co-pilot on the phantom",
        seed=seed,
        prompt=_prompt(family),
        stages={
            "data": Data(folder=data, phantom=Phantom(cells=2000, regions=900)),
            "build": Build(size=TinySize()),
            "align": Supervised(
                start="build",
                tasks=(TaskKind.CAPTION,),
                train=SupervisedConfig(steps=80, learning_rate=1e-3, warmup_steps=10),
            ),
            "supervise": Supervised(
                start="align",
                tasks=(*ANSWERED, TaskKind.CAPTION),
                train=SupervisedConfig(steps=300, learning_rate=1e-3, warmup_steps=20),
            ),
            "reinforce": Reinforce(
                start="supervise",
                tasks=ANSWERED,
                train=ReinforceConfig(steps=60, learning_rate=1e-4, warmup_steps=3),
            ),
            "classify": Classify(train=ClassifyConfig(steps=150)),
            "evaluate": _evaluate(per_exam=0),
            "report": Report(evaluation="evaluate"),
        },
        sources=SOURCES,
    )


def _real(family: str, data: str, seed: int) -> Recipe:
    recipe = _demo(family, data, seed)
    return recipe


def _smoke(family: str, data: str, seed: int) -> Recipe:
    recipe = _demo(family, data, seed)
    return recipe


def _prompt(family: str) -> PromptStyle:
    return PromptStyle(
        family=family, system="short", budgets={Scale.CELL: 16, Scale.ROI: 16, Scale.SLIDE: 64}
    )


def _evaluate(per_exam: int) -> Evaluate:
    return Evaluate(
        models={
            "untrained": "build",
            "aligned": "align",
            "supervised": "supervise",
            "reinforced": "reinforce",
        },
        classifier="classify",
        tasks=ANSWERED,
        per_exam=per_exam,
    )


SOURCES: dict[str, str] = {}
