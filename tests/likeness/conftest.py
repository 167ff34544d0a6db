"""Pictures that look like tissue, without any data: dark discs of many sizes on a pink ground."""

import numpy as np
import pytest


@pytest.fixture(scope="session")
def tissue():
    def make(seed: int, width: int = 160, height: int = 160) -> np.ndarray:
        rng = np.random.default_rng(seed)
        rows, columns = np.mgrid[:height, :width]
        picture = np.full((height, width, 3), (236.0, 190.0, 214.0))
        for _ in range(60):
            x, y = rng.uniform(0, width), rng.uniform(0, height)
            radius = rng.uniform(0.01, 0.06) * max(width, height)
            inside = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
            picture[inside] *= rng.uniform(0.35, 0.8, 3)
        picture += rng.normal(0, 3, picture.shape)
        return np.clip(picture, 0, 255).astype(np.uint8)

    return make
