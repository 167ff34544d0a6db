import os
import signal
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from malpighi.errors import DataError, FormatVersionError

zarr = pytest.importorskip("zarr", reason="needs the extra `slides`")
h5py = pytest.importorskip("h5py", reason="needs the extra `slides`")

from malpighi.slides.feature_files import export_h5, import_h5  # noqa: E402
from malpighi.slides.features import SHARD_ROWS, BagFacts, FeatureStore, file_name  # noqa: E402

ENCODER = "hf-hub:org/model"


def facts(slide="a.svs", width=8, **changes):
    return BagFacts(slide=slide, encoder=ENCODER, width=width, tile=256, mpp=0.5, **changes)


def made(count, width=8, seed=0):
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 100_000, (count, 2))
    places = np.column_stack([corners, np.full((count, 2), 512)])
    return rng.normal(size=(count, width)).astype(np.float32), places


def fill(store, about, features, places, batch=100):
    with store.writing(about) as bag:
        for first in range(bag.done, len(places), batch):
            bag.append(features[first : first + batch], places[first : first + batch])
        return bag.done


@pytest.mark.parametrize("kind", ["float16", "float32"])
@pytest.mark.parametrize("count", [0, 1, SHARD_ROWS - 1, SHARD_ROWS, 2 * SHARD_ROWS + 300])
def test_what_is_written_is_read(tmp_path, kind, count):
    store, (features, places) = FeatureStore(tmp_path, ENCODER), made(count)
    about = facts(kind=kind)
    fill(store, about, features, places, batch=333)
    bag = store.read("a.svs")
    assert bag.features.dtype == kind
    assert bag.features.shape == (count, 8)
    assert np.array_equal(bag.features, features.astype(kind))
    assert np.array_equal(bag.places, places)
    assert (bag.facts, store.facts("a.svs")) == (about, (about, count))


def test_the_array_is_sharded_zarr_v3_that_others_can_read(tmp_path):
    store, (features, places) = FeatureStore(tmp_path, ENCODER), made(SHARD_ROWS + 5)
    fill(store, facts(), features, places)
    array = zarr.open_array(store.folder / "a.svs.zarr" / "features", mode="r")
    assert (array.metadata.zarr_format, array.shards) == (3, (SHARD_ROWS, 8))
    shards = [path for path in (store.folder / "a.svs.zarr/features/c").rglob("*") if path.is_file()]
    assert len(shards) == 2


def test_a_broken_off_writing_shows_nothing_and_goes_on_where_it_was(tmp_path):
    store, (features, places) = FeatureStore(tmp_path, ENCODER), made(3 * SHARD_ROWS)
    with pytest.raises(RuntimeError):
        broken_off(store, facts(), features[: SHARD_ROWS + 10], places[: SHARD_ROWS + 10])
    assert ("a.svs" in store, store.slides()) == (False, [])
    assert fill(store, facts(), features, places) == SHARD_ROWS
    assert np.array_equal(store.read("a.svs").features, features.astype(np.float16))
    assert not list(store.folder.glob("*.part"))


def test_what_was_begun_of_other_facts_is_begun_anew(tmp_path):
    store, (features, places) = FeatureStore(tmp_path, ENCODER), made(SHARD_ROWS + 10)
    with pytest.raises(RuntimeError):
        broken_off(store, facts(source="old"), features + 1, places)
    assert fill(store, facts(source="new"), features, places) == 0
    assert np.array_equal(store.read("a.svs").features, features.astype(np.float16))


def broken_off(store, about, features, places):
    with store.writing(about) as bag:
        bag.append(features, places)
        raise RuntimeError


