"""A reward is a weighted sum over a grade's parts."""

from collections.abc import Mapping

from malpighi.errors import ConfigError
from malpighi.records import Grade, TaskKind

RewardWeights = Mapping[TaskKind, Mapping[str, float]]
"""Per task kind, the weight of each part of its grades."""

# Source: SmartPath-R1, R = R_task + lambda * R_format with lambda = 1.
# Departs: `task` of detection is the order-free ap_tie50, which gains nothing from listing more boxes.
DEFAULT_WEIGHTS: RewardWeights = {task: {"task": 1.0, "format": 1.0} for task in TaskKind}

# The published detection reward: AP50 in the order of the list. Junk after the last hit is free here.
PAPER_WEIGHTS: RewardWeights = {**DEFAULT_WEIGHTS, TaskKind.DETECTION: {"ap_emit50": 1.0, "format": 1.0}}


def reward(grade: Grade, task: TaskKind, weights: RewardWeights = DEFAULT_WEIGHTS) -> float:
    """The reward for one grade.

    An answer that could not be read has only its format left to earn.

    Raises:
        ConfigError: no weights for the task, or a weight for a part that the grade does not have.

    Example:
        >>> from malpighi.records import Status
        >>> reward(Grade(0.5, Status.OK, parts={"task": 0.5, "format": 1.0}), TaskKind.DETECTION)
        1.5
    """
    if task not in weights:
        raise ConfigError(f"the reward has no weights for {task.value}; it has {sorted(weights)}")
    unknown = weights[task].keys() - grade.parts.keys()
    if unknown:
        raise ConfigError(
            f"the reward for {task.value} weighs {sorted(unknown)}, "
            f"but the grade's parts are {sorted(grade.parts)}"
        )
    return sum(weight * grade.parts[part] for part, weight in weights[task].items())
