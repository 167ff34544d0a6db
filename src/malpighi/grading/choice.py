"""Reading a chosen option out of an answer: a letter, a name, JSON or prose; never a guess.

The stages run from the plainest form to running text and the first that finds anything decides:

1. the whole answer is a letter or an option's name;
2. what follows a cue such as `the answer is`, if all cues agree;
3. the answer starts with a letter: `B) ...`, `(B) ...`, `B. ...`;
4. one letter in brackets, or `option B`;
5. one option's name, as whole words, the longest name first.

Two different options, a name that contradicts its letter, and a denied option (`not X but Y`) are ambiguous.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

from malpighi.grading.names import Mention, Names, negated, plain_text, words_of
from malpighi.records import Status, option_label

_WRAPPED = re.compile(r"\\(?:boxed|text|textbf|mathrm)\s?\{([^{}]*)\}")
_BOXED_LETTER = re.compile(
    r"\\boxed\s?\{\s?(?:\\(?:text|textbf|mathrm)\s?\{)?\s?\(?([A-Z]{1,2})[.)]?\s?\}{1,2}"
)
_CUE = re.compile(
    r"(?:\b(?:answer|choice|option|diagnosis|conclusion|prediction|label|class|classification|category)\b"
    r"[\"'*_`]{0,4}\s{0,3}(?:(?:is|was|would be|should be|must be|:|=)[\s*_`]{0,4}){1,3}"
    r"|\b(?:choose|select|pick|go with|chose|selected|picked|i (?:would )?(?:think|believe|say|guess))"
    r"[\s*_`]{1,4}"
    r"|(?m:^)[#*_ \t]{0,6}(?:final\s)?answer[*_ \t]{0,4}\r?\n[\s*_]{0,4}"  # a heading
    r"|(?:答案|选项|选择|选)[\s是为:*]{0,4})",
    re.IGNORECASE,
)
_VALUE_END = re.compile(r"(?<=\w\w)[.!?;](?=\s|$)|(?<=[)\]}*\"'])[.!?;](?=\s|$)|\n")
_LEAD = re.compile(
    r"[\s*_`\"'#>]{0,9}(?:[(\[{「『`\"“]\s?(?P<bracket>[A-Z]{1,2})\s?[)\]}」』`\"”]"
    r"|(?P<plain>[A-Z]{1,2})(?=[*_`\"']{0,3}(?:[):.\]]|\s?[-–—]\s|[ \t]{0,9}\n)|\*\*"
    r"|\s+is\s+(?:the\s+)?(?:correct|right|best|most)\b|,?\s+(?:because|since|as|due|given)\b"
    # No article stands before these: so `A The nuclei...` is a letter, and `A benign...` is not.
    r"|[*_`\"'」]{0,3}\s+(?:\([A-Z]{1,2}\)|Option\b|(?:The|This|These|It|Explanation|Reason|Confidence)\b)))"
    r"[*_`\"'):.\]\s–—-]{0,9}"
)
_MARK = re.compile(
    r"[(\[{]\s?(?P<bracket>[A-Z]{1,2})\s?[)\]}]"
    r"|(?<![A-Za-z0-9'’(\[])(?P<half>[A-Z]{1,2})\)"
    r"|(?i:\b(?:option|choice|answer|letter)\s{1,3})(?P<option>[A-Z]{1,2})(?![A-Za-z0-9])"
    r"|(?:(?m:^)[ \t]{0,9}|(?<=[.!?]\s))(?P<listed>[A-Z]{1,2})[.:]\s"
)
_BARE = re.compile(
    r"[\s*_`\"']{0,6}([A-Z]{1,2})[*_`\"']{0,3}"
    r"(?:\s*$|\s*[.,;:)!?]|\s+(?:because|since|as|which|due|based|given|for|with)\b)"
)
_HEDGE = re.compile(r"\W{0,4}(?:or|and)\s[\w\s,]{0,20}?(?<!\w)(?P<also>[A-Z]{1,2})\W{0,3}(?:\n|$)")
_OR = (
    r"\W{0,4}(?:\b(?:or|and|versus|vs)\b|/)(?:\W{1,3}(?:maybe|perhaps|possibly|even|an?|the|option))*\W{0,3}"
)
_JOINER = re.compile(_OR, re.IGNORECASE)
_LETTER_OR = re.compile(rf"(?<![A-Za-z'’])(?P<also>[A-Z]{{1,2}})(?i:{_OR})$")
_OR_LETTER = re.compile(rf"(?i:{_OR})(?P<also>[A-Z]{{1,2}})(?![A-Za-z'’])(?!\s[a-z])")
_FILLER = {"and", "or", "both", "option", "options", "choice", "letter", "answer", "the", "is", "class"}
_DENIED = re.compile(
    r"(?:\b(?i:not|never|neither|nor|except)|(?i:n['’]t))\W{1,3}(?:(?i:option|answer|letter)\s)?\(?([A-Z]{1,2})(?![A-Za-z'’])"
)
_DENIED_WORD = re.compile(r"(?:\b(?:not|never|neither|nor)|n['’]t)\W{1,3}(?:an?\W)?$", re.IGNORECASE)
_STOPS = str.maketrans({"。": ". ", "、": ", "})
_QUOTES = "\"'“”"


class ChoiceReading(NamedTuple):
    """What was read: the option's index (None unless `status` is ok) and how the reading went."""

    option: int | None
    status: Status


