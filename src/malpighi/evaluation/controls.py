"""Controls of an examination: does the model look at the image, and does the order of options matter?

The same samples are asked again with a blank image, with another sample's image, or with permuted options.
The answers are rows of their own, of models named `<name>@blank` and so on; what follows is read from rows.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import msgspec
import numpy as np
from PIL import Image

from malpighi.errors import ConfigError
from malpighi.evaluation.cells import groups_of
from malpighi.evaluation.statistics import Bootstrap, Difference, Estimate, mean_interval, paired_difference
from malpighi.models.pictures import pixel_key
from malpighi.models.prompt import Prompt, is_yes_no, prompt_digest
from malpighi.records import Choice, ImageRef, Prediction, Sample, Status

_OF_OTHERS = re.compile(
    r"(?i:\b(?:above|below|preceding|former|latter|(?:all|none|both) of these)\b)"
    r"|\b[A-H]\)?\s*(?:and|or|&|,)\s*\(?[A-H]\b"
)
"""Options that speak of other options by their place."""

BLANK, MISMATCHED, PERMUTED = "blank", "mismatched", "permuted"
CONTROLS = (BLANK, MISMATCHED, PERMUTED)


class Looks(msgspec.Struct, frozen=True):
    """What the image is worth to a model in an exam.

    Attributes:
        exam: its name; `all exams` for all together.
        control: `blank` or `mismatched`.
        difference: score with the image minus score without it, on the same samples, with interval and test.
        warning: "" where the model scores clearly better with the image.
    """

    exam: str
    control: str
    difference: Difference
    warning: str = ""


class Consistency(msgspec.Struct, frozen=True):
    """How often a model names the same option when the options stand in another order.

    Attributes:
        exam: its name; `all exams` for all together.
        n: samples asked both ways.
        share: of them with the same option both times, with its interval over groups; an answer that cannot
            be read is not the same.
    """

    exam: str
    n: int
    share: Estimate


class Controls(msgspec.Struct, frozen=True):
    """What the controls of one model say.

    Attributes:
        model: its name.
        looks: by control, then by exam.
        consistency: by exam; empty without permuted options.
    """

    model: str
    looks: tuple[Looks, ...] = ()
    consistency: tuple[Consistency, ...] = ()


def is_control(model: str) -> bool:
    """Whether a model's name is that of a control's rows."""
    return model.rpartition("@")[2] in CONTROLS and "@" in model


def control_name(model: str, control: str) -> str:
    """The model name that a control's rows carry.

    Raises:
        ConfigError: no such control.
    """
    if control not in CONTROLS:
        raise ConfigError(f"unknown control '{control}'; known: {', '.join(CONTROLS)}")
    return f"{model}@{control}"


def blanked(prompt: Prompt) -> Prompt:
    """The prompt with every image replaced by its own mean colour, same size."""
    images = tuple(_mean_colour(image) for image in prompt.images)
    refs = tuple(ImageRef(pixel_key(image), image.size) for image in images)
    hashed = prompt_digest(prompt.system, prompt.turns, refs, prompt.views)
    return replace(prompt, images=images, refs=refs, digest=hashed)


def strangers(samples: Sequence[Sample]) -> dict[str, Sample]:
    """Sample id -> a sample of the same exam with as many other images, of another group where there is one.

    Deals the images of an exam around by a hash of the ids, so the choice does not depend on the order. A
    sample that has no stranger, because its exam has one image, is left out.
    """
    alike: dict[tuple[str, int], list[Sample]] = defaultdict(list)
    for sample in samples:
        if sample.images:
            alike[sample.exam, len(sample.images)].append(sample)
    found: dict[str, Sample] = {}
    for members in alike.values():
        members.sort(key=lambda sample: hashlib.sha256(sample.id.encode()).digest())
        for place, sample in enumerate(members):
            others = members[place + 1 :] + members[:place]
            foreign = (o for o in others if o.group != sample.group and not _shares_image(o, sample))
            other = next(foreign, None) or next((o for o in others if not _shares_image(o, sample)), None)
            if other is not None:
                found[sample.id] = other
    return found


def permutable(sample: Sample) -> bool:
    """Whether a sample lists options whose order can be changed.

    Yes and no are not listed; and an option such as "Both A and B" or "All of the above" means something
    else in another order.
    """
    several = len(set(sample.options)) == len(sample.options) > 1
    tied = any(_OF_OTHERS.search(option) for option in sample.options)
    return isinstance(sample.answer, Choice) and several and not tied and not is_yes_no(sample.options)


def permuted(sample: Sample) -> Sample:
    """The sample with its options in another order, fixed by its id: never the order it had."""
    assert isinstance(sample.answer, Choice)
    seed = int.from_bytes(hashlib.sha256(f"permuted {sample.id}".encode()).digest()[:8], "big")
    rng, places = np.random.default_rng(seed), np.arange(len(sample.options))
    while (order := rng.permutation(len(sample.options))).tolist() == places.tolist():
        continue
    options = tuple(sample.options[place] for place in order)
    answer = Choice(order.tolist().index(sample.answer.index))
    return msgspec.structs.replace(sample, options=options, answer=answer)


def controls_of(model: str, rows: Sequence[Prediction], bootstrap: Bootstrap | None = None) -> Controls:
    """What a model's controls say, from its rows and those of `<model>@...` among `rows`."""
    options = bootstrap or Bootstrap()
    by_model: dict[str, dict[str, Prediction]] = defaultdict(dict)
    for row in rows:
        by_model[row.model][row.sample] = row
    own = by_model[model]
    looks: list[Looks] = []
    for control in (BLANK, MISMATCHED):
        other = by_model.get(control_name(model, control), {})
        looks += [_looks(exam, control, own, ids, other, options) for exam, ids in _exams(own, other).items()]
    other = by_model.get(control_name(model, PERMUTED), {})
    same = [_consistency(exam, own, ids, other, options) for exam, ids in _exams(own, other).items()]
    return Controls(model, tuple(looks), tuple(same))


