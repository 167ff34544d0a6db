"""Drawings of several models: what is drawn where."""

import re

import pytest

from malpighi.evaluation.calibration import calibration
from malpighi.evaluation.friedman import friedman
from malpighi.evaluation.overview_charts import forest, radar, rank_plot, reliability_chart
from malpighi.evaluation.statistics import Difference, Estimate
from malpighi.evaluation.tables import Comparison
from malpighi.records import Grade, Prediction, Status, TaskKind

STYLES = {"good": "s0", "fair": "s1", "poor": "s2"}


def test_ranks_stand_in_order_and_a_bar_joins_what_cannot_be_told_apart():
    scores = [[0.9, 0.88, 0.2 + 0.001 * n] if n % 2 else [0.88, 0.9, 0.2] for n in range(12)]
    test = friedman(["good", "fair", "poor"], scores)
    svg = str(rank_plot(test, STYLES))
    assert test.alike == [["good", "fair"]] or test.alike == [["fair", "good"]]
    assert svg.count('class="alike"') == 2, "one bar and the length of the critical difference"
    places = {
        name: float(x)
        for name, x in re.findall(r"M([\d.]+),40[^>]*>.*?>(\w+) \d", svg)
        and [(name, x) for x, name in re.findall(r"M([\d.]+),40.*?>(\w+) \d\.\d\d<", svg)]
    }
    assert places["good"] == places["fair"] < places["poor"] == 510.0
    apart = friedman(["good", "fair", "poor"], [[0.9, 0.5, 0.1]] * 12)
    assert str(rank_plot(apart, STYLES)).count('class="alike"') == 1


def test_a_radar_needs_three_axes_and_reaches_the_rim_at_one():
    assert radar("vqa", ["a", "b"], {"good": [1, 1]}, STYLES) == ""
    svg = str(radar("vqa", ["a", "b", "c", "d"], {"good": [1, 0.5, 0, 1], "poor": [0, 0, 0, 0]}, STYLES))
    webs = re.findall(r'class="web (s\d)" points="([^"]+)"', svg)
    assert [style for style, _ in webs] == ["s0", "s2"]
    points = [[float(end) + 0.0 for end in point.split(",")] for point in webs[0][1].split()]
    assert points == [[0, -120], [60, 0], [0, 0], [-120, 0]]
    assert set(webs[1][1].replace("-", "").split()) == {"0.0,0.0"}


def comparison(value, low, high):
    difference = Difference(Estimate(value, low, high, "bootstrap"), 0.1, 0.01, "mcnemar", 50, 50, 0.5)
    return Comparison(
        first="poor", second="<good>", scope="exam", name="e", difference=difference, p_holm=0.02, unpaired=0
    )


def test_a_forest_marks_gains_losses_and_what_is_neither():
    svg = str(forest([comparison(0.2, 0.1, 0.3), comparison(-0.2, -0.3, -0.1), comparison(0.05, -0.1, 0.2)]))
    assert re.findall(r'class="gain (\w+)"', svg) == ["up", "down", "even"]
    assert "&lt;good&gt; against poor" in svg
    spans = [(float(a), float(b)) for a, b in re.findall(r'class="span" x1="([\d.]+)" x2="([\d.]+)"', svg)]
    assert spans[0] == pytest.approx((430 + 140 / 3, 570), abs=0.06)
    assert spans[1] == pytest.approx((290, 430 - 140 / 3), abs=0.06)
    assert forest([]) == ""
    assert "circle" in str(forest([comparison(0.0, None, None)]))


def test_a_calibrated_model_lies_on_the_diagonal():
    rows = [
        Prediction(
            model="good", exam="e", sample=str(n), group=str(n), task=TaskKind.VQA, text="",
            grade=Grade(1.0, Status.OK), truth={"index": int(n % 10 >= 8), "options": ["a", "b"]},
            chances=(0.8, 0.2),
        )
        for n in range(100)
    ]  # fmt: skip
    svg = str(reliability_chart(calibration(rows), "good", "s0"))
    ((x, y),) = re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', svg)
    assert (float(x) - 30, 130 - float(y)) == pytest.approx((96, 96))
    assert "ECE 0.000" in svg
