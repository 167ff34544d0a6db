"""Annotations as a table, CSV or Parquet: one row each, all fields kept.

    id, label, score, kind, name, color (#rrggbb), locked
    x, y, width, height        its box, level-0 px
    geometry, nucleus          WKT in CSV, WKB in Parquet (GeoParquet 1.1 without a coordinate system)
    measure.<name>             one column for each measurement

Tables of others are read where they have `geometry`, or `x` and `y` (a point), with `width` and `height` (a
box), or `x0 y0 x1 y1`; further columns of numbers are measurements. So a table of tiles is one too.
"""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from shapely.geometry.base import BaseGeometry

from malpighi.durable import mending, replacing
from malpighi.errors import DataError, FormatVersionError
from malpighi.records import Failure
from malpighi.slides.annotations import (
    Annotation,
    Found,
    Geometries,
    Kind,
    Tally,
    Written,
    checked_numbers,
    geometries,
    mend,
)

FORMAT = "malpighi-annotations"
VERSION = 1
MEASURE = "measure."

_BOX = ("x", "y", "width", "height")
_CORNERS = ("x0", "y0", "x1", "y1")
_FIELDS: dict[str, pa.DataType] = {
    "id": pa.string(),
    "label": pa.string(),
    "score": pa.float64(),
    "kind": pa.string(),
    "name": pa.string(),
    "color": pa.string(),
    "locked": pa.bool_(),
    **dict.fromkeys(_BOX, pa.float64()),
}
_GEO = {
    "version": "1.1.0",
    "primary_column": "geometry",
    "columns": {"geometry": {"encoding": "WKB", "geometry_types": [], "crs": None}},
}


def write_table(path: Path, annotations: Iterable[Annotation]) -> Written:
    """Write a table; its ending, `.csv` or `.parquet`, says which.

    Args:
        path: appears whole or not at all.
        annotations: level-0 px.
    """
    marks = list(annotations)
    rows, names = _rows(marks)
    with mending(path.parent), replacing(path) as file:
        if path.suffix == ".csv":
            outlines = {"geometry": _wkt(geometries(marks)), "nucleus": _wkt(_nuclei(marks))}
            text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
            writer = csv.writer(text)
            columns = {**rows, **outlines}
            writer.writerow([*_FIELDS, *outlines, *names])
            order = [*_FIELDS, *outlines, *names]
            writer.writerows(zip(*(map(_cell, columns[name]) for name in order), strict=True))
            text.detach()
        else:
            pq.write_table(_table(marks, rows, names), file, compression="zstd")
    return Written(path, len(marks))


def read_table(path: Path) -> Found:
    """All annotations of a table.

    Raises:
        DataError: no such table, or one without places.
        FormatVersionError: a table of a later release.
    """
    columns, places = _load(path)
    count = len(next(iter(columns.values()), []))
    shapes, reasons = _places(path, columns, count)
    nuclei, _ = _outlines(columns["nucleus"]) if "nucleus" in columns else (np.full(count, None), [])
    taken = {*_FIELDS, *_CORNERS, "geometry", "nucleus"}
    measured = {
        name: values for name, values in columns.items() if name not in taken and _is_measure(name, values)
    }
    annotations: list[Annotation] = []
    failures: list[Failure] = []
    tally = Tally()
    for index in range(count):
        try:
            if shapes[index] is None:
                raise DataError(reasons[index] or "no place")
            row = {name: values[index] for name, values in columns.items() if name in _FIELDS}
            numbers = {
                name.removeprefix(MEASURE): values[index]
                for name, values in measured.items()
                if values[index] not in (None, "")
            }
            annotations.append(_annotation(row, shapes[index], nuclei[index], numbers, reasons[index]))
            tally.add("outline mended", bool(reasons[index]))
        except DataError as error:
            failures.append(Failure(f"{path.name}#{index}", "read", f"{places} {index + 1}: {error}"))
    left = sorted(set(columns) - taken - set(measured))
    tally.add(f"column left out: {', '.join(left)}", bool(left))
    return Found(annotations, tuple(failures), tally.notes)


def _rows(marks: Sequence[Annotation]) -> tuple[dict[str, list[Any]], list[str]]:
    """Columns beside the outlines, and the names of those of measurements."""
    bounds_N4 = shapely.bounds(geometries(marks)).reshape(-1, 4)
    sizes_N4 = np.hstack([bounds_N4[:, :2], bounds_N4[:, 2:] - bounds_N4[:, :2]])
    columns: dict[str, list[Any]] = {
        "id": [mark.id for mark in marks],
        "label": [mark.label for mark in marks],
        "score": [mark.score for mark in marks],
        "kind": [mark.kind.value for mark in marks],
        "name": [mark.name for mark in marks],
        "color": [f"#{bytes(mark.color).hex()}" if mark.color else None for mark in marks],
        "locked": [mark.locked for mark in marks],
        **dict(zip(_BOX, sizes_N4.T.tolist(), strict=True)),
    }
    names = list(dict.fromkeys(name for mark in marks for name in mark.measurements))
    columns |= {MEASURE + name: [mark.measurements.get(name) for mark in marks] for name in names}
    return columns, [MEASURE + name for name in names]


def _table(marks: Sequence[Annotation], rows: Mapping[str, list[Any]], names: Sequence[str]) -> pa.Table:
    fields = {**_FIELDS, **dict.fromkeys(names, pa.float64())}
    arrays = [pa.array(rows[name], kind) for name, kind in fields.items()]
    outlines = [
        pa.array(shapely.to_wkb(array).tolist(), pa.binary()) for array in (geometries(marks), _nuclei(marks))
    ]
    meta = {"malpighi.format": FORMAT, "malpighi.version": str(VERSION), "geo": json.dumps(_GEO)}
    table = pa.table([*arrays, *outlines], names=[*fields, "geometry", "nucleus"])
    return table.replace_schema_metadata(meta)


