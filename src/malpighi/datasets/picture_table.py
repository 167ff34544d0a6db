"""Questions about pictures, from a table beside a folder of pictures.

    tasks.csv: image,label,group[,question,task,options,exam,split,organ,stain,boxes,scale]

One row is one question about one picture; several rows may name the same picture.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from malpighi.datasets.adapter import Picture, read_picture
from malpighi.datasets.split import SplitPlan
from malpighi.datasets.task_table import UNSTATED, Form, Row, TaskTable
from malpighi.records import Failure, Item, Scale, TaskKind

TABLE = "tasks.csv"
FORM = Form(
    file="image",
    extra=("boxes", "scale"),
    questions={
        TaskKind.CLASSIFICATION: "What is the diagnosis of this image?",
        TaskKind.CAPTION: "Describe this image.",
        TaskKind.DETECTION: "Detect {label} in pathology {organ}.",
    },
    scale=Scale.ROI,
    operation="adapter:picture-table",
)


@dataclass(frozen=True)
class PictureTable:
    """A data set of pictures: a folder and a table.

    Columns: `image`, a path below the folder; `label`, the right answer in words, of a detection what is to
    be found; `group`, patient, slide or source figure, what may never straddle a split; `question`, with a
    default for all tasks but `vqa`; `task`: `classification` (default), `detection` (default where boxes are
    given), `vqa` or `caption`; `options`, the names to choose from with `|` between (classification: all
    labels of the exam where empty; vqa: an open question where empty); `exam`, second half of the exam's name
    (default: the task); `split`: `train`, `validation` or `test`, dealt out by group where empty; `organ`;
    `stain`; `boxes`, JSON of the form `[[x0, y0, x1, y1], ...]` in px of the picture, `[]` where there is
    nothing to find; `scale`: `roi` (default) or `cell`.

    Attributes:
        name: first part of ids and exams.
        folder: that the pictures lie in, or folders below it.
        licence: as the source states it.
        table: the CSV file; `tasks.csv` in the folder where None.
    """

    name: str
    folder: Path
    licence: str
    table: Path | None = None

    def read(self, plan: SplitPlan | None = None) -> Iterator[Item | Failure]:
        """Samples and failures, row by row; every picture is decoded to see that it is whole.

        Args:
            plan: split fractions and seed.

        Raises:
            DataError: at the first step, where the table is missing or empty, or a column missing or unknown.
        """

        @lru_cache(maxsize=1)  # rows about one picture stand together as a rule
        def opened(image: str) -> Picture:
            return read_picture(self.folder / image)

        def open_file(row: Row) -> Picture:
            return opened(row["image"])

        yield from self._table.read(open_file, plan)

    def __len__(self) -> int:
        """Rows of the table; raises as the first step of `read`."""
        return len(self._table.rows())

    @property
    def _table(self) -> TaskTable:
        return TaskTable(self.name, self.table or self.folder / TABLE, self.licence, FORM)


def find_picture_tables(folder: Path) -> dict[str, PictureTable]:
    """Data sets of pictures with a table, in a folder or the folder itself, by name."""
    places = [folder, *sorted(folder.glob("*/"))]
    return {
        place.resolve().name: PictureTable(place.resolve().name, place, UNSTATED)
        for place in places
        if (place / TABLE).is_file()
    }
