"""A model that may look closer: it asks `<zoom>[x0, y0, x1, y1]</zoom>` and is shown that part more finely.

Coordinates are those of the first image, in the frame in which the model writes boxes, whatever was shown
since. What it is shown comes as a new user turn with a new image. Rounds and image tokens are bounded; a
request that cannot be granted is answered in words, costs its round and is recorded like the others.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import msgspec

from malpighi.config import Settings
from malpighi.errors import ConfigError, DataError
from malpighi.geometry import Box, Region, View
from malpighi.grading.boxes import read_boxes
from malpighi.grading.tags import read_reply
from malpighi.inference.engine import Completion, Engine, Sampling
from malpighi.models.families import Family, family_named
from malpighi.models.pictures import SlideShow, made_ref
from malpighi.models.prompt import Prompt, prompt_digest
from malpighi.models.templates import BOX_UNITS
from malpighi.records import Look, Turn
from malpighi.resolution import tokens

LookAt = Callable[[str, Region, int, int], SlideShow]
"""(slide, region, most tokens, px per token) -> one picture of that region, e.g. `SlideViews.look`."""

_REQUEST = re.compile(r"<zoom>(.*?)(?:</zoom>|\Z)", re.IGNORECASE | re.DOTALL)
_KEPT_WORDS = 200
_FINER = 1.05
"""A closer look shows at least this many times more detail along a side; less is none."""


class ZoomSettings(Settings, frozen=True):
    """How far a model may look.

    Attributes:
        family: the model's family: frame of the coordinates, pixels per token.
        rounds: most requests of one conversation, refused ones included.
        tokens_each: most tokens of one closer look.
        tokens: most image tokens of the whole conversation, the first view included.
    """

    family: str
    rounds: int = 3
    tokens_each: int = 256
    tokens: int = 2048

    def __post_init__(self) -> None:
        """Refuse bounds that allow nothing."""
        family_named(self.family)
        if min(self.rounds, self.tokens_each, self.tokens) < 1:
            raise ConfigError(f"{self}: rounds and tokens must be at least 1")

    @property
    def facts(self) -> Family:
        """The facts of the family."""
        return family_named(self.family)


@dataclass(frozen=True)
class _Talk:
    """A conversation under way: what is shown so far, what was asked, and what was said last."""

    prompt: Prompt
    looks: tuple[Look, ...] = ()
    said: Completion | None = None
    spent: int = 0


class ZoomEngine:
    """An engine whose model may look closer at slides before it answers; it is itself an engine.

    Prompts that show no slide pass through as they are. The completion is the model's last reply; its tokens
    are those of all its replies, and its looks are all its requests in order. A reply that gives an answer
    ends the conversation, whatever it asks for besides. The row of an examination carries the digest of the
    prompt as it was given, so put these settings into its fingerprint.

    Args:
        engine: what the model runs in.
        look: makes a picture of a region.
        settings: bounds.
    """

    def __init__(self, engine: Engine, look: LookAt, settings: ZoomSettings) -> None:
        self._engine = engine
        self._look = look
        self._settings = settings

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """One completion per prompt, in order; at most `rounds` + 1 calls of the engine. See `Engine`."""
        talks = [_Talk(self._told(prompt)) for prompt in prompts]
        open_talks = list(range(len(talks)))
        for _ in range(self._settings.rounds + 1):
            if not open_talks:
                break
            replies = self._engine.generate([talks[index].prompt for index in open_talks], sampling)
            for index, reply in zip(open_talks, replies, strict=True):
                talks[index] = self._continued(talks[index], reply)
            open_talks = [index for index in open_talks if talks[index].said is None]
        return [_outcome(talk) for talk in talks]

    def _told(self, prompt: Prompt) -> Prompt:
        """The prompt with the words that offer a closer look; unchanged where no slide is shown."""
        if _slide_of(prompt) == "":
            return prompt
        unit = BOX_UNITS[self._settings.facts.frame]
        offer = (
            f"To look closer, write <zoom>[x0, y0, x1, y1]</zoom> {unit}, of image 1, and stop; "
            f"at most {self._settings.rounds} times."
        )
        turns = (*prompt.turns[:-1], Turn("user", f"{prompt.turns[-1].text}\n{offer}"))
        return replace(
            prompt, turns=turns, digest=prompt_digest(prompt.system, turns, prompt.refs, prompt.views)
        )

    def _continued(self, talk: _Talk, reply: Completion) -> _Talk:
        """The conversation after a reply: ended by it, or with one more turn of the user."""
        talk = replace(talk, spent=talk.spent + reply.tokens)
        asked = _request(reply) if _slide_of(talk.prompt) else None
        if asked is None:
            return replace(talk, said=reply)
        if len(talk.looks) == self._settings.rounds:
            late = Look(_cut(asked[1]), refused="no closer looks are left")
            return replace(talk, said=reply, looks=(*talk.looks, late))
        text = reply.text[: asked.end()]
        show, refused = self._granted(talk.prompt, asked[1])
        look = Look(_cut(asked[1]), refused=refused)
        if show is not None:
            look = Look(look.asked, show.pictures[0].region, show.pictures[0].map.mpp)
        left = self._settings.rounds - len(talk.looks) - 1
        return replace(
            talk, prompt=_further(talk.prompt, text, show, refused, left), looks=(*talk.looks, look)
        )

    def _granted(self, prompt: Prompt, asked: str) -> tuple[SlideShow | None, str]:
        """The closer look that was asked for; or None, and why not."""
        region, refused = self._region(prompt, asked)
        side = self._settings.facts.pixels_per_token
        left = self._settings.tokens - sum(tokens(image.size, side) for image in prompt.images)
        if region is None or left < 1:
            return None, refused or "the budget of image tokens is used up"
        most = min(self._settings.tokens_each, left)
        try:
            show = self._look(_slide_of(prompt), region, most, side)
        except DataError as error:
            return None, f"that part of the slide cannot be read ({error})"
        (picture,) = show.pictures
        if tokens(picture.image.size, side) > most:
            raise RuntimeError(f"a closer look of {picture.image.size} px costs more than {most} tokens")
        known = prompt.maps[0]
        if known is None or picture.map.step * _FINER > known.step:
            return None, "that would show no more detail than image 1; ask for a smaller part"
        return show, ""

    def _region(self, prompt: Prompt, asked: str) -> tuple[Region | None, str]:
        """The part of the slide that a request means; or None, and why none."""
        boxes = read_boxes(asked[:_KEPT_WORDS]).corners
        if len(boxes) != 1:
            return None, f"found {len(boxes)} boxes of four numbers; write exactly one"
        view = prompt.views[0]
        box = Box(*boxes[0], self._settings.facts.frame)
        if not (box.x0 < box.x1 and box.y0 < box.y1):
            return None, "the box has no extent; x0 must be below x1 and y0 below y1"
        inside = view.clip(box)
        known = prompt.maps[0]
        region = known.to_region(inside) if known is not None and inside.area > 0 else None
        if region is None or min(region.width, region.height) <= 0:
            return None, "the box lies outside of what image 1 shows of the slide"
        return region, ""


def _slide_of(prompt: Prompt) -> str:
    """Path of the slide that the first image shows; "" where it shows none."""
    return prompt.refs[0].slide if prompt.maps and prompt.maps[0] is not None else ""


def _request(reply: Completion) -> re.Match[str] | None:
    """The first request of a reply that gives no answer; servers may cut the closing tag off."""
    if reply.finish == "error" or read_reply(reply.text).closed:
        return None
    return _REQUEST.search(reply.text)


def _further(prompt: Prompt, said: str, show: SlideShow | None, refused: str, left: int) -> Prompt:
    """The prompt with the model's request and what it gets."""
    rest = f"Closer looks left: {left}." if left else "Answer now."
    if show is None:
        words = f"No closer look: {refused}. {rest}"
        turns = (*prompt.turns, Turn("assistant", said), Turn("user", words))
        return replace(
            prompt, turns=turns, digest=prompt_digest(prompt.system, turns, prompt.refs, prompt.views)
        )
    (picture,) = show.pictures
    words = f"Image {len(prompt.images) + 1}: {show.words} {rest}"
    turns = (*prompt.turns, Turn("assistant", said), Turn("user", words))
    views = (*prompt.views, View(picture.image.size, picture.image.size, picture.region))
    refs = (*prompt.refs, made_ref(picture, _slide_of(prompt)))
    return Prompt(
        prompt.system,
        turns,
        (*prompt.images, picture.image),
        views,
        prompt_digest(prompt.system, turns, refs, views),
        refs,
        (*prompt.image_places, len(turns) - 1),
        (*prompt.maps, picture.map),
    )


def _outcome(talk: _Talk) -> Completion:
    if talk.said is None:
        raise RuntimeError("a conversation did not end within its rounds")
    return msgspec.structs.replace(talk.said, tokens=talk.spent, looks=talk.looks)


def _cut(asked: str) -> str:
    return asked[:_KEPT_WORDS]
