"""What every engine promises: prompts in, completions out, in order.

An engine is anything with `generate`. The contract, held by one test suite for all engines: as many
completions as prompts, in the same order; an empty list for an empty list; a prompt that fails becomes a
completion with `finish="error"` and the others go on; what concerns every prompt alike (no server, wrong key)
is a `UserError`.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, Protocol, runtime_checkable

import msgspec

from malpighi.config import Settings
from malpighi.errors import ConfigError
from malpighi.models.prompt import Prompt
from malpighi.records import Look

Finish = Literal["stop", "length", "error"]


class Sampling(Settings, frozen=True):
    """How completions are drawn.

    Attributes:
        max_new_tokens: most tokens of one completion.
        temperature: 0 for greedy decoding.
        seed: of the drawing; without effect when greedy.
    """

    max_new_tokens: int = 512
    temperature: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what no engine can do."""
        if self.max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens={self.max_new_tokens}; at least 1 is needed for an answer")
        if not 0 <= self.temperature < float("inf"):
            raise ConfigError(f"temperature={self.temperature}; give 0 for greedy or a positive number")


class Completion(msgspec.Struct, frozen=True):
    """What a model said.

    Attributes:
        text: the words, without the prompt and without end tokens.
        tokens: length of the completion, tokens, as the engine counts them.
        finish: `stop` said all it wanted, `length` was cut at `max_new_tokens`, `error` could not be had.
        error: why, where `finish` is `error`.
        adapter: the LoRA adapter that answered; "" for none.
        looks: what the model asked to see more closely on the way to this answer; see `zoom.py`.
        chances: probability of each option of the question, in the order asked; empty where the engine does
            not know them.
    """

    text: str
    tokens: int = 0
    finish: Finish = "stop"
    error: str = ""
    adapter: str = ""
    looks: tuple[Look, ...] = ()
    chances: tuple[float, ...] = ()


class Engine(Protocol):
    """Anything that turns prompts into completions."""

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """One completion per prompt, in order.

        Raises:
            UserError: nothing can be generated at all, e.g. the server cannot be reached.
        """
        ...


@runtime_checkable
class Streaming(Protocol):
    """An engine that hands over each completion as soon as it has it."""

    def each(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        """Every prompt's index with its completion, in the order of arrival; raises as `generate`."""
        ...


def failed(reason: object) -> Completion:
    """The completion of a prompt that could not be answered."""
    return Completion("", finish="error", error=str(reason) or type(reason).__name__)
