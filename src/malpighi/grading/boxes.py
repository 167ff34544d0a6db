"""Reading boxes out of an answer: `[[x0, y0, x1, y1], ...]`, JSON, tags, code fences, with prose around.

Rules:
- Four numbers in innermost brackets, parentheses or `<bbox>`, `<bbox_2d>`, `<box>`, `<region>` tags are a
  box; so are two points `(x0, y0), (x1, y1)`, and an object with named edges, e.g. `{"xmin": 1, "ymin": 2,
  "xmax": 3, "ymax": 4}`. Where the answer holds code fences, only the last one is read.
- An empty list, or the word `none`, is the valid answer "nothing".
- Reversed and degenerate boxes are kept as written: they overlap nothing and count as false positives. So
  does an entry beside good ones that is not four finite numbers; it is kept as the degenerate box 0, 0, 0, 0.
- Without one good entry, an attempt at boxes is malformed, and prose is no answer.
- Boxes are clipped to the image: models overrun the frame by rounding. One that lies outside becomes
  degenerate.
- There is no limit on the number of boxes, and duplicates are kept: each counts as a false positive.
"""

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from malpighi.geometry import Box, Frame, View
from malpighi.grading.names import plain_text
from malpighi.records import Status

Corners = tuple[float, float, float, float]

