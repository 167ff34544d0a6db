import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="needs the extra `train`")
pytest.importorskip("openslide", reason="needs the extra `slides`")

from malpighi.errors import DataError, MissingScaleError  # noqa: E402
from malpighi.inference.encoders import StainStatistics, TowerEncoder, random_backbone  # noqa: E402
from malpighi.inference.tile_features import TileSource, extract_features  # noqa: E402
from malpighi.slides import features as kept  # noqa: E402
from malpighi.slides.features import FeatureStore  # noqa: E402
from malpighi.slides.grid import GridSettings  # noqa: E402
from malpighi.slides.opening import open_slide  # noqa: E402

ALL = TileSource(GridSettings(size=256, mpp=None, tissue=0.0))


class Mean:
    """The mean colour of a tile; remembers how many it was given."""

    name, width = "mean", 3

    def __init__(self, fails_after=10**9):
        self.given, self.fails_after = 0, fails_after

    def __call__(self, tiles):
        self.given += len(tiles)
        if self.given > self.fails_after:
            raise RuntimeError("out of memory")
        return np.stack([tile.mean(axis=(0, 1)) for tile in tiles]).astype(np.float32)


def test_features_are_those_of_the_tiles_at_their_places(phantom, tmp_path):
    store = FeatureStore(tmp_path, "mean")
    with open_slide(phantom[0]) as slide:
        row = extract_features(slide, "a", store, Mean(), ALL, batch_size=5)
        bag = store.read("a")
        expected = [slide.read_level(0, (x, y), (256, 256)).mean(axis=(0, 1)) for x, y, _, _ in bag.places]
    assert row == {"slide": "a", "encoder": "mean", "tiles": 24, "made": 24, "damaged": 0}
    assert np.abs(bag.features - np.array(expected)).max() < 0.2  # float16
    assert (bag.facts.tile, bag.facts.mpp) == (256, pytest.approx(0.5, rel=1e-3))
    assert len(bag.facts.source) == 64


def test_a_broken_off_extraction_goes_on_where_it_was(phantom, tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "SHARD_ROWS", 8)
    monkeypatch.setattr(kept, "CHUNK_ROWS", 4)
    store, straight = FeatureStore(tmp_path / "a", "mean"), FeatureStore(tmp_path / "b", "mean")
    with open_slide(phantom[0]) as slide:
        with pytest.raises(RuntimeError, match="out of memory"):
            extract_features(slide, "a", store, Mean(fails_after=17), ALL, batch_size=3)
        assert "a" not in store
        further = Mean()
        row = extract_features(slide, "a", store, further, ALL, batch_size=3)
        assert (row["tiles"], row["made"], further.given) == (24, 16, 16)
        idle = Mean()
        assert extract_features(slide, "a", store, idle, ALL)["made"] == idle.given == 0
        extract_features(slide, "a", straight, Mean(), ALL)
    assert np.array_equal(store.read("a").features, straight.read("a").features)
    assert np.array_equal(store.read("a").places, straight.read("a").places)


def test_only_tissue_is_looked_at_and_never_nothing_in_silence(phantom, tmp_path):
    path, truth = phantom

    def tissue(slide):
        return lambda boxes: np.array([truth.tissue[y0:y1, x0:x1].mean() for x0, y0, x1, y1 in boxes])

    source = TileSource(GridSettings(size=256, mpp=None, tissue=0.5), tissue=tissue)
    with open_slide(path) as slide:
        tiles = source.of(slide)
        shares = tissue(slide)(tiles.grid.boxes(tiles.chosen))
        assert 0 < len(tiles) < 24
        assert shares.min() >= 0.5
        bare = TileSource(
            GridSettings(size=256, mpp=None), tissue=lambda _: lambda boxes: np.zeros(len(boxes))
        )
        with pytest.raises(DataError, match="none of 24 tiles"):
            extract_features(slide, "a", FeatureStore(tmp_path, "mean"), Mean(), bare)
        with pytest.raises(DataError, match="none of 0 tiles"):
            TileSource(GridSettings(size=4096, mpp=None)).of(slide)


def test_other_features_of_the_same_name_are_refused(phantom, tmp_path):
    store = FeatureStore(tmp_path, "mean")
    with open_slide(phantom[0]) as slide:
        extract_features(slide, "a", store, Mean(), ALL)
        finer = TileSource(GridSettings(size=128, mpp=None, tissue=0.0))
        with pytest.raises(DataError, match="other features"):
            extract_features(slide, "a", store, Mean(), finer)


def test_a_scale_is_never_assumed(tmp_path):
    Image.new("RGB", (600, 600)).save(tmp_path / "plain.png")
    with open_slide(tmp_path / "plain.png") as slide, pytest.raises(MissingScaleError):
        TileSource().of(slide)


def tiles_of(phantom, count=5):
    with open_slide(phantom[0]) as slide:
        return [slide.read_level(0, (256 * i, 256), (256, 256)) for i in range(count)]


def test_every_encoder_keeps_what_it_promises(phantom, miniatures):
    tiles = tiles_of(phantom)
    encoders = [
        StainStatistics(),
        random_backbone("resnet18", 64, seed=1),
        *(TowerEncoder(miniatures(family).load(), family, tokens=4) for family in ("qwen2_5_vl", "qwen3_vl")),
    ]
    for encoder in encoders:
        features = encoder(tiles)
        assert (features.shape, features.dtype) == ((5, encoder.width), np.float32), encoder.name
        assert np.isfinite(features).all()
        single = np.concatenate([encoder([tile]) for tile in tiles])  # neighbours change nothing
        assert features == pytest.approx(single, rel=1e-3, abs=1e-4), encoder.name
        assert np.ptp(features, axis=0).max() > 0
    assert len({encoder.name for encoder in encoders}) == 4


def test_a_random_backbone_is_that_of_its_seed(phantom):
    tiles = tiles_of(phantom, 2)
    state = torch.get_rng_state()
    one, same, other = (random_backbone("resnet18", 64, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(one(tiles), same(tiles))
    assert not np.array_equal(one(tiles), other(tiles))
    assert one.name != other.name
