"""Reading `<think>...</think><answer>...</answer>`: what was answered, and whether the form was kept."""

import re
from typing import NamedTuple

from malpighi.grading.names import without_invisible

_TAG = re.compile(r"<(/?)(think|answer)>", re.IGNORECASE)
# What chat templates end a message with, where an engine hands it through.
_END = re.compile(r"(?:<\|[a-z_]{2,24}\|>|</s>|<eos>|<end_of_turn>)\Z")
_MOST_ENDS = 8
_WORDS = re.compile(r"\S")
_FORM = ["<think>", "</think>", "<answer>", "</answer>"]


class Reply(NamedTuple):
    """A completion taken apart.

    Attributes:
        answer: the text to be graded, stripped; "" where the reply holds none.
        closed: a closed answer block was found.
        well_formed: each tag of the two pairs exactly once, in order, and nothing but white space outside.
    """

    answer: str
    closed: bool
    well_formed: bool


def read_reply(completion: str) -> Reply:
    """Finds the answer in a completion, with or without tags.

    The last closed answer block outside of the thoughts counts, so an echoed prompt or a block that was taken
    back does no harm. Without one: what follows an answer tag that was never closed (servers cut the closing
    tag off when it is a stop string), else the text outside of the thoughts. What stands in the thoughts is
    no answer, tagged or not. A block after a thought that was never closed counts as outside; a closing tag
    without an opening one makes everything before it a thought (chat templates open the thought in the
    prompt); a second such tag makes a thought of the words before it, if others follow.

    Example:
        >>> read_reply("<think>(A) lacks a halo</think><answer>(B)</answer>")
        Reply(answer='(B)', closed=True, well_formed=True)
        >>> read_reply("<think>(A) is").answer
        ''
    """
    visible = without_invisible(completion)
    blocks = _Blocks()
    for tag in _TAG.finditer(visible):
        blocks.see(tag)
    answer = _without_ends(blocks.answer(visible))
    return Reply(answer, blocks.closed, _well_formed(completion, list(_TAG.finditer(completion))))


def _without_ends(answer: str) -> str:
    for _ in range(_MOST_ENDS):
        end = _END.search(answer[-32:])
        if end is None:
            break
        answer = answer[: -len(end.group())].rstrip()
    return answer


def _well_formed(completion: str, tags: list[re.Match[str]]) -> bool:
    if [tag.group() for tag in tags] != _FORM:
        return False
    outside = (
        completion[: tags[0].start()],
        completion[tags[1].end() : tags[2].start()],
        completion[tags[3].end() :],
    )
    return not any(text.strip() for text in outside)


class _Blocks:
    """Walks over the tags once; spans are (start, end) offsets into the completion."""

    def __init__(self) -> None:
        self._outside: list[tuple[int, int]] = []
        self._pending: list[tuple[int, int]] = []
        self._thoughts: list[tuple[int, int]] = []
        self._think_from: int | None = None
        self._answer_from: int | None = None

    @property
    def closed(self) -> bool:
        return bool(self._outside or self._pending)

    def see(self, tag: re.Match[str]) -> None:
        closing, name = bool(tag[1]), tag[2].lower()
        if name == "answer":
            self._see_answer(tag, closing=closing)
        elif not closing:
            self._think_from = tag.start() if self._think_from is None else self._think_from
        else:
            self._end_thought(tag.string, tag.end())

    def _see_answer(self, tag: re.Match[str], *, closing: bool) -> None:
        if not closing:
            self._answer_from = tag.end()
        elif self._answer_from is not None:
            found = self._outside if self._think_from is None else self._pending
            found.append((self._answer_from, tag.start()))
            self._answer_from = None

    def _end_thought(self, text: str, end: int) -> None:
        if self._think_from is not None:
            self._thoughts.append((self._think_from, end))
        elif not self._thoughts:
            self._outside = []
            self._thoughts.append((0, end))
        elif _WORDS.search(text, end):
            self._thoughts.append((self._thoughts[-1][1], end))
        self._pending, self._think_from, self._answer_from = [], None, None

    def answer(self, completion: str) -> str:
        closed = self._outside + self._pending
        if closed:
            start, end = closed[-1]
            return completion[start:end].strip()
        if self._answer_from is not None:
            return completion[self._answer_from :].strip()
        return self._spoken(completion)

    def _spoken(self, completion: str) -> str:
        pieces, at = [], 0
        for start, end in self._thoughts:
            pieces.append(completion[at:start])
            at = end
        pieces.append(completion[at : self._think_from])
        return _TAG.sub(" ", "".join(pieces)).strip()