_GROUP = re.compile(
    r"\[(?P<square>[^\[\](){}]*)\]"
    r"|\((?P<round>[^\[\]()]*)\)"
    r"|<(?P<tag>bbox|bbox_2d|box|region)>(?P<tagged>[^<>\[\]()]*)</(?P=tag)>"
    r"|\{(?P<object>[^{}\[\]()<>]*)\}",
    re.IGNORECASE,
)
# PaliGemma writes a box as four location tokens, y before x.
_LOCATIONS = re.compile(r"<loc(\d{4})>\s?<loc(\d{4})>\s?<loc(\d{4})>\s?<loc(\d{4})>")
_FIELD = re.compile(
    r"[\"']?(?P<name>[a-z][a-z0-9_ -]{0,9})[\"']?\s{0,3}[:=]\s{0,3}[\"']?(?P<value>[^,;\"']{1,40})",
    re.IGNORECASE,
)
# The names that edges go by in objects; the last two give width and height in place of the far edges.
_EDGES = (
    ("x0", "y0", "x1", "y1"),
    ("x1", "y1", "x2", "y2"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("left", "top", "right", "bottom"),
)
_SIDES = (("x", "y", "width", "height"), ("x", "y", "w", "h"), ("left", "top", "width", "height"))
_EDGE_NAMES = {name for names in (*_EDGES, *_SIDES) for name in names}
_UNCLOSED = re.compile(r"[\[{][^\[\](){}]*\d[^\[\](){}]*$")
_EMPTY = re.compile(r"\[\s*\]")
_NOTHING = {"none", "null", "nothing", "no boxes", "no box", "no objects", "no regions"}
_BAD: Corners = (0.0, 0.0, 0.0, 0.0)


class BoxReading(NamedTuple):
    """What was read: corners in the unit the model spoke, in the order written, and how the reading went."""

    corners: tuple[Corners, ...]
    status: Status


def read_boxes(text: str) -> BoxReading:
    """The boxes that an answer lists.

    Args:
        text: the answer without its thoughts (see `tags.read_reply`).

    Example:
        >>> read_boxes('Two cells: [{"bbox_2d": [1, 2, 3, 4]}, {"bbox_2d": [5, 6, 7, 8.5]}]').corners
        ((1.0, 2.0, 3.0, 4.0), (5.0, 6.0, 7.0, 8.5))
        >>> read_boxes("<loc0100><loc0200><loc0300><loc0400> nucleus").corners
        ((200.0, 100.0, 400.0, 300.0),)
        >>> read_boxes("[]").status.value
        'ok'
    """
    text = _last_fence(_LOCATIONS.sub(r"[\2, \1, \4, \3]", plain_text(text))).strip()
    entries = _entries(text)
    good = [entry for entry in entries if entry is not None]
    if good:
        return BoxReading(tuple(_BAD if entry is None else entry for entry in entries), Status.OK)
    if entries:
        return BoxReading((), Status.MALFORMED)
    if _EMPTY.search(text) or text.casefold().strip(" .`\"'*") in _NOTHING:
        return BoxReading((), Status.OK)
    attempted = any(sign in text for sign in "[]{}") or "bbox" in text.casefold()
    return BoxReading((), Status.MALFORMED if attempted else Status.NO_ANSWER)


def to_image(corners: Sequence[Corners], view: View, frame: Frame) -> tuple[Box, ...]:
    """Corners in a model's frame as boxes in image px, clipped to the image.

    Raises:
        DataError: the view does not know the frame.
    """
    return tuple(view.clip(view.convert(Box(*four, frame), Frame.IMAGE)) for four in corners)


def _last_fence(text: str) -> str:
    pieces = text.split("```")
    fenced = [piece for piece in pieces[1::2] if piece.strip()]
    return fenced[-1] if fenced else text


def _entries(text: str) -> list[Corners | None]:
    """The entries in the order written; None for one meant as a box that is not four finite numbers."""
    entries: list[Corners | None] = []
    point: tuple[list[float], int] | None = None
    for group in _GROUP.finditer(text):
        if group["round"] is None:
            content = group["square"] if group["square"] is not None else group["tagged"]
            entries += _entry(content) if content is not None else _object(group["object"])
            point = None
            continue
        numbers = _numbers(group["round"]) or []
        joined = point is not None and not text[point[1] : group.start()].strip(" ,\t\n")
        if len(numbers) == 2 and point is not None and joined:
            entries.append(_four(point[0] + numbers))
            point = None
            continue
        point = (numbers, group.end()) if len(numbers) == 2 else None
        if len(numbers) == 4:
            entries.append(_four(numbers))
    if _UNCLOSED.search(text, max(text.rfind("["), text.rfind("{"), 0)):
        entries.append(None)
    if not entries and len(text) < 200:
        bare = _numbers(text) or []
        entries += [_four(bare)] if len(bare) == 4 else []
    return entries


def _entry(content: str) -> list[Corners | None]:
    """One bracketed entry: a box, a failed box, or nothing (words, a lone number such as a citation)."""
    numbers = _numbers(content)
    if numbers is None or len(numbers) < 2:
        return []
    return [_four(numbers)]


def _object(content: str) -> list[Corners | None]:
    """An object with named edges: a box, a failed box where edges are missing, or nothing."""
    named = {
        re.sub(r"[^a-z0-9]", "", f["name"].lower()): f["value"].strip() for f in _FIELD.finditer(content)
    }
    if len(_EDGE_NAMES & named.keys()) < 2:
        return []
    for names in (*_EDGES, *_SIDES):
        if named.keys() >= set(names):
            numbers = _numbers(",".join(named[name] for name in names)) or []
            if names in _SIDES and len(numbers) == 4:
                numbers[2:] = [numbers[0] + numbers[2], numbers[1] + numbers[3]]
            return [_four(numbers)]
    return [None]


def _numbers(content: str) -> list[float] | None:
    """The numbers that make up the whole content, infinite and NaN too; None where there is anything else."""
    parts = content.split(",") if "," in content else content.split()
    parts = [part.strip(" \t\r\n\"'") for part in parts]
    if parts and not parts[-1]:
        parts.pop()
    try:
        return [float(part) for part in parts]
    except ValueError:
        return None


def _four(numbers: list[float]) -> Corners | None:
    if len(numbers) != 4 or not all(map(math.isfinite, numbers)):
        return None
    return (numbers[0], numbers[1], numbers[2], numbers[3])
