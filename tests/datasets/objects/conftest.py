"""Writing small trees in the layouts of the real releases."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from malpighi.datasets.catalogue import adapter_named
from malpighi.datasets.split import SplitPlan
from malpighi.pixels import decode_labels
from malpighi.records import Failure, Item


class Tree:
    """Files of a data set; every image is unlike all others."""

    def __init__(self):
        self.made = 0

    def noise(self, size=(40, 30)):
        self.made += 1
        return np.random.default_rng(self.made).integers(0, 256, (size[1], size[0], 3), np.uint8)

    def write(self, path, data):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())

    def image(self, path, size=(40, 30)):
        self.pixels(path, self.noise(size))

    def pixels(self, path, array, **options):
        image = array if isinstance(array, Image.Image) else Image.fromarray(array)
        file = io.BytesIO()
        image.save(file, {"jpg": "jpeg", "tif": "tiff"}.get(path.suffix[1:], path.suffix[1:]), **options)
        self.write(path, file.getvalue())

    def json(self, path, value):
        self.write(path, json.dumps(value))


def painted(size, *rectangles, dtype=np.uint8):
    """A map with (value, x0, y0, x1, y1) filled in, the later on top."""
    labels = np.zeros(size[::-1], dtype)
    for value, x0, y0, x1, y1 in rectangles:
        labels[y0:y1, x0:x1] = value
    return labels


@pytest.fixture
def tree():
    return Tree()


@pytest.fixture(name="painted")
def painted_fixture():
    return painted


@pytest.fixture
def items():
    """Items by id and failures by id of a data set in a folder."""

    def read(name, folder: Path):
        found = list(adapter_named(name).read(folder, SplitPlan(0.5, 0.0, 0.5)))
        return (
            {f.sample.id.removeprefix(f"{name}/"): f for f in found if isinstance(f, Item)},
            {f.id.removeprefix(f"{name}/"): f.reason for f in found if isinstance(f, Failure)},
        )

    return read


@pytest.fixture
def mask_of():
    """The mask or label map that an item's answer refers to."""

    def read(item):
        return decode_labels(next(b.data for b in item.blobs if b.key == item.sample.answer.key))

    return read


@pytest.fixture
def corners():
    """The boxes of an item or sample as tuples."""

    def read(item):
        sample = getattr(item, "sample", item)
        return [tuple(map(int, box.corners)) for box in sample.answer.boxes]

    return read
