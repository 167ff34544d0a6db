"""The words around a question, as data: one template per way of asking.

`smartpath` is the published wording, needed letter by letter to reproduce that model's exams. `patho_r1` asks
in our own words what its authors describe, because their prompts are not published as data; `patho_r1_draft`
has it think in drafts. `short` spends few tokens: meant for miniature models that learn the form from
examples.
"""

import msgspec

from malpighi.errors import ConfigError
from malpighi.geometry import Frame

BOX_UNITS: dict[Frame, str] = {
    Frame.RESIZED: "in pixels of the image as you see it",
    Frame.RELATIVE1000: "as integers from 0 to 1000 of the image's width and height",
    Frame.RELATIVE1: "as decimals from 0 to 1 of the image's width and height",
    Frame.BINS1024: "as integers from 0 to 1023 of the image's width and height",
}

LETTER_FORM = "Answer with the letter of one option."


class Template(msgspec.Struct, frozen=True):
    """One way of asking.

    Attributes:
        system: the system message where the model is to think first.
        direct: the system message where it is to answer at once; "" where the template always thinks.
        choice: what follows a question with options; `{options}` stands for the lettered list.
        yes_no: what follows a question that is answered by yes or no; "" for nothing.
        boxes: what follows a question for boxes; `{unit}` stands for the unit of the numbers.
        option: how one option is written; `{label}` and `{name}`.
        separator: what stands between two options.
        chosen: how the right option is written in a target.
    """

    system: str
    direct: str
    choice: str
    yes_no: str
    boxes: str
    option: str = "({label}) {name}"
    separator: str = ", "
    chosen: str = "({label}) {name}"


_PATHO_R1 = Template(
    system=(
        "You are an experienced pathologist. Look at the image, reason step by step from what is visible "
        "to a conclusion inside <think></think>, then give only the conclusion inside <answer></answer>."
    ),
    direct=(
        "You are an experienced pathologist. Look at the image and give only the conclusion inside "
        "<answer></answer>."
    ),
    choice=f"{LETTER_FORM}\n{{options}}",
    yes_no="Answer yes or no.",
    boxes="Answer with a list of boxes [[x0, y0, x1, y1], ...] {unit}; [] if there is none.",
    option="{label}. {name}",
    separator="\n",
    chosen="{label}",
)

TEMPLATES: dict[str, Template] = {
    # Source: SmartPath-R1, Table 1. Departs: the published classification prompt holds no question, since
    # each of its data sets asks one thing; the sample's question stays in front, so that two exams over one
    # image remain two. The published opening of a box prompt, "Detect {category} in pathology {region}.",
    # is that question, and is the data set's to ask.
    "smartpath": Template(
        system=(
            "A conversation between User and Assistant. The user asks a question, and the assistant solves "
            "it. The assistant first thinks about the reasoning process in the mind and then provides the "
            "user with the answer. The reasoning process and answer are enclosed within <think> </think> and "
            "<answer> </answer> tags, respectively, i.e., <think> reasoning process here </think> "
            "<answer> answer here </answer>."
        ),
        direct="",
        choice="Classify this pathological image into one of these classes: {options}",
        yes_no="",
        boxes="Output bounding boxes in [[x_min, y_min, x_max, y_max],...] format.",
    ),
    # Source: the README of Patho-R1: an expert's role, step by step, the two tags; options on lines of their
    # own, the answer a letter alone. Departs: own words; the text is not published as data.
    "patho_r1": _PATHO_R1,
    # Source: Xu et al., Chain of Draft (arXiv 2502.18600), which Patho-R1 examines its models with: each step
    # of the thought in five words at most. Departs: own words, in the tags of the reasoning template.
    "patho_r1_draft": msgspec.structs.replace(
        _PATHO_R1,
        system=(
            "You are an experienced pathologist. Look at the image and think step by step inside "
            "<think></think>, but write of each step only a draft of five words at most, then give only the "
            "conclusion inside <answer></answer>."
        ),
    ),
    "short": Template(
        system="Think in <think></think>, then answer in <answer></answer>.",
        direct="Answer in <answer></answer>.",
        choice="{options}",
        yes_no="Yes or no?",
        boxes="Boxes [[x0, y0, x1, y1], ...].",
    ),
}


def template_named(name: str) -> Template:
    """The template of that name.

    Raises:
        ConfigError: no such template; the message lists those known.
    """
    if name not in TEMPLATES:
        raise ConfigError(f"unknown prompt template '{name}'; known: {', '.join(TEMPLATES)}")
    return TEMPLATES[name]


def answer_forms() -> list[str]:
    """The phrases that only say which form an answer should have, longest first."""
    boxes = {form for template in TEMPLATES.values() for form in box_forms(template)}
    others = {template.yes_no for template in TEMPLATES.values()} - {""}
    return sorted({*boxes, *others, LETTER_FORM}, key=len, reverse=True)


def box_forms(template: Template) -> list[str]:
    """How a template asks for boxes, in each unit."""
    return [template.boxes.format(unit=unit) for unit in BOX_UNITS.values()]
