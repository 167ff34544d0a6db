import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from malpighi.corpus import blob_of
from malpighi.datasets.windows import Window, cut, visible
from malpighi.errors import ConfigError, DataError
from malpighi.geometry import Box, Region
from malpighi.pixels import decode_image, decode_labels
from malpighi.records import (
    Boxes,
    ImageRef,
    Item,
    MaskRef,
    Provenance,
    Sample,
    Scale,
    TaskKind,
    Text,
    Turn,
)

PIXELS = np.random.default_rng(1).integers(0, 256, (70, 100, 3), np.uint8)


def png(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "png")
    return blob_of(file.getvalue(), ".png")


def item(answer, *blobs, region=None):
    image = png(PIXELS)
    sample = Sample(
        id="toy/1",
        dataset="toy",
        exam="toy/things",
        task=TaskKind.DETECTION,
        scale=Scale.ROI,
        images=(ImageRef(image.key, (100, 70), mpp=0.5, region=region),),
        turns=(Turn("user", "Detect things in pathology tissue."),),
        answer=answer,
        group="slide 1",
        licence="CC0 1.0",
        provenance=Provenance("test"),
    )
    return Item(sample, (image, *blobs))


def corner(piece):
    x, _, y = piece.sample.id.partition("@")[2].partition(",")
    return int(x), int(y)


def test_windows_cover_the_image_and_hold_its_pixels():
    covered = np.zeros((70, 100), int)
    pieces = list(cut(item(Boxes(())), Window(40, 30, 30)))
    for piece in pieces:
        x, y = corner(piece)
        pixels = np.asarray(decode_image(piece.blobs[0].data))
        assert np.array_equal(pixels, PIXELS[y : y + 30, x : x + 40])
        assert piece.sample.images[0].key == piece.blobs[0].key
        assert piece.sample.images[0].size == (40, 30)
        covered[y : y + 30, x : x + 40] += 1
    assert covered.min() == 1
    assert [piece.sample.id for piece in pieces][:3] == ["toy/1@0,0", "toy/1@30,0", "toy/1@60,0"]
    assert len({piece.sample.id for piece in pieces}) == len(pieces)


def test_windows_keep_group_scale_and_parent():
    piece = next(cut(item(Boxes(())), Window(40, 40, 40)))
    assert piece.sample.group == "slide 1"
    assert piece.sample.images[0].mpp == 0.5
    assert piece.sample.provenance.operation == "window"
    assert piece.sample.provenance.parents == ("toy/1",)
    other = next(cut(item(Boxes(())), Window(40, 40, 20)))
    assert other.sample.provenance.config != piece.sample.provenance.config


def test_boxes_are_clipped_and_dropped_under_half():
    boxes = (Box(10, 10, 20, 20), Box(35, 0, 45, 10), Box(38, 20, 48, 30), Box(80, 60, 90, 70))
    pieces = {
        corner(piece): piece.sample.answer.boxes for piece in cut(item(Boxes(boxes)), Window(40, 40, 40))
    }
    assert [box.corners for box in pieces[0, 0]] == [(10, 10, 20, 20), (35, 0, 40, 10)]
    assert [box.corners for box in pieces[40, 0]] == [(0, 0, 5, 10), (0, 20, 8, 30)]
    assert [box.corners for box in pieces[60, 30]] == [(20, 30, 30, 40)]


@settings(deadline=None)
@given(
    st.lists(st.tuples(*[st.integers(0, 60)] * 2, *[st.integers(1, 40)] * 2), max_size=8),
    st.tuples(st.integers(0, 60), st.integers(0, 60)),
)
def test_visible_boxes_lie_in_the_window(raw, start):
    boxes = tuple(Box(x, y, x + w, y + h) for x, y, w, h in raw)
    area = (start[0], start[1], start[0] + 32, start[1] + 24)
    for box in visible(boxes, area):
        assert 0 <= box.x0 < box.x1 <= 32
        assert 0 <= box.y0 < box.y1 <= 24
    inside = [b for b in boxes if b.x0 >= area[0] and b.y0 >= area[1] and b.x1 <= area[2] and b.y1 <= area[3]]
    kept = [(b.x0 + area[0], b.y0 + area[1]) for b in visible(boxes, area)]
    assert all((b.x0, b.y0) in kept for b in inside)


def test_masks_are_cut_along():
    mask = np.zeros((70, 100), np.uint8)
    mask[5:25, 30:50] = 255
    blob = png(mask)
    source = item(MaskRef(blob.key, (Box(30, 5, 50, 25),)), blob)
    pieces = {corner(piece): piece for piece in cut(source, Window(40, 40, 40))}
    left = pieces[0, 0]
    assert left.sample.answer.key == left.blobs[1].key
    labels = decode_labels(left.blobs[1].data)
    assert labels.shape == (40, 40)
    assert np.array_equal(labels > 0, mask[:40, :40] > 0)
    assert [box.corners for box in left.sample.answer.boxes] == [(30, 5, 40, 25)]
    only = list(cut(source, Window(40, 40, 40, keep_empty=False)))
    assert [corner(piece) for piece in only] == [(0, 0), (40, 0)]


def test_empty_windows_can_be_left_out():
    boxes = Boxes((Box(1, 1, 9, 9),))
    assert len(list(cut(item(boxes), Window(40, 40, 40, keep_empty=False)))) == 1
    assert len(list(cut(item(boxes), Window(40, 40, 40)))) == 6


def test_an_image_smaller_than_the_window_is_one_piece():
    (piece,) = cut(item(Boxes((Box(1, 1, 9, 9),))), Window(512, 512, 256))
    assert piece.sample.images[0].size == (100, 70)
    assert piece.sample.answer == Boxes((Box(1, 1, 9, 9),))


def test_the_region_of_a_slide_is_cut_along():
    region = Region(1000, 2000, 200, 140, 0.25)
    pieces = list(cut(item(Boxes(()), region=region), Window(50, 70, 50)))
    assert [p.sample.images[0].region for p in pieces] == [
        Region(1000, 2000, 100, 140, 0.25),
        Region(1100, 2000, 100, 140, 0.25),
    ]


def test_only_boxes_and_masks_can_be_cut():
    with pytest.raises(DataError, match="toy/1"):
        list(cut(item(Text("words")), Window(40, 40, 40)))
    with pytest.raises(DataError, match="bytes"):
        list(cut(Item(item(Boxes(())).sample, ()), Window(40, 40, 40)))


@pytest.mark.parametrize("numbers", [(0, 10, 5), (10, 10, 0), (10, 20, 15)])
def test_windows_that_lose_pixels_are_refused(numbers):
    with pytest.raises(ConfigError, match="stride"):
        Window(*numbers)
