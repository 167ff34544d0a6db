"""The graders as reward functions of other trainers: TRL, verl, EasyR1 and ms-swift.

What travels through a trainer as its ground truth is one sample row, the JSON of `rows.py`, as a string. So
the same data set serves all four, and a reward there is the reward here.

    rewards = RewardFunctions(mode=Mode.PAPER)
    GRPOTrainer(reward_funcs=rewards.trl, ...)      # column `sample` of the data set holds the row
    compute_score = rewards.verl                    # `reward_model.ground_truth` holds the row
    compute_score = rewards.easyr1                  # `answer` holds the row; REWARD_TYPE = "batch"
    orms["malpighi"] = rewards.swift_orm            # column `sample` holds the row

No completion makes them raise; a row that is no sample does, at its first use.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from malpighi.errors import ConfigError
from malpighi.geometry import Box, Size
from malpighi.grading.conduct import Length
from malpighi.grading.grade import Reading, grade
from malpighi.grading.masks import Mask
from malpighi.grading.published import Mode
from malpighi.grading.reward import DEFAULT_WEIGHTS, RewardWeights, reward
from malpighi.grading.rows import RowSample, mask_at, read_sample
from malpighi.guidelines.pack import Pack
from malpighi.records import Grade, Status

_ROWS_KEPT = 65_536


@dataclass(frozen=True)
class RewardFunctions:
    """One reward under the signatures of four trainers.

    Attributes:
        weights: task kind -> part -> weight.
        mode: how answers are read and scored.
        pack: a guideline, for the part `inconsistent`.
        limit: longest completion, tokens, for the part `overlong`; 0 for none.
        buffer: the last tokens before the limit, over which `overlong` grows.
        end_ids: ids of the tokens that end a completion; where given, TRL's completions without one count as
            truncated (ms-swift says so itself; verl and EasyR1 do not tell).
        folder: what paths of masks are relative to.
        segment: as in `Reading`.
    """

    weights: RewardWeights = field(default_factory=lambda: DEFAULT_WEIGHTS)
    mode: Mode = Mode.ROBUST
    pack: Pack | None = None
    limit: int = 0
    buffer: int = 0
    end_ids: Collection[int] = ()
    folder: Path = Path()
    segment: Callable[[Size, tuple[Box, ...]], Mask] | None = None

    def trl(
        self,
        completions: Sequence[Any],
        sample: Sequence[str],
        completion_ids: Sequence[Sequence[int]] | None = None,
        **_: Any,
    ) -> list[float]:
        """A reward function for TRL's GRPOTrainer and RLOOTrainer.

        Args:
            completions: strings, or conversations whose last message counts.
            sample: the data set's column of rows.
            completion_ids: their tokens; TRL passes them.

        Returns:
            One reward per completion.
        """
        ids: Sequence[Sequence[int] | None] = completion_ids or [None] * len(completions)
        return [
            self._reward(row, _content(completion), *self._tokens(tokens))
            for row, completion, tokens in zip(sample, completions, ids, strict=True)
        ]

    def swift(
        self,
        completions: Sequence[str],
        sample: Sequence[str],
        response_token_ids: Sequence[Any] | None = None,
        is_truncated: Sequence[bool] | None = None,
        **_: Any,
    ) -> list[float]:
        """The `__call__` of an ms-swift ORM.

        Args:
            completions: what was written.
            sample: the data set's column of rows.
            response_token_ids: their tokens, per turn where there are several.
            is_truncated: whether each was cut off.

        Returns:
            One reward per completion.
        """
        ids = response_token_ids or [None] * len(completions)
        cut = is_truncated or [False] * len(completions)
        return [
            self._reward(row, text, _length(tokens), truncated)
            for row, text, tokens, truncated in zip(sample, completions, ids, cut, strict=True)
        ]

    def swift_orm(self, *_: Any, **__: Any) -> Callable[..., list[float]]:
        """What ms-swift's `orms` wants: something that makes the reward function, whatever it is given."""
        return self.swift

    def verl(
        self,
        data_source: Any,
        solution_str: str,
        ground_truth: str,
        extra_info: Any = None,
        **_: Any,
    ) -> dict[str, float]:
        """The `compute_score` of verl, for its naive and dapo reward managers.

        verl tells no length here; its dapo manager subtracts the overlong punishment itself.

        Returns:
            `score`, which is the reward, and `task`, `format` and `read` (1 where the answer could be read),
            the same for every task, as verl wants of all results of a batch.
        """
        value, found = self._graded(ground_truth, solution_str)
        return {"score": value, **_told(found)}

    def verl_batch(
        self,
        data_sources: Sequence[Any],
        solution_strs: Sequence[str],
        ground_truths: Sequence[str],
        extra_infos: Sequence[Any] | None = None,
        **_: Any,
    ) -> list[dict[str, float]]:
        """The `compute_score` of verl for its batch reward manager; see `verl`."""
        return [
            self.verl(source, text, row)
            for source, text, row in zip(data_sources, solution_strs, ground_truths, strict=True)
        ]

    def easyr1(self, reward_inputs: Sequence[Mapping[str, Any]], **_: Any) -> list[dict[str, float]]:
        """The `compute_score` of EasyR1 with REWARD_TYPE = "batch".

        Args:
            reward_inputs: each with `response`, `response_length` (tokens) and `ground_truth` (a row).

        Returns:
            `overall`, which is the reward, `accuracy` (the score), `format` and `read`.
        """
        return [self.easyr1_one(entry) for entry in reward_inputs]

    def easyr1_one(self, reward_input: Mapping[str, Any], **_: Any) -> dict[str, float]:
        """The `compute_score` of EasyR1 with REWARD_TYPE = "sequential"; see `easyr1`."""
        value, found = self._graded(
            reward_input["ground_truth"], reward_input["response"], reward_input.get("response_length")
        )
        told = _told(found)
        return {"overall": value, "accuracy": told.pop("task"), **told}

    def _reward(self, row: str, text: str, tokens: int | None, truncated: bool) -> float:  # noqa: FBT001
        return self._graded(row, text, tokens, truncated=truncated)[0]

    def _graded(
        self, row: str, text: str, tokens: int | None = None, *, truncated: bool = False
    ) -> tuple[float, Grade]:
        if not isinstance(row, str):
            raise ConfigError(
                f"the ground truth is a {type(row).__name__}; expected a sample row as a JSON string"
            )
        asked = _sample(row, self.folder)
        reading = Reading(
            view=asked.view,
            frame=asked.frame,
            truncated=truncated,
            load_mask=mask_at,
            segment=self.segment,
            mode=self.mode,
            length=self._limits(tokens),
            pack=self.pack,
        )
        found = grade(asked.sample, text, reading)
        return reward(found, asked.sample.task, self.weights), found

    def _limits(self, tokens: int | None) -> Length | None:
        if not self.limit:
            return None
        if tokens is None:
            raise ConfigError(
                "a limit is set, but this trainer does not tell how long a completion is; leave the limit "
                "out (verl: use its dapo reward manager with overlong_buffer)"
            )
        return Length(tokens, self.limit, self.buffer)

    def _tokens(self, ids: Sequence[int] | None) -> tuple[int | None, bool]:
        """Length, and whether the end is missing."""
        if ids is None:
            return None, False
        return len(ids), bool(self.end_ids) and (not ids or ids[-1] not in self.end_ids)


@lru_cache(maxsize=_ROWS_KEPT)
def _sample(row: str, folder: Path) -> RowSample:
    return read_sample(row, folder)


def _content(completion: Any) -> str:
    return completion if isinstance(completion, str) else str(completion[-1]["content"])


def _length(ids: Any) -> int | None:
    if ids is None:
        return None
    return sum(len(turn) for turn in ids) if ids and isinstance(ids[0], Sequence) else len(ids)


def _told(found: Grade) -> dict[str, float]:
    read = float(found.status is Status.OK)
    return {"task": found.score, "format": found.parts["format"], "read": read}
