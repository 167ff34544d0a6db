"""Tiny images, each of its own bytes, and the files that questions come in."""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def image_bytes():
    """The bytes of a small image; the same number, the same bytes."""

    def make(number, kind="PNG", mode="RGB"):
        file = io.BytesIO()
        colour = (number * 40 % 256, number * 7 % 256, 90, 20)[: len(Image.new(mode, (1, 1)).getbands())]
        Image.new(mode, (12, 9), colour if len(colour) > 1 else colour[0]).save(file, kind)
        return file.getvalue()

    return make


@pytest.fixture(scope="session")
def put(image_bytes):
    """Write a small image, folders included."""

    def write(path, number, kind="PNG", mode="RGB"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image_bytes(number, kind, mode))

    return write


@pytest.fixture(scope="session")
def put_json():
    def write(path, tree):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(tree))

    return write


@pytest.fixture(scope="session")
def put_parquet():
    """Rows as the Hub stores them: the image as a struct of bytes and path."""

    def write(path, rows, row_group_size=2):
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [{**row, "image": {"bytes": row["image"], "path": None}} for row in rows]
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=row_group_size)

    return write
