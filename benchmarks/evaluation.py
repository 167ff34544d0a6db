"""Scoring at scale: stored predictions of 72 exams, boxes, and the bootstrap, beside known libraries.

Prints tables and, as last line, one JSON object of ratios measured in this run. torchmetrics is measured
where it is installed. Usage: python benchmarks/evaluation.py [--quick]
"""

import argparse
import contextlib
import io
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from sklearn.metrics import f1_score

from malpighi.evaluation import metrics
from malpighi.evaluation.regrade import regrade
from malpighi.evaluation.report import ReportInput, write_report
from malpighi.evaluation.rows import stream_predictions
from malpighi.evaluation.statistics import Bootstrap, matrix_interval
from malpighi.evaluation.tables import results
from malpighi.geometry import Box
from malpighi.grading.grade import grade
from malpighi.grading.match import THRESHOLDS
from malpighi.grading.match_many import detection_parts_many
from malpighi.records import (
    Boxes,
    Choice,
    Grade,
    ImageRef,
    Prediction,
    Provenance,
    Sample,
    Scale,
    Status,
    TaskKind,
    Text,
    Turn,
    from_json,
    to_json,
)

# kind of exam -> (exams, share of all samples): roughly the 72 of SmartPath-R1, whose largest holds half.
KINDS = {
    "large": (1, 0.5),
    "class": (16, 0.37),
    "boxes": (28, 0.1),
    "options": (26, 0.025),
    "words": (1, 0.005),
}
MODELS = ("earlier", "later")
OPTIONS = tuple(f"class number {k}" for k in range(11))
THOUGHT = (
    "<think>" + "The nuclei are enlarged, the chromatin is coarse and the rim is irregular. " * 6 + "</think>"
)


def question(kind, shared, rng):
    """A sample, and its answer as a model would word it."""
    if kind in ("large", "class", "options"):
        options = tuple(f"finding {rng.integers(10_000)}" for _ in range(4)) if kind == "options" else OPTIONS
        task = TaskKind.VQA if kind == "options" else TaskKind.CLASSIFICATION
        truth = int(rng.integers(len(options)))
        return Sample(task=task, answer=Choice(truth), options=options, **shared), options[truth]
    if kind == "words":
        words = "squamous epithelium of the cervix"
        return Sample(task=TaskKind.VQA, answer=Text(words), **shared), words
    corner = rng.integers(0, 960, (int(rng.integers(1, 12)), 2))
    truth = np.concatenate([corner, corner + rng.integers(24, 64, corner.shape)], axis=1)
    answer = Boxes(tuple(Box(*map(float, box)) for box in truth))
    said = np.round(truth + rng.normal(0, 4, truth.shape)).tolist()
    return Sample(task=TaskKind.DETECTION, answer=answer, **shared), json.dumps(said)


def write_stored(folder, total):
    """Per exam the samples, and per model the replies, not graded; one in fifty cannot be read."""
    rng = np.random.default_rng(0)
    for kind, (exams, share) in KINDS.items():
        for number in range(exams):
            exam = f"{kind}{number:02d}"
            count = max(20, round(total / len(MODELS) * share / exams))
            with contextlib.ExitStack() as files:
                samples = files.enter_context((folder / f"{exam}.samples").open("wb"))
                out = [files.enter_context((folder / f"{exam}.{model}").open("wb")) for model in MODELS]
                last = "nothing"
                for place in range(count):
                    shared = {
                        "id": f"{exam}/{place:07d}",
                        "dataset": exam,
                        "exam": exam,
                        "scale": Scale.ROI,
                        "images": (ImageRef(f"{place:064x}", (1024, 1024)),),
                        "turns": (Turn("user", "What is seen?"),),
                        "group": f"{exam}/patient{rng.integers(max(2, count // 12))}",
                        "licence": "CC0-1.0",
                        "provenance": Provenance("benchmark"),
                    }
                    sample, said = question(kind, shared, rng)
                    samples.write(to_json(sample) + b"\n")
                    for model, file, skill in zip(MODELS, out, (0.6, 0.7), strict=True):
                        luck = rng.random()
                        words = said if luck < skill else last if luck < 0.98 else ""
                        file.write(to_json(stored(sample, model, words)) + b"\n")
                    last = said


