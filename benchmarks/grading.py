"""Detection figures: ours against pycocotools, in one run on the same boxes.

Prints a table and, as last line, one JSON object of ratios. Usage: python benchmarks/grading.py [--quick]
"""

import argparse
import contextlib
import io
import json
import time

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from malpighi.grading.boxes import read_boxes
from malpighi.grading.match import THRESHOLDS, detection_parts


def make_images(count, boxes, seed=0):
    """Pairs (predicted, truth) of `boxes` boxes each; predictions are jittered truths, some of them junk."""
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(count):
        corner = rng.integers(0, 960, (boxes, 2))
        truth = np.concatenate([corner, corner + rng.integers(24, 64, (boxes, 2))], axis=1).astype(float)
        predicted = np.round(truth + rng.normal(0, 5, truth.shape))
        junk = rng.random(boxes) < 0.2
        predicted[junk] += rng.integers(200, 400)
        images.append((rng.permutation(predicted), truth))
    return images


def as_coco(images):
    """The same boxes as pycocotools objects; every score is 1."""
    annotations, rows = [], []
    for image, (predicted, truth) in enumerate(images):
        for x0, y0, x1, y1 in truth.tolist():
            box = {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0), "iscrowd": 0}
            annotations.append({"id": len(annotations) + 1, "image_id": image, "category_id": 1, **box})
        for x0, y0, x1, y1 in predicted.tolist():
            rows.append(
                {"image_id": image, "category_id": 1, "bbox": [x0, y0, x1 - x0, y1 - y0], "score": 1.0}
            )
    coco = COCO()
    coco.dataset = {
        "info": {},
        "images": [{"id": i} for i in range(len(images))],
        "categories": [{"id": 1}],
        "annotations": annotations,
    }
    coco.createIndex()
    return coco, coco.loadRes(rows)


def run_coco(truth, predicted, areas):
    run = COCOeval(truth, predicted, "bbox")
    run.params.iouThrs = np.array(THRESHOLDS)
    if areas == "all":
        run.params.areaRng, run.params.areaRngLbl = [[0, 1e10]], ["all"]
    run.evaluate()
    run.accumulate()


def seconds(work, repeats=3):
    """Best of a few runs: the machine may be shared."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="200 images instead of 5,000")
    count = 200 if parser.parse_args().quick else 5_000
    images = make_images(count, 40)
    replies = [json.dumps(predicted.tolist()) for predicted, _ in images]
    with contextlib.redirect_stdout(io.StringIO()):
        truth, predicted = as_coco(images)
        coco_all = seconds(lambda: run_coco(truth, predicted, "all"), 1 if count > 200 else 3)
        coco_default = seconds(lambda: run_coco(truth, predicted, "default"), 1 if count > 200 else 3)
    ours = seconds(lambda: [detection_parts(p, t) for p, t in images])
    reading = seconds(lambda: [read_boxes(reply) for reply in replies])
    rows = [
        ("ours: all four figures per image", ours),
        ("pycocotools, all areas only (one pooled AP)", coco_all),
        ("pycocotools, default four area ranges", coco_default),
        ("reading the boxes out of the replies", reading),
    ]
    print(f"{count} images x 40 true and 40 predicted boxes x {len(THRESHOLDS)} thresholds")
    for name, value in rows:
        print(f"{name:45s} {value:8.3f} s {value / ours:7.2f} x")
    ratios = {
        "pycocotools_all_areas_over_ours": round(coco_all / ours, 2),
        "pycocotools_default_over_ours": round(coco_default / ours, 2),
        "reading_over_ours": round(reading / ours, 2),
    }
    print(json.dumps(ratios))


if __name__ == "__main__":
    main()