def read_choice(text: str, options: Sequence[str], *, lettered: bool = True) -> ChoiceReading:
    """The option that an answer names.

    Args:
        text: the answer without its thoughts (see `tags.read_reply`).
        options: the names to choose from, in the order asked.
        lettered: letters A, B... stand for the options; False where the question had none (yes or no).

    Example:
        >>> read_choice("(B) Koilocyte", ("Normal", "Koilocyte")).option
        1
        >>> read_choice("A benign lesion.", ("Malignant", "Normal")).status.value
        'no_answer'
    """
    plain = _plain(text)
    key = _key(tuple(options), lettered)
    return _first(plain, key, (_whole, _cued, _lead, _mark, _name)) or ChoiceReading(
        None, _nothing(plain, key)
    )


class _Key(NamedTuple):
    folded: tuple[str, ...]
    names: Names
    labels: dict[str, int]


_Stage = Callable[[str, _Key], ChoiceReading | None]


@lru_cache(maxsize=512)
def _key(options: tuple[str, ...], lettered: bool) -> _Key:  # noqa: FBT001 -- lru_cache keys by position
    labels = {option_label(i): i for i in range(len(options))} if lettered else {}
    return _Key(tuple(_fold(_plain(o)) for o in options), Names(options), labels)


def _plain(text: str) -> str:
    text = plain_text(text).translate(_STOPS)
    if "\\" in text:
        text = _WRAPPED.sub(r"\1", _WRAPPED.sub(r"\1", _BOXED_LETTER.sub(r"(\1)", text)))
    return text


def _fold(text: str) -> str:
    return " ".join(text.casefold().split())


def _first(text: str, key: _Key, stages: Sequence[_Stage]) -> ChoiceReading | None:
    for stage in stages:
        reading = stage(text, key)
        if reading is not None:
            return reading
    return None


def _decide(indices: set[int]) -> ChoiceReading | None:
    if len(indices) > 1:
        return ChoiceReading(None, Status.AMBIGUOUS)
    return ChoiceReading(indices.pop(), Status.OK) if indices else None


def _whole(text: str, key: _Key) -> ChoiceReading | None:
    names = _same_name(text, key)
    letters = _letters(text, key)
    if not names:
        # Several letters may be part of an option's text, as in "Both A and B": later stages know.
        several = letters is not None and letters.status is Status.AMBIGUOUS
        return None if several and key.names.find(text) else letters
    if len(names) == 1 and letters is not None and letters.option is not None:
        names |= {letters.option}
    return _decide(names)


def _same_name(text: str, key: _Key) -> set[int]:
    folded = _fold(text)
    if len(folded) > 2 * max(map(len, key.folded), default=0) + 40:
        return set()
    bare = folded.strip(" \"'`*_.()[]{}:$“”")
    same = {i for i, option in enumerate(key.folded) if option and option in (folded, bare)}
    if same:
        return same
    words = words_of(text)
    return {i for i, option in enumerate(key.names.words) if option and option == words}


