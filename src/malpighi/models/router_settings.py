"""How a router is fitted; kept apart from the fitting, which needs scientific libraries."""

from malpighi.config import Settings
from malpighi.errors import ConfigError


class RouterSettings(Settings, frozen=True):
    """How a router is fitted.

    Attributes:
        phrasings: requests drawn from the grammar; 0 learns from the run's own prompts alone.
        own: most different prompts of the run that one exam gives.
        penalty: of the classifier's weights.
        folds: parts that the families of wordings are held out in, turn by turn.
        precision: share of held-out routed requests that must be routed right; sets the limits.
        repeats: a prompt that training data of one group repeats this often becomes a wording of its own.
        seed: of the draw and the folds.
    """

    phrasings: int = 5000
    own: int = 50
    penalty: float = 1e-5
    folds: int = 5
    precision: float = 0.97
    repeats: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be fitted."""
        if self.folds < 2 or self.phrasings < 0 or self.own < 0 or self.repeats < 1:
            raise ConfigError("a router needs folds of 2 or more, repeats of 1 or more, no negative counts")
        if not 0 < self.precision <= 1 or self.penalty <= 0:
            raise ConfigError("a router needs a precision above 0 and up to 1, and a penalty above 0")
