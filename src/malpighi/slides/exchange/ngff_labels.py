"""OME-Zarr label images (OME-NGFF 0.5, Zarr 3): every annotation a number in a pyramid of label pixels.

    <name>.ome.zarr/
      labels/                 which label images there are
        <name>/               levels, colours, properties by label value
          0, 1, 2, ...        sharded arrays (y, x), each half of the one before

Only label pixels are written, not the slide's. Copied into a Zarr image of the slide, `labels/` belongs to it.
Written shard by shard in the memory of one; a shard without annotations is no file.

Shape legend: H x W = rows x columns of a level.
"""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely
import zarr
from numpy.typing import NDArray

from malpighi.config import Settings
from malpighi.durable import mending, sync_folder
from malpighi.errors import ConfigError, DataError
from malpighi.geometry import Affine, coarser
from malpighi.slides.annotations import Annotation, Geometries, Tally, Written, geometries, is_areal, moved
from malpighi.slides.exchange.rasters import paint
from malpighi.slides.slide import Slide

CHUNK = 512
SHARD = 4096
_MOST_LEVELS = 12
_GOLDEN = 0.618033988749895  # share of the colour circle between two classes: far apart however many they are


class LabelSettings(Settings, frozen=True):
    """How label images are written.

    Attributes:
        name: of the label image.
        step: level-0 px per px of the finest level.
        by: `annotation`: a value for each; `class`: a value for each label.
    """

    name: str = "annotations"
    step: int = 1
    by: str = "annotation"


def write_ngff_labels(
    path: Path, annotations: Iterable[Annotation], slide: Slide, settings: LabelSettings | None = None
) -> Written:
    """Write annotations as a label image; where two overlap, the later one is seen.

    Args:
        path: the `.ome.zarr` folder; appears whole or not at all, and replaces one of that name.
        annotations: level-0 px of `slide`.
        slide: gives the size, and the scale where it states one.
        settings: name, resolution and what gets a value.

    Raises:
        ConfigError: settings that cannot work.
    """
    settings = settings or LabelSettings()
    _check(settings)
    marks, tally = list(annotations), Tally()
    shapes = moved(geometries(marks), Affine(1 / settings.step, 1 / settings.step, 0.0, 0.0))
    drawn = is_areal(shapes) | np.isin(shapely.get_type_id(shapes), (0, 4))
    tally.add("line left out: labels are areas", int((~drawn).sum()))
    tally.add("outline of a nucleus left out", sum(mark.nucleus is not None for mark in marks))
    marks = [mark for mark, kept in zip(marks, drawn, strict=True) if kept]
    values = _values(marks, settings)
    part = path.with_name(path.name + ".part")
    with mending(path.parent):
        shutil.rmtree(part, ignore_errors=True)
        try:
            group = _groups(part, marks, values, slide, settings)
            first = _first_level(group, slide, settings, shapes[drawn], values)
            _coarser_levels(group, first)
            shutil.rmtree(path, ignore_errors=True)
            part.replace(path)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        sync_folder(path.parent)
    return Written(path, len(marks), tally.notes)


def read_ngff_labels(path: Path, name: str = "annotations") -> tuple[list[Any], list[dict[str, Any]]]:
    """The levels of a label image, finest first, as Zarr arrays that read what is asked of them.

    Args:
        path: the `.ome.zarr` folder.
        name: of the label image.

    Returns:
        the arrays (y, x), and the properties of each label value.

    Raises:
        DataError: no such label image.
    """
    try:
        group = zarr.open_group(path / "labels" / name, mode="r")
        told: Any = group.attrs["ome"]
        levels = [group[level["path"]] for level in told["multiscales"][0]["datasets"]]
        return levels, told["image-label"].get("properties", [])
    except (OSError, KeyError, TypeError, ValueError, IndexError) as error:
        raise DataError(f"{path} holds no OME-Zarr label image {name!r}: {error!r}") from error


def _check(settings: LabelSettings) -> None:
    if settings.step < 1 or settings.by not in ("annotation", "class"):
        raise ConfigError(f"step={settings.step} by={settings.by!r}; expected 1 or more, annotation or class")
    if not settings.name or "/" in settings.name or settings.name.startswith("."):
        raise ConfigError(f"a label image cannot be named {settings.name!r}; take letters and digits")


def _values(marks: Sequence[Annotation], settings: LabelSettings) -> NDArray[np.uint32]:
    if settings.by == "annotation":
        return np.arange(1, len(marks) + 1, dtype=np.uint32)
    numbers = {label: number for number, label in enumerate(sorted({mark.label for mark in marks}), 1)}
    return np.array([numbers[mark.label] for mark in marks], dtype=np.uint32)


