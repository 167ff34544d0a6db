"""Stratified shuffle splits that official lists were made with."""

import math
from collections.abc import Sequence

import numpy as np


def stratified_shuffle(labels: Sequence[str], test: float, seed: int) -> tuple[list[int], list[int]]:
    """The first fold of a stratified shuffle split, drawn as scikit-learn draws it.

    Published splits are given as a seed, so the same numbers have to be drawn in the same order: how many of
    each class go to the training part, then to the test part, then a permutation per class and one per part.

    Source: scikit-learn 1.7, `StratifiedShuffleSplit`; equality is tested.

    Args:
        labels: class per item; each class at least twice.
        test: fraction of the test part, 0 to 1; the training part is the rest.
        seed: `random_state`.

    Returns:
        (training, test) indices in the order drawn.
    """
    draw = np.random.RandomState(seed)
    number = len(labels)
    _, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    of_class = np.split(np.argsort(classes, kind="mergesort"), np.cumsum(counts)[:-1])
    in_train = _shares(counts, math.floor(number * (1 - test)), draw)
    in_test = _shares(counts - in_train, math.ceil(number * test), draw)
    train: list[int] = []
    held: list[int] = []
    for members, first, second in zip(of_class, in_train, in_test, strict=True):
        shuffled = members[draw.permutation(len(members))].tolist()
        train += shuffled[:first]
        held += shuffled[first : first + second]
    return draw.permutation(train).tolist(), draw.permutation(held).tolist()


def _shares(counts: np.ndarray, number: int, draw: np.random.RandomState) -> np.ndarray:
    """How many of each class make up `number` items; what rounding leaves goes by the largest remainder."""
    exact = counts / counts.sum() * number
    shares = np.floor(exact)
    left = int(number - shares.sum())
    for remainder in np.unique(exact - np.floor(exact))[::-1]:
        if left <= 0:
            break
        tied = np.flatnonzero(exact - np.floor(exact) == remainder)
        chosen = draw.choice(tied, size=min(len(tied), left), replace=False)
        shares[chosen] += 1
        left -= len(chosen)
    whole: np.ndarray = shares.astype(int)
    return whole
