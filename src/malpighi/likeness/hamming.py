"""All pairs of hashes within a radius, between two sets of millions, exactly and in bounded memory.

Shape legend: Q = queries, S = stored hashes, P = pairs found, W = words of 64 bits, B = 4 W bands.

Two ways, the cheaper is taken: every pair in blocks, or multi-index hashing. The latter cuts a hash into
bands of 16 bits; two hashes within a radius r have a band in which at most r // B bits differ, so only pairs
that meet in such a band are compared.

Source: multi-index hashing (Norouzi, Punjani and Fleet 2012), with numpy's sort in place of hash tables.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from malpighi.likeness.pdq import Words

Ints = NDArray[np.int64]

_BAND_BITS = 16
_BLOCK = (16, 4096)
_ROWS = 256
_CHUNK = 1 << 20
# A pair that meets in a band is gathered from memory: about this many times the cost of one in a block.
_GATHERING = 10
_NOTHING = np.zeros((0, 3), np.int64)


Keep = Callable[[Ints, Ints], NDArray[np.bool_]]


class Pairs(NamedTuple):
    """Pairs of hashes, each once, sorted by query and stored index.

    Attributes:
        query: int64, index into the queries.
        stored: int64, index into the stored hashes.
        distance: int64, differing bits.
    """

    query: Ints
    stored: Ints
    distance: Ints


def neighbours(
    queries_QW: Words,
    stored_SW: Words,
    radius: int,
    *,
    keep: Keep | None = None,
    workers: int = 2,
    on_progress: Callable[[float], None] | None = None,
) -> Pairs:
    """All pairs that differ in at most `radius` bits.

    Memory is the input, one sorted copy of the stored hashes, and the pairs found; hashes that stand in many
    rows should be made unique before.

    Args:
        queries_QW: uint64, contiguous.
        stored_SW: uint64, contiguous.
        radius: bits, 0 to 64 W.
        keep: takes query and stored indices of pairs within the radius and says which to keep; by it a second
            hash can thin out what the first finds, before it is held in memory.
        workers: threads.
        on_progress: called with the share of the work done, 0 to 1.

    Raises:
        ValueError: a radius outside of 0 to 64 W, or hashes of different lengths.
    """
    bits = 64 * queries_QW.shape[1]
    if not 0 <= radius <= bits or queries_QW.shape[1] != stored_SW.shape[1]:
        raise ValueError(
            f"a radius of {radius} between hashes of {bits} and {64 * stored_SW.shape[1]} bits; expected "
            f"hashes of one length and a radius of 0 to {bits}"
        )
    told = on_progress or (lambda _: None)
    masks = _masks(min(radius // (bits // _BAND_BITS), 4))
    cost = len(masks) * (bits // _BAND_BITS) * _GATHERING / 2**_BAND_BITS
    # Sorting by every band costs more than comparing where one side is small.
    banded = cost < 1 and min(len(queries_QW), len(stored_SW)) > 2**_BAND_BITS // 8
    jobs = _banded(queries_QW, stored_SW, radius, masks) if banded else _blocks(queries_QW, stored_SW, radius)
    found = _spread(jobs, workers, told)
    return _merge([rows if keep is None else rows[keep(rows[:, 0], rows[:, 1])] for rows in found])


def every_pair(queries_QW: Words, stored_SW: Words, radius: int) -> Pairs:
    """As `neighbours`, by comparing every pair with every other: slow, and the yardstick of the tests."""
    return _merge([job() for _, job in _blocks(queries_QW, stored_SW, radius)])


_Job = tuple[float, Callable[[], NDArray[np.int64]]]


def _spread(jobs: Iterator[_Job], workers: int, told: Callable[[float], None]) -> Iterator[Ints]:
    """Run the jobs in a few threads (numpy lets go of the lock), never many ahead of what is collected."""
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        running = []
        for done, job in jobs:
            running.append(pool.submit(job))
            if len(running) > 2 * workers:
                yield running.pop(0).result()
                told(done)
        for future in running:
            yield future.result()
        told(1.0)


def _merge(found: list[Ints]) -> Pairs:
    rows = np.concatenate([_NOTHING, *found])
    rows = np.unique(rows, axis=0) if len(rows) else rows
    return Pairs(*(np.ascontiguousarray(column) for column in rows.T))


def _blocks(queries_QW: Words, stored_SW: Words, radius: int) -> Iterator[_Job]:
    queries, stored = (np.ascontiguousarray(words.T) for words in (queries_QW, stored_SW))
    for top in range(0, len(queries_QW), _ROWS):

        def job(top: int = top) -> Ints:
            part = queries[:, top : top + _ROWS]
            rows = np.concatenate([_NOTHING, *_near_rows(part, stored, radius)])
            rows[:, 0] += top
            return rows

        yield min((top + _ROWS) / len(queries_QW), 1.0), job


def _near_rows(queries: Words, stored: Words, radius: int) -> Iterator[Ints]:
    """Rows (query, stored, distance) of the near pairs, block by block; hashes as columns of words."""
    height, width = _BLOCK
    buffers = np.empty(_BLOCK, np.uint64), np.empty(_BLOCK, np.uint8), np.empty(_BLOCK, np.uint16)
    for top in range(0, queries.shape[1], height):
        for left in range(0, stored.shape[1], width):
            mine, theirs = queries[:, top : top + height, None], stored[:, left : left + width]
            shape = mine.shape[1], theirs.shape[1]
            unlike, count, distance = (buffer[: shape[0], : shape[1]] for buffer in buffers)
            distance[:] = 0
            for ours, others in zip(mine, theirs, strict=True):
                distance += np.bitwise_count(np.bitwise_xor(ours, others, out=unlike), out=count)
            near = distance <= radius
            if near.any():  # finding the places costs more than all before
                rows, columns = np.nonzero(near)
                yield np.stack([rows + top, columns + left, distance[near].astype(np.int64)], axis=1)


def _banded(queries_QW: Words, stored_SW: Words, radius: int, masks: NDArray[np.uint16]) -> Iterator[_Job]:
    bands = 64 * stored_SW.shape[1] // _BAND_BITS
    for band in range(bands):
        stored = _Sorted.by_band(stored_SW, band)
        queries = _Sorted.by_band(queries_QW, band)
        for number, mask in enumerate(masks):

            def job(stored: _Sorted = stored, queries: _Sorted = queries, mask: np.uint16 = mask) -> Ints:
                return _meeting(queries, stored, mask, radius)

            yield (band + (number + 1) / len(masks)) / bands, job


class _Sorted(NamedTuple):
    """Hashes sorted by one band.

    Attributes:
        order: places of the sorted hashes in the set they came from.
        keys: the band's 16 bits, sorted.
        words: the sorted hashes as columns of words, the one that the band is part of last.
        starts: where each of the 65536 values begins in `keys`, and the end.
    """

    order: Ints
    keys: NDArray[np.uint16]
    words: list[Words]
    starts: Ints

    @classmethod
    def by_band(cls, words_NW: Words, band: int) -> "_Sorted":
        word, shift = divmod(band * _BAND_BITS, 64)
        keys = ((words_NW[:, word] >> np.uint64(shift)) & np.uint64(0xFFFF)).astype(np.uint16)
        order = np.argsort(keys, kind="stable")
        turns = np.roll(np.arange(words_NW.shape[1]), -word - 1)
        columns = [np.ascontiguousarray(words_NW[order, turn]) for turn in turns]
        starts = np.concatenate([[0], np.cumsum(np.bincount(keys, minlength=2**_BAND_BITS))])
        return cls(order, keys[order], columns, starts)


def _meeting(queries: _Sorted, stored: _Sorted, mask: np.uint16, radius: int) -> Ints:
    """Rows (query, stored, distance) of the pairs whose bands differ in exactly the bits of `mask`."""
    wanted = queries.keys ^ mask
    first = stored.starts[wanted]
    counts = stored.starts[wanted.astype(np.int64) + 1] - first
    ends = np.cumsum(counts)
    found, at = [_NOTHING], 0
    while at < len(counts):
        done = ends[at - 1] if at else 0
        to = max(int(np.searchsorted(ends, done + _CHUNK, side="right")), at + 1)
        found += _compare(queries, stored, (at, to), (first[at:to], counts[at:to]), radius)
        at = to
    return np.concatenate(found)


def _compare(
    queries: _Sorted, stored: _Sorted, span: tuple[int, int], runs: tuple[Ints, Ints], radius: int
) -> list[Ints]:
    """One chunk: query `span[0] + i` against the `runs[1][i]` stored hashes from `runs[0][i]` on."""
    first, counts = runs
    total = int(counts.sum())
    if not total:
        return []
    before = np.cumsum(counts) - counts
    mine = np.repeat(np.arange(*span, dtype=np.int32), counts)
    theirs = np.arange(total, dtype=np.int32) + np.repeat((first - before).astype(np.int32), counts)
    distance = np.zeros(total, np.uint16)
    for place, (ours, others) in enumerate(zip(queries.words, stored.words, strict=True), 1):
        distance += np.bitwise_count(ours[mine] ^ others[theirs])
        if 2 * place == len(stored.words):  # half of the bits: nearly all that met by chance are out
            near = distance <= radius
            mine, theirs, distance = mine[near], theirs[near], distance[near]
    near = distance <= radius
    rows = (queries.order[mine[near]], stored.order[theirs[near]], distance[near].astype(np.int64))
    return [np.stack(rows, axis=1)]


def _masks(most: int) -> NDArray[np.uint16]:
    """All 16-bit numbers with at most so many bits set."""
    picked = (bits for count in range(most + 1) for bits in combinations(range(_BAND_BITS), count))
    return np.array([sum(1 << bit for bit in bits) for bits in picked], dtype=np.uint16)
