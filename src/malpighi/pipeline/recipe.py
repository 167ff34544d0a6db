"""What a recipe is: named stages with their settings, and where each number comes from."""

from collections.abc import Mapping, Sequence

import msgspec

from malpighi.config import Settings, override
from malpighi.errors import ConfigError, FormatVersionError
from malpighi.evaluation.majority import MODEL as MAJORITY
from malpighi.models.prompt import PromptStyle
from malpighi.models.router_settings import RouterSettings
from malpighi.models.sizes import TinySize
from malpighi.records import TaskKind
from malpighi.training.settings import ClassifyConfig, ReinforceConfig, SupervisedConfig

SAVED_VERSION = 1
CLASSIFIER = "cnn"
"""Name of the classifier in the tables."""


class Phantom(Settings, frozen=True):
    """How much synthetic data to render.

    Attributes:
        cells: pictures of single cervical cells; each gives one to three questions.
        regions: pictures of H&E-like regions.
        slides: whole slides, drawn into files.
    """

    cells: int
    regions: int
    slides: int = 0


class Data(Settings, frozen=True, kw_only=True, tag="data"):
    """Stage: fill the corpus, from a folder of data sets or from the phantom.

    Attributes:
        folder: a data set, or a folder of data sets; "" renders the phantom instead. A folder with a
            `slides.csv` is one of whole slides, with a `tasks.csv` one of pictures; see
            `datasets.slide_tasks` and `datasets.picture_table`.
        phantom: how much to render when there is no folder.
        fractions: share of train, validation and test; groups stay whole.
        windows: data set -> side in px of the windows its images are cut into; those not named take what
            their adapter recommends, 0 leaves images whole.
        max_boxes: samples with more boxes than this are left out and counted; their answer would not fit.
    """

    folder: str = ""
    phantom: Phantom
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2)
    windows: dict[str, int] = msgspec.field(default_factory=dict)
    max_boxes: int = 6


class Build(Settings, frozen=True, kw_only=True, tag="build"):
    """Stage: take weights from a folder, or build the family's architecture in miniature.

    Attributes:
        weights: folder of a downloaded model; "" builds a miniature with random weights.
        size: of the miniature.
    """

    weights: str = ""
    size: TinySize = TinySize()


class Supervised(Settings, frozen=True, kw_only=True, tag="supervised"):
    """Stage: alignment or instruction tuning.

    Attributes:
        start: the stage whose model it goes on from.
        tasks: kinds of task it learns from.
        balance: exams are drawn with their size to this power: 1 as they come, 0 all alike.
        train: settings of the loop.
    """

    start: str
    tasks: tuple[TaskKind, ...]
    balance: float = 0.5
    train: SupervisedConfig


class Reinforce(Settings, frozen=True, kw_only=True, tag="reinforce"):
    """Stage: reinforcement.

    Attributes:
        start: the stage whose model it goes on from.
        tasks: kinds of task it is rewarded on.
        balance: as in `Supervised`.
        shares: kind of task -> its share of the questions, relative to 1 for kinds not named; within a kind
            exams are balanced as said.
        train: settings of the loop.
    """

    start: str
    tasks: tuple[TaskKind, ...]
    balance: float = 0.5
    shares: dict[TaskKind, float] = msgspec.field(default_factory=dict)
    train: ReinforceConfig


class Experts(Settings, frozen=True, kw_only=True, tag="experts"):
    """Stage: reinforcement of one LoRA adapter per group of tasks, and the router that chooses among them.

    What belongs to no group, or to a group without tasks here, is answered by the model it starts from.
    Source: SmartPath-R1, sections 4.1 and 5; the groups are those of `models/task_groups.yaml`.

    Attributes:
        start: the stage whose model carries the adapters.
        tasks: kinds of task that are rewarded.
        balance: as in `Supervised`, within each group.
        train: settings of the loop, the same for each adapter; `lora.rank` above 0.
        router: how the router is fitted.
    """

    start: str
    tasks: tuple[TaskKind, ...]
    balance: float = 0.5
    train: ReinforceConfig
    router: RouterSettings = RouterSettings()

    def __post_init__(self) -> None:
        """Refuse experts that would be no adapters."""
        if self.train.lora.rank == 0:
            raise ConfigError("experts are LoRA adapters; set train.lora.rank above 0, e.g. 32")


class Classify(Settings, frozen=True, kw_only=True, tag="classify"):
    """Stage: the small network to compare with.

    Attributes:
        train: settings of the loop.
    """

    train: ClassifyConfig


class Evaluate(Settings, frozen=True, kw_only=True, tag="evaluate"):
    """Stage: let every model answer the test samples.

    Attributes:
        models: name in the tables -> the stage whose model it is.
        classifier: the stage that trained the classifier; "" for none.
        tasks: kinds of task that are examined.
        per_exam: at most this many test samples an exam, drawn by seed; 0 takes all.
        batch_size: prompts the engine gets at once.
        max_new_tokens: longest answer, tokens.
    """

    models: dict[str, str]
    classifier: str = ""
    tasks: tuple[TaskKind, ...]
    per_exam: int = 0
    batch_size: int = 64
    max_new_tokens: int = 96