def _letters(text: str, key: _Key) -> ChoiceReading | None:
    """The answer consists of letters only: one is the answer, two are ambiguous."""
    if len(text) > 200 or not key.labels:
        return None
    words = [w for w in re.findall(r"[^\W_]+", text) if w.casefold() not in _FILLER]
    if not words or not all(_is_letter(w, key) for w in words):
        return None
    indices = {key.labels.get(word.upper(), -1) for word in words}
    if indices == {-1}:
        return ChoiceReading(None, Status.OUT_OF_RANGE)
    return _decide(indices)


def _is_letter(word: str, key: _Key) -> bool:
    return (len(word) == 1 and "A" <= word.upper() <= "Z") or word.upper() in key.labels


def _cued(text: str, key: _Key) -> ChoiceReading | None:
    """All cues (`the answer is ...`) that lead to a reading must agree; of a runaway reply, the last 100."""
    indices: set[int] = set()
    status = None
    for cue in list(_CUE.finditer(text))[-100:]:
        value = _value(text, cue.end())
        reading = _first(value, key, (_whole, _named_first, _lead, _bare, _mark, _name))
        if reading is None:
            continue
        if reading.option is None:
            status = reading.status
        else:
            indices.add(reading.option)
    if status is not None:
        return ChoiceReading(None, Status.AMBIGUOUS if indices else status)
    stated = _stated(text, key)
    return _decide(indices | {stated} if indices and stated is not None else indices)


def _value(text: str, start: int) -> str:
    """What a cue points at: the quoted string that follows, or the rest of the sentence."""
    value = text[start : start + 300]
    if value[:1] and value[0] in _QUOTES:
        return re.split(f"[{_QUOTES}]", value[1:], maxsplit=1)[0]
    return _VALUE_END.split(value, maxsplit=1)[0]


def _named_first(text: str, key: _Key) -> ChoiceReading | None:
    """The text begins with an option's name, e.g. `B-cell lymphoma`, whose B is no letter choice."""
    mentions = key.names.find(text)
    if not mentions or re.search(r"[^\W_]", text[: mentions[0].start]):
        return None
    unsure = any(negated(text, m.start, m.end) or _or_letter(text, m, key) for m in mentions)
    return ChoiceReading(None, Status.AMBIGUOUS) if unsure else _decide({m.option for m in mentions})


def _lead(text: str, key: _Key) -> ChoiceReading | None:
    lead = _LEAD.match(text) if key.labels else None
    if lead is None:
        return _lead_and_name(text, key)
    index = key.labels.get(lead["bracket"] or lead["plain"])
    if index is None:
        single = len(lead["bracket"] or lead["plain"]) == 1
        return ChoiceReading(None, Status.OUT_OF_RANGE) if single else None
    denied = negated(text, lead.start(), lead.end())
    if denied or _contradicted(text[lead.end() :], index, key, stated=_stated(text, key) == index):
        return ChoiceReading(None, Status.AMBIGUOUS)
    return ChoiceReading(index, Status.OK)


def _stated(text: str, key: _Key) -> int | None:
    """The option whose letter opens the text as a statement: alone on its line, or followed by its own name.

    `(A) lacks a halo` is no statement: a letter may open a text that weighs the options one by one.
    """
    lead = _LEAD.match(text)
    index = key.labels.get(lead["bracket"] or lead["plain"]) if lead else None
    if lead is None or index is None:
        return None
    alone = "\n" in lead.group().lstrip()
    named = any(m.option == index and m.start <= 1 for m in key.names.find(text[lead.end() :][:400]))
    return index if alone or named else None


def _lead_and_name(text: str, key: _Key) -> ChoiceReading | None:
    """`B Koilocyte`: a letter counts without punctuation where its own name follows."""
    head = re.match(r"[\s*_`\"']{0,6}([A-Z]{1,2})[\s,]{1,3}", text)
    index = key.labels.get(head[1]) if head else None
    if head is None or index is None:
        return None
    mentions = key.names.find(text[head.end() :])
    starts = [m.option for m in mentions if m.start == 0]
    return ChoiceReading(index, Status.OK) if index in starts and len(set(starts)) == 1 else None


