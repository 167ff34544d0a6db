"""Recall@k between images and captions, where every image of a caption is a hit.

A query is answered if any of its partners is among the first k. Partners share a key, the id of the
caption: twenty images under one caption are all right answers to it, and it is a right answer to each.

Shapes: Q queries, C candidates, E length of an embedding.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from malpighi.errors import DataError

Floats = NDArray[np.float64]
Ties = Literal["expected", "worst"]

KS = (1, 5, 10, 50)
_BLOCK_CELLS = 4_000_000


class Recall(msgspec.Struct, frozen=True):
    """Recall in one direction.

    Attributes:
        at: k -> share of the queries answered among the first k.
        queries: queries that have a partner.
        partnerless: queries left out because no candidate has their key.
        candidates: what was ranked.
    """

    at: dict[int, float]
    queries: int
    partnerless: int
    candidates: int


class Retrieval(msgspec.Struct, frozen=True):
    """Recall in both directions.

    Attributes:
        image_to_text: images are the queries.
        text_to_image: captions are the queries.
    """

    image_to_text: Recall
    text_to_image: Recall


class _Tied(NamedTuple):
    """Per query: strangers above its best partner, partners tied at that score, strangers tied with them."""

    above: Floats
    partners: Floats
    strangers: Floats


def retrieval(
    images: NDArray[np.floating],
    texts: NDArray[np.floating],
    image_keys: Sequence[Hashable],
    text_keys: Sequence[Hashable],
    ks: Sequence[int] = KS,
    ties: Ties = "expected",
) -> Retrieval:
    """Recall@k of embeddings by cosine, in both directions, block by block.

    Cosines that agree to nine decimals are a tie, so that rounding does not order equal embeddings.

    Args:
        images: images_IE.
        texts: texts_TE.
        image_keys: the caption id of each image.
        text_keys: the id of each caption.
        ks: depths of the list.
        ties: how equal scores are ranked; see `recall`.

    Raises:
        DataError: shapes and keys do not go together, a vector has no length, or nothing has a partner.
    """
    unit_images, unit_texts = _unit(images, "image"), _unit(texts, "text")
    if unit_images.shape[1] != unit_texts.shape[1]:
        raise DataError(f"image vectors have {unit_images.shape[1]} entries, texts {unit_texts.shape[1]}")

    def cosines(queries: Floats, candidates: Floats) -> Callable[[slice], Floats]:
        return lambda part: np.round(queries[part] @ candidates.T, 9)

    return Retrieval(
        _recall(cosines(unit_images, unit_texts), image_keys, text_keys, ks, ties),
        _recall(cosines(unit_texts, unit_images), text_keys, image_keys, ks, ties),
    )


def recall(
    scores_QC: NDArray[np.floating],
    query_keys: Sequence[Hashable],
    candidate_keys: Sequence[Hashable],
    ks: Sequence[int] = KS,
    ties: Ties = "expected",
) -> Recall:
    """Recall@k from a matrix of scores, higher is nearer.

    Args:
        scores_QC: score of every candidate for every query.
        query_keys: Q keys.
        candidate_keys: C keys; equal keys are partners.
        ks: depths of the list.
        ties: `expected` gives the chance of a hit if equal scores stand in random order; `worst` puts
            partners behind everything that scores as high, so a model that scores all alike earns nothing.

    Raises:
        DataError: the matrix does not fit the keys, a score is no number, or no query has a partner.
    """
    expected = (len(query_keys), len(candidate_keys))
    if scores_QC.shape != expected:
        raise DataError(f"the scores have shape {scores_QC.shape}; the keys ask for {expected}")
    return _recall(lambda part: scores_QC[part], query_keys, candidate_keys, ks, ties)


def _recall(
    scores_of: Callable[[slice], NDArray[np.floating]],
    query_keys: Sequence[Hashable],
    candidate_keys: Sequence[Hashable],
    ks: Sequence[int],
    ties: Ties,
) -> Recall:
    if not ks or min(ks) < 1:
        raise DataError(f"recall@k needs depths of 1 or more; found {list(ks)}")
    numbers = {key: number for number, key in enumerate(dict.fromkeys([*query_keys, *candidate_keys]))}
    asked = np.array([numbers[key] for key in query_keys], np.int64)
    offered = np.array([numbers[key] for key in candidate_keys], np.int64)
    partnered = np.isin(asked, offered)
    if not partnered.any():
        raise DataError("no query has a partner among the candidates; check that both use the same keys")
    totals = np.zeros(len(ks))
    for part in _blocks(len(asked), len(offered)):
        scores = np.asarray(scores_of(part))
        if np.isnan(scores).any():
            raise DataError(
                f"scores of queries {part.start} to {part.stop - 1} hold values that are no number"
            )
        kept = partnered[part]
        counts = _tied(scores[kept], asked[part][kept], offered)
        totals += [float(_hit(counts, k, ties).sum()) for k in ks]
    answered = int(partnered.sum())
    found = {k: float(total / answered) for k, total in zip(ks, totals, strict=True)}
    return Recall(found, answered, len(asked) - answered, len(offered))


def _tied(scores: NDArray[np.floating], asked: NDArray[np.int64], offered: NDArray[np.int64]) -> _Tied:
    partner = asked[:, None] == offered
    best = np.where(partner, scores, -np.inf).max(axis=1, keepdims=True)
    level = scores == best
    counts = ((scores > best).sum(axis=1), (level & partner).sum(axis=1), (level & ~partner).sum(axis=1))
    return _Tied(*(count.astype(float) for count in counts))


def _hit(tied: _Tied, k: int, ties: Ties) -> Floats:
    """Chance that a partner is among the first k."""
    above, partners, strangers = tied
    places = k - above
    if ties == "worst":
        return (places > strangers).astype(float)
    open_ = (places > 0) & (places <= strangers)
    drawn = np.where(open_, places, 0.0)
    # All places go to strangers: C(strangers, places) / C(strangers + partners, places).
    missed = np.exp(_log_choose(strangers, drawn) - _log_choose(strangers + partners, drawn))
    return np.where(places <= 0, 0.0, np.where(open_, 1.0 - missed, 1.0))


def _log_choose(n: Floats, k: Floats) -> Floats:
    found: Floats = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    return found


def _blocks(queries: int, candidates: int) -> Iterator[slice]:
    step = max(1, _BLOCK_CELLS // max(candidates, 1))
    for start in range(0, queries, step):
        yield slice(start, min(start + step, queries))


def _unit(vectors: NDArray[np.floating], what: str) -> Floats:
    wide = np.asarray(vectors, np.float64)
    if wide.ndim != 2:
        raise DataError(f"{what} vectors have shape {wide.shape}; expected one row per {what}")
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    bad = np.flatnonzero(~(np.isfinite(lengths[:, 0]) & (lengths[:, 0] > 0)))
    if len(bad):
        raise DataError(f"{len(bad)} {what} vectors have no length or hold no numbers, the first is {bad[0]}")
    unit: Floats = wide / lengths
    return unit
