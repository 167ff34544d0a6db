"""Which format a file is of, and annotations from any to any."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import shapely

from malpighi.config import Settings
from malpighi.errors import ConfigError, DataError
from malpighi.slides.annotations import Annotation, Found, Written, geometries, is_areal, outside
from malpighi.slides.exchange.coco import read_coco, write_coco
from malpighi.slides.exchange.heat_map import HeatMapSettings, lay, write_heat_map
from malpighi.slides.exchange.json_stream import opened_text
from malpighi.slides.exchange.ngff_labels import LabelSettings, write_ngff_labels
from malpighi.slides.exchange.page import Page, whole_slide
from malpighi.slides.exchange.qupath_geojson import qupath_origin, read_geojson, write_geojson
from malpighi.slides.exchange.tables import read_table, write_table
from malpighi.slides.exchange.yolo import read_yolo, write_yolo
from malpighi.slides.slide import Slide

try:  # the extra `dicom`
    from pydicom import dcmread

    from malpighi.slides.exchange.dicom_annotations import read_dicom_annotations, write_dicom_annotations
    from malpighi.slides.exchange.dicom_report import read_dicom_report, write_dicom_report
    from malpighi.slides.exchange.dicom_segmentation import (
        draw_masks,
        fitting_step,
        write_dicom_segmentation,
    )

    HAS_DICOM = True
except ImportError:
    HAS_DICOM = False

_HEAD = 1 << 16  # characters of a JSON file that tell GeoJSON from COCO


class ExportSettings(Settings, frozen=True):
    """What is written for a slide.

    Attributes:
        source: the annotations or tiles to convert; `{name}` stands for the slide's file name without ending,
            `{folder}` for its folder.
        format: a name in `FORMATS`.
        step: level-0 px per px of masks, labels and heat maps; 0 takes what suits the format.
        column: the measurement that a heat map shows; `score` is the annotations' score.
        colors: of a heat map: `viridis`, `cividis` or `magma`.
        outlines: whether YOLO gets outlines rather than boxes.
        algorithm: what made the annotations, for DICOM; "" for not stated.
    """

    source: str
    format: str = "geojson"
    step: int = 0
    column: str = "score"
    colors: str = "viridis"
    outlines: bool = False
    algorithm: str = ""

    def __post_init__(self) -> None:
        """Refuse a format that is not known, or not installed, before any slide is opened."""
        _format(self.format)


class Format(NamedTuple):
    """One format.

    Attributes:
        suffixes: how its files end; the first is written.
        write: `(path, annotations, slide, settings)`.
        read: `(path, slide)`; None where it holds no annotations that could be had back.
        needs_dicom: whether it needs the extra `dicom`.
    """

    suffixes: tuple[str, ...]
    write: Callable[[Path, Iterable[Annotation], Slide, ExportSettings], Written]
    read: Callable[[Path, Slide | None], Found] | None
    needs_dicom: bool = False


def read_annotations(path: str | Path, slide: Slide | None = None) -> Found:
    """The annotations of a file in any of the readable formats, in level-0 px.

    Args:
        path: the file.
        slide: what they are on. QuPath's plane begins at its bounds, COCO and YOLO need its size, DICOM may
            be on a coarser level of it; other formats do without.

    Raises:
        DataError: a format that is not known or not readable; else as the format's own reader.
        ConfigError: the extra `dicom` is needed and not installed.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"there is no file {path}; check the path")
    name = format_of(path)
    reader = _format(name).read
    if reader is None:
        raise DataError(f"{path} is of format {name}, which holds pixels and no annotations")
    found = reader(path, slide)
    if slide is None or not found.annotations:
        return found
    beyond = outside(geometries(found.annotations), slide.size)
    if not beyond:
        return found
    note = f"{beyond} x annotation beyond the edge of {slide.path.name}: is it the right slide and frame?"
    return Found(found.annotations, found.failures, (*found.notes, note))


