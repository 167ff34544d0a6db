"""Answers about a whole slide from its tiles: pooled over a model's answers to them, or over their features.

The third way, one view of the slide, needs nothing here: `Pictures(show=...)` makes its prompt. All three are
engines, and so are examined alike:

    evaluate(answers, samples, answers.prompt, grade_of, out, options)

Shapes: N tiles, K options.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from malpighi.config import Settings, digest
from malpighi.errors import ConfigError, DataError, UserError
from malpighi.geometry import Region
from malpighi.grading.choice import read_choice
from malpighi.grading.tags import read_reply
from malpighi.inference.engine import Completion, Engine, Sampling, failed
from malpighi.inference.option_likelihood import answer_chances
from malpighi.inference.tile_features import SlideTiles, TileSource
from malpighi.models.attention_mil import AttentionMil
from malpighi.models.pictures import pixel_key
from malpighi.models.prompt import Prompt, PromptStyle, assemble, build_prompt, target_text
from malpighi.models.vlm import Vlm
from malpighi.records import Choice, ImageRef, Sample, Scale
from malpighi.slides.features import FeatureStore
from malpighi.slides.grid import Tile
from malpighi.slides.opening import open_slide
from malpighi.slides.slide import Pixels

Chances = NDArray[np.float64]
Judge = Callable[[Sequence[Sample], Sequence[Prompt], Sampling], Chances]
"""From samples about one tile each, and their prompts, to chances_NK; each row adds up to 1, or to 0."""


@dataclass(frozen=True, eq=False)
class SlidePrompt(Prompt):
    """A prompt that also carries its sample, for engines that look at the slide themselves.

    Attributes:
        sample: the question about the slide.
    """

    sample: Sample | None = None


class SlideEngine(ABC):
    """An engine that answers choices about slides by looking at their tiles.

    Args:
        style: how samples are put to the model; gives the form of the answer.
    """

    def __init__(self, style: PromptStyle) -> None:
        self.style = style

    def prompt(self, sample: Sample) -> Prompt:
        """The question without pictures: too many tiles to hold are looked at one after the other.

        Raises:
            DataError: a sample that is not a choice about exactly one slide.
        """
        if not isinstance(sample.answer, Choice) or len(sample.images) != 1 or not sample.images[0].slide:
            raise DataError(f"sample {sample.id}: tiles answer a choice about one slide, and nothing else")
        words = assemble(msgspec.structs.replace(sample, images=()), [], self.style)
        seen = digest(words.digest, sample.images[0].key)
        return SlidePrompt(words.system, words.turns, (), (), seen, sample.images, sample=sample)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """One completion per prompt, in order; see `Engine`."""
        return [self._one(prompt, sampling) for prompt in prompts]

    def _one(self, prompt: Prompt, sampling: Sampling) -> Completion:
        if not isinstance(prompt, SlidePrompt) or prompt.sample is None:
            return failed("this prompt names no slide; make it with the engine's own prompt()")
        try:
            return self._answer(prompt.sample, sampling)
        except UserError as error:
            return failed(error)

    def _said(self, sample: Sample, option: int, reason: str) -> Completion:
        """The option in the words of the prompt's style."""
        told = msgspec.structs.replace(sample, answer=Choice(option), reasoning=reason, images=())
        return Completion(target_text(told, (), self.style))

    @abstractmethod
    def _answer(self, sample: Sample, sampling: Sampling) -> Completion:
        """The answer to one sample."""


class PoolSettings(Settings, frozen=True):
    """How answers to tiles become the answer to the slide.

    Attributes:
        top: how many tiles speak for each option: those with the highest chances of it.
        negative: the option that holds where no tile shows any other, e.g. `no carcinoma`; "" where the
            options are alike.
        threshold: with `negative`, the chance that another option must exceed.
        batch_size: tiles judged together.
    """

    top: int = 5
    negative: str = ""
    threshold: float = 0.5
    batch_size: int = 32

    def __post_init__(self) -> None:
        """Refuse numbers that cannot work."""
        if min(self.top, self.batch_size) < 1 or not 0 <= self.threshold <= 1:
            raise ConfigError("pooling: top and batch_size must be at least 1, threshold from 0 to 1")


class TileAnswers(SlideEngine):
    """The slide's answer by top-k pooling of a model's answers to its tiles.

    Args:
        judge: `votes(engine)` or `likelihoods(vlm, style)`.
        source: which tiles.
        style: how tiles are put to the model.
        settings: pooling.
        root: folder that the slides' paths are relative to.
    """

    def __init__(
        self,
        judge: Judge,
        source: TileSource,
        style: PromptStyle,
        settings: PoolSettings | None = None,
        root: str | Path = ".",
    ) -> None:
        super().__init__(style)
        self._judge, self._source, self._root = judge, source, Path(root)
        self._settings = settings or PoolSettings()

    def chances(self, sample: Sample, sampling: Sampling) -> Chances:
        """chances_NK at each tile of the slide, row by row; all 0 where the model gave no answer."""
        ref, found = sample.images[0], []
        with open_slide(self._root / ref.slide, mpp=ref.mpp) as slide:
            tiles = self._source.of(slide)
            for batch in tiles.batches(self._settings.batch_size):
                asked = [_about(sample, tile, tiles, pixels) for tile, pixels in batch]
                prompts = [build_prompt(each, [image], self.style) for each, image in asked]
                found.append(self._judge([each for each, _ in asked], prompts, sampling))
        return np.concatenate(found)

    def _answer(self, sample: Sample, sampling: Sampling) -> Completion:
        chances_NK = self.chances(sample, sampling)
        read = int((chances_NK.sum(axis=1) > 0).sum())
        if not read:
            raise DataError(
                f"sample {sample.id}: none of {len(chances_NK)} tiles got an answer that can be read"
            )
        negative = self._settings.negative
        scores_K = top_mean(chances_NK, self._settings.top)
        option = chosen(
            scores_K,
            chances_NK.mean(axis=0),
            negative=sample.options.index(negative) if negative in sample.options else None,
            threshold=self._settings.threshold,
        )
        said = ", ".join(f"{name} {score:.2f}" for name, score in zip(sample.options, scores_K, strict=True))
        return self._said(
            sample, option, f"{read} of {len(chances_NK)} tiles answered; the top ones say: {said}."
        )


