"""Slides of a data set on disk: found by name wherever they lie, referred to and never stored."""

import unicodedata
from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from malpighi.datasets.adapter import Entry, Picture
from malpighi.errors import ConfigError, DataError
from malpighi.records import Split

try:
    from malpighi.datasets.slide_tasks import slide_ref as _slide_ref
except ImportError:  # the extra `slides` is not installed; only opening a slide needs it
    _slide_ref = None  # type: ignore[assignment]

SUFFIXES = frozenset(
    {".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".bif", ".svslide", ".vms", ".jpg", ".jpeg", ".png"}
)


class SlideFolder:
    """The slides below a folder, by name; hidden files are passed over.

    Args:
        folder: the data set's own folder, which records are relative to.
        part: a folder below it, where only that part of the data set is meant.
    """

    def __init__(self, folder: Path, part: str = "") -> None:
        self.folder = folder
        self.part = folder / part
        self._paths: dict[str, list[Path]] = defaultdict(list)
        for path in slides_below(self.part):
            stem = unicodedata.normalize("NFC", path.stem)
            for name in {stem, stem.split(".")[0]}:  # TCGA: a barcode, then an id of the file
                self._paths[name].append(path)

    def find(self, name: str, below: str = "") -> Path:
        """The slide of a name: its file name without the ending, or up to the first point.

        Args:
            name: as an index writes it, with or without the ending.
            below: a folder on its path, which settles which one is meant where several have the name.

        Raises:
            DataError: none, or several.
        """
        stem = name[: -len(Path(name).suffix)] if Path(name).suffix.lower() in SUFFIXES else name
        found = self._paths.get(unicodedata.normalize("NFC", stem), [])
        if len(found) > 1 and below:
            found = [path for path in found if below in path.relative_to(self.folder).parts] or found
        if not found:
            raise DataError(f"no slide {name} below {self.part}; download it, or leave its rows out")
        if len(found) > 1:
            places = ", ".join(path.relative_to(self.folder).as_posix() for path in found[:3])
            raise DataError(f"{len(found)} slides are named {name}: {places}; keep one")
        return found[0]

    def entry(
        self,
        name: str,
        path: Path,
        group: str,
        label: str = "",
        split: Split | None = None,
        detail: Mapping[str, Any] | None = None,
    ) -> Entry:
        """An entry whose slide is opened when it is read; arguments as of `Entry`."""
        load = partial(load_slide, self.folder, path.relative_to(self.folder).as_posix())
        return Entry(name, path, group, label, split, detail or {}, load=load)


def slides_below(folder: Path) -> list[Path]:
    """Files below a folder that may be slides by their ending, sorted; hidden files are passed over."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    )


def load_slide(folder: Path, slide: str) -> Picture:
    """A reference to a slide, opened once to see that it is one; nothing of it is stored.

    Args:
        folder: the data set's own folder.
        slide: path below it.

    Raises:
        DataError: it cannot be read as a slide.
        ConfigError: the extra for slides is not installed.
    """
    if _slide_ref is None:
        raise ConfigError(f"{slide} is a slide; install the extra for it: pip install 'malpighi[slides]'")
    return Picture(_slide_ref(folder, slide), None)


def tcga_case(barcode: str) -> str:
    """The case (patient) of a TCGA barcode, its first three fields.

    Raises:
        DataError: no TCGA barcode.

    Example:
        >>> tcga_case("TCGA-A2-A0CM-01Z-00-DX1.5d1b")
        'TCGA-A2-A0CM'
    """
    fields = barcode.split("-")
    if len(fields) < 3 or fields[0] != "TCGA":
        raise DataError(f"{barcode!r} is no TCGA barcode; expected e.g. TCGA-A2-A0CM-01Z-00-DX1")
    return "-".join(fields[:3])
