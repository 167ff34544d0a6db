"""Drawings that set models side by side: average ranks, radars by task, forests of paired differences."""

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from malpighi.evaluation.calibration import Calibration
from malpighi.evaluation.charts import EMPTY
from malpighi.evaluation.friedman import Friedman
from malpighi.evaluation.tables import Comparison

_RADAR_AXES = 3
_LABEL = 22


def rank_plot(test: Friedman, styles: Mapping[str, str]) -> Markup:
    """Average ranks on a line, the best on the left; a bar joins models that cannot be told apart.

    Source: Demsar, JMLR 7 (2006), figure 1.
    """
    order = sorted(zip(test.ranks, test.models, strict=True))
    last, rows = len(order), len(order)
    bars = [run for run in test.alike if len(run) > 1]
    place = dict(zip(test.models, test.ranks, strict=True))
    top = 52 + 13 * len(bars)
    height = top + 20 * math.ceil(rows / 2) + 8

    def x(rank: float) -> float:
        return 170 + 340 * (rank - 1) / max(last - 1, 1)

    ticks = EMPTY.join(
        Markup(
            '<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="34" y2="40"/>'
            '<text class="tick" x="{x:.1f}" y="28" text-anchor="middle">{rank}</text>'
        ).format(x=x(rank), rank=rank)
        for rank in range(1, last + 1)
    )
    joined = EMPTY.join(
        Markup('<line class="alike" x1="{a:.1f}" x2="{b:.1f}" y1="{y}" y2="{y}"/>').format(
            a=x(min(place[name] for name in run)) - 4,
            b=x(max(place[name] for name in run)) + 4,
            y=50 + 13 * number,
        )
        for number, run in enumerate(bars)
    )
    labels = EMPTY.join(
        _rank_label(number, rows, rank, name, x(rank), top, styles.get(name, "s7"))
        for number, (rank, name) in enumerate(order)
    )
    reach = Markup(
        '<line class="alike" x1="{a:.1f}" x2="{b:.1f}" y1="10" y2="10"/>'
        '<text class="tick" x="{t:.1f}" y="13">critical difference {cd:.2f}</text>'
    ).format(
        a=x(1),
        b=x(min(1 + test.critical_difference, last)),
        cd=test.critical_difference,
        t=x(1) + (x(min(1 + test.critical_difference, last)) - x(1) + 8),
    )
    return Markup(
        '<svg class="ranks" viewBox="0 0 680 {h}" role="img" aria-label="average ranks of the models">'
        '<line class="axis" x1="170" x2="510" y1="40" y2="40"/>{reach}{ticks}{joined}{labels}</svg>'
    ).format(h=height, reach=reach, ticks=ticks, joined=joined, labels=labels)


def _rank_label(number: int, rows: int, rank: float, name: str, x: float, top: float, style: str) -> Markup:
    left = number < math.ceil(rows / 2)
    step = number if left else rows - 1 - number
    y, end = top + 20 * step + 8, 160 if left else 520
    return Markup(
        '<path class="lead {style}" d="M{x:.1f},40 V{y} H{end}"/>'
        '<text class="name" x="{tx}" y="{ty}" text-anchor="{anchor}">{name} {rank:.2f}</text>'
    ).format(
        style=style, x=x, y=y, end=end, tx=end - 6 if left else end + 6, ty=y + 4,
        anchor="end" if left else "start", name=_short(name), rank=rank,
    )  # fmt: skip


def radar(
    title: str, axes: Sequence[str], series: Mapping[str, Sequence[float]], styles: Mapping[str, str]
) -> Markup:
    """Scores of 0 to 1 on one axis per exam, a polygon per model; nothing for fewer than three axes.

    Args:
        title: what the exams have in common.
        axes: names of the exams.
        series: model -> its score in each exam.
        styles: model -> CSS class.
    """
    if len(axes) < _RADAR_AXES:
        return EMPTY
    rings = EMPTY.join(
        Markup('<polygon class="rule" points="{points}"/>').format(points=_polygon([share] * len(axes)))
        for share in (0.25, 0.5, 0.75, 1.0)
    )
    spokes = EMPTY.join(_spoke(place, len(axes), name) for place, name in enumerate(axes))
    drawn = EMPTY.join(
        Markup('<polygon class="web {style}" points="{points}"><title>{name}</title></polygon>').format(
            style=styles.get(name, "s7"), points=_polygon(values), name=name
        )
        for name, values in series.items()
    )
    return Markup(
        '<figure class="radar"><figcaption>{title}</figcaption>'
        '<svg viewBox="-290 -160 580 320" role="img" aria-label="scores of {title}">'
        "{rings}{spokes}{drawn}</svg></figure>"
    ).format(title=title, rings=rings, spokes=spokes, drawn=drawn)