def chosen_option(row: Prediction) -> str | None:
    """The option that a row names; None where it names none."""
    options = row.truth["options"] if isinstance(row.truth, Mapping) else ()
    place = row.grade.parsed
    named = row.grade.status is Status.OK and isinstance(place, int) and 0 <= place < len(options)
    return options[place] if named else None


def _exams(own: Mapping[str, Prediction], other: Mapping[str, Prediction]) -> dict[str, list[str]]:
    exams: dict[str, list[str]] = {}
    for sample in other:
        if sample in own:
            exams.setdefault(own[sample].exam, []).append(sample)
    if len(exams) > 1:
        exams["all exams"] = [sample for ids in list(exams.values()) for sample in ids]
    return exams


def _looks(
    exam: str,
    control: str,
    own: Mapping[str, Prediction],
    ids: Sequence[str],
    other: Mapping[str, Prediction],
    options: Bootstrap,
) -> Looks:
    scores = [[rows[sample].grade.score for sample in ids] for rows in (other, own)]
    found = paired_difference(scores[0], scores[1], groups_of([own[sample] for sample in ids]), options)
    low = found.estimate.low
    clear = low is not None and low > 0 and found.p < 1 - options.level
    what = "a blank image" if control == BLANK else "another sample's image"
    warning = "" if clear else f"{exam}: not clearly better with the image than with {what}"
    return Looks(exam, control, found, warning)


def _consistency(
    exam: str,
    own: Mapping[str, Prediction],
    ids: Sequence[str],
    other: Mapping[str, Prediction],
    options: Bootstrap,
) -> Consistency:
    said = [(chosen_option(own[sample]), chosen_option(other[sample])) for sample in ids]
    same = [float(first is not None and first == second) for first, second in said]
    groups = groups_of([own[sample] for sample in ids])
    return Consistency(exam, len(ids), mean_interval(same, groups, options))


def _mean_colour(image: Image.Image) -> Image.Image:
    mean = np.asarray(image.convert("RGB"), float).mean(axis=(0, 1)).round().astype(int)
    return Image.new("RGB", image.size, tuple(mean.tolist()))


def _shares_image(one: Sample, other: Sample) -> bool:
    return bool({ref.key for ref in one.images} & {ref.key for ref in other.images})
