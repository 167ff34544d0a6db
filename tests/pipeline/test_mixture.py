from collections import Counter

import pytest

from malpighi.pipeline.learning import mixture
from malpighi.records import Choice, Provenance, Sample, Scale, TaskKind, Turn

SIZES = {"large": 900, "middle": 90, "small": 9}


def sample(exam, index):
    return Sample(
        id=f"{exam}/{index}",
        dataset="d",
        exam=exam,
        task=TaskKind.VQA,
        scale=Scale.CELL,
        images=(),
        turns=(Turn("user", "?"),),
        answer=Choice(0),
        options=("yes", "no"),
        group=str(index),
        licence="none",
        provenance=Provenance("made"),
    )


POOL = [sample(exam, index) for exam, size in SIZES.items() for index in range(size)]


@pytest.mark.parametrize(
    ("balance", "shares"),
    [
        (1.0, {"large": 900 / 999, "middle": 90 / 999, "small": 9 / 999}),
        (0.0, {"large": 1 / 3, "middle": 1 / 3, "small": 1 / 3}),
        (0.5, {"large": 0.7064, "middle": 0.2234, "small": 0.0706}),
    ],
)
def test_exams_are_seen_by_their_size_to_the_balance(balance, shares):
    drawn = Counter(s.exam for s in mixture(POOL, 3000, balance, seed=0))
    assert drawn.total() == 3000
    for exam, share in shares.items():
        assert drawn[exam] / 3000 == pytest.approx(share, abs=0.03)


def test_none_is_seen_twice_before_all_are_seen_once():
    seen = Counter(s.id for s in mixture(POOL, 3000, 0.0, seed=0))
    for exam, size in SIZES.items():
        counts = [seen[f"{exam}/{index}"] for index in range(size)]
        assert max(counts) - min(counts) <= 1


def test_exams_are_mixed_over_the_whole_training():
    drawn = mixture(POOL, 3000, 0.0, seed=0)
    for third in (drawn[:1000], drawn[1000:2000], drawn[2000:]):
        assert all(count > 250 for count in Counter(s.exam for s in third).values())


def test_the_seed_alone_decides():
    one = [s.id for s in mixture(POOL, 100, 0.5, seed=0)]
    assert one == [s.id for s in mixture(POOL, 100, 0.5, seed=0)]
    assert one != [s.id for s in mixture(POOL, 100, 0.5, seed=1)]


def test_nothing_to_draw_from_or_to_draw():
    assert mixture([], 10, 0.5, seed=0) == []
    assert mixture(POOL, 0, 0.5, seed=0) == []