def forest(rows: Sequence[Comparison]) -> Markup:
    """Paired differences with their intervals around zero, one line each."""
    if not rows:
        return EMPTY
    ends = [
        end
        for row in rows
        for end in (row.difference.estimate.value, row.difference.estimate.low, row.difference.estimate.high)
        if end is not None
    ]
    reach = max(map(abs, ends)) or 1.0
    lines = EMPTY.join(_forest_line(number, row, reach) for number, row in enumerate(rows))
    height = 24 * len(rows) + 26
    return Markup(
        '<svg class="forest" viewBox="0 0 760 {h}" role="img" aria-label="paired differences">'
        '<line class="zero" x1="430" x2="430" y1="4" y2="{z}"/>{lines}'
        '<text class="tick" x="290" y="{t}" text-anchor="middle">{low}</text>'
        '<text class="tick" x="430" y="{t}" text-anchor="middle">0</text>'
        '<text class="tick" x="570" y="{t}" text-anchor="middle">{high}</text></svg>'
    ).format(h=height, z=height - 18, lines=lines, t=height - 5, low=_signed(-reach), high=_signed(reach))


def reliability_chart(found: Calibration, name: str, style: str) -> Markup:
    """Accuracy over confidence; a model that knows what it knows lies on the diagonal."""
    dots = EMPTY.join(
        Markup(
            '<circle class="dot {style}" cx="{x:.1f}" cy="{y:.1f}" r="{r:.1f}">'
            "<title>{n} answers</title></circle>"
        ).format(
            style=style,
            x=30 + 120 * part.confidence,
            y=130 - 120 * part.accuracy,
            n=part.n,
            r=2 + 5 * math.sqrt(part.n / found.n),
        )
        for part in found.reliability
    )
    return Markup(
        '<figure class="chart calibration"><figcaption>{name}<b>ECE {ece:.3f}</b></figcaption>'
        '<svg viewBox="0 0 160 150" role="img" aria-label="accuracy over confidence, {name}">'
        '<path class="rule" d="M30,10 V130 H150"/><line class="zero" x1="30" y1="130" x2="150" y2="10"/>'
        '<text class="tick" x="90" y="146" text-anchor="middle">confidence</text>'
        '<text class="tick" transform="translate(12,70) rotate(-90)" text-anchor="middle">accuracy</text>'
        "{dots}</svg></figure>"
    ).format(name=name, ece=found.ece, dots=dots)


def _forest_line(number: int, row: Comparison, reach: float) -> Markup:
    gain = row.difference.estimate

    def x(value: float) -> float:
        return 430 + 140 * value / reach

    low = gain.value if gain.low is None else gain.low
    high = gain.value if gain.high is None else gain.high
    y = 24 * number + 16
    told = (
        f"{_signed(gain.value)}, p {row.p_holm:.3f}"
        if row.p_holm >= 0.001
        else f"{_signed(gain.value)}, p < 0.001"
    )
    return Markup(
        '<g class="gain {style}"><text class="name" x="275" y="{t}" text-anchor="end">{name}</text>'
        '<line class="span" x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}"/>'
        '<circle cx="{value:.1f}" cy="{y}" r="4"/><text class="tick" x="590" y="{t}">{told}</text></g>'
    ).format(
        style="up" if low > 0 else "down" if high < 0 else "even",
        name=f"{_short(row.second)} against {_short(row.first)}",
        low=x(low), high=x(high), value=x(gain.value), y=y, t=y + 4, told=told,
    )  # fmt: skip


def _spoke(place: int, axes: int, name: str) -> Markup:
    x, y = _point(place, axes, 1.0)
    tx, ty = _point(place, axes, 1.1)
    anchor = "middle" if abs(tx) < 12 else "start" if tx > 0 else "end"
    return Markup(
        '<line class="rule" x1="0" y1="0" x2="{x:.1f}" y2="{y:.1f}"/>'
        '<text class="tick" x="{tx:.1f}" y="{ty:.1f}" text-anchor="{anchor}">{name}'
        "<title>{full}</title></text>"
    ).format(x=x, y=y, tx=tx, ty=ty + 3, anchor=anchor, name=_short(name), full=name)


def _polygon(values: Sequence[float]) -> str:
    points = (_point(place, len(values), value) for place, value in enumerate(values))
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _point(place: int, axes: int, share: float) -> tuple[float, float]:
    angle = 2 * math.pi * place / axes
    return 120 * share * math.sin(angle), -120 * share * math.cos(angle)


def _short(name: str) -> str:
    return name if len(name) <= _LABEL else name[: _LABEL - 1] + "…"


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")
