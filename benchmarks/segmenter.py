"""Segmenters given the right boxes: the Dice that each reaches, and what it costs.

Pictures are the phantom's and, where MALPIGHI_TEST_DATA is set or ../shared/data is there, every other one of
DSB 2018 (nuclei) and EBHI-SEG (glands); the classical segmenter's constants were chosen on the ones between
and on another seed of the phantom. MedSAM's speed is that of its architecture with random weights. CPU time,
one thread. Prints tables and, as last line, one JSON object of ratios.
Usage: python benchmarks/segmenter.py [--quick]
"""

import argparse
import itertools
import json
import os
import time
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from skimage.color import rgb2hed
from skimage.filters import threshold_otsu
from skimage.segmentation import watershed
from transformers import SamConfig, SamModel

from malpighi.datasets.catalogue import ADAPTERS
from malpighi.datasets.split import SplitPlan
from malpighi.datasets.windows import Window, cut
from malpighi.geometry import Box
from malpighi.grading.masks import dice, filled
from malpighi.models.classical_segmenter import KEPT_IMAGES, ClassicalSegmenter
from malpighi.models.medsam import MedSam
from malpighi.phantom.generate import cell_items, region_items
from malpighi.pixels import decode_image, decode_labels
from malpighi.records import Item, MaskRef

DATA = Path(os.environ.get("MALPIGHI_TEST_DATA", Path(__file__).parents[1] / "../shared/data"))
SEED = 1
# Data set -> windows as the mini recipe cuts them, px; 0 takes whole pictures.
REAL = {"dsb2018_he": (80, 0), "ebhi_seg": (256, 0)}
MOST_BOXES = {80: 6, 256: 6, 0: 1_000}


class Outlined(NamedTuple):
    """A picture with its right boxes and its right mask."""

    data: bytes
    size: tuple[int, int]
    boxes: tuple[Box, ...]
    truth: np.ndarray