KILLED = """
import os, signal, sys
import numpy as np
from malpighi.slides import features as f

stop = int(sys.argv[2])
written = 0
original = f.BagWriter._write
def write(self, features, places):
    global written
    written += 1
    if written == stop:
        self._features.resize((self._rows + 7, 3))  # half of what a shard's writing does
        os.kill(os.getpid(), signal.SIGKILL)
    original(self, features, places)
f.BagWriter._write = write
values = np.arange(3 * 3 * f.SHARD_ROWS, dtype=np.float32).reshape(-1, 3) % 1000
places = np.column_stack([np.arange(len(values))] * 2 + [np.full(len(values), 9)] * 2)
store = f.FeatureStore(sys.argv[1], "e")
with store.writing(f.BagFacts(slide="s", encoder="e", width=3, tile=9)) as bag:
    for first in range(bag.done, len(values), 500):
        bag.append(values[first : first + 500], places[first : first + 500])
"""


def test_killed_at_any_shard_it_ends_with_the_same_content(tmp_path):
    def run(folder, stop):
        arguments = [sys.executable, "-c", KILLED, str(folder), str(stop)]
        return subprocess.run(arguments, check=False, env=dict(os.environ)).returncode

    assert run(tmp_path / "straight", 0) == 0
    for stop in (1, 2, 3):
        assert run(tmp_path / "killed", stop if stop == 1 else 2) == -signal.SIGKILL
        assert FeatureStore(tmp_path / "killed", "e").slides() == []
    assert run(tmp_path / "killed", 0) == 0
    straight, killed = (FeatureStore(tmp_path / name, "e").read("s") for name in ("straight", "killed"))
    assert np.array_equal(straight.features, killed.features)
    assert np.array_equal(straight.places, killed.places)


def test_damage_and_missing_shards_are_found(tmp_path):
    store, (features, places) = FeatureStore(tmp_path, ENCODER), made(SHARD_ROWS + 5)
    fill(store, facts(), features, places)
    shard = store.folder / "a.svs.zarr/features/c/0/0"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:1000] + bytes([whole[1000] ^ 1]) + whole[1001:])
    with pytest.raises(DataError, match="damaged"):
        store.read("a.svs")
    for name in ("features", "places"):
        lost = store.folder / f"a.svs.zarr/{name}/c/1/0"
        kept = lost.read_bytes()
        shard.write_bytes(whole)
        lost.unlink()
        with pytest.raises(DataError, match=f"{name} in .* missing in part"):
            store.read("a.svs")
        lost.write_bytes(kept)
    assert len(store.read("a.svs").places) == SHARD_ROWS + 5


def test_what_is_no_store_is_refused(tmp_path):
    store = FeatureStore(tmp_path, ENCODER)
    with pytest.raises(DataError, match="there are no features"):
        store.read("none.svs")
    fill(store, facts(), *made(3))
    with pytest.raises(DataError, match="there already"), store.writing(facts()):
        pass
    with pytest.raises(DataError, match="do not belong"), FeatureStore(tmp_path, "x").writing(facts()):
        pass
    group = zarr.open_group(store.folder / "a.svs.zarr", mode="r+")
    group.attrs["version"] = 9
    with pytest.raises(FormatVersionError, match="9"):
        store.read("a.svs")
    (store.folder / "a.svs.zarr/zarr.json").write_text("{")
    with pytest.raises(DataError, match="damaged"):
        store.slides()


def test_features_that_do_not_fit_are_refused(tmp_path):
    store, (features, places) = FeatureStore(tmp_path, ENCODER), made(4)
    with pytest.raises(DataError, match=r"expected \(tiles, 8\)"), store.writing(facts()) as bag:
        bag.append(features[:, :5], places)
    for bad in (np.nan, np.inf, 1e6):  # the last is no float16
        with pytest.raises(DataError, match="not finite as float16"), store.writing(facts()) as bag:
            bag.append(np.full((4, 8), bad), places)


@pytest.mark.parametrize("name", ["ä 中/..\\:*?.svs", "..", ".hidden", "x" * 300, "中" * 100, "A~B"])
def test_any_name_can_be_kept(tmp_path, name):
    store = FeatureStore(tmp_path / "deep", ENCODER)
    features, places = made(5)
    fill(store, facts(slide=name), features, places)
    assert store.slides() == [name]
    assert len(store.read(name).places) == 5
    assert [path.parent for path in (tmp_path / "deep").glob("*/*.zarr")] == [store.folder]


