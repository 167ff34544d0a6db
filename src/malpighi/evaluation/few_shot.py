"""How much a handful of labelled pictures brings: logistic regression on frozen features, several draws.

Source: Patho-R1, section 4.3: 2 to 128 pictures per class, ten draws, logistic regression of scikit-learn.
Departs: what is drawn are training samples and what is scored are test samples of the exam's split, so that
no patient lies on both sides; where a class has fewer pictures than asked, the size is left out and said.

Shape suffixes: N training samples, M test samples, K classes, D features.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from malpighi.config import Settings
from malpighi.errors import ConfigError

Features = NDArray[np.float32]
Labels = NDArray[np.int64]


class FewShotSettings(Settings, frozen=True):
    """How pictures are drawn and fitted.

    Attributes:
        shots: pictures per class.
        draws: times that they are drawn anew.
        seed: of the drawing.
        inverse_penalty: C of the logistic regression: smaller, stronger penalty.
        iterations: most steps of the fit.
    """

    shots: tuple[int, ...] = (2, 8, 16, 32, 64, 128)
    draws: int = 10
    seed: int = 0
    inverse_penalty: float = 1.0
    iterations: int = 1000

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        if not self.shots or min(*self.shots, self.draws, self.iterations) < 1 or self.inverse_penalty <= 0:
            raise ConfigError(f"{self}: shots, draws, iterations and inverse_penalty must be above 0")


class Draw(NamedTuple):
    """One fit: the size, its number, and chances (M, K) of the test samples."""

    shots: int
    number: int
    chances: NDArray[np.float64]


def few_shot(
    train_ND: Features, labels_N: Labels, test_MD: Features, classes: int, settings: FewShotSettings
) -> Iterator[Draw]:
    """Fits on draws of every size that the rarest class allows, smallest first.

    Args:
        train_ND: features to draw from.
        labels_N: their classes, 0 to K-1.
        test_MD: features to be classified.
        classes: K; every one must occur among the labels.
        settings: sizes, draws, fit.
    """
    by_class = [np.flatnonzero(labels_N == k) for k in range(classes)]
    for shots in possible(labels_N, classes, settings.shots):
        for number in range(settings.draws):
            # A size's draw does not depend on which other sizes are asked for.
            random = np.random.default_rng([settings.seed, shots, number])
            drawn = np.concatenate([random.choice(found, shots, replace=False) for found in by_class])
            model = LogisticRegression(C=settings.inverse_penalty, max_iter=settings.iterations)
            model.fit(train_ND[drawn].astype(float), labels_N[drawn])
            yield Draw(shots, number, model.predict_proba(test_MD.astype(float)))


def possible(labels_N: Labels, classes: int, shots: Sequence[int]) -> list[int]:
    """The sizes that the rarest class allows, ascending.

    Example:
        >>> possible(np.array([0, 0, 0, 1, 1]), 2, (4, 2, 1))
        [1, 2]
    """
    rarest = int(np.bincount(labels_N, minlength=classes)[:classes].min()) if len(labels_N) else 0
    return sorted(size for size in set(shots) if size <= rarest)