def stored(sample, model, words):
    return Prediction(
        model=model,
        exam=sample.exam,
        sample=sample.id,
        group=sample.group,
        task=sample.task,
        text=f"{THOUGHT}<answer>{words}</answer>",
        grade=Grade(0.0, Status.OK),
        prompt_hash=sample.images[0].key,
        image_hash=sample.images[0].key,
    )


def graded(folder):
    """All rows with their verdicts, exam by exam."""
    for path in sorted(folder.glob("*.samples")):
        with path.open("rb") as file:
            samples = {sample.id: sample for sample in (from_json(line, Sample) for line in file)}
        for model in MODELS:
            yield from regrade(stream_predictions(path.with_suffix(f".{model}")), samples, grade)


def score(folder):
    """In a process of its own: read, grade, tabulate, test, write the page; print seconds and memory."""
    start = time.perf_counter()
    table = results(graded(folder), [MODELS])
    write_report(ReportInput("benchmark", table), folder / "report.html")
    told = {
        "seconds": time.perf_counter() - start,
        "processor_seconds": time.process_time(),
        "gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "rows": sum(row.n for row in table.rows),
        "exams": len({row.exam for row in table.rows}),
    }
    print(json.dumps(told))


def measure_scoring(total):
    with tempfile.TemporaryDirectory() as name:
        write_stored(Path(name), total)
        command = [sys.executable, str(Path(__file__).resolve()), "--score", name]
        ended = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(ended.stdout.splitlines()[-1])


def make_images(count, boxes=40, seed=0):
    """Pairs (predicted, truth) of boxes; predictions are jittered truths, some of them junk."""
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(count):
        corner = rng.integers(0, 960, (boxes, 2))
        truth = np.concatenate([corner, corner + rng.integers(24, 64, (boxes, 2))], axis=1).astype(float)
        predicted = np.round(truth + rng.normal(0, 5, truth.shape))
        predicted[rng.random(boxes) < 0.2] += rng.integers(200, 400)
        predicted[:, 2:] = np.maximum(predicted[:, 2:], predicted[:, :2] + 1)
        pairs.append((rng.permutation(predicted), truth))
    return pairs


def coco_ap(images):
    """AP50 of pycocotools over all areas; (seconds, AP), the building of its objects not counted."""
    annotations, rows = [], []
    for image, (predicted, truth) in enumerate(images):
        for x0, y0, x1, y1 in truth.tolist():
            box = {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0), "iscrowd": 0}
            annotations.append({"id": len(annotations) + 1, "image_id": image, "category_id": 1, **box})
        for x0, y0, x1, y1 in predicted.tolist():
            box = {"bbox": [x0, y0, x1 - x0, y1 - y0], "score": 1.0}
            rows.append({"image_id": image, "category_id": 1, **box})
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        parts = {"info": {}, "images": [{"id": k} for k in range(len(images))], "categories": [{"id": 1}]}
        coco.dataset = {**parts, "annotations": annotations}
        coco.createIndex()
        run = COCOeval(coco, coco.loadRes(rows), "bbox")
        run.params.iouThrs = np.array(THRESHOLDS)
        run.params.areaRng, run.params.areaRngLbl = [[0, 1e10]], ["all"]
        start = time.perf_counter()
        run.evaluate()
        run.accumulate()
        return time.perf_counter() - start, float(run.eval["precision"][1, :, 0, 0, -1].mean())


