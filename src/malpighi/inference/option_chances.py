"""Completions with the probability of each option: an engine around another."""

import logging
from collections.abc import Callable, Sequence

import msgspec

from malpighi.errors import UserError
from malpighi.inference.engine import Completion, Engine, Sampling
from malpighi.models.prompt import Prompt

log = logging.getLogger(__name__)

ChancesOf = Callable[[Prompt, Sequence[str]], Sequence[float]]
"""From a prompt and the whole texts that could be said to their probabilities, which add up to 1."""


class WithChances:
    """Adds `Completion.chances` where the prompt names its answers (`Prompt.answers`).

    After its own thought: what the model said before its answer is put before every option, so the chances
    are those with which it ends what it began. A model that gave no `<answer>` is asked as if it answered at
    once.

    Args:
        engine: gives the completions.
        chances_of: how likely each of several texts is, e.g. `ChatEngine.chances`.
    """

    def __init__(self, engine: Engine, chances_of: ChancesOf) -> None:
        self._engine = engine
        self._chances_of = chances_of

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """One completion per prompt, in order; see `Engine`. Chances that cannot be had are left out."""
        said = self._engine.generate(prompts, sampling)
        return [self._told(prompt, completion) for prompt, completion in zip(prompts, said, strict=True)]

    def _told(self, prompt: Prompt, completion: Completion) -> Completion:
        if not prompt.answers or completion.finish == "error":
            return completion
        before, found, _ = completion.text.rpartition("<answer>")
        try:
            chances = self._chances_of(prompt, [(before if found else "") + text for text in prompt.answers])
        except (UserError, RuntimeError) as error:  # words that cannot be encoded, or too many of them
            log.warning("no option chances for prompt %s: %s", prompt.digest, error)
            return completion
        return msgspec.structs.replace(completion, chances=tuple(float(chance) for chance in chances))
