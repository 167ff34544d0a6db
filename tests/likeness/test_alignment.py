import numpy as np
import pytest
from PIL import Image

from malpighi.likeness.alignment import agreement, thumbnail
from malpighi.likeness.pdq import turned


def test_a_picture_agrees_with_itself_under_its_turn_only(tissue):
    picture = tissue(1)
    mine = thumbnail(picture)
    for turn in range(8):
        other = thumbnail(np.ascontiguousarray(turned(picture, turn)))
        back = next(t for t in range(8) if np.array_equal(turned(turned(picture, turn), t), picture))
        assert agreement(mine, other, back).share == 1.0
    assert not agreement(mine, other).same


@pytest.mark.parametrize("cut", [0.02, 0.04])
@pytest.mark.parametrize("side", ["both", "left"])
def test_a_small_crop_is_the_same(tissue, cut, side):
    picture = tissue(2, 200, 200)
    pixels = round(200 * cut)
    right = 200 - pixels if side == "both" else 200
    cropped = picture[pixels : 200 - pixels, pixels:right]
    found = agreement(thumbnail(picture), thumbnail(cropped))
    assert found.same
    assert agreement(thumbnail(cropped), thumbnail(picture)).same


def test_a_label_spoils_blocks_and_not_the_verdict(tissue):
    picture = tissue(3)
    marked = picture.copy()
    marked[:30, :60] = 255
    found = agreement(thumbnail(picture), thumbnail(marked))
    assert found.same
    assert found.share < 1


def test_other_tissue_is_not_the_same(tissue):
    thumbs = [thumbnail(tissue(seed)) for seed in range(8)]
    shares = [agreement(a, b, turn).share for a in thumbs[:4] for b in thumbs[4:] for turn in range(8)]
    assert max(shares) < 0.5


def test_blank_pictures_are_never_the_same():
    blank = np.full((90, 90, 3), 244, np.uint8)
    found = agreement(thumbnail(blank), thumbnail(blank))
    assert found.blocks == 0
    assert not found.same


def test_light_and_contrast_do_not_matter(tissue):
    picture = tissue(4)
    changed = np.clip(255 - (255 - picture.astype(float)) * 0.6 - 12, 0, 255).astype(np.uint8)
    small = np.asarray(Image.fromarray(changed).resize((70, 50), Image.Resampling.LANCZOS))
    assert agreement(thumbnail(picture), thumbnail(small)).share > 0.9
