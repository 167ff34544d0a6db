"""Replies as chat models write them, each with what it says: to try a reader of answers on thousands of them.

A reply is put together from the inside out: a statement (a letter, a name, a sentence, JSON, a box), an
explanation, thoughts that weigh other options, an echo of the question, and characters that a reader does not
see. The maker knows which option was stated. Where none was, or two were, every reading is a wrong one.
"""

import random
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from malpighi.records import option_label

OPTION_SETS: tuple[tuple[str, ...], ...] = (
    ("Normal", "Koilocyte", "Dyskeratotic", "Parabasal cell"),
    ("Submucosa", "Submucosal glands", "Mucosa", "Muscularis propria"),
    ("Tumor", "No tumor", "Tumor-associated stroma"),
    ("B-cell lymphoma", "T-cell lymphoma", "Hodgkin lymphoma", "Reactive lymph node"),
    ("Adenoma", "Adenocarcinoma", "Carcinoma in situ", "Carcinoma", "Hyperplastic polyp"),
    ("Grade 1 (low)", "Grade 2 (moderate)", "Grade 3 (high)"),
    ("p53+", "p53-", "HER2 3+", "HER2 0"),
    ("Vitamin A deficiency", "Hepatitis B", "Hepatitis C", "Vitamin D excess"),
    ("挖空细胞", "正常细胞", "副基底细胞", "化生细胞"),
    ("NILM", "ASC-US", "LSIL", "ASC-H", "HSIL", "SCC"),
    tuple(f"Tissue type {number}" for number in range(1, 31)),
    ("0-10%", "11-50%", ">50%"),
)

_LETTER_FORMS = (
    "{L}",
    "({L})",
    "[{L}]",
    "{L}.",
    "{L})",
    "**{L}**",
    "**{L}.**",
    "`{L}`",
    "Option {L}",
    "option ({L})",
    "「{L}」",
    "\\boxed{{{L}}}",
    "$\\boxed{{{L}}}$",
    "\\boxed{{\\text{{{L}}}}}",
)
_BOTH_FORMS = (
    "{L}. {N}",
    "({L}) {N}",
    "{L}) {N}",
    "{L}: {N}",
    "**{L}. {N}**",
    "**({L})** {N}",
    "{L} - {N}",
    "[{L}] {N}.",
    "{L}. **{N}**",
    "{L}、{N}",
)
_NAME_FORMS = ("{N}", "{N}.", "**{N}**", '"{N}"', "_{N}_")
_SENTENCES = (
    "The answer is {F}.",
    "The correct answer is {F}.",
    "Answer: {F}",
    "**Answer:** {F}",
    "ANSWER: {F}",
    "Final answer: {F}",
    "### Final Answer\n{F}",
    "The best choice would be {F}.",
    "I would choose {F}.",
    "Therefore, the correct option is {F}.",
    "Based on the image, the answer is {F}.",
    "My answer is: {F}",
    "So the answer must be {F}.",
    "答案是{F}。",
    "答案：{F}",
    "正确答案为 {F}",
    "根据图像，答案是：{F}",
)
_JSON = (
    '{{"answer": "{F}"}}',
    '{{"answer":"{F}","confidence":0.93}}',
    '```json\n{{"answer": "{F}"}}\n```',
    "{{'answer': '{F}'}}",
    '{{"reasoning": "The nuclei are enlarged.", "answer": "{F}"}}',
)
_REASONS = (
    " The nuclei are enlarged and the chromatin is coarse.",
    " This is supported by the halo around the nucleus.",
    "\n\nExplanation: a large pale area surrounds a dark nucleus.",
    "\n- irregular contour\n- coarse chromatin",
    " Confidence: high.",
    " ({X}) lacks a halo.",
    " Option {X} would show small nuclei.",
    "\n\n{M} would show small nuclei, which are not seen here.",
)
_CONTRASTS = (
    "It is not ({X}) but ({L}).",
    "Not {X}. The answer is {L}.",
    "I considered {X}, but the answer is {L}.",
    "The answer is {L}, not {X}.",
    "{L}) {N}, since ({X}) does not fit.",
    "The answer is {N} rather than {M}.",
    "At first {M} seems likely. Final answer: {L}",
)
_THOUGHTS = (
    "I look at the picture. ({X}) lacks a halo, so it is out.",
    "It could be {X}. Wait, the chromatin is coarse. The answer might be {X}? No.",
    "{X}) {M} would have small nuclei. A closer look helps; I see none.",
    "The answer is {X}. Hmm, let me check again, as I may be wrong.",
    "选项{X}不符合。",
    "<answer>{X}</answer> was my first idea.",
    "Both A and B are tempting.",
    "",
)
_NOTHING = (
    "I cannot tell from this picture.",
    "The image shows a cluster of cells with pale cytoplasm.",
    "Sorry, I can't help with that.",
    "",
    "   \n",
    "As an AI model, I am not able to give a diagnosis.",
    "The answer is",
    "Answer:",
    "A detailed look at the cells is needed before anything can be said.",
    "I am not sure.",
    "None of them can be excluded.",
    "无法判断。",
    '{"answer": ""}',
    '{"answer": null}',
    "\\boxed{}",
)
_TWO = (
    "{L} or {X}",
    "({L}) or ({X})",
    "Both ({L}) and ({X}) are possible.",
    "The answer is {L} or {X}.",
    "Either {L} or {X}",
    "{L}, {X}",
    "{L}/{X}",
    "Answer: {L} and {X}",
    "答案是{L}或{X}",
    "The answer is {L}. The answer is {X}.",
)
_DENIALS = (
    "Not {L}.",
    "It is not ({L}).",
    "The answer is not {L}.",
    "Certainly not {N}.",
    "It cannot be {N}.",
    "I would rule out {N}.",
)
# Capital letters, tags left alone.
_WIDENED = re.compile(r"<[^<>]*>|([A-Z])")
_INVISIBLE = ("\u200b", "\ufeff", "\u2060", "\u200e")
_FILLER = "The field holds many cells of like size and shape with round nuclei. "

