import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from malpighi.slides.tile_cache import TileCache


def tile(value):
    return np.full((10, 10, 3), value, np.uint8)


def test_it_never_holds_more_than_its_limit():
    cache = TileCache(1000)
    for key in range(20):
        cache.take(key, lambda key=key: tile(key))
        assert cache.held <= 1000
    assert [key for key in range(20) if cache.find(key) is not None] == [17, 18, 19]


def test_what_was_used_last_stays():
    cache = TileCache(900)
    for key in (0, 1, 2, 0, 3):
        cache.take(key, lambda key=key: tile(key))
    assert [key for key in range(4) if cache.find(key) is not None] == [0, 2, 3]


def test_a_tile_larger_than_the_limit_is_handed_on():
    assert TileCache(10).take("a", lambda: tile(4))[0, 0, 0] == 4


def test_many_threads_decode_a_tile_once():
    cache, asked, gate = TileCache(10_000), [], threading.Barrier(8)

    def decode():
        asked.append(1)
        return tile(5)

    def want(_):
        gate.wait()
        return cache.take("a", decode)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(want, range(8)))
    assert len(asked) == 1
    assert all((each == 5).all() for each in found)


def test_a_failure_is_not_kept_and_blocks_nobody():
    cache = TileCache(1000)

    def fail():
        raise ValueError("torn")

    with pytest.raises(ValueError, match="torn"):
        cache.take("a", fail)
    assert cache.take("a", lambda: None) is None
    assert cache.take("a", lambda: tile(1)) is not None


def test_of_tiles_handed_out_in_full_a_few_are_kept():
    cache = TileCache(10**6)
    for key in range(30):
        cache.take(key, lambda key=key: tile(key))
        cache.used(key, 0.5)
        assert cache.held == 300
        cache.used(key, 0.5)
        assert cache.held == 0
    assert [key for key in range(30) if cache.find(key) is not None] == [28, 29]
    cache.used("never seen", 1.0)
