"""The leak check over runs: what of a test split has been seen in training, here or elsewhere.

malpighi leaks runs/mine                      its own test split against its own training split
malpighi leaks runs/mine --train runs/other   against the training split of another corpus, or an export
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from malpighi.corpus import Corpus
from malpighi.durable import mending, replacing
from malpighi.errors import ConfigError
from malpighi.evaluation.leaks import LeakReport, LeakSettings, enforce, find_leaks, leak_rows
from malpighi.evaluation.report import Panel
from malpighi.likeness.fingerprints import Fingerprints, fingerprint, read_fingerprints, write_fingerprints
from malpighi.pipeline.judging import corpus_of
from malpighi.records import Sample, Split

LEAKS = "leaks.json"
_EXPORT = "samples.parquet"
_TOLD = 5

Tell = Callable[[float, float, str], None]


def fingerprints_of(
    where: Path, split: Split, tell: Tell = lambda *_: None, samples: Sequence[Sample] | None = None
) -> Fingerprints:
    """The fingerprints of one split: of a corpus, of a run that holds one, or of an export.

    Args:
        where: the folder.
        split: which part; samples without a split belong to every part. An export is taken whole.
        tell: progress: (done, total, text).
        samples: these instead of the whole split.

    Raises:
        UserError: neither corpus nor export is there.
        ConfigError: the split is empty.
    """
    if (where / _EXPORT).is_file():
        return read_fingerprints(where)
    corpus: Corpus = corpus_of(where)
    chosen = samples or [sample for sample in corpus.samples() if sample.split in (split, None)]
    if not chosen:
        raise ConfigError(f"{where} has no sample in its {split} split; nothing can be compared")
    return fingerprint(
        corpus, chosen, on_progress=lambda done, total: tell(done, total, f"{split}: pictures")
    )


def check_leaks(
    test: Path,
    train: Path | None = None,
    *,
    policy: Literal["flag", "refuse"] = "flag",
    samples: Sequence[Sample] | None = None,
    settings: LeakSettings | None = None,
    out: Path | None = None,
    tell: Tell = lambda *_: None,
) -> LeakReport:
    """What of a test split is in a training split; kept as `leaks.json`.

    Args:
        test: a run folder or a corpus, whose test split is checked.
        train: a run, a corpus or an export; the training split of `test` where None.
        policy: `refuse` ends with an error where anything leaked; the file is written all the same.
        samples: these test samples instead of the whole split.
        settings: what counts as a leak.
        out: folder of `leaks.json`; that of the test data where None.
        tell: progress.

    Raises:
        DataError: something leaked and the policy is `refuse`.
        UserError: as `fingerprints_of`.
    """
    seen = fingerprints_of(train or test, Split.TRAIN, tell)
    asked = fingerprints_of(test, Split.TEST, tell, samples)
    found = find_leaks(seen, asked, settings, on_progress=lambda kind, share: tell(share, 1.0, kind))
    out = out or test
    with mending(out):
        out.mkdir(parents=True, exist_ok=True)
        with replacing(out / LEAKS) as file:
            file.write(msgspec.json.format(msgspec.json.encode(found), indent=1))
    enforce(found, policy)
    return found


def export_fingerprints(where: Path, split: Split, out: Path, tell: Tell = lambda *_: None) -> int:
    """Write the fingerprints of a split, without pixels and words; gives the number of samples back."""
    prints = fingerprints_of(where, split, tell)
    write_fingerprints(prints, out)
    return len(prints.samples)


def leak_panel(found: LeakReport, against: str) -> Panel:
    """The section of the report about leakage."""
    told = [f"{leak.test}: {leak.evidence}, as {leak.train}" for leak in found.leaks[:_TOLD]]
    more, unread = len(found.leaks) - len(told), len(found.failures)
    return Panel(
        name="leakage",
        title="Leakage",
        note=(
            f"Test samples that the training data hold too ({against}): by pixels whatever was done to them, "
            "by words, or by their source. They are counted in all scores; a leaked exam says little."
            if found.leaks
            else f"No test sample was found in the training data ({against}), by pixels, words or source."
        ),
        rows=[dict(row) for row in leak_rows(found)] if found.leaks else (),
        warnings=[
            *told,
            *([f"and {more} pairs more, in {LEAKS}"] if more > 0 else []),
            *([f"{unread} pictures could not be read or compared, see {LEAKS}"] if unread else []),
        ],
    )
