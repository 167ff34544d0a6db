"""What an examination would ask and take, from a few samples that are asked to see."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import msgspec

from malpighi.errors import DataError
from malpighi.inference.openai_engine import Spent
from malpighi.models.prompt import Prompt, PromptStyle
from malpighi.pipeline.context import Tell, unheard
from malpighi.pipeline.exam_room import Room
from malpighi.pipeline.exam_settings import Endpoint, ExamSettings
from malpighi.pipeline.material import Material
from malpighi.records import Sample
from malpighi.resolution import tokens

_WORD_TOKENS = 0.3
"""Tokens per character of a prompt's words, where no server counts them: English is about 0.25."""


@dataclass(frozen=True)
class ExamPlan:
    """What an examination would ask and take.

    Attributes:
        model: the name in rows and tables.
        what: who would be examined, in words.
        exams: exam -> samples.
        requests: questions in all, controls included.
        prompt_tokens: estimate for all of them; counted by the server where one is asked.
        completion_tokens: estimate, from the probe.
        seconds: estimate, from the probe, for one process.
        cost: of the tokens, in the unit of the prices; None where no price is given.
        probed: samples that were asked to estimate it.
        probe_failures: those of them that failed, or whose picture could not be read.
    """

    model: str
    what: str
    exams: dict[str, int]
    requests: int
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    cost: float | None
    probed: int
    probe_failures: int


def plan_exam(
    model: str,
    data: str | Path | Material,
    out: Path,
    settings: ExamSettings | None = None,
    tell: Tell = unheard,
) -> ExamPlan:
    """What `examine` would ask and take; asks a few samples, of different exams, to measure it.

    Args:
        model: as for `examine`; and so are all others.
        data: is read in as `examine` would, so that it is known what is asked.
        out: the run folder.
        settings: what is asked and how.
        tell: progress.

    Raises:
        UserError: as `examine`.
    """
    settings = settings or ExamSettings()
    room = Room.open(model, data, out, settings, tell)
    asking = room.asking()
    probes = _probes(room.samples, settings.probe)
    prompts = list(_shown(room, probes))
    asking.uncached(prompts[:1], msgspec.structs.replace(room.sampling, max_new_tokens=1))  # loads the model
    before, began = asking.spent, time.monotonic()
    said = asking.uncached(prompts, room.sampling)
    seconds = time.monotonic() - began
    used = Spent(*(now - then for now, then in zip(asking.spent, before, strict=True)))
    requests = sum(len(sheet.samples) for sheet in room.sheets())
    share = requests / max(len(prompts), 1)
    words = sum(_prompt_tokens(prompt, room.examinee.style) for prompt in prompts)
    counted = Spent(
        requests,
        round((used.prompt_tokens or words) * share),
        round((used.completion_tokens or sum(c.tokens for c in said)) * share),
    )
    priced = settings.endpoint.price_in or settings.endpoint.price_out
    return ExamPlan(
        model=room.examinee.name,
        what=room.examinee.what,
        exams=dict(Counter(sample.exam for sample in room.samples)),
        requests=requests,
        prompt_tokens=counted.prompt_tokens,
        completion_tokens=counted.completion_tokens,
        seconds=seconds * share,
        cost=cost_of(counted, settings.endpoint) if priced else None,
        probed=len(probes),
        probe_failures=len(probes) - sum(completion.finish != "error" for completion in said),
    )


def _shown(room: Room, samples: Sequence[Sample]) -> Iterator[Prompt]:
    for sample in samples:
        with suppress(DataError):  # it will be a failure of the examination too
            yield room.prompt(sample)


def cost_of(spent: Spent, prices: Endpoint) -> float:
    """What tokens cost, in the unit of the prices.

    Example:
        >>> cost_of(Spent(1, 2_000_000, 500_000), Endpoint(price_in=0.5, price_out=2.0))
        2.0
    """
    return (spent.prompt_tokens * prices.price_in + spent.completion_tokens * prices.price_out) / 1e6


def _probes(samples: Sequence[Sample], count: int) -> list[Sample]:
    """A few samples, of as many exams as there can be."""
    exams: dict[str, list[Sample]] = {}
    for sample in samples:
        exams.setdefault(sample.exam, []).append(sample)
    rounds = zip_longest(*exams.values())
    return [sample for each in rounds for sample in each if sample is not None][:count]


def _prompt_tokens(prompt: Prompt, style: PromptStyle) -> int:
    """About how many tokens a prompt is; pictures exactly, words by their letters."""
    side = style.facts.pixels_per_token
    pictures = sum(max(tokens(image.size, side), style.facts.fixed) for image in prompt.images)
    words = len(prompt.system) + sum(len(turn.text) for turn in prompt.turns)
    return pictures + round(words * _WORD_TOKENS)