def _nuclei(marks: Sequence[Annotation]) -> Geometries:
    array = np.empty(len(marks), dtype=object)
    array[:] = [mark.nucleus for mark in marks]
    return array


def _wkt(shapes: Geometries) -> list[Any]:
    found: list[Any] = shapely.to_wkt(shapes, rounding_precision=-1).tolist()
    return found


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return repr(value) if isinstance(value, float) else str(value)


def _load(path: Path) -> tuple[dict[str, list[Any]], str]:
    """Columns, and what a row is called in messages."""
    try:
        if path.suffix == ".csv":
            with path.open(encoding="utf-8-sig", newline="") as file:
                rows = list(csv.reader(file))
            if not rows:
                raise DataError(f"{path} is empty; expected a header")
            wide = [[*row, *[""] * (len(rows[0]) - len(row))] for row in rows[1:] if row]
            return {name: [row[at] for row in wide] for at, name in enumerate(rows[0])}, "row"
        table = pq.read_table(path)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error}; check the path") from error
    except (pa.ArrowException, csv.Error, UnicodeError) as error:
        raise DataError(f"{path} is no readable table: {error}") from error
    meta = table.schema.metadata or {}
    version = meta.get(b"malpighi.version", str(VERSION).encode()).decode()
    if meta.get(b"malpighi.format", FORMAT.encode()) == FORMAT.encode() and version != str(VERSION):
        raise FormatVersionError(f"{path} is of version {version}; this release reads {VERSION}")
    return {name: table[name].to_pylist() for name in table.column_names}, "row"


def _places(path: Path, columns: Mapping[str, list[Any]], count: int) -> tuple[Geometries, list[str]]:
    if "geometry" in columns:
        return _outlines(columns["geometry"])
    names = next((group for group in (_CORNERS, _BOX, _BOX[:2]) if set(group) <= set(columns)), None)
    if names is None:
        raise DataError(
            f"{path} says no places: expected a column geometry, or x and y with width and height, or x0 y0 x1 "
            f"y1; it has {', '.join(columns)}"
        )
    shapes, reasons = np.full(count, None, dtype=object), [""] * count
    for index in range(count):
        try:
            values = [float(columns[name][index]) for name in names]
            shapes[index] = _simple(names, values)
        except (TypeError, ValueError, DataError) as error:
            reasons[index] = f"{', '.join(names)}: {error}"
    return shapes, reasons


def _simple(names: Sequence[str], values: Sequence[float]) -> BaseGeometry:
    if not all(map(math.isfinite, values)):
        raise DataError(f"{list(values)} are not all finite")
    if len(names) == 2:
        return shapely.Point(*values)
    x0, y0, x1, y1 = values
    if names == _BOX:
        x1, y1 = x0 + x1, y0 + y1
    if not (x1 > x0 and y1 > y0):
        raise DataError(f"{list(values)} is a box without an area")
    return shapely.box(x0, y0, x1, y1)


def _outlines(values: Sequence[Any]) -> tuple[Geometries, list[str]]:
    array = np.empty(len(values), dtype=object)
    array[:] = [value or None for value in values]
    texts = any(isinstance(value, str) for value in values)
    try:
        shapes = (shapely.from_wkt if texts else shapely.from_wkb)(array, on_invalid="ignore")
    except TypeError as error:
        raise DataError(f"the column geometry is neither WKT nor WKB: {error}") from error
    reasons = [
        "" if shape is not None else f"geometry {str(v)[:40]!r}"
        for shape, v in zip(shapes, values, strict=True)
    ]
    for index, shape in enumerate(shapes):
        if shape is not None and not np.isfinite(shapely.get_coordinates(shape)).all():
            shapes[index], reasons[index] = None, "geometry: a coordinate is not finite"
    good = [index for index, shape in enumerate(shapes) if shape is not None]
    shapes[good], mended = mend(shapely.force_2d(shapes[good]))
    for index, reason in zip(good, mended, strict=True):
        reasons[index] = reason
    return shapes, reasons


def _is_measure(name: str, values: Sequence[Any]) -> bool:
    if name.startswith(MEASURE):
        return True
    known = [value for value in values if value not in (None, "")]
    try:
        return (
            bool(known) and not any(isinstance(value, bool) for value in known) and bool([*map(float, known)])
        )
    except (TypeError, ValueError):
        return False


def _annotation(
    row: Mapping[str, Any], shape: BaseGeometry, nucleus: Any, numbers: Mapping[str, Any], reason: str
) -> Annotation:
    color, kind = str(row.get("color") or ""), row.get("kind")
    score = row.get("score")
    return Annotation(
        geometry=shape,
        label=str(row.get("label") or ""),
        score=None if score in (None, "") else checked_numbers({"score": score})["score"],
        measurements=checked_numbers(numbers),
        id="" if row.get("id") is None else str(row["id"]),
        kind=Kind(kind) if kind in [known.value for known in Kind] else Kind.ANNOTATION,
        nucleus=nucleus,
        color=_color(color),
        name=str(row.get("name") or ""),
        locked=row.get("locked") in (True, "True", "true"),
        notes=(reason,) if reason else (),
    )


def _color(text: str) -> tuple[int, int, int] | None:
    try:
        red, green, blue = bytes.fromhex(text.removeprefix("#"))
    except ValueError:
        return None
    return (red, green, blue)
