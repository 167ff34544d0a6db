"""MedSAM's path against one written out here, on a tiny SAM with random weights, saved and loaded."""

import io
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional
from transformers import SamModel

from malpighi.errors import ConfigError, DataError
from malpighi.geometry import Box
from malpighi.models.medsam import load_medsam, preprocessed, scaled

SIDE = 64  # of the checkpoint; the published side is 1024
BOXES = [Box(3, 5, 40, 30), Box(20, 2, 88, 57), Box(0, 0, 90, 60)]


@pytest.fixture
def segmenter(sam_folder):
    return load_medsam(sam_folder)


@pytest.fixture
def encoded(segmenter):
    """How often the vision encoder has run."""
    calls = []
    segmenter._model.vision_encoder.register_forward_hook(lambda *_: calls.append(1))
    return calls


def pixels(width=90, height=60, seed=0):
    """Smooth blobs of colour: a resized picture of noise has no shapes."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(30, 220, (6, 9, 3), dtype=np.uint8))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def png(array, level=1):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG", compress_level=level)
    return file.getvalue()


def spline(where, count):
    """Weights (len(where) x count) of the cubic B-spline through `count` samples, mirrored at the ends."""

    def kernel(t):
        t = np.abs(t)
        return np.where(t < 1, 2 / 3 - t**2 + t**3 / 2, np.where(t < 2, (2 - t) ** 3 / 6, 0.0))

    def basis(places):
        rows = np.zeros((len(places), count))
        for knot in range(-3, count + 3):
            folded = abs(knot) if knot < count else 2 * (count - 1) - knot
            rows[:, folded] += kernel(places - knot)
        return rows

    return basis(where) @ np.linalg.inv(basis(np.arange(count)))


def blurring(count, sigma):
    """The Gaussian that stops aliasing, as a matrix; mirrored at the ends, cut after four sigmas."""
    if sigma <= 0:
        return np.eye(count)
    reach = int(4 * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    matrix = np.zeros((count, count))
    for row in range(count):
        for step, weight in zip(range(-reach, reach + 1), weights / weights.sum(), strict=True):
            place = (row + step) % (2 * (count - 1))
            matrix[row, min(place, 2 * (count - 1) - place)] += weight
    return matrix


def squeezed(count, side):
    """The whole resizing along one axis as a matrix (side x count)."""
    factor = count / side
    places = (np.arange(side) + 0.5) * factor - 0.5
    return spline(places, count) @ blurring(count, max(0.0, (factor - 1) / 2))


@pytest.mark.parametrize("size", [(90, 60), (64, 64), (40, 150), (5, 7)])
def test_preprocessing_is_that_of_the_paper(size):
    array = pixels(*size)
    rows, columns = squeezed(size[1], SIDE), squeezed(size[0], SIDE)
    square = np.einsum("yh,hwc,xw->yxc", rows, array.astype(float), columns)
    levels = np.floor(np.clip(square, array.min(), array.max()) + 1e-9)
    expected = (levels - levels.min()) / (levels.max() - levels.min())
    found = preprocessed(array, SIDE)
    assert found.shape == (1, 3, SIDE, SIDE)
    assert (found.min(), found.max()) == (0, 1), "its own range, whatever the colours"
    off = np.abs(found[0].transpose(1, 2, 0) - expected)
    assert off.max() < 1.5 / 255 * 255 / np.ptp(levels), "one grey level, where a value falls on a whole one"
    assert (off > 1e-6).mean() < 0.01


def test_one_colour_and_grey_pictures_are_prepared():
    assert (
        preprocessed(np.full((9, 7, 3), 130, np.uint8), SIDE).tolist()
        == np.zeros((1, 3, SIDE, SIDE)).tolist()
    )


def by_hand(model, array, box):
    """One box through the parts of SAM, one after the other."""
    height, width, _ = array.shape
    x0, y0, x1, y1 = box.corners
    prompt = torch.tensor([[[x0 / width, y0 / height, x1 / width, y1 / height]]], dtype=torch.float64) * SIDE
    with torch.no_grad():
        embedding = model.vision_encoder(torch.from_numpy(preprocessed(array, SIDE))).last_hidden_state
        sparse, dense = model.prompt_encoder(None, None, prompt.float(), None)
        logits, _ = model.mask_decoder(
            embedding, model.get_image_wide_positional_embeddings(), sparse, dense, multimask_output=False
        )
        chance = functional.interpolate(
            torch.sigmoid(logits[0]), size=(height, width), mode="bilinear", align_corners=False
        )
    return (chance[0, 0] > 0.5).numpy()


@pytest.mark.parametrize("box", BOXES)
def test_a_mask_is_that_of_the_parts_written_out(sam_folder, segmenter, box):
    array = pixels()
    expected = by_hand(SamModel.from_pretrained(sam_folder).eval(), array, box)
    assert 0 < expected.mean() < 1
    found = segmenter.segment(png(array), [box])
    assert found.shape == (60, 90)
    assert (found == expected).all()


def test_boxes_are_scaled_axis_by_axis():
    found = scaled([Box(9, 6, 45, 30), Box(0, 0, 90, 60)], (90, 60), 1024)
    assert found == pytest.approx(np.array([[102.4, 102.4, 512, 512], [0, 0, 1024, 1024]]))


def test_many_boxes_give_the_union_of_one_at_a_time(segmenter):
    data = png(pixels())
    many = [Box(x, y, x + 25, y + 20) for x in range(0, 60, 10) for y in range(0, 40, 10)]
    single = [segmenter.segment(data, [box]) for box in many]
    assert len({mask.tobytes() for mask in single}) > 1, "the prompt matters"
    assert (segmenter.segment(data, many) == np.any(single, axis=0)).all()


def test_an_image_is_encoded_once(segmenter, encoded):
    data = png(pixels())
    segmenter.segment(data, BOXES)
    segmenter.segment(data, BOXES[:1])
    segmenter.segment(bytes(bytearray(data)), [])
    assert len(encoded) == 1, "known by its bytes, not by the object that holds them"
    segmenter.segment(png(pixels(seed=1)), BOXES)
    assert len(encoded) == 2


def test_few_images_are_remembered(sam_folder, monkeypatch):
    monkeypatch.setattr("malpighi.models.medsam.KEPT_IMAGES", 1)
    segmenter, one, other = load_medsam(sam_folder), png(pixels()), png(pixels(seed=1))
    for data in (one, one, other, one):
        segmenter.segment(data, BOXES)
    assert segmenter._embedded.cache_info().misses == 3


def test_no_box_gives_no_mask(segmenter):
    data = png(pixels())
    for boxes in ([], [Box(5, 5, 5, 20)], [Box(200, 0, 300, 10)], [Box(float("nan"), 0, 5, 5)]):
        mask = segmenter.segment(data, boxes)
        assert (mask.shape, mask.any()) == ((60, 90), False)


def test_boxes_are_clipped(segmenter):
    data = png(pixels())
    beyond = segmenter.segment(data, [Box(-50, -50, 40, 30)])
    assert (beyond == segmenter.segment(data, [Box(0, 0, 40, 30)])).all()
    assert (beyond != segmenter.segment(data, [Box(20, 20, 40, 30)])).any()


def test_a_damaged_image_is_refused_and_not_remembered(segmenter, encoded):
    for _ in range(2):
        with pytest.raises(DataError, match="cut short"):
            segmenter.segment(png(pixels())[:200], BOXES)
    assert encoded == []


def test_loading_draws_no_random_number(sam_folder):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    load_medsam(sam_folder)
    assert torch.equal(torch.rand(4), expected)


def broken(folder, tmp_path, **config):
    path = tmp_path / "broken"
    shutil.copytree(folder, path)
    if config:
        found = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps(found | config))
    return path


def test_a_folder_without_a_sam_is_refused(sam_folder, tmp_path):
    with pytest.raises(ConfigError, match="set segmenter to classical, boxes, or the folder of a SAM"):
        load_medsam(tmp_path / "nothing")
    other = broken(sam_folder, tmp_path, model_type="qwen2_5_vl")
    with pytest.raises(ConfigError, match="a model of type 'qwen2_5_vl', not 'sam'"):
        load_medsam(other)
    (other / "config.json").write_text("[")
    with pytest.raises(ConfigError, match="not a model configuration"):
        load_medsam(other)


@pytest.mark.parametrize("damage", ["gone", "cut", "other"])
def test_damaged_weights_are_refused(sam_folder, tmp_path, damage):
    path = broken(sam_folder, tmp_path)
    weights = path / "model.safetensors"
    if damage == "gone":
        weights.unlink()
    elif damage == "cut":
        weights.write_bytes(weights.read_bytes()[:1000])
    else:
        found = json.loads((path / "config.json").read_text())
        found["mask_decoder_config"]["num_hidden_layers"] = 3
        (path / "config.json").write_text(json.dumps(found))
    with pytest.raises(ConfigError, match=r"cannot load the segmenter|lack"):
        load_medsam(path)
