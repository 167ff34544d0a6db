"""Small SVG drawings for the report: curves, confusion matrices, gains with intervals, boxes on an image.

Drawn here rather than by a plotting library, so that colours follow the page (light, dark, print) and nothing
is loaded from anywhere. Every text goes through `Markup.format`, which escapes it.
"""

import base64
import io
import math
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup
from PIL import Image

from malpighi.evaluation.metrics import Confusion
from malpighi.evaluation.statistics import Estimate

Point = tuple[float, float]
Corners = tuple[float, float, float, float]

EMPTY = Markup("")


class Outline(NamedTuple):
    """Boxes of one origin on a picture.

    Attributes:
        style: CSS class that gives colour and dash, e.g. `truth`, `s1`.
        boxes: (x0, y0, x1, y1) in px of the image as stored.
    """

    style: str
    boxes: Sequence[Corners]


def line_chart(points: Sequence[Point], name: str, style: str = "s0") -> Markup:
    """A curve with labelled axes, 300 x 150 px; points that are not finite are left out.

    Args:
        points: (step, value), by step.
        name: what the values are; the chart's title.
        style: CSS class of the line.
    """
    kept = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    if not kept:
        return EMPTY
    xs, ys = _ticks([x for x, _ in kept], 4), _ticks([y for _, y in kept], 4)
    frame = _Frame(xs[0], xs[-1], ys[0], ys[-1])
    path = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in kept)
    last_x, last_y = kept[-1]
    return Markup(
        '<figure class="chart"><figcaption>{name}<b>{last}</b></figcaption>'
        '<svg viewBox="0 0 300 150" role="img" aria-label="{name}, last value {last}">'
        '{grid}<polyline class="line {style}" points="{path}"/>'
        '<circle class="dot {style}" cx="{x:.1f}" cy="{y:.1f}" r="2.6"/></svg></figure>'
    ).format(
        name=name,
        last=_number(last_y),
        grid=_grid(frame, xs, ys),
        style=style,
        path=path,
        x=frame.x(last_x),
        y=frame.y(last_y),
    )


def heat_map(matrix: Confusion) -> Markup:
    """A confusion matrix: rows truth, columns prediction, the last column unread; shade is share of row."""
    names = [*matrix.options, "unread"]
    longest = max(len(_short(name)) for name in names)
    side, left, top = 34, 14 + 7 * longest, 16 + 5 * longest
    rows, columns = matrix.counts.shape
    cells = EMPTY.join(
        _heat_cell(matrix, row, column, (left + column * side, top + row * side))
        for row in range(rows)
        for column in range(columns)
    )
    labels = EMPTY.join(
        Markup(
            '<text class="tick" x="{x}" y="{y}" text-anchor="end">{name}<title>{full}</title></text>'
        ).format(x=left - 6, y=top + row * side + side / 2 + 4, name=_short(name), full=name)
        for row, name in enumerate(matrix.options)
    ) + EMPTY.join(
        Markup(
            '<text class="tick" transform="translate({x},{y}) rotate(-45)">{name}<title>{full}</title></text>'
        ).format(x=left + column * side + side / 2, y=top - 7, name=_short(name), full=name)
        for column, name in enumerate(names)
    )
    width, height = left + columns * side + 5 * longest, top + rows * side + 4
    return Markup(
        '<svg class="heat" viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img" '
        'aria-label="confusion matrix">{cells}{labels}</svg>'
    ).format(w=width, h=height, cells=cells, labels=labels)


def gain_bar(gain: Estimate, reach: float) -> Markup:
    """A paired difference as a dot with its interval around zero, 150 x 16 px.

    Args:
        gain: the difference.
        reach: the value at the ends of the axis; shared by the bars of a table.
    """

    def x(value: float) -> float:
        return 75 + 70 * max(-1.0, min(1.0, value / reach)) if reach else 75.0

    low = gain.value if gain.low is None else gain.low
    high = gain.value if gain.high is None else gain.high
    style = "up" if low > 0 else "down" if high < 0 else "even"
    return Markup(
        '<svg class="gain {style}" viewBox="0 0 150 16" width="150" height="16" aria-hidden="true">'
        '<line class="zero" x1="75" x2="75" y1="0" y2="16"/>'
        '<line class="span" x1="{low:.1f}" x2="{high:.1f}" y1="8" y2="8"/>'
        '<circle cx="{value:.1f}" cy="8" r="3.6"/></svg>'
    ).format(style=style, low=x(low), high=x(high), value=x(gain.value))


