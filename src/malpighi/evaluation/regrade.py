"""New verdicts on stored answers: what a mended grader changes, without asking a model again."""

from collections.abc import Callable, Iterable, Iterator, Mapping

from msgspec.structs import replace

from malpighi.errors import DataError
from malpighi.evaluation.evaluate import truth_of
from malpighi.records import Grade, Prediction, Sample


def regrade(
    rows: Iterable[Prediction],
    samples: Mapping[str, Sample],
    grade_of: Callable[[Sample, str], Grade],
) -> Iterator[Prediction]:
    """The rows with the verdict that `grade_of` gives on their raw text, one by one.

    Args:
        rows: stored predictions.
        samples: the questions by id.
        grade_of: the verdict on a completion; boxes need the view and the frame they were spoken in.

    Raises:
        DataError: a row whose sample is not among `samples`.
    """
    for row in rows:
        sample = samples.get(row.sample)
        if sample is None:
            raise DataError(f"sample {row.sample!r} of model {row.model!r} is not among those to regrade by")
        yield replace(row, grade=grade_of(sample, row.text), truth=truth_of(sample))
