import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from malpighi.likeness.pdq import hamming, picture_hash, turned


def test_every_turn_has_the_hash_of_the_turned_picture(tissue):
    for seed, (width, height) in enumerate([(64, 64), (160, 160), (161, 97), (224, 150), (5, 9)]):
        picture = tissue(seed, width, height)
        found = picture_hash(picture)
        for turn in range(8):
            alone = picture_hash(np.ascontiguousarray(turned(picture, turn)))
            assert hamming(alone.pdq[0], found.pdq[turn]) <= 2, (width, height, turn)
            assert (hamming(alone.low[0], found.low[turn][None]) <= 2).all()


@given(st.integers(0, 2**32 - 1), st.integers(0, 7))
@settings(max_examples=40, deadline=None)
def test_the_turns_of_a_turned_picture_are_the_same_eight(seed, turn):
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 256, (rng.integers(16, 90), rng.integers(16, 90), 3), dtype=np.uint8)
    mine = picture_hash(picture).pdq
    theirs = picture_hash(np.ascontiguousarray(turned(picture, turn))).pdq
    assert hamming(mine[:, None], theirs[None]).min(axis=1).max() <= 2


def test_the_turns_form_the_group_of_the_square(tissue):
    picture = tissue(1, 12, 7)
    seen = {turned(picture, turn).tobytes() + bytes(turned(picture, turn).shape) for turn in range(8)}
    assert len(seen) == 8
    for turn in range(8):
        twice = [turned(turned(picture, turn), second) for second in range(8)]
        assert sum(np.array_equal(image, picture) for image in twice if image.shape == picture.shape) == 1


def test_half_of_the_bits_are_set_and_quality_tells_blank_from_rich(tissue):
    rich, blank = picture_hash(tissue(2)), picture_hash(np.full((80, 80, 3), 240, np.uint8))
    assert np.bitwise_count(rich.pdq).sum(axis=1).tolist() == [128] * 8
    assert np.bitwise_count(rich.low).tolist() == [[32, 32]] * 8
    assert rich.quality > 50
    assert blank.quality == 0


def test_distinct_pictures_differ_and_copies_hardly(tissue):
    picture = tissue(3)
    dimmer = np.clip(picture * 0.9 + 5, 0, 255).astype(np.uint8)
    assert hamming(picture_hash(picture).pdq[0], picture_hash(dimmer).pdq[0]) < 20
    assert hamming(picture_hash(picture).pdq[0], picture_hash(tissue(4)).pdq).min() > 60


def test_a_sliver_is_refused():
    with pytest.raises(ValueError, match="4 x 50 px"):
        picture_hash(np.zeros((50, 4, 3), np.uint8))


def test_as_the_library_computes_it(tissue):
    pdqhash = pytest.importorskip("pdqhash", reason="the reference implementation is not installed")
    for seed, size in enumerate([(64, 64), (160, 160), (301, 200), (448, 448)]):
        picture = tissue(seed, *size)
        bits, quality = pdqhash.compute(picture)
        found = picture_hash(picture)
        mine = np.unpackbits(found.pdq[0].astype("<u8").view(np.uint8), bitorder="little")
        assert min((mine != bits).sum(), (mine[::-1] != bits).sum()) <= 2
        assert abs(found.quality - quality) <= 1