def picture(image: Image.Image, outlines: Sequence[Outline], *, side: int = 320) -> Markup:
    """An image with boxes drawn on it, embedded as PNG of at most `side` px.

    Args:
        image: the image as stored.
        outlines: boxes in px of that image.
        side: longest side of the embedded thumbnail, px.
    """
    width, height = image.size
    small = image.convert("RGB")
    small.thumbnail((side, side))
    data = io.BytesIO()
    small.save(data, "PNG")
    boxes = EMPTY.join(
        Markup('<rect class="box {style}" x="{x}" y="{y}" width="{w}" height="{h}"/>').format(
            style=outline.style, x=f"{x0:g}", y=f"{y0:g}", w=f"{max(x1 - x0, 0):g}", h=f"{max(y1 - y0, 0):g}"
        )
        for outline in outlines
        for x0, y0, x1, y1 in outline.boxes
    )
    return Markup(
        '<svg class="picture" viewBox="0 0 {w} {h}" role="img" aria-label="image of the sample">'
        '<image width="{w}" height="{h}" href="data:image/png;base64,{data}"/>{boxes}</svg>'
    ).format(w=width, h=height, data=base64.b64encode(data.getvalue()).decode(), boxes=boxes)


class _Frame(NamedTuple):
    x0: float
    x1: float
    y0: float
    y1: float

    def x(self, value: float) -> float:
        return 44 + 246 * (value - self.x0) / (self.x1 - self.x0)

    def y(self, value: float) -> float:
        return 128 - 118 * (value - self.y0) / (self.y1 - self.y0)


def _grid(frame: _Frame, xs: Sequence[float], ys: Sequence[float]) -> Markup:
    across = EMPTY.join(
        Markup(
            '<line class="rule" x1="44" x2="290" y1="{y:.1f}" y2="{y:.1f}"/>'
            '<text class="tick" x="39" y="{text:.1f}" text-anchor="end">{value}</text>'
        ).format(y=frame.y(y), text=frame.y(y) + 3.5, value=_number(y))
        for y in ys
    )
    along = EMPTY.join(
        Markup('<text class="tick" x="{x:.1f}" y="144" text-anchor="middle">{value}</text>').format(
            x=frame.x(x), value=_number(x)
        )
        for x in xs
    )
    return across + along


def _heat_cell(matrix: Confusion, row: int, column: int, corner: tuple[int, int]) -> Markup:
    count, asked = int(matrix.counts[row, column]), int(matrix.counts[row].sum())
    share = count / asked if asked else 0.0
    kind = "unread" if column == len(matrix.options) else "right" if row == column else "wrong"
    return Markup(
        '<rect class="cell {kind}" x="{x}" y="{y}" width="33" height="33" fill-opacity="{shade:.3f}"/>'
        '<text class="count{dark}" x="{tx}" y="{ty}" text-anchor="middle">{count}</text>'
    ).format(
        kind=kind,
        x=corner[0],
        y=corner[1],
        shade=0.06 + 0.94 * share,
        dark=" on" if share > 0.5 else "",
        tx=corner[0] + 16.5,
        ty=corner[1] + 21,
        count=count or "·",
    )


def _ticks(values: Sequence[float], about: int) -> list[float]:
    """Round numbers that cover the values; at least two."""
    low, high = min(values), max(values)
    if low == high:
        pad = abs(low) / 2 or 1.0
        low, high = low - pad, high + pad
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def _number(value: float) -> str:
    if value and (abs(value) < 0.001 or abs(value) >= 100_000):
        return f"{value:.1e}"
    return f"{value:.4g}"


def _short(name: str) -> str:
    return name if len(name) <= 17 else name[:16] + "…"
