"""Questions about whole slides, from a table beside a folder of slides.

    slides.csv: slide,label,group[,question,task,options,exam,split,mpp,organ,stain]

One row is one question about one slide. Nothing is stored of a slide: its view is made when it is asked for.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from malpighi.datasets.adapter import Picture
from malpighi.datasets.split import SplitPlan
from malpighi.datasets.task_table import UNSTATED, Form, Row, TaskTable, level0_mpp
from malpighi.errors import DataError
from malpighi.records import SLIDE_KEY, Failure, ImageRef, Item, Scale, TaskKind
from malpighi.slides.fingerprint import fingerprint
from malpighi.slides.opening import open_slide

TABLE = "slides.csv"
FORM = Form(
    file="slide",
    extra=("mpp",),
    questions={
        TaskKind.CLASSIFICATION: "What is the diagnosis of this slide?",
        TaskKind.CAPTION: "Describe this slide.",
    },
    scale=Scale.SLIDE,
    operation="adapter:slide-table",
)


@dataclass(frozen=True)
class SlideTable:
    """A data set of slides: a folder and a table.

    Columns: `slide`, a path below the folder; `label`, the right answer in words; `group`, patient or slide,
    what may never straddle a split; `question`, with a default for classification and caption; `task`:
    `classification` (default), `vqa` or `caption`; `options`, the names to choose from with `|` between
    (classification: all labels of the exam where empty; vqa: an open question where empty); `exam`, second
    half of the exam's name (default: the task); `split`: `train`, `validation` or `test`, dealt out by group
    where empty; `mpp`, micrometres per level-0 px where the file states none or a wrong one; `organ`;
    `stain`.

    Attributes:
        name: first part of ids and exams.
        folder: that the slides lie in, or folders below it.
        licence: as the source states it.
        table: the CSV file; `slides.csv` in the folder where None.
        root: what the paths in records are relative to; the folder where None.
    """

    name: str
    folder: Path
    licence: str
    table: Path | None = None
    root: Path | None = None

    def read(self, plan: SplitPlan | None = None) -> Iterator[Item | Failure]:
        """Samples and failures, row by row; every slide is opened once to see that it is one.

        Args:
            plan: split fractions and seed.

        Raises:
            DataError: at the first step, where the table is missing or empty, or a column missing or unknown.
        """
        yield from self._table.read(self._opener(), plan)

    def __len__(self) -> int:
        """Rows of the table; raises as the first step of `read`."""
        return len(self._table.rows())

    @property
    def _table(self) -> TaskTable:
        return TaskTable(self.name, self.table or self.folder / TABLE, self.licence, FORM)

    def _opener(self) -> Callable[[Row], Picture]:
        """Opens the slide of a row, once however many rows name it."""
        known: dict[tuple[str, str], Picture | str] = {}

        def open_once(row: Row) -> Picture:
            key = (row["slide"], row["mpp"])
            if key not in known:
                try:
                    known[key] = Picture(self._ref(row), None)
                except DataError as error:
                    known[key] = str(error)
            found = known[key]
            if isinstance(found, str):
                raise DataError(found)
            return found

        return open_once

    def _ref(self, row: Row) -> ImageRef:
        root = self.root or self.folder
        path = self.folder / row["slide"]
        slide = path.relative_to(root) if path.is_relative_to(root) else path
        return slide_ref(root, slide.as_posix(), level0_mpp(row))


def find_tables(folder: Path) -> dict[str, SlideTable]:
    """Data sets of slides in a folder, or the folder itself, by name; records are relative to `folder`."""
    places = [folder, *sorted(folder.glob("*/"))]
    return {
        place.resolve().name: SlideTable(place.resolve().name, place, UNSTATED, root=folder)
        for place in places
        if (place / TABLE).is_file()
    }


def slide_ref(folder: Path, slide: str, mpp: float | None = None) -> ImageRef:
    """The reference to a slide of which views are made when they are asked for.

    Args:
        folder: that `slide` is relative to.
        slide: path; goes into the record, and names the slide in feature stores.
        mpp: micrometres per level-0 px; overrides what the file states.

    Raises:
        DataError: no such file, or none that can be read as a slide.
    """
    path = folder / slide
    with open_slide(path, mpp=mpp) as opened:
        return ImageRef(SLIDE_KEY + fingerprint(path), opened.size, opened.mpp, slide)
