"""How a model is examined."""

from typing import Literal

import msgspec

from malpighi.config import Settings
from malpighi.errors import ConfigError
from malpighi.evaluation.controls import CONTROLS
from malpighi.models.prompt import PromptStyle
from malpighi.pipeline.recipe import Phantom
from malpighi.records import Split

OWN = "own"
"""As `train`: the training split of the data at hand."""
RECORD = "exam.json"
"""Where the settings of an examination are noted, in its folder."""


class Endpoint(Settings, frozen=True):
    """How a server is asked.

    Attributes:
        family: whose boxes and pixels it speaks, e.g. `qwen3_vl`; `any` asks for thousandths in words.
        key_from: the environment variable that holds the API key; unset or empty sends none.
        concurrency: requests under way at once, of one process.
        timeout: seconds until a request without its whole reply counts as failed.
        attempts: tries per request.
        price_in: money per million prompt tokens; 0 where unknown or free.
        price_out: money per million completion tokens.
    """

    family: str = "any"
    key_from: str = "MALPIGHI_API_KEY"
    concurrency: int = 8
    timeout: float = 300.0
    attempts: int = 5
    price_in: float = 0.0
    price_out: float = 0.0


class ExamSettings(Settings, frozen=True, kw_only=True):
    """How a model is examined; saved beside the answers.

    Attributes:
        exams: names or patterns of exams (`herlev/*`).
        suite: a suite of exams (`smartpath-r1`, or a YAML file) instead of `exams` and `split`.
        negatives: with a suite, ask detections for what is not there too.
        per_exam: most samples of one exam, drawn by `seed`; 0 for all.
        split: the part of the data that is asked.
        name: the model's name in rows and tables; "" takes it from the model.
        prompt: how samples are put; None takes that of the run that trained the model, else `patho_r1` words.
        max_new_tokens: longest answer, tokens.
        temperature: 0 for greedy.
        seed: of drawing samples, splits, permuted options, answers and intervals.
        batch_size: samples handed to the engine at once; 0 for 8 in this process, 64 of a server.
        controls: of `blank`, `mismatched`, `permuted`: asked besides, for the same samples.
        with_chances: tell the probability of each option too; not from a server.
        cache: keep answers, and ask none twice.
        workers: processes that ask; the result is the same.
        dtype: of local weights.
        device: of local weights.
        threads: torch CPU threads of each process.
        endpoint: how a server is asked.
        fractions: share of train, validation and test, where a data set has no split of its own.
        windows: data set -> side in px of the windows its images are cut into.
        phantom: how much to draw where the data are `phantom`.
        segmenter: what makes a mask of boxes; see `Recipe.segmenter`.
        draws: bootstrap draws of the intervals.
        shown: samples per exam in the report that the model got wrong, and as many that it got right.
        train: a run, a corpus or exported fingerprints that the model was trained on; `own` for the training
            split of the data at hand; "" checks nothing.
        leaks: `flag` test samples that were trained on, or `refuse` to examine them.
        probe: samples that a plan asks to measure time and tokens.
    """

    exams: tuple[str, ...] = ("*",)
    suite: str = ""
    negatives: bool = False
    per_exam: int = 0
    split: Split = Split.TEST
    name: str = ""
    prompt: PromptStyle | None = None
    max_new_tokens: int = 512
    temperature: float = 0.0
    seed: int = 0
    batch_size: int = 0
    controls: tuple[str, ...] = ()
    with_chances: bool = False
    cache: bool = True
    workers: int = 1
    dtype: str = "float32"
    device: str = "cpu"
    threads: int = 1
    endpoint: Endpoint = Endpoint()
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2)
    windows: dict[str, int] = msgspec.field(default_factory=dict)
    phantom: Phantom = Phantom(cells=120, regions=40)
    segmenter: str = "classical"
    draws: int = 2000
    shown: int = 3
    train: str = ""
    leaks: Literal["flag", "refuse"] = "flag"
    probe: int = 4

    def __post_init__(self) -> None:
        """Refuse what cannot be asked."""
        for control in self.controls:
            if control not in CONTROLS:
                raise ConfigError(f"unknown control '{control}'; known: {', '.join(CONTROLS)}")
        if self.workers < 1 or self.per_exam < 0 or self.batch_size < 0 or self.probe < 1:
            raise ConfigError(
                f"workers={self.workers} and probe={self.probe} must be 1 or more, "
                f"per_exam={self.per_exam} and batch_size={self.batch_size} 0 or more"
            )
        if self.suite and (self.exams != ("*",) or self.split is not Split.TEST):
            raise ConfigError(f"suite '{self.suite}' says which exams and splits are asked; leave both out")
        if self.negatives and not self.suite:
            raise ConfigError("negatives belong to a suite; without one, name their exams in `exams`")
        if self.leaks == "refuse" and not self.train:
            raise ConfigError(f"leaks=refuse needs to know the training data: set train, e.g. train={OWN}")
        if not self.exams:
            raise ConfigError("no exam is named; leave `exams` as it is for all of them")
