"""The pictures of one set that are in another: turned, cropped, recompressed, restained."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from malpighi.corpus import Corpus, decode_image
from malpighi.errors import DataError
from malpighi.likeness.alignment import Agreement, Floats, agreement, thumbnail
from malpighi.likeness.fingerprints import Fingerprints, Pictures
from malpighi.likeness.hamming import Ints, neighbours
from malpighi.likeness.pdq import hamming
from malpighi.records import Failure


@dataclass(frozen=True)
class PictureSearch:
    """How far apart the hashes of a candidate may be.

    Attributes:
        near: PDQ bits, of 256, up to which pictures are taken for the same where pixels cannot be compared;
            Meta's advice.
        wide: PDQ bits up to which a candidate is compared by pixels, if one of its low hashes is near too.
        low: bits of the low hashes, of 64.
        least_quality: pictures of lower quality are too blank to be told apart, and left out.
        most: matches kept per picture.
        tries: candidates per picture whose pixels are compared, nearest first.
        workers: threads.
    """

    near: int = 31
    wide: int = 96
    low: int = 15
    least_quality: int = 25
    most: int = 3
    tries: int = 24
    workers: int = 2


class PictureMatch(NamedTuple):
    """A picture that is in the other set.

    Attributes:
        query: key of the picture.
        stored: key of the one it equals.
        distance: PDQ bits by which they differ; 0 for the same file.
        turn: the turn or flip of the query that equals the stored picture (see `pdq.turned`).
        agreement: what the pixels say; None where they were not compared.
    """

    query: str
    stored: str
    distance: int
    turn: int
    agreement: Agreement | None


class PictureMatches(NamedTuple):
    """What a search found.

    Attributes:
        matches: nearest first per picture.
        counts: `blank` pictures of either side left out, `compared` pairs of pixels, `refuted` by them, and
            candidates left `undecided` because one side has no pixels.
        failures: pictures that could not be compared.
    """

    matches: list[PictureMatch]
    counts: dict[str, int]
    failures: list[Failure]


def same_pictures(
    queries: Fingerprints,
    stored: Fingerprints,
    search: PictureSearch | None = None,
    *,
    on_progress: Callable[[float], None] | None = None,
) -> PictureMatches:
    """The pictures of `queries` that are in `stored`.

    Args:
        queries: all eight turns of its pictures are looked for.
        stored: its pictures as they are; of several with the same hash one stands for all.
        search: how far to look.
        on_progress: called with the share done, 0 to 1; the comparing of pixels is its second half.
    """
    search = search or PictureSearch()
    told = on_progress or (lambda _: None)
    sides = (queries, stored)
    mine, theirs = (_rich(side.pictures, search.least_quality) for side in sides)
    theirs = _unlike(stored.pictures, theirs)
    candidates = _candidates(
        queries.pictures, stored.pictures, (mine, theirs), search, lambda share: told(share / 2)
    )
    decide = _Decision(queries.corpus, stored.corpus, search)
    matches = list(_same_files(queries.pictures, stored.pictures))
    done = {(match.query, match.stored) for match in matches}
    groups = list(_by_query(candidates))
    for number, group in enumerate(groups):
        told((1 + number / len(groups)) / 2)
        named = [
            PictureMatch(queries.pictures.keys[q], stored.pictures.keys[s], distance, turn, None)
            for q, s, turn, distance in group
        ]
        matches += decide.keep([match for match in named if (match.query, match.stored) not in done])
    told(1.0)
    blank = sum(len(side.pictures.keys) - len(_rich(side.pictures, search.least_quality)) for side in sides)
    unread = sum(len(side.pictures.errors) for side in sides)
    return PictureMatches(matches, {"blank": blank - unread, **decide.counts}, decide.failures)


class _Decision:
    """Compares candidates by pixels where both sides have them, by hash alone where not."""

    def __init__(self, queries: Corpus | None, stored: Corpus | None, search: PictureSearch) -> None:
        self._search = search
        self._looks = tuple(_looker(corpus) if corpus else None for corpus in (queries, stored))
        self.counts = Counter(compared=0, refuted=0, undecided=0)
        self.failures: list[Failure] = []

    def keep(self, candidates: list[PictureMatch]) -> list[PictureMatch]:
        """Of one picture's candidates, nearest first, those that are the same."""
        kept: list[PictureMatch] = []
        for match in candidates[: self._search.tries]:
            found = self._decided(match)
            kept += [found] if found else []
            if len(kept) == self._search.most:
                break
        return kept

    def _decided(self, match: PictureMatch) -> PictureMatch | None:
        look, look_stored = self._looks
        if look is None or look_stored is None:
            self.counts["undecided"] += match.distance > self._search.near
            return match if match.distance <= self._search.near else None
        try:
            found = agreement(look_stored(match.stored), look(match.query), match.turn)
        except DataError as error:
            reason = f"{match.query} could not be compared with {match.stored}: {error}"
            self.failures.append(Failure(id=match.query, stage="leaks", reason=reason))
            return None
        self.counts["compared"] += 1
        self.counts["refuted"] += not found.same
        return match._replace(agreement=found) if found.same else None