def test_unlike_names_get_unlike_files():
    names = ["a/b", "a%2Fb", "a:b", "x" * 300, "x" * 301, ".a", "%2Ea", "~"]
    assert len({file_name(name) for name in names}) == len(names)


def test_memory_does_not_grow_with_the_slide(tmp_path):
    def peak(shards):
        store = FeatureStore(tmp_path / str(shards), ENCODER)
        features, places = made(512, width=64)
        tracemalloc.start()
        with store.writing(facts(width=64)) as bag:
            for _ in range(shards * SHARD_ROWS // 512):
                bag.append(features, places)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(1)
    assert peak(8) < 1.2 * peak(2)


def test_h5_goes_out_and_comes_back_equal(tmp_path):
    store, (features, places) = FeatureStore(tmp_path, ENCODER), made(SHARD_ROWS + 9)
    fill(store, facts(), features, places)
    path = tmp_path / "h5/a.h5"
    export_h5(store, "a.svs", path)
    with h5py.File(path) as file:
        assert (file["features"].dtype, file["features"].shape) == (np.float32, (SHARD_ROWS + 9, 8))
        assert np.array_equal(file["coords"][:], places[:, :2])
        assert dict(file["coords"].attrs) == {
            "patch_size": 256, "patch_size_level0": 512, "name": "a", "mpp": 0.5,
        }  # fmt: skip
    import_h5(path, store, "again.svs")
    bag, again = store.read("a.svs"), store.read("again.svs")
    assert np.array_equal(bag.features, again.features)
    assert np.array_equal(bag.places, again.places)
    assert (again.facts.mpp, again.facts.tile) == (0.5, 256)
    assert [p.name for p in path.parent.iterdir()] == ["a.h5"]


@pytest.mark.parametrize(
    ("attributes", "extent", "side"),
    [
        ({"patch_size": 224, "patch_size_level0": 448}, None, 448),  # TRIDENT
        ({"patch_size": 256, "patch_level": 1, "downsample": [4.0, 4.0]}, None, 1024),  # CLAM's coordinates
        ({}, 512, 512),  # CLAM's features, which say nothing
    ],
)
def test_files_of_others_are_taken_over(tmp_path, attributes, extent, side):
    store, (features, places) = FeatureStore(tmp_path, ENCODER), made(20)
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["features"] = features[None]  # CLAM's older files have a leading 1
        file["coords"] = places[:, :2]
        file["coords"].attrs.update(attributes)
    import_h5(tmp_path / "t.h5", store, "t", extent=extent)
    bag = store.read("t")
    assert np.array_equal(bag.features, features)
    assert np.array_equal(bag.places, np.column_stack([places[:, :2], np.full((20, 2), side)]))


def test_h5_files_that_cannot_be_used_are_refused(tmp_path):
    store, (features, places) = FeatureStore(tmp_path, ENCODER), made(20)
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["features"], file["coords"] = features, places[:, :2]
    with pytest.raises(DataError, match="how large a tile"):
        import_h5(tmp_path / "t.h5", store, "t")
    with h5py.File(tmp_path / "u.h5", "w") as file:
        file["features"], file["coords"] = features, places[:5, :2]
    (tmp_path / "v.h5").write_bytes(b"none")
    for name in ("u.h5", "v.h5", "w.h5"):
        with pytest.raises(DataError, match=r"features|readable"):
            import_h5(tmp_path / name, store, name, extent=9)
    assert store.slides() == []
    places[0, 2] = 100
    fill(store, facts(), features, places)
    with pytest.raises(DataError, match="one size only"):
        export_h5(store, "a.svs", tmp_path / "x.h5")
    assert not list(tmp_path.glob("x.h5*"))