class FeatureAnswers(SlideEngine):
    """The slide's answer by attention over the features of its tiles.

    Args:
        model: trained.
        store: features of the encoder that the model was trained with.
        style: gives the form of the answer.

    Raises:
        ConfigError: the store holds features of another encoder.
    """

    def __init__(self, model: AttentionMil, store: FeatureStore, style: PromptStyle) -> None:
        super().__init__(style)
        if store.encoder != model.encoder:
            raise ConfigError(
                f"the slide classifier was trained on features of '{model.encoder}', the store holds those "
                f"of '{store.encoder}'; give the store of its own encoder"
            )
        self._model, self._store = model, store

    def _answer(self, sample: Sample, sampling: Sampling) -> Completion:
        del sampling  # nothing is drawn
        if sample.options != self._model.options:
            raise DataError(
                f"sample {sample.id} offers {sample.options}; the classifier knows {self._model.options}"
            )
        bag = self._store.read(sample.images[0].slide)
        verdict = self._model.examine(bag.features)
        option = int(verdict.probabilities_k.argmax())
        most = bag.places[int(verdict.attention_n.argmax())]
        reason = (
            f"probability {verdict.probabilities_k[option]:.2f} from {len(bag.places)} tiles; the one that "
            f"counts most lies at {most[0]}, {most[1]}."
        )
        return self._said(sample, option, reason)


def votes(engine: Engine) -> Judge:
    """A judge that lets an engine answer each tile: 1 for the option said; all 0 where none can be read."""

    def judge(samples: Sequence[Sample], prompts: Sequence[Prompt], sampling: Sampling) -> Chances:
        chances_NK = np.zeros((len(samples), len(samples[0].options)))
        said = engine.generate(prompts, sampling)
        for row, (sample, completion) in enumerate(zip(samples, said, strict=True)):
            closed = sorted(option.casefold() for option in sample.options) == ["no", "yes"]
            option = read_choice(
                read_reply(completion.text).answer, sample.options, lettered=not closed
            ).option
            if completion.finish != "error" and option is not None:
                chances_NK[row, option] = 1
        return chances_NK

    return judge


def likelihoods(vlm: Vlm, style: PromptStyle, batch_size: int = 16) -> Judge:
    """A judge that takes the probabilities that the model gives to the options, said without a thought."""

    def judge(samples: Sequence[Sample], prompts: Sequence[Prompt], sampling: Sampling) -> Chances:
        del sampling  # nothing is drawn
        answers = [
            [
                target_text(
                    msgspec.structs.replace(sample, answer=Choice(k), reasoning=""), prompt.views, style
                )
                for k in range(len(sample.options))
            ]
            for sample, prompt in zip(samples, prompts, strict=True)
        ]
        chances_NK: Chances = answer_chances(vlm, prompts, answers, batch_size)
        return chances_NK

    return judge


def top_mean(chances_NK: Chances, top: int) -> Chances:
    """Per option the mean of its `top` highest chances (of all, where there are fewer tiles): scores_K.

    Source: MI-Zero's pooling: Lu et al., Visual language pretrained multiple instance zero-shot transfer
    for histopathology images, CVPR 2023.

    Example:
        >>> top_mean(np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]]), 2).round(2).tolist()
        [0.65, 0.7]
    """
    return np.asarray(np.sort(chances_NK, axis=0)[::-1][:top].mean(axis=0))


def chosen(scores_K: Chances, means_K: Chances, *, negative: int | None, threshold: float) -> int:
    """The option that pooled scores speak for; ties go to the higher mean over all tiles, then to the first.

    With a `negative` option, the others compete, and the winner must exceed the threshold: a few tiles with
    carcinoma outweigh any number without. (The standard assumption of multiple instance learning: Dietterich,
    Lathrop and Lozano-Perez, Artificial Intelligence 89, 1997.)

    Example:
        >>> scores, means = np.array([1.0, 0.7]), np.array([0.9, 0.1])
        >>> [chosen(scores, means, negative=option, threshold=0.5) for option in (None, 0)]
        [0, 1]
    """
    rivals = [k for k in range(len(scores_K)) if k != negative]
    best = max(rivals, key=lambda k: (scores_K[k], means_K[k], -k))
    if negative is not None and scores_K[best] <= threshold:
        return negative
    return best


def _about(sample: Sample, tile: Tile, tiles: SlideTiles, pixels: Pixels) -> tuple[Sample, Image.Image]:
    """The slide's question, asked about one of its tiles."""
    image = Image.fromarray(pixels)
    region = Region(tile.x, tile.y, tile.width, tile.height, tiles.slide.mpp)
    ref = ImageRef(pixel_key(image), image.size, tiles.grid.picture.mpp, sample.images[0].slide, region)
    return msgspec.structs.replace(sample, images=(ref,), scale=Scale.ROI), image