def _contradicted(rest: str, index: int, key: _Key, *, stated: bool) -> bool:
    """Whether what follows a leading letter names another option.

    After a statement, later sentences may mention other letters to explain, but not list them by name.
    """
    # The letter's own name is looked past: a name may hold a full stop or another option's letter.
    mentions = key.names.find(rest[:400])
    names = {m.option: m for m in mentions if m.start <= 1}
    hedge = _HEDGE.match(rest)
    if (names and index not in names) or (hedge and key.labels.get(hedge["also"], index) != index):
        return True
    own_end = names[index].end if index in names else 0
    if any(m.option != index and _JOINER.fullmatch(rest[own_end : m.start]) for m in mentions):
        return True
    sentence = _VALUE_END.search(rest, own_end)
    first_end = sentence.start() if sentence and stated else len(rest)
    others = [m for m in _MARK.finditer(rest, own_end) if key.labels.get(_label(m), index) != index]
    return any(m.start() < first_end or m["listed"] or _names_itself(rest, m, key) for m in others)


def _names_itself(text: str, mark: re.Match[str], key: _Key) -> bool:
    following = text[mark.end() : mark.end() + 200].lstrip(" *_`:.")
    return any(m.option == key.labels[_label(mark)] and m.start <= 1 for m in key.names.find(following))


def _bare(text: str, key: _Key) -> ChoiceReading | None:
    """After a cue, `B` or `B because ...`; `A` before a noun stays an article."""
    bare = _BARE.match(text)
    index = key.labels.get(bare[1]) if bare else None
    if bare is None or index is None:
        return None
    others = {key.labels.get(w, index) for w in re.findall(r"(?<![A-Za-z])[A-Z]{1,2}(?![A-Za-z])", text)}
    if others != {index} or _contradicted(text[bare.end() :], index, key, stated=False):
        return ChoiceReading(None, Status.AMBIGUOUS)
    return ChoiceReading(index, Status.OK)


def _mark(text: str, key: _Key) -> ChoiceReading | None:
    marks = [(key.labels[_label(m)], m) for m in _MARK.finditer(text) if _label(m) in key.labels]
    if any(negated(text, m.start(), m.end()) for _, m in marks):
        return ChoiceReading(None, Status.AMBIGUOUS)
    indices = {index for index, _ in marks}
    named = {m.option for m in key.names.find(text)} if len(indices) == 1 else set()
    return _decide(indices | named if len(named) == 1 else indices)


def _label(mark: re.Match[str]) -> str:
    return next(label for label in mark.groups() if label)


def _name(text: str, key: _Key) -> ChoiceReading | None:
    mentions = key.names.find(text)
    if any(_denied(text, m, key) or _or_letter(text, m, key) for m in mentions):
        return ChoiceReading(None, Status.AMBIGUOUS)
    return _decide({m.option for m in mentions})


def _or_letter(text: str, mention: Mention, key: _Key) -> bool:
    """A name joined to another option's letter: `Koilocyte or A`."""
    before = _LETTER_OR.search(text[max(0, mention.start - 40) : mention.start])
    after = _OR_LETTER.match(text, mention.end)
    return any(key.labels.get(m["also"], mention.option) != mention.option for m in (before, after) if m)


def _denied(text: str, mention: Mention, key: _Key) -> bool:
    """A small word like `no` denies by itself and is denied only by a word right before it: `not yes`."""
    if key.names.is_small(mention.option):
        return _DENIED_WORD.search(text[max(0, mention.start - 12) : mention.start]) is not None
    return negated(text, mention.start, mention.end)


def _nothing(text: str, key: _Key) -> Status:
    if any(denied[1] in key.labels for denied in _DENIED.finditer(text)):
        return Status.AMBIGUOUS
    marks = [m["bracket"] for m in _MARK.finditer(text) if m["bracket"]] if key.labels else []
    beyond = any(len(label) == 1 or len(key.labels) > 26 for label in marks)
    return Status.OUT_OF_RANGE if beyond else Status.NO_ANSWER
