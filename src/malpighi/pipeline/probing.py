"""Examining an encoder of pictures and words: zero-shot, few labels, retrieval; rows like any other.

    found = probe(load_dual_encoder("path/to/plip"), Corpus.open("corpus"), Path("runs/plip"))

Test samples alone are scored; the few labels are drawn from the training samples of the same exam. Features
are kept in the folder, so that a killed run goes on and another task costs nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text as Line

from malpighi.config import Settings
from malpighi.corpus import Corpus
from malpighi.durable import mending, replacing
from malpighi.errors import DataError
from malpighi.evaluation.evaluate import image_hash, truth_of
from malpighi.evaluation.few_shot import FewShotSettings, few_shot
from malpighi.evaluation.majority import MODEL as MAJORITY
from malpighi.evaluation.majority import majority_predictions
from malpighi.evaluation.retrieval import KS, Retrieval, retrieval
from malpighi.evaluation.rows import read_predictions, write_predictions
from malpighi.evaluation.statistics import Bootstrap, Estimate, mean_interval
from malpighi.evaluation.tables import results, to_rich
from malpighi.evaluation.zero_shot import Words, by_options, chances, class_vectors, shipped_words
from malpighi.grading.grade import Reading, grade
from malpighi.inference.dual_encoder import DualEncoder
from malpighi.inference.embeddings import embed
from malpighi.pixels import decode_image
from malpighi.records import Choice, Failure, Prediction, Sample, Split, TaskKind, Text

Features = NDArray[np.float32]
Tell = Callable[[int, int, str], None]


class ProbeSettings(Settings, frozen=True):
    """What is asked of an encoder.

    Attributes:
        few_shot: sizes and draws of the few labels.
        depths: k of Recall@k.
        batch_size: pictures encoded together.
        words: classes in sentences; None takes the list that ships.
    """

    few_shot: FewShotSettings = FewShotSettings()
    depths: tuple[int, ...] = KS
    batch_size: int = 32
    words: Words | None = None


class FewShotRow(msgspec.Struct, frozen=True, kw_only=True):
    """One size of one exam.

    Attributes:
        exam: what was asked.
        shots: training pictures per class.
        draws: fits.
        accuracy: mean over draws and test samples, its interval over the groups of the test samples.
        worst: accuracy of the worst draw.
        best: accuracy of the best draw.
    """

    exam: str
    shots: int
    draws: int
    accuracy: Estimate
    worst: float
    best: float


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """What an encoder can do; the contents of `probe.json`.

    Attributes:
        encoder: its name.
        few_shot: by exam and size.
        retrieval: by exam of captions.
        failures: pictures that could not be read.
        left_out: what was not asked and why.
    """

    encoder: str
    few_shot: list[FewShotRow]
    retrieval: dict[str, Retrieval]
    failures: list[Failure]
    left_out: list[str]


class _Found(NamedTuple):
    """Samples whose pictures have features, and those features in the same order."""

    samples: list[Sample]
    features: Features

    def where(self, keep: Callable[[Sample], bool]) -> "_Found":
        index = [number for number, sample in enumerate(self.samples) if keep(sample)]
        return _Found([self.samples[number] for number in index], self.features[index])


def probe(
    encoder: DualEncoder,
    corpus: Corpus,
    out: Path,
    settings: ProbeSettings | None = None,
    tell: Tell = lambda done, total, text: None,
) -> Probe:
    """Examine an encoder on all exams of choices and captions that the corpus holds.

    Writes `predictions/*.jsonl`, `features/` and `probe.json` into `out`.

    Args:
        encoder: what is examined.
        corpus: train and test samples; those about several pictures or about slides are left out.
        out: the folder of results.
        settings: sizes, depths, batches.
        tell: progress.

    Raises:
        DataError: the corpus holds nothing that such an encoder can be asked.
    """
    settings = settings or ProbeSettings()
    found, failures = _features(encoder, corpus, out, settings, tell)
    chosen = found.where(lambda sample: isinstance(sample.answer, Choice))
    captioned = found.where(lambda s: s.task is TaskKind.CAPTION and isinstance(s.answer, Text))
    if not chosen.samples and not captioned.samples:
        raise DataError("the corpus holds no choices and no captions about single pictures; nothing to ask")
    left_out: list[str] = []
    shots = _ask(encoder, chosen, out, settings, left_out) if chosen.samples else []
    result = Probe(
        encoder=encoder.name,
        few_shot=shots,
        retrieval=_retrieve(encoder, captioned, settings.depths, left_out),
        failures=failures,
        left_out=left_out,
    )
    with mending(out), replacing(out / "probe.json") as file:
        file.write(msgspec.json.format(msgspec.json.encode(result), indent=1))
    return result


def _features(
    encoder: DualEncoder, corpus: Corpus, out: Path, settings: ProbeSettings, tell: Tell
) -> tuple[_Found, list[Failure]]:
    samples = [s for s in corpus.samples() if len(s.images) == 1 and not s.images[0].unmade]
    features, failures = embed(
        [sample.images[0].key for sample in samples],
        lambda key: decode_image(corpus.image_bytes(key)),
        encoder.images,
        out / "features" / encoder.name,
        settings.batch_size,
        lambda done, total: tell(done, total, "pictures"),
    )
    if not samples:
        return _Found([], features), failures
    whole = np.flatnonzero(np.isfinite(features).all(axis=1))
    return _Found([samples[number] for number in whole], features[whole]), failures


def _ask(
    encoder: DualEncoder, chosen: _Found, out: Path, settings: ProbeSettings, left_out: list[str]
) -> list[FewShotRow]:
    """Write the rows of zero-shot, few-shot and the constant answer; the table of few labels."""
    words = settings.words or shipped_words()
    zero: list[Prediction] = []
    few: list[Prediction] = []
    table: list[FewShotRow] = []
    for (exam, options), samples in by_options(chosen.samples).items():
        members = {sample.id for sample in samples}
        here = chosen.where(lambda sample, members=members: sample.id in members)  # type: ignore[misc]
        train = here.where(lambda sample: sample.split is Split.TRAIN)
        test = here.where(lambda sample: sample.split is Split.TEST)
        if not test.samples:
            left_out.append(f"{exam}: no test sample")
            continue
        likely = chances(test.features, class_vectors(options, words, encoder.texts), encoder.scale)
        zero += _rows(f"{encoder.name} zero-shot", test.samples, likely)
        rows, sizes = _few(encoder.name, exam, train, test, settings.few_shot)
        few += rows
        table += sizes
        missing = sorted(set(settings.few_shot.shots) - {row.shots for row in sizes})
        if missing:
            sizes_left = ", ".join(map(str, missing))
            left_out.append(f"{exam}: {sizes_left} pictures per class, more than its rarest class has")
    folder = out / "predictions"
    with mending(out):
        write_predictions(folder / f"{encoder.name} zero-shot.jsonl", zero)
        write_predictions(folder / f"{encoder.name} few-shot.jsonl", few)
        write_predictions(folder / f"{MAJORITY}.jsonl", _majority(chosen))
    return table


def _few(
    name: str, exam: str, train: _Found, test: _Found, settings: FewShotSettings
) -> tuple[list[Prediction], list[FewShotRow]]:
    classes = len(test.samples[0].options)
    labels = np.asarray([_index(sample) for sample in train.samples], np.int64)
    rows: list[Prediction] = []
    scores: dict[int, list[list[float]]] = {}
    for draw in few_shot(train.features, labels, test.features, classes, settings):
        made = _rows(f"{name} {draw.shots}-shot, draw {draw.number}", test.samples, draw.chances)
        rows += made
        scores.setdefault(draw.shots, []).append([row.grade.score for row in made])
    groups = [sample.group for sample in test.samples]
    table = [_few_row(exam, shots, np.asarray(found), groups) for shots, found in scores.items()]
    return rows, table


def _few_row(exam: str, shots: int, scores: NDArray[np.float64], groups: Sequence[str]) -> FewShotRow:
    """From scores (draws, test samples)."""
    by_draw = scores.mean(axis=1)
    return FewShotRow(
        exam=exam,
        shots=shots,
        draws=len(scores),
        accuracy=mean_interval(scores.mean(axis=0).tolist(), groups, Bootstrap()),
        worst=float(by_draw.min()),
        best=float(by_draw.max()),
    )


def _rows(model: str, samples: Sequence[Sample], likely: NDArray[np.float64]) -> list[Prediction]:
    rows = []
    for sample, row in zip(samples, likely, strict=True):
        text = f"<answer>{sample.options[int(row.argmax())]}</answer>"
        rows.append(
            Prediction(
                model=model,
                exam=sample.exam,
                sample=sample.id,
                group=sample.group,
                task=sample.task,
                text=text,
                grade=grade(sample, text, Reading()),
                truth=truth_of(sample),
                image_hash=image_hash(sample),
                chances=tuple(float(chance) for chance in row),
            )
        )
    return rows


def _majority(chosen: _Found) -> list[Prediction]:
    train = [sample for sample in chosen.samples if sample.split is Split.TRAIN]
    test = [sample for sample in chosen.samples if sample.split is Split.TEST]
    return majority_predictions(train, test, lambda sample, text: grade(sample, text, Reading()))


def _retrieve(
    encoder: DualEncoder, captioned: _Found, depths: Sequence[int], left_out: list[str]
) -> dict[str, Retrieval]:
    """Pictures against captions, exam by exam; equal captions are one, and all its pictures are hits."""
    found = {}
    for exam in dict.fromkeys(sample.exam for sample in captioned.samples):
        test = captioned.where(lambda s, exam=exam: s.exam == exam and s.split is Split.TEST)  # type: ignore[misc]
        keys = [_caption(sample) for sample in test.samples]
        texts = list(dict.fromkeys(keys))
        if len(texts) < 2:
            left_out.append(f"{exam}: {len(texts)} test captions; retrieval needs two")
            continue
        found[exam] = retrieval(test.features, encoder.texts(texts), keys, texts, depths)
    return found


def _caption(sample: Sample) -> str:
    assert isinstance(sample.answer, Text)
    return sample.answer.value


def _index(sample: Sample) -> int:
    assert isinstance(sample.answer, Choice)
    return sample.answer.index


def probe_tables(found: Probe, out: Path) -> Group:
    """What was found, for a terminal; zero-shot is read from the prediction rows."""
    files = [out / "predictions" / f"{name}.jsonl" for name in (MAJORITY, f"{found.encoder} zero-shot")]
    rows = [row for path in files if path.is_file() for row in read_predictions(path)]
    parts: list[RenderableType] = [to_rich(results(rows))] if rows else []
    if found.few_shot:
        parts.append(_few_table(found.few_shot))
    if found.retrieval:
        parts.append(_recall_table(found.retrieval))
    parts += [Line(f"! {line}") for line in found.left_out]
    return Group(*parts)


def _few_table(rows: Sequence[FewShotRow]) -> Table:
    table = Table(title="Few labels: accuracy of logistic regression, mean over draws", title_justify="left")
    for name in ("exam", "per class", "draws", "accuracy", "95 % over groups", "worst to best draw"):
        table.add_column(name, justify="left" if name == "exam" else "right")
    for row in rows:
        low, high = row.accuracy.low, row.accuracy.high
        span = "one group" if low is None else f"{low:.3f}–{high:.3f}"
        draws = f"{row.worst:.3f}–{row.best:.3f}"
        mean = f"{row.accuracy.value:.3f}"
        table.add_row(Line(row.exam), str(row.shots), str(row.draws), mean, span, draws)
    return table


def _recall_table(found: Mapping[str, Retrieval]) -> Table:
    depths = list(next(iter(found.values())).image_to_text.at)
    table = Table(title="Retrieval: share of queries answered among the first k", title_justify="left")
    for name in ("exam", "query", "queries", "candidates", *(f"k = {k}" for k in depths)):
        table.add_column(name, justify="left" if name in ("exam", "query") else "right")
    for exam, both in found.items():
        for query, recall in (("picture", both.image_to_text), ("caption", both.text_to_image)):
            shares = (f"{recall.at[k]:.3f}" for k in depths)
            table.add_row(Line(exam), query, str(recall.queries), str(recall.candidates), *shares)
    return table
