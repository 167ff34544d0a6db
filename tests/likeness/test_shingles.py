from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from malpighi.likeness.shingles import jaccard, shingles, signatures, similar_texts

WORDS = [f"word{number}" for number in range(3000)]


def text(rng, count):
    return " ".join(rng.choice(WORDS, count, replace=False))


def test_case_punctuation_and_width_do_not_matter():
    assert np.array_equal(shingles("A large, DARK nucleus."), shingles("a large dark ｎucleus"))


def test_chinese_is_compared_by_characters():
    assert jaccard(shingles("细胞核增大深染"), shingles("细胞核增大，深染。")) == 1.0
    assert 0 < jaccard(shingles("细胞核增大深染"), shingles("细胞核增大")) < 1


@given(st.lists(st.sampled_from("abcdef"), max_size=30), st.lists(st.sampled_from("abcdef"), max_size=30))
def test_jaccard_is_that_of_sets_of_pairs(a, b):
    pairs = [set(pairwise(words)) for words in (a, b)]
    wanted = len(pairs[0] & pairs[1]) / len(pairs[0] | pairs[1]) if pairs[0] | pairs[1] else 0.0
    assert jaccard(shingles(" ".join(a)), shingles(" ".join(b))) == wanted


def test_signatures_estimate_jaccard():
    rng = np.random.default_rng(1)
    for shared in (20, 50, 80, 95):
        common = text(rng, shared)
        a, b = (shingles(f"{common} {text(rng, 100 - shared)}") for _ in range(2))
        one, two = signatures([a, b])
        assert abs((one == two).mean() - jaccard(a, b)) < 0.15


def test_planted_copies_are_found_and_nothing_else():
    rng = np.random.default_rng(2)
    stored = [text(rng, 40) for _ in range(2000)]
    queries = []
    for number in range(300):
        words = stored[number].split()
        for place in rng.choice(40, number % 5, replace=False):
            words[place] = "changed"
        queries.append(" ".join(words))
    found = similar_texts([shingles(q) for q in queries], [shingles(s) for s in stored], 0.7)
    exact = {
        (q, s) for q in range(300) for s in (q,) if jaccard(shingles(queries[q]), shingles(stored[s])) >= 0.7
    }
    got = set(zip(found.query.tolist(), found.stored.tolist(), strict=True))
    assert got <= exact
    assert len(got) >= 0.98 * len(exact)
    assert (found.alike >= 0.7).all()


@given(st.lists(st.text(max_size=60), max_size=8), st.lists(st.text(max_size=60), max_size=8))
@settings(max_examples=25, deadline=None)
def test_any_text_is_taken_and_every_pair_is_exact(queries, stored):
    mine, theirs = ([shingles(t) for t in side] for side in (queries, stored))
    found = similar_texts(mine, theirs, 0.6)
    for q, s, alike in zip(*found, strict=True):
        assert alike == jaccard(mine[q], theirs[s]) >= 0.6
    same = {
        (q, s) for q, a in enumerate(mine) for s, b in enumerate(theirs) if len(a) and np.array_equal(a, b)
    }
    assert same <= set(zip(found.query.tolist(), found.stored.tolist(), strict=True))
