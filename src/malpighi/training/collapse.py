"""Stops a reinforcement that has collapsed, with the reason.

What it looks at stands in the trainer's log, which a checkpoint keeps; so a resumed run stops where a
straight one would.
"""

from collections.abc import Sequence
from typing import Any

from transformers import TrainerCallback

from malpighi.errors import DataError

_SIGNS = {
    "ungraded": (
        "no completion could be graded",
        "see the faults in rollouts.jsonl, and mend the grader or the samples",
    ),
    "frac_reward_zero_std": (
        "no question had two completions of different reward: there is nothing left to learn from",
        "raise the temperature, give harder questions, or set resample above 0",
    ),
    "completions/clipped_ratio": (
        "every completion ran into the length limit: the model no longer ends its answers",
        "lower the learning rate, raise beta, or raise max_new_tokens",
    ),
}
"""Share in the trainer's log that means collapse where it stays at 1 -> what that means, and what to do."""


class Collapse(TrainerCallback):
    """Watches the log.

    Args:
        patience: steps over which a sign must have stood at 1; 0 watches nothing.
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience

    def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Raise when a sign has stood for as long as the patience."""
        found = self.patience and sign(state.log_history, int(state.global_step), self.patience)
        if found:
            meaning, remedy = _SIGNS[found]
            raise DataError(
                f"the policy has collapsed: over the last {self.patience} steps (to {state.global_step}) "
                f"{meaning}; {remedy}. With another setting the stage starts anew"
            )


def sign(log: Sequence[dict[str, float]], step: int, patience: int) -> str:
    """The name of a sign that stood at 1 in every row of the last `patience` steps; "" for none.

    Example:
        >>> rows = [{"step": k, "completions/clipped_ratio": 1.0} for k in (5, 10, 15)]
        >>> sign(rows, 15, 10), sign(rows, 15, 20)
        ('completions/clipped_ratio', '')
    """
    if step < patience:
        return ""
    recent = [row for row in log if row["step"] > step - patience]
    for name in _SIGNS:
        if recent and all(row.get(name, 0.0) >= 1.0 for row in recent):
            return name
    return ""
