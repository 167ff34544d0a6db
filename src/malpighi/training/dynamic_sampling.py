"""Dynamic sampling: questions whose completions all earn the same make room for other questions.

Source: DAPO (arXiv 2503.14476) 3.2, which Patho-R1 3.4 uses. Departs: DAPO filters by an accuracy of 0 or 1;
our grades have values between, so a group is dull if its rewards are equal. DAPO draws until the batch is
full; here the rounds are bounded, and dull groups that are left keep their place and teach nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

_EQUAL = 1e-6

Judge = Callable[[str, str, list[int], int], float | None]
"""(question, text, token ids, step) -> reward; None where the completion cannot be graded."""


class Group(NamedTuple):
    """What was said to one question.

    Attributes:
        question: its id.
        completions: token ids of each completion.
        rewards: what each earned; None where it could not be graded.
        log_probs: of each completion's tokens as they were drawn; None where that is not kept.
    """

    question: str
    completions: list[list[int]]
    rewards: list[float | None]
    log_probs: list[list[float | None]] | None = None

    @property
    def dull(self) -> bool:
        """No two completions earned differently, so that none has an advantage."""
        earned = [value for value in self.rewards if value is not None]
        return not earned or max(earned) - min(earned) <= _EQUAL


@dataclass(frozen=True)
class Resampling:
    """How dull groups are replaced.

    Attributes:
        rounds: draws of further questions per step, at most.
        questions: ids to draw them from; one that stands there twice is twice as likely to come early.
        judge: grades a completion.
        seed: of the order of further questions.
    """

    rounds: int
    questions: Sequence[str]
    judge: Judge
    seed: int

    def further(self, step: int, asked: Sequence[str]) -> Iterator[str]:
        """Questions that are not among those asked, each once, in an order that seed and step alone decide.

        What a resumed step draws is what the interrupted one would have drawn. Ends when all were drawn.
        """
        met = set(asked)
        for index in np.random.default_rng([self.seed, step]).permutation(len(self.questions)):
            question = self.questions[index]
            if question not in met:
                met.add(question)
                yield question


def refill(
    questions: Sequence[str],
    draw: Callable[[list[str]], list[Group]],
    further: Iterator[str],
    rounds: int,
) -> tuple[list[Group], int]:
    """A group for each place, and how many groups were drawn for them.

    Args:
        questions: ids, one per place.
        draw: lets the model answer questions, a group each, in their order.
        further: questions to put in the place of those whose groups are dull.
        rounds: draws of further questions, at most.

    Returns:
        The groups; those that are not dull stand where they were drawn or in the place of a dull one.
    """
    groups = draw(list(questions))
    drawn = len(groups)
    for _ in range(rounds):
        places = [place for place, group in enumerate(groups) if group.dull]
        asked = [question for _, question in zip(places, further, strict=False)]
        if not asked:
            break
        drawn += len(asked)
        telling = [group for group in draw(asked) if not group.dull]
        for place, group in zip(places, telling, strict=False):
            groups[place] = group
    return groups, drawn