def _looker(corpus: Corpus) -> Callable[[str], Floats]:
    @lru_cache(maxsize=4096)
    def look(key: str) -> Floats:
        return thumbnail(np.asarray(decode_image(corpus.image_bytes(key))))

    return look


def _rich(pictures: Pictures, least: int) -> Ints:
    return np.flatnonzero(pictures.quality >= least)


def _unlike(pictures: Pictures, places: Ints) -> Ints:
    """One place per hash, so that a thousand equal pictures are not a thousand candidates each."""
    _, first = np.unique(pictures.pdq[places, 0], axis=0, return_index=True)
    return places[np.sort(first)]


def _same_files(queries: Pictures, stored: Pictures) -> Iterator[PictureMatch]:
    """Pictures of the same bytes, however blank, except those without any structure."""
    there = set(stored.keys)
    for key, quality in zip(queries.keys, queries.quality, strict=True):
        if key in there and quality > 0:
            yield PictureMatch(key, key, 0, 0, None)


def _candidates(
    queries: Pictures,
    stored: Pictures,
    places: tuple[Ints, Ints],
    search: PictureSearch,
    told: Callable[[float], None],
) -> Ints:
    """Rows (query, stored, turn, distance): one per pair of pictures, the nearest turn."""
    mine, theirs = places
    pdq, stored_pdq = queries.pdq[mine].reshape(-1, 4), stored.pdq[theirs, 0]

    def within(q: Ints, s: Ints) -> NDArray[np.bool_]:
        return hamming(pdq[q], stored_pdq[s]) <= search.wide

    def share(part: int) -> Callable[[float], None]:
        return lambda done: told((part + done) / 3)

    found = [neighbours(pdq, stored_pdq, search.near, workers=search.workers, on_progress=share(0))]
    for part in range(queries.low.shape[2]):
        low = np.ascontiguousarray(queries.low[mine][..., part].reshape(-1, 1))
        stored_low = np.ascontiguousarray(stored.low[theirs, 0, part, None])
        found.append(
            neighbours(
                low, stored_low, search.low, keep=within, workers=search.workers, on_progress=share(part + 1)
            )
        )
    q = np.concatenate([pairs.query for pairs in found])
    s = np.concatenate([pairs.stored for pairs in found])
    rows = np.stack([mine[q // 8], theirs[s], q % 8, hamming(pdq[q], stored_pdq[s])], axis=1)
    rows = rows[np.lexsort((rows[:, 2], rows[:, 3], rows[:, 1], rows[:, 0]))]
    first = np.ones(len(rows), bool)
    first[1:] = (rows[1:, :2] != rows[:-1, :2]).any(axis=1)
    rows = rows[first]
    return rows[np.lexsort((rows[:, 1], rows[:, 3], rows[:, 0]))]


def _by_query(rows: Ints) -> Iterator[list[list[int]]]:
    starts = np.flatnonzero(np.diff(rows[:, 0], prepend=-1))
    for part in np.split(rows, starts[1:]) if len(rows) else ():
        yield part.tolist()
