"""Features of many pictures, computed once: chunks on disk, kept after a kill and for the next task."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from malpighi.config import digest
from malpighi.durable import mending, replacing
from malpighi.errors import DataError
from malpighi.records import Failure

log = logging.getLogger(__name__)

Features = NDArray[np.float32]
Encode = Callable[[Sequence[Image.Image]], Features]

CHUNK = 256
"""Pictures per file; what a kill can cost."""


def embed(
    keys: Sequence[str],
    load: Callable[[str], Image.Image],
    encode: Encode,
    folder: Path,
    batch_size: int = 32,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[Features, list[Failure]]:
    """Features of pictures, in the order of their keys; what lies in the folder already is not computed.

    A picture that cannot be read gets a row of NaN and a failure, and the others go on.

    Args:
        keys: names of the pictures by content; each is computed once.
        load: a key's picture; raises DataError where it cannot be read.
        encode: a batch's features.
        folder: of this encoder; another encoder needs another.
        batch_size: pictures encoded together.
        on_progress: called with (pictures done, pictures in all).

    Returns:
        features_ND, and the failures by key.
    """
    distinct = sorted(set(keys))
    rows: dict[str, Features] = {}
    failures: list[Failure] = []
    with mending(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(distinct), CHUNK):
        chunk = distinct[start : start + CHUNK]
        path = folder / f"{digest(chunk)}.npy"
        features = np.load(path) if path.is_file() else None
        if features is None or len(features) != len(chunk):
            features, failed = _encoded(chunk, load, encode, batch_size)
            failures += failed
            if not failed:  # a chunk with a failure is tried again next time
                with mending(folder), replacing(path) as file:
                    np.save(file, features)
        rows.update(zip(chunk, features, strict=True))
        if on_progress:
            on_progress(min(start + CHUNK, len(distinct)), len(distinct))
    return np.stack([rows[key] for key in keys]) if keys else np.zeros((0, 0), np.float32), failures


def _encoded(
    keys: Sequence[str], load: Callable[[str], Image.Image], encode: Encode, batch_size: int
) -> tuple[Features, list[Failure]]:
    pictures: dict[str, Image.Image] = {}
    failures = []
    for key in keys:
        try:
            pictures[key] = load(key)
        except DataError as error:
            log.warning("%s: %s", key, error)
            failures.append(Failure(key, "embed", str(error)))
    names = list(pictures)
    made = [
        encode([pictures[name] for name in names[start : start + batch_size]])
        for start in range(0, len(names), batch_size)
    ]
    found = dict(zip(names, np.concatenate(made), strict=True)) if made else {}
    width = len(next(iter(found.values()))) if found else 1
    return np.stack([found.get(key, np.full(width, np.nan, np.float32)) for key in keys]), failures
