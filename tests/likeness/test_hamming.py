import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from malpighi.likeness import hamming
from malpighi.likeness.hamming import every_pair, neighbours


def hashes(rng, count, words, *, clustered):
    if not clustered:
        return rng.integers(0, 2**64, (count, words), dtype=np.uint64)
    centres = rng.integers(0, 2**64, (max(count // 20, 1), words), dtype=np.uint64)
    noise = np.bitwise_and.reduce(rng.integers(0, 2**64, (4, count, words), dtype=np.uint64))
    return centres[rng.integers(0, len(centres), count)] ^ noise


def naive(queries, stored, radius):
    """Python's own integers and strings of bits."""
    as_ints = [[int.from_bytes(row.tobytes(), "little") for row in side] for side in (queries, stored)]
    found = [
        (i, j, (a ^ b).bit_count())
        for i, a in enumerate(as_ints[0])
        for j, b in enumerate(as_ints[1])
        if (a ^ b).bit_count() <= radius
    ]
    return sorted(found)


def rows(pairs):
    return list(zip(*(column.tolist() for column in pairs), strict=True))


@given(st.integers(0, 10**6), st.integers(0, 60), st.integers(0, 60), st.sampled_from([1, 4]), st.booleans())
@settings(max_examples=40, deadline=None)
def test_equals_counting_bits_one_by_one(seed, queries, stored, words, clustered):
    rng = np.random.default_rng(seed)
    sides = [hashes(rng, count, words, clustered=clustered) for count in (queries, stored)]
    radius = int(rng.integers(0, 64 * words + 1))
    assert rows(every_pair(*sides, radius)) == naive(*sides, radius)
    assert rows(neighbours(*sides, radius)) == naive(*sides, radius)


@pytest.mark.parametrize(("words", "radius"), [(4, 0), (4, 15), (4, 31), (4, 40), (1, 3), (1, 11), (1, 15)])
@pytest.mark.parametrize("clustered", [False, True])
def test_the_bands_find_exactly_what_comparing_all_finds(monkeypatch, words, radius, clustered):
    monkeypatch.setattr(hamming, "_GATHERING", 0)  # bands, whatever they cost
    monkeypatch.setattr(hamming, "_CHUNK", 1000)
    rng = np.random.default_rng(radius)
    stored = hashes(rng, 9000, words, clustered=clustered)
    queries = hashes(rng, 8500, words, clustered=clustered)
    queries[:500] = stored[:500]
    for place in range(500):  # planted at every distance up to beyond the radius
        for bit in rng.choice(64 * words, place % (radius + 5), replace=False):
            queries[place, bit // 64] ^= np.uint64(1) << np.uint64(bit % 64)
    found, wanted = neighbours(queries, stored, radius), every_pair(queries, stored, radius)
    assert rows(found) == rows(wanted)
    assert len(wanted.query) >= 500 * (radius + 1) // (radius + 5) - 5


def test_what_is_not_kept_is_not_held():
    rng = np.random.default_rng(0)
    stored = hashes(rng, 300, 4, clustered=True)
    all_pairs = neighbours(stored, stored, 40)
    kept = neighbours(stored, stored, 40, keep=lambda q, s: q < s)
    assert rows(kept) == [row for row in rows(all_pairs) if row[0] < row[1]]


def test_progress_ends_at_one_and_never_falls():
    told = []
    neighbours(np.zeros((1000, 4), np.uint64), np.ones((50, 4), np.uint64), 3, on_progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0


@pytest.mark.parametrize("radius", [-1, 257])
def test_an_impossible_radius_is_refused(radius):
    with pytest.raises(ValueError, match="0 to 256"):
        neighbours(np.zeros((1, 4), np.uint64), np.zeros((1, 4), np.uint64), radius)