class Report(Settings, frozen=True, kw_only=True, tag="report"):
    """Stage: tables and one self-contained page.

    Attributes:
        evaluation: the stage whose predictions are reported.
        shown: sample pictures per exam that the last model got wrong; as many again of those it got right.
        draws: bootstrap draws.
        pairs: models to test, (before, after); none tests each model with the next, the first and the
            classifier with the last.
    """

    evaluation: str
    pairs: tuple[tuple[str, str], ...] = ()
    shown: int = 2
    draws: int = 2000


Stage = Data | Build | Supervised | Reinforce | Experts | Classify | Evaluate | Report


class Recipe(Settings, frozen=True, kw_only=True):
    """Everything a run needs to be repeated.

    Attributes:
        name: the recipe's function.
        size: which size of it.
        title: one line for people.
        seed: of every random choice.
        threads: torch CPU threads; fixed, so that a resumed run repeats a straight one.
        prompt: model family, templates and token budgets.
        segmenter: what makes a mask of boxes, for rewards and examination alike: `boxes` fills them,
            `classical` looks at the picture, a folder holds MedSAM or another SAM.
        stages: name -> settings, in the order they run.
        sources: dotted setting -> where its number comes from (paper, upstream default, our choice).
    """

    name: str
    size: str
    title: str
    seed: int = 0
    threads: int = 1
    prompt: PromptStyle
    segmenter: str = "classical"
    stages: dict[str, Stage]
    sources: dict[str, str] = msgspec.field(default_factory=dict)


def with_settings(recipe: Recipe, assignments: Sequence[str]) -> Recipe:
    """The recipe with `a.b=c` applied; a stage's settings are named from the stage on.

    For example `reinforce.train.steps=9` stands for `stages.reinforce.train.steps=9`.

    Raises:
        ConfigError: no such setting, a value of the wrong type, or a stage that starts from an unknown one.
    """
    paths = [f"stages.{a}" if a.partition(".")[0] in recipe.stages else a for a in assignments]
    changed = override(recipe, paths)
    check(changed)
    return changed


def source_of(recipe: Recipe, setting: str) -> str:
    """Where a setting's number comes from: the entry of its longest named parent; "" where none is named.

    Example:
        >>> recipe = Recipe(
        ...     name="r", size="s", title="t", prompt=PromptStyle(family="qwen3_vl"), stages={},
        ...     sources={"prompt": "our choice", "prompt.budgets": "paper"},
        ... )
        >>> [source_of(recipe, name) for name in ("prompt.budgets.roi", "prompt.think", "seed")]
        ['paper', 'our choice', '']
    """
    parts = setting.split(".")
    names = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((recipe.sources[name] for name in names if name in recipe.sources), "")


def check(recipe: Recipe) -> None:
    """Refuse a recipe whose stages name stages that do not come before them."""
    before: set[str] = set()
    for name, stage in recipe.stages.items():
        unknown = [needed for needed in needs(stage, recipe.stages) if needed not in before]
        if unknown:
            raise ConfigError(
                f"stage '{name}' needs '{unknown[0]}', which is not among the stages before it "
                f"({', '.join(before) or 'none'}); correct its settings"
            )
        before.add(name)
        if isinstance(stage, Report):
            _check_pairs(stage, recipe.stages[stage.evaluation])


def _check_pairs(report: Report, evaluation: Stage) -> None:
    assert isinstance(evaluation, Evaluate)
    known = {*evaluation.models, CLASSIFIER, MAJORITY}
    unknown = sorted({name for pair in report.pairs for name in pair} - known)
    if unknown:
        raise ConfigError(f"report.pairs names '{unknown[0]}', which is none of {', '.join(sorted(known))}")


def needs(stage: Stage, stages: Mapping[str, Stage]) -> tuple[str, ...]:
    """Names of the stages whose results a stage reads: the data stages, and the models it starts from."""
    data = tuple(
        name for name, other in stages.items() if isinstance(other, Data) and not isinstance(stage, Data)
    )
    match stage:
        case Supervised(start=start) | Reinforce(start=start) | Experts(start=start):
            return (*data, start)
        case Evaluate(models=models, classifier=classifier):
            return (*data, *models.values(), *([classifier] if classifier else []))
        case Report(evaluation=evaluation):
            return (*data, evaluation)
        case _:
            return data


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """The contents of `recipe.json`.

    Attributes:
        version: of the file's format.
        recipe: the resolved recipe.
        environment: what the last run ran on.
    """

    version: int
    recipe: Recipe
    environment: dict[str, str]


class _Versioned(msgspec.Struct):
    version: int


def parse(data: bytes) -> Recipe:
    """The recipe in the contents of `recipe.json`.

    Raises:
        FormatVersionError: written by another release.
        ConfigError: damaged or edited by hand.
    """
    remedy = "run the recipe again into a new folder"
    try:
        found = msgspec.json.decode(data, type=_Versioned).version
        if found != SAVED_VERSION:
            raise FormatVersionError(
                f"recipe.json is of format {found}, this release reads {SAVED_VERSION}; {remedy}"
            )
        return msgspec.json.decode(data, type=Saved).recipe
    except msgspec.DecodeError as error:
        raise ConfigError(f"recipe.json cannot be read ({error}); {remedy}") from error
