"""Images that are rows of arrays."""

import io

import numpy as np
from PIL import Image

from malpighi.corpus import blob_of
from malpighi.datasets.adapter import Picture
from malpighi.records import ImageRef


def picture_of(pixels_hw3: np.ndarray) -> Picture:
    """An image of bytes (RGB), stored as PNG."""
    image = Image.fromarray(np.ascontiguousarray(pixels_hw3, dtype=np.uint8))
    file = io.BytesIO()
    image.save(file, "png")
    blob = blob_of(file.getvalue(), ".png")
    return Picture(ImageRef(blob.key, image.size), blob)