def write_annotations(
    path: str | Path, annotations: Iterable[Annotation], slide: Slide, settings: ExportSettings | None = None
) -> Written:
    """Write annotations in the format that the path's ending says.

    Args:
        path: appears whole or not at all.
        annotations: level-0 px of `slide`.
        slide: what they are on.
        settings: for formats with choices; its `source` and `format` are not looked at.

    Raises:
        DataError: an ending that is not known; else as the format's own writer.
        ConfigError: the extra `dicom` is needed and not installed.
    """
    name = format_of(Path(path))
    return _format(name).write(Path(path), annotations, slide, settings or ExportSettings(source=""))


def export_slide(slide: Slide, out: Path, settings: ExportSettings) -> dict[str, object]:
    """Convert the annotations or tiles of one slide into another format.

    Args:
        slide: what they are on.
        out: the folder that the result goes into; made where it is missing.
        settings: what to read and what to write.

    Returns:
        `file`, `format`, `read`, `written`, `failed` (features that could not be used), `first_failure` and
        `notes` (what was mended or lost).

    Raises:
        ConfigError: a format that is not known, or one that needs the extra `dicom`.
        DataError: the source cannot be read, or cannot be held by the format.
    """
    chosen = FORMATS[settings.format]
    source = _source(slide, settings.source)
    found = read_annotations(source, slide)
    out.mkdir(parents=True, exist_ok=True)
    written = chosen.write(out / f"{slide.path.stem}{chosen.suffixes[0]}", found.annotations, slide, settings)
    return {
        "file": str(written.path),
        "format": settings.format,
        "read": len(found.annotations),
        "written": written.count,
        "failed": len(found.failures),
        "first_failure": f"{found.failures[0].id}: {found.failures[0].reason}" if found.failures else "",
        "notes": "; ".join([*found.notes, *written.notes]),
    }


def format_of(path: Path) -> str:
    """The name, in `FORMATS`, of a file's format: by its ending, or its content where that leaves a choice.

    Raises:
        DataError: an ending that is not known.

    Example:
        >>> format_of(Path("slide.geojson.gz"))
        'geojson'
    """
    name = path.name.lower()
    if name.endswith((".json", ".json.gz")) and not name.endswith(".coco.json") and path.is_file():
        return _json_format(path)
    if name.endswith(".dcm") and path.is_file() and HAS_DICOM:
        return _dicom_format(path)
    endings = [
        (suffix, key) for key, found in FORMATS.items() for suffix in found.suffixes if name.endswith(suffix)
    ]
    if not endings:
        known = ", ".join(suffix for found in FORMATS.values() for suffix in found.suffixes)
        raise DataError(f"{path}: no format ends so; expected one of {known}")
    return max(endings, key=lambda ending: len(ending[0]))[1]


def _format(name: str) -> Format:
    if name not in FORMATS:
        raise ConfigError(f"there is no format {name!r}; choose from {', '.join(FORMATS)}")
    if FORMATS[name].needs_dicom and not HAS_DICOM:
        raise ConfigError(f"the format {name} needs the extra: pip install 'malpighi[dicom]'")
    return FORMATS[name]


def _source(slide: Slide, pattern: str) -> Path:
    try:
        return Path(pattern.format(name=slide.path.stem, folder=slide.path.parent))
    except (KeyError, IndexError, ValueError) as error:
        raise ConfigError(f"source={pattern!r}: only {{name}} and {{folder}} stand for something") from error


def _json_format(path: Path) -> str:
    with opened_text(path) as text:
        head = text.read(_HEAD)[:_HEAD]
    return "geojson" if '"Feature' in head or head.lstrip()[:1] == "[" else "coco"


def _dicom_format(path: Path) -> str:
    modality = dcmread(path, specific_tags=["Modality"], force=True).get("Modality", "")
    names = {"ANN": "dicom-ann", "SEG": "dicom-seg", "SR": "dicom-sr"}
    if modality not in names:
        raise DataError(f"{path} is DICOM of modality {modality!r}; expected {', '.join(names)}")
    return names[modality]


