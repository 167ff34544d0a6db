"""Decoded and resized images, kept within a bound: the same image is asked about many times."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from threading import Lock
from typing import Any, NamedTuple, TypeVar

import msgspec
from PIL import Image

from malpighi.errors import DataError
from malpighi.geometry import Region
from malpighi.models.prompt import Prompt, PromptStyle, SlideMap, assemble, budget_of, resize, shown_size
from malpighi.pixels import decode_image
from malpighi.records import ImageRef, Sample, Turn
from malpighi.resolution import tokens

M = TypeVar("M", bound="Image.Image | SlideShow")


class Shown(NamedTuple):
    """One picture that is made of a slide.

    Attributes:
        image: RGB, sides multiples of P.
        map: the way to the slide.
        region: what it shows, level-0 px; None where it is put together of several pieces.
    """

    image: Image.Image
    map: SlideMap
    region: Region | None = None


class SlideShow(NamedTuple):
    """What a model is shown of a slide.

    Attributes:
        pictures: in the order of the prompt; all together within the budget.
        words: what is said before the question, e.g. the scale; "" for nothing.
    """

    pictures: tuple[Shown, ...]
    words: str = ""


Show = Callable[[ImageRef, int, int], SlideShow]
"""From a slide, its budget in tokens, and P (px per token along one side) to what is shown of it."""


class Pictures:
    """Builds prompts from samples and makes each image as rarely as memory allows; safe across threads.

    What is kept is the resized image, a few hundred kilobytes, and never the decoded original. Least recently
    used images go first. Every prompt of training, rollout and examination is built here, so this is the one
    place where a slide becomes pictures.

    Args:
        load_bytes: from a corpus key to the stored bytes, e.g. `Corpus.image_bytes`.
        style: how samples are put to the model.
        keep_bytes: bound on the pixels kept, bytes.
        show: makes the pictures of a slide that is not stored; None where no sample is about one.
    """

    def __init__(
        self,
        load_bytes: Callable[[str], bytes],
        style: PromptStyle,
        keep_bytes: int = 512 * 2**20,
        show: Show | None = None,
    ) -> None:
        self.style = style
        self._load_bytes = load_bytes
        self._keep_bytes = keep_bytes
        self._show = show
        self._kept: OrderedDict[Hashable, Any] = OrderedDict()
        self._held = 0
        self._lock = Lock()

    def prompt(self, sample: Sample) -> Prompt:
        """The prompt of a sample; see `build_prompt`.

        Raises:
            DataError: an image cannot be decoded or does not fit its record; a special token in the words; a
                slide that cannot be read, or whose view exceeds the budget.
        """
        if not any(ref.unmade for ref in sample.images):
            return assemble(sample, [self._resized(ref, sample) for ref in sample.images], self.style)
        return self._slide_prompt(sample)

    @property
    def held_bytes(self) -> int:
        """Bytes of pixels kept now."""
        return self._held

    def _resized(self, ref: ImageRef, sample: Sample) -> Image.Image:
        size = shown_size(ref, sample, self.style)

        def make() -> Image.Image:
            return resize(decode_image(self._load_bytes(ref.key)), ref, size)

        return self._once((ref.key, size), make)

    def _slide_prompt(self, sample: Sample) -> Prompt:
        """The prompt of a sample about slides: each becomes its view's pictures, with words before all."""
        refs: list[ImageRef] = []
        images: list[Image.Image] = []
        maps: list[SlideMap | None] = []
        words: list[str] = []
        for ref in sample.images:
            if ref.unmade:
                show = self._viewed(ref, budget_of(sample, self.style))
                refs += [made_ref(shown, ref.slide) for shown in show.pictures]
                images += [shown.image for shown in show.pictures]
                maps += [shown.map for shown in show.pictures]
                words += [show.words] if show.words else []
            else:
                refs.append(ref)
                images.append(self._resized(ref, sample))
                maps.append(None)
        turns = _preceded(sample.turns, words)
        seen = msgspec.structs.replace(sample, images=tuple(refs), turns=turns)
        return replace(assemble(seen, images, self.style), maps=tuple(maps))

    def _viewed(self, ref: ImageRef, budget: int) -> SlideShow:
        side, maker = self.style.facts.pixels_per_token, self._show
        if maker is None:
            raise DataError(
                f"slide {ref.slide}: nothing here makes pictures of slides; pass Pictures(show=...)"
            )

        def make() -> SlideShow:
            show = maker(ref, budget, side)
            cost = sum(tokens(shown.image.size, side) for shown in show.pictures)
            if not 0 < cost <= budget:
                raise DataError(f"slide {ref.slide}: its view costs {cost} tokens; the budget is {budget}")
            return show

        return self._once((ref, (budget, side)), make)

    def _once(self, key: Hashable, make: Callable[[], M]) -> M:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                kept: M = self._kept[key]
                return kept
        # Outside the lock: two threads may make one image at the same time, but none waits for another's.
        made = make()
        self._keep(key, made)
        return made

    def _keep(self, key: Hashable, made: Image.Image | SlideShow) -> None:
        with self._lock:
            if key in self._kept:
                return
            self._kept[key] = made
            self._held += _bytes_of(made)
            while self._held > self._keep_bytes:
                _, oldest = self._kept.popitem(last=False)
                self._held -= _bytes_of(oldest)


def made_ref(shown: Shown, slide: str) -> ImageRef:
    """The reference of a picture made of a slide."""
    return ImageRef(pixel_key(shown.image), shown.image.size, shown.map.mpp, slide, shown.region)


def pixel_key(image: Image.Image) -> str:
    """The key of an image that was made and is not stored: SHA-256 over its size and pixels, hexadecimal."""
    return hashlib.sha256(f"{image.mode} {image.size}".encode() + image.tobytes()).hexdigest()


def _preceded(turns: Sequence[Turn], words: Sequence[str]) -> tuple[Turn, ...]:
    """The conversation with words before those of its first user turn, beside the images."""
    first = next((i for i, turn in enumerate(turns) if turn.role == "user"), len(turns) - 1)
    text = "\n".join((*words, turns[first].text))
    return (*turns[:first], Turn(turns[first].role, text), *turns[first + 1 :])


def _bytes_of(made: Image.Image | SlideShow) -> int:
    images = [made] if isinstance(made, Image.Image) else [shown.image for shown in made.pictures]
    return sum(3 * image.width * image.height for image in images)
