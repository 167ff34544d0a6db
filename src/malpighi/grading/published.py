"""Reading a reply as the published systems do, holes included: what `Mode.PAPER` stands on.

SmartPath-R1 gives its rewards (eq. 5-10) and its prompt, not its parser. Taken here are the rules of the open
projects that share its prompt: the form of EasyR1, VLM-R1 and Visual-RFT, the letter of PathoMLLM, which
follows SmartPath-R1's scorer. What they let through is kept on purpose and is not fit to train against.
"""

import re
from collections.abc import Sequence
from enum import StrEnum

from malpighi.grading.choice import ChoiceReading
from malpighi.grading.tags import Reply
from malpighi.records import Status, option_label

_HINGE = re.compile(r"</think>\s*<answer>")
_LETTER = re.compile(r"\b([A-Z])\b")


class Mode(StrEnum):
    """Whose rules decide: ours, which gain nothing from tricks, or the published ones, to compare with."""

    ROBUST = "robust"
    PAPER = "paper"


def published_reply(completion: str) -> Reply:
    """The first answer block, wherever it stands; without one, the whole completion.

    The form counts as kept where the completion begins with `<think>`, ends with `</answer>`, and somewhere
    has `</think><answer>`. So tags may be repeated, thoughts may hold an answer block, and that block is the
    one read.

    Example:
        >>> published_reply("<think><answer>A</answer></think><answer>B</answer>")
        Reply(answer='A', closed=True, well_formed=True)
    """
    start = completion.find("<answer>")
    end = completion.find("</answer>", start) if start >= 0 else -1
    found = completion[start + len("<answer>") : end] if end >= 0 else completion
    inner = completion[len("<think>") : -len("</answer>")]
    formed = (
        completion.startswith("<think>")
        and completion.endswith("</answer>")
        and _HINGE.search(inner) is not None
    )
    return Reply(found.strip(), end >= 0, formed)


def published_choice(text: str, options: Sequence[str], *, lettered: bool = True) -> ChoiceReading:
    """The first capital letter that stands alone, else the option whose name is the whole text.

    A listing of all letters is read as the first of them, and so is the article in "A koilocyte". Options
    without letters (yes or no) must be the whole text.

    Example:
        >>> published_choice("(B) or (A)", ("Normal", "Koilocyte")).option
        1
    """
    letter = _LETTER.search(text) if lettered else None
    if letter is not None:
        index = ord(letter[1]) - ord(option_label(0))
        known = index < len(options)
        return ChoiceReading(index, Status.OK) if known else ChoiceReading(None, Status.OUT_OF_RANGE)
    folded = text.strip().casefold()
    for index, option in enumerate(options):
        if option.strip().casefold() == folded:
            return ChoiceReading(index, Status.OK)
    return ChoiceReading(None, Status.NO_ANSWER)