def pictures(count):
    """Exam -> at most `count` pictures."""
    found = defaultdict(list)
    phantom = itertools.chain(cell_items(SEED, 2 * count), region_items(SEED, 3 * count))
    real = itertools.chain.from_iterable(outlined_real(name) for name in REAL if (DATA / name).is_dir())
    for exam, item in itertools.chain(((item.sample.exam, item) for item in phantom), real):
        if isinstance(item.sample.answer, MaskRef):
            found[exam].append(outlined(item))
    return {exam: some[:: max(1, len(some) // count)][:count] for exam, some in found.items()}


def outlined_real(name):
    """(exam, item) of every other window or picture of a data set."""
    read = ADAPTERS[name].read(DATA / name, SplitPlan(1.0, 0.0, 0.0))
    items = [item for item in read if isinstance(item, Item) and isinstance(item.sample.answer, MaskRef)]
    for side in REAL[name]:
        pieces = items
        if side:
            pieces = [p for i in items for p in cut(i, Window(side, side, side, keep_empty=False))]
        few = [piece for piece in pieces if len(piece.sample.answer.boxes) <= MOST_BOXES[side]]
        for piece in few[1::2]:
            yield f"{piece.sample.exam}, {f'{side} px' if side else 'whole'}", piece


def outlined(item):
    blobs = {blob.key: blob.data for blob in item.blobs}
    ref, answer = item.sample.images[0], item.sample.answer
    return Outlined(blobs[ref.key], ref.size, answer.boxes, decode_labels(blobs[answer.key]) > 0)


def by_otsu(picture, boxes):
    """Haematoxylin above its threshold around each box, the piece in the middle, its holes filled."""
    stain = ndimage.gaussian_filter(rgb2hed(np.asarray(decode_image(picture.data)))[..., 0], 1)
    mask = np.zeros(stain.shape, bool)
    for box in boxes:
        rows, columns = slices(box, picture.size)
        near = stain[slices(grown(box), picture.size)]
        if near.size == 0 or near.max() <= near.min():
            continue
        pieces, count = ndimage.label(stain[rows, columns] > threshold_otsu(near))
        middle = np.bincount(pieces[distance(box, rows, columns) < 0.5], minlength=count + 1)
        if count and middle[1:].any():
            mask[rows, columns] |= ndimage.binary_fill_holes(pieces == 1 + middle[1:].argmax())
    return mask


def by_watershed(picture, boxes):
    """The basin of each box's middle, against that of its rim, in the gradient of the optical density."""
    pixels = np.asarray(decode_image(picture.data)).astype(float)
    density = ndimage.gaussian_filter(-np.log(np.maximum(pixels, 1) / 255).mean(axis=-1), 1)
    slope = np.hypot(ndimage.sobel(density, 0), ndimage.sobel(density, 1))
    mask = np.zeros(density.shape, bool)
    for box in boxes:
        near = slices(grown(box, 2.0), picture.size)
        away = distance(box, *near)
        inside = filled([box], picture.size)[near]
        markers = np.where(away < 0.35, 1, np.where((away > 1.35) | ~inside, 2, 0))
        mask[near] |= (watershed(slope[near], markers) == 1) & inside
    return mask


def slices(box, size):
    rows = slice(max(int(np.ceil(box.y0 - 0.5)), 0), min(int(np.ceil(box.y1 - 0.5)), size[1]))
    return rows, slice(max(int(np.ceil(box.x0 - 0.5)), 0), min(int(np.ceil(box.x1 - 0.5)), size[0]))


def grown(box, by=None):
    x, y = (by, by) if by else ((box.x1 - box.x0) / 4 + 1, (box.y1 - box.y0) / 4 + 1)
    return Box(box.x0 - x, box.y0 - y, box.x1 + x, box.y1 + y)


def distance(box, rows, columns):
    """Squared distance from the middle, 1 on the ellipse that fills the box."""
    sides = ((rows, box.y0, box.y1), (columns, box.x0, box.x1))
    y, x = (2 * (np.r_[part] + 0.5 - (low + high) / 2) / max(high - low, 1) for part, low, high in sides)
    return y[:, None] ** 2 + x[None, :] ** 2


ANSWERS = {
    "right boxes": lambda picture, rng: picture.boxes,
    "sides moved by up to a tenth": lambda picture, rng: [shaken(box, rng) for box in picture.boxes],
    "middle of the picture": lambda picture, rng: [
        Box(*(part * side for part in (0.2, 0.8) for side in picture.size))
    ],
    "whole picture": lambda picture, rng: [Box(0, 0, *picture.size)],
}


def shaken(box, rng):
    width, height = box.x1 - box.x0, box.y1 - box.y0
    return Box(*(np.array(box.corners) + rng.uniform(-0.1, 0.1, 4) * [width, height, width, height]))


def ways(classical):
    return {
        "filled": lambda picture, boxes: filled(boxes, picture.size),
        "classical": lambda picture, boxes: classical.segment(picture.data, boxes),
        "Otsu": by_otsu,
        "watershed": by_watershed,
    }


def means(found, answers, way):
    """Exam -> mean Dice of one way to make masks of one kind of answer."""
    scores = {}
    for exam, some in found.items():
        rng = np.random.default_rng(0)
        scores[exam] = float(np.mean([dice(way(p, answers(p, rng)), p.truth) for p in some]))
    return scores


def milliseconds(work, things):
    start = time.process_time()
    for thing in things:
        work(thing)
    return 1e3 * (time.process_time() - start) / len(things)


def cost(some):
    """Milliseconds per picture: to code its colours, and to segment its right boxes after that."""
    classical, some = ClassicalSegmenter(), some[:KEPT_IMAGES]
    coding = milliseconds(lambda picture: classical.segment(picture.data, ()), some)
    return coding, milliseconds(lambda picture: classical.segment(picture.data, picture.boxes), some)


def sam(side, layers):
    """The architecture of ViT-B at the published 1024 px and 12 layers; random weights."""
    vision = {"image_size": side, "num_hidden_layers": layers, "global_attn_indexes": [layers - 1]}
    if layers == 12:
        vision["global_attn_indexes"] = [2, 5, 8, 11]
    config = SamConfig(vision_config=vision, prompt_encoder_config={"image_size": side})
    return MedSam(SamModel(config).eval())


def medsam_cost(picture, *, quick):
    """Seconds for one box with and without an encoding at hand, and for eight boxes with it."""
    medsam = sam(256, 2) if quick else sam(1024, 12)
    eight = [Box(x, 10, x + 40, 60) for x in range(8)]
    calls = (eight[:1], eight[:1], eight)
    return [milliseconds(lambda boxes: medsam.segment(picture.data, boxes), [boxes]) / 1e3 for boxes in calls]


def show(title, columns):
    """A table of exam -> number under each name."""
    print(f"\n{title:32s}" + "".join(f"{name:>12s}" for name in columns))
    for exam in next(iter(columns.values())):
        print(f"{exam:32s}" + "".join(f"{values[exam]:12.3f}" for values in columns.values()))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="4 pictures an exam, and a small SAM")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    found = pictures(4 if quick else 120)
    print("pictures: " + "; ".join(f"{exam} {len(some)}" for exam, some in found.items()))
    reached = {}
    for answer, boxes in ANSWERS.items():
        reached[answer] = {name: means(found, boxes, way) for name, way in ways(ClassicalSegmenter()).items()}
        show(f"Dice, {answer}", reached[answer])
    coding, segmenting = zip(*(cost(some) for some in found.values()), strict=True)
    show("milliseconds, classical", {
        "colours": dict(zip(found, coding, strict=True)),
        "right boxes": dict(zip(found, segmenting, strict=True)),
    })  # fmt: skip
    new, known, eight = medsam_cost(found["phantom/glands"][0], quick=quick)
    print(f"\nMedSAM, seconds: new picture {new:.2f}, known picture {known:.3f}, eight boxes {eight:.3f}")
    ceilings = reached["right boxes"]
    ratios = {
        **{
            f"classical over filled, {exam}": ceilings["classical"][exam] / ceilings["filled"][exam]
            for exam in found
        },
        "medsam, new over known picture": new / known,
        "medsam, eight boxes over one": eight / known,
        "classical, slowest ms": max(segmenting),
    }
    print(json.dumps({name: round(value, 3) for name, value in ratios.items()}))


if __name__ == "__main__":
    main()