def _groups(
    part: Path, marks: Sequence[Annotation], values: NDArray[np.uint32], slide: Slide, settings: LabelSettings
) -> Any:
    root = zarr.open_group(part, mode="w", zarr_format=3)
    labels = root.create_group("labels", attributes={"ome": {"version": "0.5", "labels": [settings.name]}})
    width, height = (-(-side // settings.step) for side in slide.size)
    levels = 1 + next(
        level
        for level in range(_MOST_LEVELS)
        if max(width, height) <= CHUNK << level or level == _MOST_LEVELS - 1
    )
    return labels.create_group(
        settings.name,
        attributes={
            "ome": {
                "version": "0.5",
                "multiscales": [_multiscale(levels, slide, settings)],
                "image-label": _image_label(marks, values, settings),
            }
        },
    )


def _multiscale(levels: int, slide: Slide, settings: LabelSettings) -> dict[str, Any]:
    """Axes, and by level how large a px is and where its middle lies: shrunk, it moves inwards."""
    axes: list[dict[str, str]] = [{"name": axis, "type": "space"} for axis in "yx"]
    if slide.mpp is not None:
        axes = [{**axis, "unit": "micrometer"} for axis in axes]
    fine = 1.0 if slide.mpp is None else slide.mpp
    datasets = []
    for level in range(levels):
        size = coarser(fine, settings.step * 2**level) or 1.0
        shift = (size - fine) / 2
        transformations = [
            {"type": "scale", "scale": [size, size]},
            {"type": "translation", "translation": [shift, shift]},
        ]
        datasets.append({"path": str(level), "coordinateTransformations": transformations})
    return {"name": settings.name, "axes": axes, "datasets": datasets, "type": "nearest"}


def _image_label(
    marks: Sequence[Annotation], values: NDArray[np.uint32], settings: LabelSettings
) -> dict[str, Any]:
    classes = {label: number for number, label in enumerate(sorted({mark.label for mark in marks}))}
    colors, properties = {}, {}
    for mark, value in zip(marks, values.tolist(), strict=True):
        colors[value] = [*(mark.color or _color(classes[mark.label])), 255]
        told: dict[str, Any] = {"label-value": value, "class": mark.label}
        if settings.by == "annotation":
            told |= {"kind": mark.kind.value, "id": mark.id, "name": mark.name, "score": mark.score}
            told |= {name: number for name, number in mark.measurements.items() if np.isfinite(number)}
            told |= {"label-value": value, "class": mark.label}  # a measurement of that name must not win
        properties[value] = {name: fact for name, fact in told.items() if fact not in (None, "")}
    label: dict[str, Any] = {"version": "0.5", "source": {"image": "../../"}}
    if colors:
        label["colors"] = [{"label-value": value, "rgba": rgba} for value, rgba in colors.items()]
        label["properties"] = list(properties.values())
    return label


def _color(number: int) -> tuple[int, int, int]:
    """A colour for a class: even steps around the circle of hues."""
    hue = number * _GOLDEN % 1 * 6
    ramp = [max(0.0, min(1.0, abs((hue + shift) % 6 - 3) - 1)) for shift in (0, 4, 2)]
    red, green, blue = (round(60 + 180 * share) for share in ramp)
    return (red, green, blue)


def _array(group: Any, name: str, shape: tuple[int, int]) -> Any:
    shard = tuple(min(SHARD, -(-side // CHUNK) * CHUNK) for side in shape)
    return group.create_array(
        name,
        shape=shape,
        dtype="uint32",
        chunks=(CHUNK, CHUNK),
        shards=shard,
        fill_value=0,
        dimension_names=["y", "x"],
    )


def _windows(shape: tuple[int, int], side: int) -> Iterator[tuple[int, int, int, int]]:
    """(x0, y0, x1, y1) of squares that cover an array, row by row."""
    for y0 in range(0, shape[0], side):
        for x0 in range(0, shape[1], side):
            yield x0, y0, min(x0 + side, shape[1]), min(y0 + side, shape[0])


def _first_level(
    group: Any, slide: Slide, settings: LabelSettings, shapes: Geometries, values: NDArray[np.uint32]
) -> Any:
    width, height = (-(-side // settings.step) for side in slide.size)
    array = _array(group, "0", (height, width))
    tree = shapely.STRtree(shapes)
    for x0, y0, x1, y1 in _windows(array.shape, SHARD):
        inside = np.sort(tree.query(shapely.box(x0, y0, x1, y1)))
        if len(inside):
            labels = np.zeros((y1 - y0, x1 - x0), dtype=np.uint32)
            paint(labels, moved(shapes[inside], Affine(1.0, 1.0, float(-x0), float(-y0))), values[inside])
            array[y0:y1, x0:x1] = labels
    return array


def _coarser_levels(group: Any, finer: Any) -> None:
    """Every second px of the level before: label values cannot be averaged."""
    level = 1
    while max(finer.shape) > CHUNK and level < _MOST_LEVELS:
        array = _array(group, str(level), (-(-finer.shape[0] // 2), -(-finer.shape[1] // 2)))
        for x0, y0, x1, y1 in _windows(array.shape, SHARD // 2):
            half = finer[2 * y0 : 2 * y1 : 2, 2 * x0 : 2 * x1 : 2]
            if half.any():
                array[y0:y1, x0:x1] = half
        finer, level = array, level + 1