def _page(slide: Slide | None, annotations: Iterable[Annotation] = ()) -> Page:
    if slide is None:
        raise DataError("COCO and YOLO count in px of a picture: say of which slide")
    return Page(slide.path.name, whole_slide(slide), list(annotations))


def _tile_table(annotations: Iterable[Annotation], column: str) -> Any:
    """Boxes and scores of annotations, as `lay` takes them."""
    marks = list(annotations)
    scores = [mark.score if column == "score" else mark.measurements.get(column) for mark in marks]
    if not any(score is not None for score in scores):
        known = sorted({name for mark in marks for name in mark.measurements})
        raise DataError(
            f"none of {len(marks)} annotations has a {column!r}; they have {', '.join(known) or 'none'}"
        )
    bounds_N4 = np.asarray(shapely.bounds(geometries(marks)))
    x, y, x1, y1 = bounds_N4.T
    return pa.table(
        {"x": x, "y": y, "width": x1 - x, "height": y1 - y, column: pa.array(scores, pa.float64())}
    )


def _write_heat_map(
    path: Path, annotations: Iterable[Annotation], slide: Slide, settings: ExportSettings
) -> Written:
    table = _tile_table(annotations, settings.column)
    choice = HeatMapSettings(column=settings.column, step=settings.step, colors=settings.colors)
    write_heat_map(path, lay(table, slide.size, choice), slide, choice)
    return Written(path, len(table))


def _write_segmentation(
    path: Path, annotations: Iterable[Annotation], slide: Slide, settings: ExportSettings
) -> Written:
    step = settings.step or fitting_step(slide.size)
    marks = list(annotations)
    masks, notes = draw_masks(marks, slide.size, step)
    written = write_dicom_segmentation(path, masks, step, slide, settings.algorithm)
    return Written(path, int(is_areal(geometries(marks)).sum()), (*notes, *written.notes))


FORMATS: dict[str, Format] = {
    "geojson": Format(
        (".geojson", ".geojson.gz"),
        lambda path, marks, slide, _: write_geojson(path, marks, qupath_origin(slide)),
        lambda path, slide: read_geojson(path, qupath_origin(slide)),
    ),
    "coco": Format(
        (".coco.json", ".json"),
        lambda path, marks, slide, _: write_coco(path, [_page(slide, marks)]),
        lambda path, slide: read_coco(path, _page(slide).view),
    ),
    "yolo": Format(
        (".txt",),
        lambda path, marks, slide, chosen: write_yolo(path, _page(slide, marks), outlines=chosen.outlines),
        lambda path, slide: read_yolo(path, _page(slide)),
    ),
    "csv": Format(
        (".csv",), lambda path, marks, *_: write_table(path, marks), lambda path, _: read_table(path)
    ),
    "parquet": Format(
        (".parquet",), lambda path, marks, *_: write_table(path, marks), lambda path, _: read_table(path)
    ),
    "dicom-ann": Format(
        (".ann.dcm", ".dcm"),
        lambda path, marks, slide, chosen: write_dicom_annotations(path, marks, slide, chosen.algorithm),
        lambda path, slide: read_dicom_annotations(path, slide),
        needs_dicom=True,
    ),
    "dicom-sr": Format(
        (".sr.dcm",),
        lambda path, marks, slide, _: write_dicom_report(path, marks, slide),
        lambda path, _: read_dicom_report(path),
        needs_dicom=True,
    ),
    "dicom-seg": Format((".seg.dcm",), _write_segmentation, None, needs_dicom=True),
    "ngff-labels": Format(
        (".ome.zarr", ".zarr"),
        lambda path, marks, slide, chosen: write_ngff_labels(
            path, marks, slide, LabelSettings(step=chosen.step or 1)
        ),
        None,
    ),
    "heat-map": Format((".heat.tif", ".tif", ".tiff"), _write_heat_map, None),
}
"""Every format, by name: the one place that knows them all."""
