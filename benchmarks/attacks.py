"""What replies earn that try to earn more than they know, by our rules and by the published ones.

Prints the table of docs/concepts/grading.md; a score above the honest one is bold. Takes about a second.
Usage: python benchmarks/attacks.py [--quick]
"""

import argparse
import json
from typing import NamedTuple

from msgspec.structs import replace

from malpighi.geometry import Box, View
from malpighi.grading.attacks import attacks, honest
from malpighi.grading.grade import Mode, Reading, grade
from malpighi.grading.masks import filled
from malpighi.grading.rows import read_sample
from malpighi.records import MaskRef, Sample, TaskKind

SIZE = (512, 384)
BOXES = [[100, 100, 140, 150], [200, 60, 260, 100], [300, 200, 350, 260], [40, 250, 90, 290]]
PARTLY = "moderately differentiated squamous cell carcinoma"


class Case(NamedTuple):
    """A question and an answer to it that is wrong, or right in part."""

    title: str
    sample: Sample
    answer: str


def cases():
    def asked(**row):
        return read_sample(json.dumps({"id": 1, **row})).sample

    options = ["Tumor", "Stroma", "Lymphocytes", "Mucus"]
    found = asked(task="detection", image_size=SIZE, answer=BOXES)
    truth = MaskRef("mask", tuple(Box(*box) for box in BOXES))
    outlined = replace(found, task=TaskKind.SEGMENTATION, answer=truth)
    half = json.dumps(BOXES[:2])
    return [
        Case("choice, wrong", asked(task="classification", options=options, answer="C"), "(A) Tumor"),
        Case("yes or no, wrong", asked(task="vqa", answer="no"), "yes"),
        Case("open, partly right", asked(task="vqa", answer=f"well {PARTLY.split(maxsplit=1)[1]}"), PARTLY),
        Case("open, half of two words", asked(task="vqa", answer="hyaline cartilage"), "cartilage"),
        Case("boxes, 2 of 4", found, half),
        Case("mask, 2 of 4", outlined, half),
    ]


def score(sample, completion, mode):
    boxes = getattr(sample.answer, "boxes", ())
    reading = Reading(View(SIZE), load_mask=lambda _: filled(boxes, SIZE), mode=mode)
    return grade(sample, completion, reading).score


def scores():
    """{attack: {(case, mode): score}}, the honest reply first."""
    found = {"honest": {}}
    for case in cases():
        for mode in Mode:
            found["honest"][case.title, mode] = score(case.sample, honest(case.answer), mode)
            for name, completion in attacks(case.sample, case.answer):
                found.setdefault(name, {})[case.title, mode] = score(case.sample, completion, mode)
    return found


def table():
    """The lines of the table, in Markdown."""
    found = scores()
    titles = [case.title for case in cases()]
    lines = ["| robust / paper | " + " | ".join(titles) + " |", "|---" * (len(titles) + 1) + "|"]
    for name, row in found.items():
        shown = []
        for title in titles:
            pair = [shown_score(row, found["honest"], (title, mode)) for mode in Mode]
            shown.append(" / ".join(pair) if (title, Mode.PAPER) in row else "")
        lines.append(f"| {name} | " + " | ".join(shown) + " |")
    return lines


def shown_score(row, base, key):
    value = row.get(key, 0.0)
    text = f"{value:.2f}".lstrip("0") if value < 1 else "1"
    return f"**{text}**" if value > base[key] + 1e-9 else text


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the same; it takes a second")
    parser.parse_args()
    print("\n".join(table()))


if __name__ == "__main__":
    main()
