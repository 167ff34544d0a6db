"""Ours against pycocotools, sacrebleu and a plain BLEU written from its definition."""

import contextlib
import io
import math
from collections import Counter

import numpy as np
import pytest
import sacrebleu
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from trl.rewards import get_repetition_penalty_reward, get_soft_overlong_punishment

from malpighi.grading.conduct import Length, overlong, repetition
from malpighi.grading.match import THRESHOLDS, detection_parts
from malpighi.grading.words import bleu4, bleu4_paper, bleu4_sacrebleu

WORDS = [
    "the",
    "nuclei",
    "are",
    "enlarged",
    "with",
    "a",
    "sharp",
    "halo",
    "around",
    "koilocyte",
    "cells",
    "and",
]


def random_boxes(rng, count, spread, near=None):
    if near is not None and len(near):
        chosen = near[rng.integers(len(near), size=count)]
        return np.round((chosen + rng.normal(0, spread, chosen.shape)) * 4) / 4
    corner = rng.integers(0, 400, (count, 2))
    return np.concatenate([corner, corner + rng.integers(8, 60, (count, 2))], axis=1).astype(float)


def coco_ap(predicted, truth):
    """AP of one image at our thresholds, constant scores, by pycocotools."""

    def xywh(boxes):
        return [[x0, y0, x1 - x0, y1 - y0] for x0, y0, x1, y1 in boxes.tolist()]

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "info": {},
            "images": [{"id": 1, "width": 512, "height": 512}],
            "categories": [{"id": 1, "name": "cell"}],
            "annotations": [
                {"id": i + 1, "image_id": 1, "category_id": 1, "bbox": b, "area": b[2] * b[3], "iscrowd": 0}
                for i, b in enumerate(xywh(truth))
            ],
        }
        coco.createIndex()
        rows = [{"image_id": 1, "category_id": 1, "bbox": b, "score": 1.0} for b in xywh(predicted)]
        run = COCOeval(coco, coco.loadRes(rows), "bbox")
        run.params.iouThrs = np.array(THRESHOLDS)
        run.params.areaRng, run.params.areaRngLbl = [[0, 1e10]], ["all"]
        run.evaluate()
        run.accumulate()
    return run.eval["precision"][:, :, 0, 0, -1].mean(axis=1)


def test_ap_emit_equals_pycocotools_image_by_image():
    rng = np.random.default_rng(0)
    seen = []
    for _ in range(200):
        truth = random_boxes(rng, rng.integers(1, 40), 0)
        predicted = random_boxes(rng, rng.integers(1, 60), rng.uniform(0.5, 8), truth)
        predicted = np.concatenate([predicted, random_boxes(rng, rng.integers(0, 40), 0)])
        predicted = predicted[(predicted[:, 2:] > predicted[:, :2]).all(axis=1)]
        rng.shuffle(predicted)
        parts = detection_parts(predicted, truth)
        ours = [parts[f"ap_emit{t * 100:g}"] for t in THRESHOLDS]
        assert ours == pytest.approx(coco_ap(predicted, truth), abs=1e-9)
        seen += ours
    assert 0.05 < np.mean(seen) < 0.95, "the images must not all be easy or hopeless"


def random_sentence(rng, low, high):
    return " ".join(rng.choice(WORDS, rng.integers(low, high)))


def test_bleu4_equals_sacrebleu():
    rng = np.random.default_rng(1)
    longer = 0
    for _ in range(400):
        said, truth = random_sentence(rng, 1, 12), random_sentence(rng, 1, 12)
        theirs = sacrebleu.sentence_bleu(said, [truth], lowercase=True, use_effective_order=True)
        assert bleu4_sacrebleu(said, truth) == pytest.approx(theirs.score / 100, abs=1e-12)
        words, wanted = len(said.split()), len(truth.split())
        if words == wanted or words > wanted >= 4:
            longer += 1
            assert bleu4(said, truth) == pytest.approx(theirs.score / 100, abs=1e-12)
    assert longer > 100


def test_overlong_and_repetition_are_those_of_trl():
    rng = np.random.default_rng(3)
    soft = get_soft_overlong_punishment(max_completion_len=100, soft_punish_cache=20)
    repeats = get_repetition_penalty_reward(ngram_size=3)
    for tokens in (0, 1, 79, 80, 81, 90, 99, 100, 101, 5_000):
        assert overlong(Length(tokens, 100, 20)) == pytest.approx(-soft([[0] * tokens])[0], abs=1e-12)
    for _ in range(100):
        ids = rng.integers(0, 4, rng.integers(0, 30)).tolist()
        words = " ".join("abcd"[i] for i in ids)
        assert repetition(words) == pytest.approx(-repeats([ids])[0], abs=1e-12)


def plain_bleu(said, truth):
    """Papineni et al. 2002 for one sentence and one reference, n = 1..4, no smoothing."""
    logs = 0.0
    for n in range(1, 5):
        ours = Counter(tuple(said[i : i + n]) for i in range(len(said) - n + 1))
        theirs = Counter(tuple(truth[i : i + n]) for i in range(len(truth) - n + 1))
        shared = (ours & theirs).total()
        if not shared:
            return 0.0
        logs += math.log(shared / ours.total()) / 4
    return math.exp(logs + min(0.0, 1 - len(truth) / len(said)))


def test_bleu4_paper_equals_the_definition():
    rng = np.random.default_rng(2)
    values = []
    for _ in range(300):
        truth = random_sentence(rng, 1, 20)
        said = " ".join([*truth.split()[: rng.integers(1, 12)], random_sentence(rng, 1, 6)])
        values.append(plain_bleu(said.split(), truth.split()))
        assert bleu4_paper(said, truth) == pytest.approx(values[-1], abs=1e-12)
    assert 0.05 < np.mean(values) < 0.95