_KINDS = {"letter": 28, "both": 28, "name": 18, "contrast": 6, "none": 8, "two": 7, "denied": 5}


class TrialReply(NamedTuple):
    """A reply with its truth.

    Attributes:
        text: what the model wrote.
        options: what it could choose from.
        truth: index of the option it states; None where it states none, or two.
        style: how it was made, e.g. `letter/tags/think`.
    """

    text: str
    options: tuple[str, ...]
    truth: int | None
    style: str


def trial_replies(count: int, seed: int) -> Iterator[TrialReply]:
    """So many replies, the same for the same seed; four of five state one option."""
    dice = random.Random(seed)
    for _ in range(count):
        yield _reply(dice)


def _reply(dice: random.Random) -> TrialReply:
    options = dice.choice(OPTION_SETS)
    truth = dice.randrange(len(options))
    other = dice.choice([i for i in range(len(options)) if i != truth])
    words = _words(options, truth, other)
    kind = dice.choices(tuple(_KINDS), tuple(_KINDS.values()))[0]
    states = kind not in ("none", "two", "denied")
    text = _stated(dice, kind, words) if states else _unstated(dice, kind, words)
    styles = [kind]
    steps: list[tuple[str, float, Callable[[str], str]]] = [
        ("reason", 0.2 if states else 0.0, lambda inner: inner + dice.choice(_REASONS).format(**words)),
        ("tags", 0.4, lambda inner: _tagged(dice, inner)),
        ("think", 0.5, lambda inner: _thought(dice, options, words) + inner),
        ("characters", 0.25, lambda inner: _disguised(dice, inner)),
    ]
    for name, share, step in steps:
        if dice.random() < share:
            text = step(text)
            styles.append(name)
    return TrialReply(text, options, truth if states else None, "/".join(styles))


def _words(options: Sequence[str], truth: int, other: int) -> dict[str, str]:
    return {"L": option_label(truth), "N": options[truth], "X": option_label(other), "M": options[other]}


def _stated(dice: random.Random, kind: str, words: dict[str, str]) -> str:
    if kind == "contrast":
        return dice.choice(_CONTRASTS).format(**words)
    forms = {"letter": _LETTER_FORMS, "both": _BOTH_FORMS, "name": _NAME_FORMS}[kind]
    form = dice.choice(forms).format(**words)
    shape = dice.randrange(4)
    if shape == 0:
        return dice.choice(_SENTENCES).format(F=form)
    if shape == 1:
        bare = {"letter": "{L}", "both": "{L}. {N}", "name": "{N}"}[kind].format(**words)
        return dice.choice(_JSON).format(F=bare)
    return form


def _unstated(dice: random.Random, kind: str, words: dict[str, str]) -> str:
    forms = {"none": _NOTHING, "two": _TWO, "denied": _DENIALS}[kind]
    form = dice.choice(forms)
    return form if kind == "none" else form.format(**words)


def _tagged(dice: random.Random, inner: str) -> str:
    return dice.choice(
        (
            f"<answer>{inner}</answer>",
            f"<answer>\n{inner}\n</answer>",
            f"<answer>{inner}",  # the closing tag was the stop string
            f"<ANSWER>{inner}</ANSWER>",
        )
    )


def _thought(dice: random.Random, options: Sequence[str], words: dict[str, str]) -> str:
    """A thought that names other options; at times it echoes the question, at times it is very long."""
    listed = "\n".join(f"{option_label(i)}) {option}" for i, option in enumerate(options))
    echo = f"Question: which of these is shown?\n{listed}\n" if dice.random() < 0.2 else ""
    filler = _FILLER * 400 if dice.random() < 0.02 else ""
    thought = echo + filler + dice.choice(_THOUGHTS).format(**words)
    forms = "<think>{}</think>", "<think>\n{}\n</think>\n\n", "{}</think>\n"
    return dice.choice(forms).format(thought)


def _disguised(dice: random.Random, text: str) -> str:
    kind = dice.randrange(5)
    if kind == 0:
        return _WIDENED.sub(lambda m: chr(ord(m[1]) + 0xFEE0) if m[1] else m[0], text)
    if kind == 1:
        place = dice.randrange(len(text) + 1)
        return text[:place] + dice.choice(_INVISIBLE) + text[place:]
    if kind == 2:
        return text.replace("\n", "\r\n") + "\r\n"
    if kind == 3:
        return f"  \t\n{text}\n\n   "
    return text + dice.choice(("\x00", "\x07", "<|im_end|>", "</s>", "<|endoftext|>"))
