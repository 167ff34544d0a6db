"""How published code reads answers, each rule with the replies that it trips over; facts, not its code.

Every case is a sample row and a completion, graded whole.
"""

import json
from pathlib import Path

import pytest

from malpighi.grading.grade import Reading, grade
from malpighi.grading.published import Mode
from malpighi.grading.rows import read_sample

CASES = json.loads((Path(__file__).parent / "wild.json").read_text(encoding="utf-8"))["cases"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['source']}: {case['text'][-30:]}")
def test_replies_that_other_parsers_trip_over(case):
    asked = read_sample(json.dumps({"id": 1, **case["sample"]}))
    found = grade(asked.sample, case["text"], Reading(asked.view, asked.frame))
    assert (found.score, str(found.status)) == (pytest.approx(case["score"]), case["status"])
    published = grade(asked.sample, case["text"], Reading(asked.view, asked.frame, mode=Mode.PAPER))
    assert 0 <= published.score <= 1


def test_every_source_has_replies():
    assert len({case["source"] for case in CASES}) >= 14
