"""A reward is a weighted sum over a grade's parts."""

from collections.abc import Mapping

from malpighi.errors import ConfigError
from malpighi.records import Grade, TaskKind

RewardWeights = Mapping[TaskKind, Mapping[str, float]]
"""Per task kind, the weight of each part of its grades."""

# Source: SmartPath-R1 eq. 5, R = R_task + lambda * R_format with lambda = 1. With grades of `Mode.PAPER` this
# is the published reward; with robust grades, `task` of detection is ap_tie50, which gains nothing from
# listing more boxes.
DEFAULT_WEIGHTS: RewardWeights = {task: {"task": 1.0, "format": 1.0} for task in TaskKind}

# Parts that a grade has only where the reading was told what they need.
_NEEDS = {"overlong": "Reading.length", "inconsistent": "Reading.pack"}


def reward(grade: Grade, task: TaskKind, weights: RewardWeights = DEFAULT_WEIGHTS) -> float:
    """The reward for one grade.

    An answer that could not be read has only its format left to earn. Faults (`repetition`, `mixing`,
    `overlong`, `inconsistent`) are weighed negatively: {"task": 1, "format": 1, "overlong": -1} is the reward
    of Patho-R1's DAPO.

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
        needs = "".join(f"; {part} needs {_NEEDS[part]}" for part in sorted(unknown & _NEEDS.keys()))
        raise ConfigError(
            f"the reward for {task.value} weighs {sorted(unknown)}, "
            f"but the grade's parts are {sorted(grade.parts)}{needs}"
        )
    return sum(weight * grade.parts[part] for part, weight in weights[task].items())
