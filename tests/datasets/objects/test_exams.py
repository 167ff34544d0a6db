import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from skimage.measure import label as skimage_label

from malpighi.datasets.adapter import Entry, Survey
from malpighi.datasets.catalogue import ADAPTERS
from malpighi.datasets.check import check
from malpighi.datasets.masks import boxes_of, label_areas, labels_blob, mask_blob, pieces_of
from malpighi.datasets.objects.arrays import picture_of
from malpighi.datasets.objects.exams import Theme
from malpighi.datasets.windows import Window, cut
from malpighi.pixels import decode_labels, decode_opaque

SMARTPATH = [
    *("bcss", "cocahis", "conic2022", "crag", "digestpath_cell", "digestpath_tissue", "midog_breast"),
    *("midog_neuroendocrine", "rings", "sicapv2", "tnbc", "wsss4luad", "glas", "nucls"),
]
MASKS = hnp.arrays(bool, st.tuples(st.integers(1, 20), st.integers(1, 20)))


def test_the_papers_14_data_sets_are_known():
    assert len(SMARTPATH) == 14
    assert set(SMARTPATH) <= set(ADAPTERS)
    large = {name for name in SMARTPATH if ADAPTERS[name].window == 1024}
    boxes = {"digestpath_cell", "digestpath_tissue", "midog_breast", "midog_neuroendocrine"}
    assert large == {"bcss", "crag", "rings", *boxes}


@given(MASKS, st.integers(1, 6))
def test_pieces_are_those_of_scikit_image(mask, min_area):
    reference = skimage_label(mask, connectivity=2)
    large = np.bincount(reference.ravel())[1:] >= min_area
    found = pieces_of(mask, min_area)
    assert found.max(initial=0) == large.sum()
    assert np.array_equal(found > 0, np.isin(reference, np.flatnonzero(large) + 1))
    assert len(boxes_of(found)) == large.sum()


@given(hnp.arrays(np.int32, st.tuples(st.integers(1, 1200), st.integers(1, 3)), elements=st.integers(0, 70)))
@settings(max_examples=30, deadline=None)
def test_areas_are_counts(labels):
    assert label_areas(labels, 70).tolist() == np.bincount(labels.ravel(), minlength=71).tolist()


def test_label_maps_keep_things_apart_and_are_never_taken_for_masks():
    one = decode_labels(labels_blob(np.array([[0, 255]])).data)
    assert one.tolist() == [[0, 1]]
    many = np.arange(40 * 40).reshape(40, 40) * 7
    stored = decode_labels(labels_blob(many).data)
    assert stored.max() == 1599
    assert len(np.unique(stored)) == 1600
    assert decode_labels(mask_blob(many > 0).data).max() == 255


@settings(max_examples=40, deadline=None)
@given(hnp.arrays(np.uint8, (24, 30), elements=st.sampled_from([0, 0, 0, 1, 2])), st.integers(6, 30))
def test_windows_of_label_maps_hold_every_pixel_but_slivers(labels, side):
    """No piece of a window joins two things, and what is left out is a sliver of a thing."""
    things = pieces_of(labels == 1)
    things[labels == 2] = things.max() + 1
    if not things.any():
        return
    from_source = _item(things)
    window = Window(side, side, side)
    for piece in cut(from_source, window):
        x, y = map(int, piece.sample.id.partition("@")[2].split(","))
        width, height = piece.sample.images[0].size
        truth = things[y : y + height, x : x + width]
        pieces = sum(ndimage.label(truth == k, np.ones((3, 3)))[1] for k in np.unique(truth) if k)
        assert len(piece.sample.answer.boxes) <= pieces
        for number in np.unique(truth)[np.unique(truth) > 0]:
            area = (things == number).sum()
            if (truth == number).sum() == area:
                rows, columns = np.nonzero(truth == number)
                whole = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
                parts = ndimage.label(truth == number, np.ones((3, 3)))[1]
                assert parts > 1 or whole in [box.corners for box in piece.sample.answer.boxes]


def _item(labels):
    theme = Theme("things", "tissue")
    detection = next(iter(theme.by_labels(labels)))
    picture = picture_of(np.zeros((*labels.shape, 3), np.uint8))
    return ADAPTERS["crag"]._item(Entry("x", None, "g"), [picture], detection)


def test_a_gland_that_a_window_parts_counts_twice():
    labels = np.zeros((40, 40), int)
    labels[0:10, 0:40] = 1  # a U whose base lies outside of the upper window
    labels[0:40, 0:12] = 1
    labels[0:40, 28:40] = 1
    pieces = {p.sample.id.split("@")[1]: p for p in cut(_item(labels[::-1].copy()), Window(40, 20, 20))}
    assert [box.corners for box in pieces["0,0"].sample.answer.boxes] == [(0, 0, 12, 20), (28, 0, 40, 20)]
    assert len(pieces["0,20"].sample.answer.boxes) == 1


def test_a_check_counts_images_and_absent_classes(tree, painted, tmp_path):
    for stem, marks in (("test_1", painted((40, 30), (1, 0, 0, 9, 9))), ("test_2", painted((40, 30)))):
        for part in ("train", "valid"):
            name = stem.replace("test", "train") if part == "train" else stem
            tree.image(tmp_path / f"CRAG/{part}/Images/{name}.png")
            tree.pixels(tmp_path / f"CRAG/{part}/Annotation/{name}.png", marks)
    counts = {count.what: count.found for count in check(ADAPTERS["crag"], tmp_path).counts}
    assert counts == {"images": 4, "detection": 2, "segmentation": 2, "absent": 2}
    assert isinstance(ADAPTERS["crag"].survey(tmp_path), Survey)


def test_colours_as_stored_whatever_alpha_says(tree, tmp_path):
    pixels = tree.noise()
    tree.pixels(tmp_path / "a.png", np.dstack([pixels, np.zeros((30, 40), np.uint8)]))
    tree.pixels(tmp_path / "b.png", pixels)
    for name in ("a.png", "b.png"):
        assert np.array_equal(np.asarray(decode_opaque((tmp_path / name).read_bytes())), pixels)
