"""Questions about phantom slides: is there carcinoma, did somebody draw on the glass, is a part out of focus.

Slide `index` of a `seed` is always the same. Whether it shows carcinoma, ink, blur, folds or air is drawn
independently, so that none can stand in for another; the slides of one patient agree on carcinoma, as those
of a case do.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from malpighi.config import Settings, digest
from malpighi.durable import mending, replacing
from malpighi.errors import ConfigError
from malpighi.phantom.items import DATASET, LICENCE, Question, rounded
from malpighi.phantom.slides import RenderedSlide, SlideSettings, render_slide, write_slide
from malpighi.records import (
    SLIDE_KEY,
    Choice,
    ImageRef,
    Item,
    Provenance,
    Sample,
    Scale,
    TaskKind,
    Text,
    Turn,
)
from malpighi.slides.fingerprint import fingerprint

VERSION = 1
DIAGNOSES = ("no carcinoma", "carcinoma")
YES_NO = ("yes", "no")
_DRAW = 21
_MASKS = ("tissue", "tumour", "pen", "blurred", "folds", "bubbles")


class SlideItemSettings(Settings, frozen=True):
    """What the slides are like.

    Attributes:
        shortest: shortest side, px.
        longest: longest side, px.
        mpp: micrometres per level-0 px.
        per_patient: slides of one patient.
        pen: share of slides that somebody drew on.
        blur: share of slides that are out of focus in part.
        folds: share of slides with folds.
        bubbles: share of slides with air under the coverslip.
    """

    shortest: int = 1024
    longest: int = 1536
    mpp: float = 0.5
    per_patient: int = 2
    pen: float = 0.3
    blur: float = 0.3
    folds: float = 0.2
    bubbles: float = 0.2

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        if not 512 <= self.shortest <= self.longest <= 8192 or self.per_patient < 1:
            raise ConfigError(f"{self}: sides from 512 to 8192 px, and at least one slide per patient")


@dataclass(frozen=True)
class DrawnSlide:
    """What is to be drawn, before it is.

    Attributes:
        index: its number.
        name: of the file.
        group: the patient.
        settings: size and what it shows.
    """

    index: int
    name: str
    group: str
    settings: SlideSettings


def drawn_slide(seed: int, index: int, settings: SlideItemSettings) -> DrawnSlide:
    """The plan of slide `index`; every second patient has carcinoma."""
    rng = np.random.default_rng([seed, _DRAW, index])
    width, height = (int(side) for side in rng.integers(settings.shortest, settings.longest + 1, 2))
    patient = index // settings.per_patient
    plan = SlideSettings(
        width=width,
        height=height,
        mpp=settings.mpp,
        tumour=patient % 2 == 1,
        pen=bool(rng.random() < settings.pen),
        blur=bool(rng.random() < settings.blur),
        folds=bool(rng.random() < settings.folds),
        bubbles=bool(rng.random() < settings.bubbles),
    )
    return DrawnSlide(index, f"slide-{seed}-{index:05d}.tiff", f"{DATASET}/slide/{seed}/{patient}", plan)


def render_drawn(seed: int, plan: DrawnSlide) -> RenderedSlide:
    """The pixels and the truth of a planned slide."""
    return render_slide(seed * 1_000_003 + plan.index, plan.settings)


def slide_items(
    folder: Path, seed: int, count: int, settings: SlideItemSettings | None = None, *, first: int = 0
) -> Iterator[Item]:
    """Questions about `count` slides, which are drawn into `folder` where they are not there yet.

    Each slide gives the exams `phantom/slide-diagnosis` (a choice), `phantom/slide-pen` and
    `phantom/slide-focus` (yes or no) and `phantom/slide-caption`. Nothing of a slide is stored in the corpus:
    records name the file, relative to `folder`.

    Args:
        folder: where the slides lie.
        seed: another seed, other slides.
        count: number of slides, not of items.
        settings: what they are like.
        first: index of the first slide, so that several processes can share the work.
    """
    settings = settings or SlideItemSettings()
    provenance = Provenance("phantom:slide", VERSION, config=digest("phantom:slide", seed, settings))
    with mending(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for index in range(first, first + count):
        plan = drawn_slide(seed, index, settings)
        facts = _drawn(folder / plan.name, seed, plan)
        size = (plan.settings.width, plan.settings.height)
        ref = ImageRef(SLIDE_KEY + fingerprint(folder / plan.name), size, settings.mpp, plan.name)
        for question in _questions(facts):
            yield Item(_sample(plan, ref, question, facts, provenance), ())


def _drawn(path: Path, seed: int, plan: DrawnSlide) -> dict[str, float]:
    """Shares of the slide, as measured on its truth; kept beside it, and written before it."""
    beside = path.with_suffix(".json")
    if not (path.is_file() and beside.is_file()):
        slide = render_drawn(seed, plan)
        shares = {name: float(getattr(slide, name).mean()) for name in _MASKS}
        part = path.with_name(path.name + ".part")
        with mending(path.parent):
            with replacing(beside) as file:
                file.write(json.dumps(rounded(shares)).encode())
            write_slide(slide, part)
            part.replace(path)
    known: dict[str, float] = json.loads(beside.read_bytes())
    return known


def _questions(facts: dict[str, float]) -> Iterator[Question]:
    carcinoma, pen, blur = (facts[name] > 0 for name in ("tumour", "pen", "blurred"))
    yield Question(
        "slide-diagnosis",
        TaskKind.CLASSIFICATION,
        "What is the diagnosis of this slide?",
        Choice(int(carcinoma)),
        DIAGNOSES,
    )
    for exam, text, holds in (
        ("slide-pen", "Did somebody draw on the glass with a pen?", pen),
        ("slide-focus", "Is a part of the slide out of focus?", blur),
    ):
        yield Question(exam, TaskKind.VQA, text, Choice(0 if holds else 1), YES_NO)
    words = "Mucosa with carcinoma" if carcinoma else "Mucosa without carcinoma"
    marks = [name for name, there in (("ink on the glass", pen), ("a part out of focus", blur)) if there]
    told = f"{words}; {' and '.join(marks)}." if marks else f"{words}."
    yield Question("slide-caption", TaskKind.CAPTION, "Describe this slide in one sentence.", Text(told))


def _sample(
    plan: DrawnSlide, ref: ImageRef, question: Question, facts: dict[str, float], provenance: Provenance
) -> Sample:
    return Sample(
        id=f"{DATASET}/{Path(plan.name).stem}/{question.exam}",
        dataset=DATASET,
        exam=f"{DATASET}/{question.exam}",
        task=question.task,
        scale=Scale.SLIDE,
        images=(ref,),
        turns=(Turn("user", question.text),),
        answer=question.answer,
        options=question.options,
        group=plan.group,
        organ="colon",
        stain="HE",
        licence=LICENCE,
        provenance=provenance,
        facts=facts,
    )
