"""Answers about phantom slides by attention over tile features: how good, and where the network looks.

    python benchmarks/slide_answers.py [--quick] [--folder FOLDER]

Every slide is answered once by a network that has seen no slide of its patient (four folds), through the
same examination as any model. Prints the accuracy with an interval over patients, the area under the ROC
curve, and how much more attention a tile with carcinoma gets than one without on the same slide. Compared
are statistics of the stain and the features of a network that has learnt nothing.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np

from malpighi.datasets.split import Member, SplitPlan, assign
from malpighi.evaluation.evaluate import EvaluateOptions, evaluate
from malpighi.evaluation.statistics import Bootstrap, mean_interval
from malpighi.grading.grade import grade
from malpighi.inference.encoders import StainStatistics, random_backbone
from malpighi.inference.slide_answer import FeatureAnswers
from malpighi.inference.tile_features import TileSource, extract_features
from malpighi.models.prompt import PromptStyle
from malpighi.phantom.slide_items import SlideItemSettings, drawn_slide, render_drawn, slide_items
from malpighi.records import Choice, Split
from malpighi.slides.features import FeatureStore
from malpighi.slides.grid import GridSettings
from malpighi.slides.opening import open_slide
from malpighi.training.slide_classifier import SlideClassifyConfig, train_slide_classifier

SEED, FOLDS = 1, 4
SETTINGS = SlideItemSettings(shortest=1024, longest=1408)
SOURCE = TileSource(GridSettings(size=128, mpp=None, tissue=0.0))
STYLE = PromptStyle(family="qwen3_vl")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="16 slides in place of 48")
    parser.add_argument("--folder", type=Path, help="where slides are kept from run to run")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = given.folder or Path(scratch)
        samples = drawn_samples(work / "slides", 16 if given.quick else 48)
        truth = [tumour_tiles(sample) for sample in samples]
        rows = {}
        for encoder in (StainStatistics(), random_backbone("resnet18", 128)):
            rows[encoder.name] = examined(samples, truth, encoder, work)
            print(encoder.name, json.dumps(rows[encoder.name]))
    print(json.dumps(rows))


def drawn_samples(folder, count):
    items = slide_items(folder, SEED, count, SETTINGS)
    return [item.sample for item in items if item.sample.exam == "phantom/slide-diagnosis"]


def tumour_tiles(sample):
    """Share of carcinoma in each tile of a slide, row by row."""
    index = int(Path(sample.images[0].slide).stem.split("-")[-1])
    truth = render_drawn(SEED, drawn_slide(SEED, index, SETTINGS)).tumour
    side = SOURCE.grid.size
    height, width = (length // side * side for length in truth.shape)
    return truth[:height, :width].reshape(height // side, side, width // side, side).mean(axis=(1, 3)).ravel()


def examined(samples, truth, encoder, work):
    store = FeatureStore(work / "features", encoder.name)
    start = time.perf_counter()
    for sample in samples:
        with open_slide(work / "slides" / sample.images[0].slide) as slide:
            extract_features(slide, sample.images[0].slide, store, encoder, SOURCE)
    seconds = time.perf_counter() - start
    scores, chances, ratios = {}, {}, []
    with tempfile.TemporaryDirectory() as scratch:
        for fold, (learning, held) in enumerate(folds(samples)):
            model, _ = train_slide_classifier(
                learning,
                lambda sample: store.read(sample.images[0].slide).features,
                SlideClassifyConfig(),
                Path(scratch) / f"model-{fold}",
                encoder=store.encoder,
            )
            answers = FeatureAnswers(model, store, STYLE)
            out = Path(scratch) / f"fold-{fold}.jsonl"
            told = evaluate(answers, held, answers.prompt, graded, out, EvaluateOptions("attention"))
            assert not told.failures
            for sample, row in zip(held, told.predictions, strict=True):
                verdict = model.examine(store.read(sample.images[0].slide).features)
                scores[sample.id], chances[sample.id] = row.grade.score, verdict.probabilities_k[1]
                share = truth[samples.index(sample)]
                if sample.answer == Choice(1):
                    attention = verdict.attention_n
                    ratios.append(attention[share > 0.1].mean() / attention[share == 0].mean())
    groups = [sample.group for sample in samples]
    accuracy = mean_interval([scores[sample.id] for sample in samples], groups, Bootstrap())
    ratio = mean_interval(ratios, [s.group for s in samples if s.answer == Choice(1)], Bootstrap())
    return {
        "slides": len(samples),
        "patients": len(set(groups)),
        "accuracy": [round(v, 3) for v in (accuracy.value, accuracy.low, accuracy.high)],
        "auc": round(auc([chances[s.id] for s in samples], [s.answer.index for s in samples]), 3),
        "attention_tumour_over_rest": [round(v, 1) for v in (ratio.value, ratio.low, ratio.high)],
        "least_ratio": round(min(ratios), 2),
        "features_seconds": round(seconds, 1),
    }


def folds(samples):
    """Four times (train and validation, held out), by patient, each slide held out once."""
    left = samples
    dealt = []
    for k in range(FOLDS, 0, -1):
        if k == 1:
            dealt.append(left)
            break
        plan = SplitPlan(1 - 1 / k, 0, 1 / k, SEED)
        splits = assign((Member(s.group, s.answer.index) for s in left), plan)
        dealt.append([s for s in left if splits[s.group] is Split.TEST])
        left = [s for s in left if splits[s.group] is not Split.TEST]
    for held in dealt:
        rest = [s for s in samples if s not in held]
        yield [msgspec.structs.replace(s, split=Split.TRAIN) for s in rest], held


def graded(sample, completion, prompt):
    return grade(sample, completion.text)


def auc(scores, labels):
    """Area under the ROC curve: how often a slide with carcinoma scores above one without, ties half."""
    scores, labels = np.asarray(scores), np.asarray(labels)
    above = scores[labels == 1][:, None] - scores[labels == 0][None]
    return float((above > 0).mean() + 0.5 * (above == 0).mean())


if __name__ == "__main__":
    main()
