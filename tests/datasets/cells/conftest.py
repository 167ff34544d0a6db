"""Tiny trees for cytology data sets: a picture of its own per file, written wherever a layout says."""

import io

import numpy as np
import pytest
from PIL import Image


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
