"""From a sample to what the model is shown and what it should say.

A prompt is built once and used everywhere: training, rollout, evaluation and a remote server see the same
words and the same resized pixels, so the numbers in a box mean the same in all four.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec
from PIL import Image

from malpighi.config import Settings, digest
from malpighi.errors import ConfigError, DataError
from malpighi.geometry import Box, Region, View
from malpighi.models.families import SPECIAL_TOKENS, TAGS, Family, family_named
from malpighi.models.templates import BOX_UNITS, Template, template_named
from malpighi.records import Choice, ImageRef, Sample, Scale, TaskKind, Text, Turn, option_label
from malpighi.resolution import fit

_BOX_TASKS = (TaskKind.DETECTION, TaskKind.SEGMENTATION)


class PromptStyle(Settings, frozen=True):
    """How samples are put to a model.

    Attributes:
        family: the model's family; decides pixels per token and the frame of boxes.
        system: name of a template in `templates.py`.
        budgets: most tokens that one image may cost, per scale of the sample. Default: SmartPath-R1, section
            4.2 (256 for regions, 1024 for slides); 256 for cells is our choice.
        task_budgets: kind of task -> its own number in the place of the scale's, e.g. more for detection.
        think: whether reasoning is asked for and taught.
    """

    family: str
    system: str = "short"
    budgets: dict[Scale, int] = msgspec.field(
        default_factory=lambda: {Scale.CELL: 256, Scale.ROI: 256, Scale.SLIDE: 1024}
    )
    task_budgets: dict[TaskKind, int] = msgspec.field(default_factory=dict)
    think: bool = True

    def __post_init__(self) -> None:
        """Refuse unknown names and budgets at once rather than at the first sample."""
        family_named(self.family)
        if not template_named(self.system).direct and not self.think:
            raise ConfigError(
                f"the '{self.system}' template always thinks; set think=true or take another template"
            )
        for what, budget in (*self.budgets.items(), *self.task_budgets.items()):
            if budget < 1:
                raise ConfigError(f"a budget of {budget} tokens for '{what}' images; it must be at least 1")

    @property
    def facts(self) -> Family:
        """The facts of the family."""
        return family_named(self.family)

    @property
    def template(self) -> Template:
        """The words around the question."""
        return template_named(self.system)


class SlideMap(Protocol):
    """The way from a picture of a slide to the slide, e.g. `slides.view_map.ViewMap`."""

    @property
    def step(self) -> float:
        """Level-0 px per px of the picture."""
        ...

    @property
    def mpp(self) -> float | None:
        """Micrometres per px of the picture; None where the slide states no scale."""
        ...

    def to_region(self, box: Box) -> Region | None:
        """What a box of the picture, in any of its frames, shows of the slide; None for none of it."""
        ...


@dataclass(frozen=True, eq=False)
class Prompt:
    """What a model is shown.

    Attributes:
        system: the system message; "" for none.
        turns: the conversation; the last turn is the user's.
        images: resized, RGB, sides multiples of the family's P.
        views: one per image, tying its stored size to its resized size.
        digest: hash over words, image keys and resized sizes: equal prompts, equal digests.
        refs: what the images are, one per image; () where nobody asks.
        places: index of the user turn that each image stands before, ascending; () puts all of them before
            the first user turn.
        maps: the way to the slide, one per image, None where an image is not of a slide; () for none at all.
        answers: the whole texts that could be answered, one per option, where their chances are asked for.
    """

    system: str
    turns: tuple[Turn, ...]
    images: tuple[Image.Image, ...]
    views: tuple[View, ...]
    digest: str
    refs: tuple[ImageRef, ...] = ()
    places: tuple[int, ...] = ()
    maps: tuple[SlideMap | None, ...] = ()
    answers: tuple[str, ...] = ()

    @property
    def image_places(self) -> tuple[int, ...]:
        """`places`, spelt out for every image."""
        first = next((i for i, said in enumerate(self.turns) if said.role == "user"), -1)
        return self.places or (first,) * len(self.images)

    def images_before(self, turn: int) -> tuple[Image.Image, ...]:
        """The images that stand before the words of a turn, in order."""
        there = zip(self.images, self.image_places, strict=True)
        return tuple(image for image, place in there if place == turn)


def build_prompt(sample: Sample, images: Sequence[Image.Image], style: PromptStyle) -> Prompt:
    """The prompt of a sample.

    Args:
        sample: what is asked.
        images: the sample's images as stored, in order.
        style: how it is asked.

    Raises:
        DataError: images of another number or size than the sample says; a special token in its words.
    """
    if len(images) != len(sample.images):
        raise DataError(
            f"sample {sample.id} refers to {len(sample.images)} images but {len(images)} were given"
        )
    resized = [
        resize(image, ref, shown_size(ref, sample, style))
        for image, ref in zip(images, sample.images, strict=True)
    ]
    return assemble(sample, resized, style)


def assemble(sample: Sample, resized: Sequence[Image.Image], style: PromptStyle) -> Prompt:
    """The prompt of a sample whose images are already resized; see `build_prompt`."""
    template = style.template
    system = template.system if style.think else template.direct
    turns = (*sample.turns[:-1], Turn("user", _question(sample, style)))
    for text in (system, *(turn.text for turn in turns)):
        refuse_special(text, f"sample {sample.id}")
    views = tuple(
        View(ref.size, image.size, ref.region) for ref, image in zip(sample.images, resized, strict=True)
    )
    hashed = prompt_digest(system, turns, sample.images, views)
    return Prompt(system, turns, tuple(resized), views, hashed, sample.images)


def target_text(sample: Sample, views: Sequence[View], style: PromptStyle) -> str:
    """What the model should say: `<think>...</think><answer>...</answer>`; without `think`, the answer alone.

    Boxes are integers in the family's frame, `[[x0, y0, x1, y1], ...]`; `[]` where there is nothing.

    Args:
        sample: holds answer and reasoning.
        views: the prompt's views.
        style: the style that the prompt was built with.

    Raises:
        DataError: an answer that cannot be said (an index outside the options, boxes without exactly one
            image), or words that contain one of the tags.
    """
    answer = _spoken_answer(sample, views, style)
    for words in (sample.reasoning, answer):
        if any(tag in words for tag in TAGS):
            raise DataError(f"sample {sample.id}: answer or reasoning contains one of {' '.join(TAGS)}")
        refuse_special(words, f"sample {sample.id}")
    thought = f"<think>{sample.reasoning}</think>" if style.think else ""
    return f"{thought}<answer>{answer}</answer>"


def option_texts(sample: Sample, style: PromptStyle) -> tuple[str, ...]:
    """How each option of a sample is answered, without a thought; () for an open question.

    Example:
        With the `short` template: `("<answer>(A) NILM</answer>", "<answer>(B) HSIL</answer>")`.
    """
    if not isinstance(sample.answer, Choice):
        return ()
    said = (_spoken_choice(sample, index, style.template) for index in range(len(sample.options)))
    return tuple(f"<answer>{words}</answer>" for words in said)


def budget_of(sample: Sample, style: PromptStyle) -> int:
    """Most tokens that an image of a sample may cost, by the sample's task and scale; see `Family.fixed`.

    Raises:
        ConfigError: the style has no budget for that task or scale.
    """
    budget = style.task_budgets.get(sample.task, style.budgets.get(sample.scale))
    if budget is None:
        raise ConfigError(
            f"the prompt style has no token budget for '{sample.scale}' images; add budgets.{sample.scale}"
        )
    return max(budget, style.facts.fixed)


def shown_size(ref: ImageRef, sample: Sample, style: PromptStyle) -> tuple[int, int]:
    """The (width, height), px, at which an image of a sample is shown; raises as `budget_of`."""
    return fit(ref.size, budget_of(sample, style), style.facts.pixels_per_token)


def resize(image: Image.Image, ref: ImageRef, size: tuple[int, int]) -> Image.Image:
    """The image as RGB at `size`, bicubic with PIL's antialiasing.

    Raises:
        DataError: the image is not of the size that its reference states, so boxes would not fit it.
    """
    if image.size != ref.size:
        raise DataError(f"image {ref.key[:12]} is {image.size} px but its record says {ref.size} px")
    image = image.convert("RGB")
    return image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)


def refuse_special(text: str, where: str) -> None:
    """Refuse words that hold a special token: it would end a turn or announce an image that is not there.

    Raises:
        DataError: naming the token.
    """
    for token in SPECIAL_TOKENS:
        if token in text:
            raise DataError(f"{where}: the text contains the special token {token}; remove it")


def prompt_digest(system: str, turns: Sequence[Turn], refs: Sequence[ImageRef], views: Sequence[View]) -> str:
    """Hash over what a prompt says and shows; see `Prompt.digest`."""
    said = [[turn.role, turn.text] for turn in turns]
    seen = [[ref.key, view.resized_size] for ref, view in zip(refs, views, strict=True)]
    return digest(system, said, seen)


def _question(sample: Sample, style: PromptStyle) -> str:
    template = style.template
    if sample.task in _BOX_TASKS:
        return f"{sample.question}\n{template.boxes.format(unit=BOX_UNITS[style.facts.frame])}"
    if is_yes_no(sample.options):
        return f"{sample.question}\n{template.yes_no}" if template.yes_no else sample.question
    if sample.options:
        options = template.separator.join(
            template.option.format(label=option_label(i), name=name) for i, name in enumerate(sample.options)
        )
        return f"{sample.question}\n{template.choice.format(options=options)}"
    return sample.question


def is_yes_no(options: Sequence[str]) -> bool:
    """Whether the options are yes and no, which are not listed under letters."""
    return sorted(option.lower() for option in options) == ["no", "yes"]


def _spoken_answer(sample: Sample, views: Sequence[View], style: PromptStyle) -> str:
    answer = sample.answer
    if isinstance(answer, Text):
        return answer.value
    if isinstance(answer, Choice):
        return _spoken_choice(sample, answer.index, style.template)
    return _spoken_boxes(sample, answer.boxes, views, style)


def _spoken_choice(sample: Sample, index: int, template: Template) -> str:
    if not 0 <= index < len(sample.options):
        raise DataError(f"sample {sample.id}: answer {index} is outside its {len(sample.options)} options")
    name = sample.options[index]
    return name if is_yes_no(sample.options) else template.chosen.format(label=option_label(index), name=name)


def _spoken_boxes(sample: Sample, boxes: Sequence[Box], views: Sequence[View], style: PromptStyle) -> str:
    if len(views) != 1:
        raise DataError(f"sample {sample.id}: boxes need exactly one image, not {len(views)}")
    return json.dumps([list(views[0].spoken(box, style.facts.frame)) for box in boxes])
