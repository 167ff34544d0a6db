"""The leak check: what of a test set has been seen in training, by pixels, by words and by source.

Pixels: hashes find candidates, the aligned pictures decide; where one side is an export without pictures,
only hashes that are nearly equal count. Text: a question or an answer that is nearly copied. Source: the same
patient, slide, figure, article or group, which no pixel tells.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import msgspec
import numpy as np
from rich import box
from rich.table import Table

from malpighi.errors import ConfigError, DataError
from malpighi.likeness.fingerprints import Fingerprints, SamplePrint
from malpighi.likeness.same_pictures import PictureMatch, PictureMatches, PictureSearch, same_pictures
from malpighi.likeness.shingles import LEAST_SHINGLES, Shingles, similar_texts
from malpighi.likeness.sources import KINDS as SOURCES
from malpighi.likeness.sources import Source, hidden
from malpighi.records import Failure

Kind = Literal["pixels", "text", "source"]
KINDS: tuple[Kind, ...] = ("pixels", "text", "source")
_TURNS = (
    "",
    "mirrored left-right",
    "mirrored top-bottom",
    "turned by 180°",
    "transposed",
    "turned by 90° left",
    "turned by 90° right",
    "transposed and turned by 180°",
)


@dataclass(frozen=True)
class LeakSettings:
    """What counts as a leak.

    Attributes:
        pictures: how far to look for pictures.
        jaccard: least share of common word pairs of texts, above 0.5.
        template: a wording that more samples than this share is a template of questions and no copy.
        ignore: kinds of source that do not count, e.g. `article`.
        most: pairs of text and of source kept per test sample.
    """

    pictures: PictureSearch = field(default_factory=PictureSearch)
    jaccard: float = 0.7
    template: int = 3
    ignore: tuple[str, ...] = ()
    most: int = 3

    def __post_init__(self) -> None:
        if not 0.5 < self.jaccard <= 1:
            raise ConfigError(f"jaccard {self.jaccard}; expected more than 0.5, and 1 at most")
        if unknown := set(self.ignore) - set(SOURCES):
            raise ConfigError(f"unknown kinds of source {sorted(unknown)}; known: {', '.join(SOURCES)}")


class Leak(msgspec.Struct, frozen=True):
    """A test sample and a training sample that share what they must not.

    Attributes:
        kind: `pixels`, `text` or `source`.
        exam: of the test sample.
        test: id of the test sample.
        train: id of the training sample, the first of several.
        distance: of pixels, PDQ bits; of texts, 1 - Jaccard; of sources 0.
        evidence: in words.
    """

    kind: Kind
    exam: str
    test: str
    train: str
    distance: float
    evidence: str


class ExamLeaks(msgspec.Struct, frozen=True):
    """How much of an exam has leaked.

    Attributes:
        exam: its name.
        samples: number of test samples.
        leaked: of these, those with any leak.
        by_kind: of these, those with a leak of a kind.
    """

    exam: str
    samples: int
    leaked: int
    by_kind: dict[str, int]

    @property
    def share(self) -> float:
        """Leaked share of the exam, 0 to 1."""
        return self.leaked / self.samples if self.samples else 0.0


class LeakReport(msgspec.Struct, frozen=True):
    """What a leak check found.

    Attributes:
        leaks: every pair, by exam and test sample.
        exams: how much of each exam leaked, exams without a leak included.
        counts: what was looked at and what was left out: `train_samples`, `test_samples`, `blank` pictures,
            pairs of pixels `compared` and `refuted`, candidates left `undecided`, `templates` and texts too
            `short` to compare.
        failures: pictures that could not be read or compared, by key.
    """

    leaks: list[Leak]
    exams: list[ExamLeaks]
    counts: dict[str, int]
    failures: list[Failure]

    @property
    def leaked(self) -> set[str]:
        """Ids of the test samples with any leak."""
        return {leak.test for leak in self.leaks}


def find_leaks(
    train: Fingerprints,
    test: Fingerprints,
    settings: LeakSettings | None = None,
    *,
    on_progress: Callable[[str, float], None] | None = None,
) -> LeakReport:
    """What of `test` is in `train`.

    Args:
        train: from `likeness.fingerprints`: of a corpus, of one of its splits, or an export read back.
        test: likewise.
        settings: what counts.
        on_progress: called with the kind being looked for and the share of it that is done, 0 to 1.
    """
    settings = settings or LeakSettings()
    told = on_progress or (lambda *_: None)
    pictures = same_pictures(test, train, settings.pictures, on_progress=lambda done: told("pixels", done))
    leaks = list(_pixel_leaks(train, test, pictures))
    told("text", 0.0)
    copied, left_out = _text_leaks(train, test, settings)
    told("text", 1.0)
    leaks += [*copied, *_source_leaks(train, test, settings)]
    told("source", 1.0)
    order = {sample.id: place for place, sample in enumerate(test.samples)}
    leaks.sort(key=lambda leak: (leak.exam, order[leak.test], KINDS.index(leak.kind), leak.distance))
    counts = {"train_samples": len(train.samples), "test_samples": len(test.samples)}
    failures = [*train.failures, *test.failures, *pictures.failures]
    return LeakReport(leaks, _per_exam(test, leaks), {**counts, **pictures.counts, **left_out}, failures)


def enforce(report: LeakReport, policy: Literal["refuse", "flag"]) -> set[str]:
    """The ids of leaked test samples, to be flagged; or an end of the matter.

    Raises:
        DataError: the policy is `refuse` and anything leaked.
    """
    if policy == "refuse" and report.leaked:
        worst = sorted(report.exams, key=lambda exam: (-exam.share, exam.exam))[0]
        first = report.leaks[0]
        raise DataError(
            f"{len(report.leaked)} of {report.counts['test_samples']} test samples are in the training data, "
            f"most of them in {worst.exam} ({worst.leaked} of {worst.samples}); e.g. {first.test}: "
            f"{first.evidence}, as {first.train}. Leave them out of the training data, or flag them instead"
        )
    return report.leaked


def leak_rows(report: LeakReport) -> list[Mapping[str, str]]:
    """One row per exam, as the report page and the terminal show it; exams with most leaks first."""
    return [
        {
            "exam": exam.exam,
            "samples": str(exam.samples),
            "leaked": str(exam.leaked),
            "share": f"{100 * exam.share:.1f}%",
            **{kind: str(exam.by_kind[kind]) for kind in KINDS},
        }
        for exam in sorted(report.exams, key=lambda exam: (-exam.share, exam.exam))
    ]


def leak_table(report: LeakReport) -> Table:
    """The rows of `leak_rows` for a terminal."""
    table = Table(box=box.SIMPLE, title="Test samples seen in training")
    rows = leak_rows(report)
    for name in ("exam", "samples", "leaked", "share", *KINDS):
        table.add_column(name, justify="left" if name == "exam" else "right")
    for row in rows:
        table.add_row(*row.values(), style="bold red" if row["leaked"] != "0" else "")
    return table


def _pixel_leaks(train: Fingerprints, test: Fingerprints, found: PictureMatches) -> Iterator[Leak]:
    shown, seen = _showing(test), _showing(train)
    for match in found.matches:
        for sample in shown[match.query]:
            first = seen[match.stored][0].id
            yield Leak("pixels", sample.exam, sample.id, first, match.distance, _seen_as(match))


def _showing(side: Fingerprints) -> dict[str, list[SamplePrint]]:
    found: dict[str, list[SamplePrint]] = defaultdict(list)
    for sample in side.samples:
        for key in dict.fromkeys(sample.pictures):
            found[key].append(sample)
    return found


def _seen_as(match: PictureMatch) -> str:
    if match.query == match.stored:
        return "the same picture file"
    turn = f", {_TURNS[match.turn]}" if match.turn else ""
    if match.agreement is None:
        return f"nearly the same picture hash ({match.distance} of 256 bits{turn}), pixels not compared"
    share = f"{100 * match.agreement.share:.0f}% of the structure coincides"
    return f"the same picture: {share} ({match.distance} of 256 bits{turn})"


class _Texts(NamedTuple):
    """Distinct wordings of one side: their shingles, and the places of the samples that use them."""

    shingles: list[Shingles]
    users: list[list[int]]


def _text_leaks(
    train: Fingerprints, test: Fingerprints, settings: LeakSettings
) -> tuple[list[Leak], dict[str, int]]:
    leaks: dict[tuple[str, str], Leak] = {}
    counts: Counter[str] = Counter(templates=0, short=0)
    for place, name in enumerate(("question", "answer")):
        sides = [_wordings(side.samples, place) for side in (train, test)]
        common = {key for side in sides for key, users in side.items() if len(users) > settings.template}
        counts["templates"] += len(common)
        counts["short"] += sum(len(key) < 4 * LEAST_SHINGLES for key in sides[1])
        seen, asked = (_comparable(side, common) for side in sides)
        pairs = similar_texts(asked.shingles, seen.shingles, settings.jaccard)
        for q, s, alike in zip(*(column.tolist() for column in pairs), strict=True):
            first = train.samples[seen.users[s][0]].id
            for user in asked.users[q]:
                sample = test.samples[user]
                evidence = f"{100 * alike:.0f}% of the {name}'s word pairs are the same"
                leak = Leak("text", sample.exam, sample.id, first, 1 - alike, evidence)
                leaks.setdefault((sample.id, first), leak)
    return _fewest(leaks.values(), settings.most), dict(counts)


def _wordings(samples: Sequence[SamplePrint], place: int) -> dict[bytes, list[int]]:
    """Shingles as bytes -> places of the samples with such a text."""
    found: dict[bytes, list[int]] = defaultdict(list)
    for number, sample in enumerate(samples):
        if len(sample.texts) > place and len(sample.texts[place]):
            found[sample.texts[place].tobytes()].append(number)
    return found


def _comparable(wordings: Mapping[bytes, list[int]], common: set[bytes]) -> _Texts:
    kept = {k: users for k, users in wordings.items() if k not in common and len(k) >= 4 * LEAST_SHINGLES}
    return _Texts([np.frombuffer(key, np.uint32) for key in kept], list(kept.values()))


def _fewest(leaks: Iterable[Leak], most: int) -> list[Leak]:
    """The nearest few of each test sample."""
    kept: dict[str, list[Leak]] = defaultdict(list)
    for leak in sorted(leaks, key=lambda leak: leak.distance):
        if len(kept[leak.test]) < most:
            kept[leak.test].append(leak)
    return [leak for group in kept.values() for leak in group]


def _source_leaks(train: Fingerprints, test: Fingerprints, settings: LeakSettings) -> Iterator[Leak]:
    first: dict[Source, str] = {}
    for sample in train.samples:
        for source in sample.sources:
            first.setdefault(hidden(source), sample.id)
    for sample in test.samples:
        shared = [s for s in sample.sources if hidden(s) in first and s.kind not in settings.ignore]
        shared.sort(key=lambda source: SOURCES.index(source.kind))
        for source in shared[: settings.most]:
            evidence = f"the same {source.kind}, {source.name}"
            yield Leak("source", sample.exam, sample.id, first[hidden(source)], 0.0, evidence)


def _per_exam(test: Fingerprints, leaks: Sequence[Leak]) -> list[ExamLeaks]:
    samples = Counter(sample.exam for sample in test.samples)
    by_kind: dict[tuple[str, Kind], set[str]] = defaultdict(set)
    for leak in leaks:
        by_kind[leak.exam, leak.kind].add(leak.test)
    return [
        ExamLeaks(
            exam,
            count,
            len(set().union(*(by_kind[exam, kind] for kind in KINDS))),
            {kind: len(by_kind[exam, kind]) for kind in KINDS},
        )
        for exam, count in sorted(samples.items())
    ]