def torchmetrics_seconds(images):
    """Seconds of torchmetrics' default way, one value over all images; None where it is not installed."""
    try:
        import torch  # noqa: PLC0415
        from torchmetrics.detection import MeanAveragePrecision  # noqa: PLC0415
    except ImportError:
        return None
    metric = MeanAveragePrecision(iou_thresholds=list(THRESHOLDS))
    label = {"labels": torch.zeros(len(images[0][0]), dtype=torch.int64)}
    scores = {"scores": torch.ones(len(images[0][0]))}
    start = time.perf_counter()
    metric.update(
        [{"boxes": torch.from_numpy(predicted), **label, **scores} for predicted, _ in images],
        [{"boxes": torch.from_numpy(truth), **label} for _, truth in images],
    )
    metric.compute()
    return time.perf_counter() - start


def seconds(work, repeats=3):
    """Best of a few runs: the machine may be shared."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def measure_boxes(count):
    images = make_images(count)
    predicted, truth = ([pair[side] for pair in images] for side in (0, 1))
    ours = seconds(lambda: detection_parts_many(predicted, truth))
    coco, value = coco_ap(images)
    gap = abs(detection_parts_many(predicted, truth).pooled[0.5].coco - value)
    print(f"{count} images x 40 boxes x {len(THRESHOLDS)} thresholds; pooled AP50 differs by {gap:.1e}")
    rows = {"ours, per image and pooled": ours, "pycocotools, pooled, all areas": coco}
    other = torchmetrics_seconds(images)
    if other is not None:
        rows["torchmetrics, pooled"] = other
    show(rows, ours)
    found = {"pycocotools_over_ours": round(coco / ours, 1), "boxes_seconds": round(ours, 3)}
    return found | ({} if other is None else {"torchmetrics_over_ours": round(other / ours, 1)})


def measure_bootstrap(n, classes=11, draws=1000, measured=5):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, classes, n)
    answer = np.where(rng.random(n) < 0.7, truth, rng.integers(0, classes + 1, n))
    alone = [f"tile{k}" for k in range(n)]
    patients = [f"patient{k}" for k in rng.integers(0, 500, n)]

    def ours(groups):
        shape = (classes, classes + 1)
        return matrix_interval((truth, answer), shape, groups, metrics.macro_f1, Bootstrap(draws))

    def known():
        for _ in range(measured):
            drawn = rng.integers(0, n, n)
            f1_score(truth[drawn], answer[drawn], labels=range(classes), average="macro", zero_division=0)

    rows = {
        "ours, samples drawn": seconds(lambda: ours(alone)),
        "ours, 500 patients drawn": seconds(lambda: ours(patients)),
        f"scikit-learn, {measured} draws scaled": seconds(known, 1) / measured * draws,
    }
    print(f"{draws} bootstrap draws of macro-F1, {n} samples x {classes} classes")
    single, grouped, other = rows.values()
    show(rows, single)
    return {
        "sklearn_over_ours": round(other / single),
        "sklearn_over_ours_grouped": round(other / grouped),
        "bootstrap_seconds": round(single, 3),
        "bootstrap_grouped_seconds": round(grouped, 3),
    }


def show(rows, ours):
    for name, value in rows.items():
        print(f"  {name:34s} {value:9.3f} s {value / ours:9.1f} x")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    parser.add_argument("--score", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.score:
        score(arguments.score)
        return
    part = 10 if arguments.quick else 1
    # First, because a process starts with the peak memory of the one that starts it.
    scored = measure_scoring(330_000 // part)
    print(f"{scored['rows']} stored predictions over {scored['exams']} exams: graded, tabulated, reported")
    busy = f"{scored['seconds']:.1f} s, the processor busy for {scored['processor_seconds']:.1f} s"
    print(f"  {busy}, {scored['gib']:.2f} GiB at most")
    found = measure_boxes(5_000 // part) | measure_bootstrap(189_142)
    found |= {
        f"scoring_{name}": round(scored[name], 2) for name in ("rows", "seconds", "processor_seconds", "gib")
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
