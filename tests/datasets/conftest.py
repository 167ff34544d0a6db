"""What every adapter must do with a tree that copies the real layout, traps included."""

import io
import shutil
from collections import defaultdict

import numpy as np
import pytest
from PIL import Image

from malpighi.datasets.catalogue import adapter_named
from malpighi.datasets.split import SplitPlan
from malpighi.errors import DataError
from malpighi.records import Boxes, Choice, Failure, Item, MaskRef, from_json, to_json

HALF = SplitPlan(0.5, 0.0, 0.5)


def read(adapter, folder):
    found = list(adapter.read(folder, HALF))
    return [f for f in found if isinstance(f, Item)], [f for f in found if isinstance(f, Failure)]


def check_sample(item):
    sample = item.sample
    assert from_json(to_json(sample), type(sample)) == sample
    assert sample.group
    assert sample.split
    assert sample.licence
    assert {ref.key for ref in sample.images if not ref.unmade} <= {blob.key for blob in item.blobs}
    if isinstance(sample.answer, Choice):
        assert 0 <= sample.answer.index < len(sample.options)
        assert len(set(sample.options)) == len(sample.options)
    if isinstance(sample.answer, Boxes | MaskRef):
        width, height = sample.images[0].size
        for box in sample.answer.boxes:
            assert 0 <= box.x0 < box.x1 <= width
            assert 0 <= box.y0 < box.y1 <= height


@pytest.fixture
def contract(tmp_path):
    """Hold an adapter to its promises on a small tree; gives back its samples by id.

    Called with the adapter's name; `build`, which writes the tree into a folder; `samples`, id (without the
    data set's name) to exam (second half of its name); `failures`, id to a word of the reason; `needed`, the
    paths without which nothing can be read, each of which is missed by name; `straddling` where official
    lists put one group on both sides.
    """

    def check(name, build, samples, failures=None, needed=(), *, straddling=False):
        adapter = adapter_named(name)
        folder = tmp_path / name
        folder.mkdir()
        build(folder)
        items, failed = read(adapter, folder)
        assert {
            i.sample.id.removeprefix(f"{name}/"): i.sample.exam.removeprefix(f"{name}/") for i in items
        } == dict(samples)
        assert len(items) == len(samples), "ids repeat"
        reasons = {f.id.removeprefix(f"{name}/"): f.reason for f in failed}
        assert reasons.keys() == (failures or {}).keys()
        for key, word in (failures or {}).items():
            assert word in reasons[key], (key, reasons[key])
        assert read(adapter, folder) == (items, failed), "a second reading differs"
        splits = defaultdict(set)
        for item in items:
            check_sample(item)
            splits[item.sample.group].add(item.sample.split)
        assert straddling or all(len(found) == 1 for found in splits.values())
        for path in needed:
            other = tmp_path / f"{name}-without"
            shutil.rmtree(other, ignore_errors=True)
            shutil.copytree(folder, other, symlinks=True)
            (other / path).rename(other / "renamed-by-a-user")
            with pytest.raises(DataError) as caught:
                list(adapter.read(other, HALF))
            assert path.rstrip("/").rpartition("/")[2] in str(caught.value)
        with pytest.raises(DataError, match="no folder"):
            list(adapter.read(tmp_path / "nowhere", HALF))
        return {item.sample.id.removeprefix(f"{name}/"): item.sample for item in items}

    return check


@pytest.fixture
def write(tmp_path):
    """Writes pictures, each of other bytes, or text; gives back nothing."""
    drawn = []

    def file(folder, name, text=None, mode="RGB"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is not None:
            path.write_text(text, encoding="utf-8")
            return
        drawn.append(name)
        depth = {"RGB": (3,), "RGBA": (4,), "L": ()}[mode]
        pixels = np.random.default_rng(len(drawn)).integers(0, 256, (8, 10, *depth), np.uint8)
        data = io.BytesIO()
        kind = {".jpg": "jpeg", ".jpeg": "jpeg"}.get(path.suffix.lower(), "png")
        Image.fromarray(pixels).save(data, kind)
        path.write_bytes(data.getvalue())

    return file
