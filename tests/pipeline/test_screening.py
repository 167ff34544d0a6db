"""The leak check on runs: planted copies are found, named, refused; clean data stay clean."""

import io

import numpy as np
import pytest
from PIL import Image
from skimage.filters import gaussian

from malpighi.corpus import Corpus, blob_of
from malpighi.errors import ConfigError, DataError, UserError
from malpighi.pipeline.screening import LEAKS, check_leaks, export_fingerprints, leak_panel
from malpighi.records import Choice, ImageRef, Item, Provenance, Sample, Scale, Split, TaskKind, Turn


def tissue(seed):
    noise = np.random.default_rng(seed).normal(size=(160, 160, 3))
    smooth = gaussian(noise, 4, channel_axis=2)
    scaled = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    return Image.fromarray((40 + 200 * scaled).astype(np.uint8))


def item(name, image, split, kind="PNG"):
    file = io.BytesIO()
    image.save(file, kind, **({"quality": 60} if kind == "JPEG" else {}))
    blob = blob_of(file.getvalue(), f".{kind.lower()}")
    sample = Sample(
        id=name, dataset="d", exam="d/class", task=TaskKind.CLASSIFICATION, scale=Scale.ROI,
        images=(ImageRef(blob.key, image.size),), turns=(Turn("user", "Which?"),), answer=Choice(0),
        options=("a", "b"), group=name, split=split, licence="CC0-1.0", provenance=Provenance("test"),
    )  # fmt: skip
    return Item(sample, (blob,))


@pytest.fixture
def run(tmp_path):
    """Ten training pictures; of the six test pictures one is a turned and recompressed training picture."""
    with Corpus.create(tmp_path / "run/corpus") as corpus:
        for seed in range(10):
            corpus.add(item(f"train{seed}", tissue(seed), Split.TRAIN))
        for seed in range(20, 25):
            corpus.add(item(f"test{seed}", tissue(seed), Split.TEST))
        corpus.add(item("copied", tissue(3).rotate(90), Split.TEST, "JPEG"))
    return tmp_path / "run"


def test_a_turned_copy_is_found_and_nothing_else(run):
    found = check_leaks(run)
    assert [(leak.test, leak.train, leak.kind) for leak in found.leaks] == [("copied", "train3", "pixels")]
    assert (run / LEAKS).is_file()
    panel = leak_panel(found, "own")
    assert panel.rows[0]["leaked"] == "1"
    assert "copied" in panel.warnings[0]


def test_leaks_can_be_refused_and_are_written_all_the_same(run, tmp_path):
    with pytest.raises(DataError, match=r"1 of 6 test samples.*copied.*train3"):
        check_leaks(run, policy="refuse", out=tmp_path / "kept")
    assert (tmp_path / "kept" / LEAKS).is_file()


def test_clean_data_say_so(run):
    clean = [s for s in Corpus.open(run / "corpus").samples(split=Split.TEST) if s.id != "copied"]
    found = check_leaks(run, policy="refuse", samples=clean)
    assert found.leaks == []
    panel = leak_panel(found, "own")
    assert "No test sample was found" in panel.note
    assert not panel.rows


def test_an_export_stands_for_data_that_stay_at_home(run, tmp_path):
    assert export_fingerprints(run, Split.TRAIN, tmp_path / "export") == 10
    shared = [path.read_bytes() for path in (tmp_path / "export").rglob("*") if path.is_file()]
    assert not any(b"\x89PNG" in data for data in shared)
    found = check_leaks(run, tmp_path / "export")
    assert found.leaked == {"copied"}


def test_folders_without_data_are_named(run, tmp_path):
    with pytest.raises(UserError, match="holds no corpus"):
        check_leaks(run, tmp_path)
    with Corpus.create(tmp_path / "only") as corpus:
        corpus.add(item("one", tissue(1), Split.TEST))
    with pytest.raises(ConfigError, match="no sample in its train split"):
        check_leaks(tmp_path / "only")
