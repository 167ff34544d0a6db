"""The rows here are invented; they exist to fill the page."""

import math
import random
import re
from html.parser import HTMLParser

import msgspec
import numpy as np
import pytest
from PIL import Image, ImageDraw

from malpighi.evaluation.cases import boxes_of, case_of, spoken, truth_text
from malpighi.evaluation.charts import gain_bar, heat_map, line_chart, picture
from malpighi.evaluation.metrics import Confusion
from malpighi.evaluation.report import DatasetRow, ReportInput, render, styles_of, write_report
from malpighi.evaluation.statistics import Bootstrap, Estimate
from malpighi.evaluation.tables import exam_confusions, results
from malpighi.geometry import Box
from malpighi.grading.grade import grade
from malpighi.records import (
    Boxes,
    Choice,
    Failure,
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
)

HOSTILE = "<script src=https://evil.example/x.js></script><img src=x onerror=alert(1)>\"'><style>*{display:none}"
CLASSES = ("NILM", "ASC-US", "LSIL", "ASC-H", "HSIL")
MODELS = {"majority": 0.2, "untrained": 0.3, "supervised": 0.72, "reinforced": 0.81}


def a_sample(exam: str, number: int, task: TaskKind, **fields) -> Sample:
    return Sample(
        id=f"{exam}/{number}",
        dataset="invented",
        exam=exam,
        task=task,
        scale=Scale.ROI,
        images=(ImageRef(f"{number:064x}", (160, 120)),),
        group=f"slide{number // 2}",
        licence="CC0-1.0",
        provenance=Provenance("test"),
        **fields,
    )


def the_samples() -> list[Sample]:
    draw = random.Random(4)
    samples = []
    for number in range(60):
        ask = (Turn("user", "Which Bethesda class does this cell belong to?"),)
        answer = Choice(draw.choice((0, 0, 1, 2, 3, 4)))
        samples.append(
            a_sample(
                "invented/bethesda",
                number,
                TaskKind.CLASSIFICATION,
                turns=ask,
                answer=answer,
                options=CLASSES,
            )
        )
    for number in range(24):
        ask = (Turn("user", "Mark every mitotic figure."),)
        x, y = draw.randrange(20, 100), draw.randrange(10, 80)
        answer = Boxes((Box(x, y, x + 30, y + 26),))
        samples.append(
            a_sample("invented/mitoses", number, TaskKind.DETECTION, turns=ask, answer=answer)
        )
    for number in range(20):
        ask = (Turn("user", "Which stain is this?"),)
        answer = Text("papanicolaou stain")
        samples.append(a_sample("invented/open", number, TaskKind.VQA, turns=ask, answer=answer))
    return samples


def reply(sample: Sample, skill: float, draw: random.Random) -> str:
    good = draw.random() < skill
    if not good and draw.random() < 0.15:
        return "<think>The cell is hard to see and I am still"
    match sample.answer:
        case Choice(index=index):
            said = CLASSES[index if good else draw.randrange(5)]
            why = "Nuclei are enlarged to about three times an intermediate nucleus, the rim is irregular."
        case Boxes(boxes=boxes):
            shift = 3 if good else 14
            said = str([[round(v) + draw.randrange(shift) for v in box.corners] for box in boxes])
            why = "One figure with clumped chromatin and no membrane."
        case _:
            said, why = "papanicolaou stain" if good else "haematoxylin stain", "Green cytoplasm."
    return f"<think>{why}</think><answer>{said}</answer>"


def the_rows(samples: list[Sample]) -> list[Prediction]:
    rows = []
    for model, skill in MODELS.items():
        draw = random.Random(model)
        for sample in samples:
            text = "<answer>NILM</answer>" if model == "majority" else reply(sample, skill, draw)
            rows.append(
                Prediction(
                    model=model,
                    exam=sample.exam,
                    sample=sample.id,
                    group=sample.group,
                    task=sample.task,
                    text=text,
                    grade=grade(sample, text),
                    truth=_truth(sample),
                )
            )
    return rows


def _truth(sample: Sample):
    match sample.answer:
        case Choice(index=index):
            return {"index": index, "options": list(sample.options)}
        case Boxes(boxes=boxes):
            return [list(box.corners) for box in boxes]
        case text:
            return text.value


def an_image(seed: int) -> Image.Image:
    image = Image.new("RGB", (160, 120), (238, 222, 232))
    pen, draw = ImageDraw.Draw(image), random.Random(seed)
    for _ in range(14):
        x, y, r = draw.randrange(160), draw.randrange(120), draw.randrange(5, 15)
        pen.ellipse((x - r, y - r, x + r, y + r), fill=(150 + draw.randrange(50), 110, 170))
        pen.ellipse((x - r / 3, y - r / 3, x + r / 3, y + r / 3), fill=(80, 50, 110))
    return image


def the_report(hostile: str = "", failures: int = 3) -> ReportInput:
    samples = the_samples()
    rows = the_rows(samples)
    shown = [samples[0], samples[3], samples[60], samples[61], samples[84]]
    if hostile:
        rows = [
            msgspec.structs.replace(row, text=f"<think>{hostile}</think><answer>{hostile}</answer>")
            for row in rows
        ]
        shown = [msgspec.structs.replace(s, id=s.id, turns=(Turn("user", hostile),)) for s in shown]
    table = results(
        rows, [("untrained", "supervised"), ("supervised", "reinforced")], Bootstrap(draws=300)
    )
    matrices = exam_confusions(rows)
    steps = range(0, 200, 5)
    return ReportInput(
        title=f"Invented run for looking at the page{hostile}",
        summary=f"Numbers in this page are made up to test its layout. {hostile}",
        plan=[
            {
                "stage": stage,
                "what": f"{stage} stage {hostile}",
                "starts from": "tiny",
                "steps": 200,
                "samples": 960,
            }
            for stage in ("alignment", "supervised", "reinforced")
        ],
        datasets=[
            DatasetRow(
                f"invented cells{hostile}",
                {"train": 480, "validation": 60, "test": 60},
                f"CC0-1.0{hostile}",
                f"by slide, 80/10/10, seed 0{hostile}",
                (f"Two cells of one slide look alike.{hostile}",),
                3,
            ),
            DatasetRow(
                "invented regions", {"train": 100, "test": 44}, "CC-BY-4.0", "published folders"
            ),
        ],
        results=table,
        curves={
            "supervised": [
                {"step": s, "loss": 1.9 * math.exp(-s / 60) + 0.2 + 0.03 * math.sin(s)} for s in steps
            ],
            "reinforced": [
                {
                    "step": s,
                    "reward": 0.6 + 0.001 * s + 0.02 * math.sin(s / 3),
                    "length": 60 - s / 10,
                    "entropy": 1.1 * math.exp(-s / 90),
                    hostile or "kl": 1e-4 * s,
                }
                for s in steps
            ],
        },
        confusions={
            key: matrix for key, matrix in matrices.items() if key[1] in ("supervised", "reinforced")
        },
        cases=[
            case_of(s, an_image(n), rows, styles_of(table.models)) for n, s in enumerate(shown)
        ],
        failures=[Failure(f"invented/{n}{hostile}", "data", f"image is truncated {hostile}") for n in range(failures)],
        environment={"malpighi": "0.1.0", "python": "3.11", "device": f"CPU, 2 threads{hostile}"},
    )
