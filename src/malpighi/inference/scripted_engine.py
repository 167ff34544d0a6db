"""A fake engine that says what it is told: for tests, demonstrations and dry runs. No model is involved."""

import re
from collections.abc import Callable, Sequence

from malpighi.errors import UserError
from malpighi.inference.engine import Completion, Sampling, failed
from malpighi.models.prompt import Prompt


class ScriptedEngine:
    """Replies from a list, in order, or from a function of the prompt; a token is a word.

    When the list is used up, or the function raises a `UserError`, the prompt's completion is an error.

    Args:
        replies: what to say.
    """

    def __init__(self, replies: Sequence[str] | Callable[[Prompt], str]) -> None:
        self._replies = replies
        self._said = 0

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """One scripted reply per prompt, cut after `max_new_tokens` words."""
        return [self._one(prompt, sampling) for prompt in prompts]

    def _one(self, prompt: Prompt, sampling: Sampling) -> Completion:
        try:
            return _cut(self._reply(prompt), sampling.max_new_tokens)
        except UserError as error:
            return failed(error)

    def _reply(self, prompt: Prompt) -> str:
        if callable(self._replies):
            return self._replies(prompt)
        if self._said >= len(self._replies):
            raise UserError(f"the script holds {len(self._replies)} replies and all have been given")
        self._said += 1
        return self._replies[self._said - 1]


def _cut(text: str, most: int) -> Completion:
    words = list(re.finditer(r"\S+", text))
    if len(words) > most:
        return Completion(text[: words[most - 1].end()], most, "length")
    return Completion(text, len(words))
