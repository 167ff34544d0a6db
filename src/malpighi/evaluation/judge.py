"""A language model as judge of open answers: ten criteria and whether the answer is right.

    verdicts = judge(engine, cases, load_rubric(), Path("verdicts.jsonl"), JudgeOptions("deepseek-r1"))

Every verdict is kept with the judge's raw reply under a key of judge, rubric, question, reference and
candidate, so that what was judged once is never asked again, and a finished file is read again without any
server. A reply that cannot be read is asked for again; one that stays unreadable is missing and counted,
never a score.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from malpighi.config import digest
from malpighi.durable import mending, sync
from malpighi.errors import ConfigError, DataError, UserError
from malpighi.evaluation.rubric import Asked, Rubric, ask, read_scores
from malpighi.inference.engine import Completion, Engine, Sampling
from malpighi.models.prompt import is_yes_no
from malpighi.records import Choice, Prediction, Sample, Text, from_json, option_label, to_json

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]


class Verdict(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One row of a verdicts file.

    Attributes:
        key: hash over judge, rubric, question, reference and candidate.
        judge: name of the judging model.
        rubric: name, version and hash of the rubric.
        scores: by criterion; empty where the reply could not be read or had.
        correct: whether the judge takes the answer for right; None where unknown.
        reply: the last reply, raw.
        fault: why there are no scores; "" where there are.
        tries: replies that were asked for.
        tokens: of all replies together, as the engine counts them.
    """

    key: str
    judge: str
    rubric: str
    scores: dict[str, int] = {}
    correct: bool | None = None
    reply: str = ""
    fault: str = ""
    tries: int = 1
    tokens: int = 0


@dataclass(frozen=True)
class JudgeOptions:
    """How a judge is asked.

    Attributes:
        judge: name of the judging model; part of every key.
        batch_size: cases handed to the engine at once; each batch is on disk before the next is asked.
        tries: most replies that are asked for per case.
        sampling: temperature 0 unless there is a reason.
    """

    judge: str
    batch_size: int = 16
    tries: int = 3
    sampling: Sampling = field(default_factory=lambda: Sampling(max_new_tokens=2048))

    def __post_init__(self) -> None:
        if not self.judge or min(self.batch_size, self.tries) < 1:
            raise ConfigError(f"{self}: a judge needs a name, and batch_size and tries of 1 or more")


@dataclass(frozen=True)
class Case:
    """An answer to be judged.

    Attributes:
        prediction: the answer and how it was scored exactly.
        asked: what the judge is shown of it.
        closed: whether exact scoring decides it, so that the judge can be held against it.
    """

    prediction: Prediction
    asked: Asked
    closed: bool


def cases_of(predictions: Iterable[Prediction], samples: Mapping[str, Sample]) -> list[Case]:
    """The answers that a judge can read: those to choices and to open questions.

    Args:
        predictions: rows of any models.
        samples: by id; they hold question and reference reasoning.

    Raises:
        DataError: a row answers no sample that was given.
    """
    found = []
    for row in predictions:
        if row.sample not in samples:
            raise DataError(f"model {row.model!r} answers sample {row.sample!r}, which is not in the corpus")
        sample = _as_asked(samples[row.sample], row)
        answer = _reference(sample)
        if answer is not None:
            closed = isinstance(sample.answer, Choice)
            found.append(Case(row, Asked(_question(sample), answer, row.text), closed))
    return found


def judge(
    engine: Engine | None,
    cases: Sequence[Case],
    rubric: Rubric,
    out: Path,
    options: JudgeOptions,
    on_progress: Progress | None = None,
) -> list[Verdict]:
    """The verdict on each case, in order; asks only for what `out` does not hold yet.

    Args:
        engine: asks the judge; None replays `out`, and what it lacks is missing.
        cases: what is judged.
        rubric: by what.
        out: JSON lines, appended batch by batch.
        options: judge, batches, tries.
        on_progress: called with (cases done, cases in all).

    Raises:
        UserError: `out` is damaged before its last line; the engine cannot answer at all.
    """
    keys = [key_of(case, rubric, options.judge) for case in cases]
    known = {verdict.key: verdict for verdict in read_verdicts(out) if not verdict.fault}
    todo = {key: case for key, case in zip(keys, cases, strict=True) if key not in known}
    if engine is not None and todo:
        log.info("%d of %d answers are judged already", len(cases) - len(todo), len(cases))
        waiting = list(todo.items())
        for start in range(0, len(waiting), options.batch_size):
            made = _batch(engine, waiting[start : start + options.batch_size], rubric, options)
            _append(out, made)
            known.update((verdict.key, verdict) for verdict in made)
            if on_progress:
                on_progress(min(start + options.batch_size, len(waiting)), len(waiting))
    missing = Verdict(key="", judge=options.judge, rubric=rubric.mark, fault="never judged", tries=0)
    return [known.get(key) or msgspec.structs.replace(missing, key=key) for key in keys]


def key_of(case: Case, rubric: Rubric, judge_name: str) -> str:
    """What a verdict is kept under."""
    return digest(judge_name, rubric.mark, case.asked)


def read_verdicts(path: Path) -> list[Verdict]:
    """The rows of a verdicts file; a half-written last line is passed over, an absent file is empty.

    Raises:
        UserError: a whole line is not a verdict; the message names it.
    """
    if not path.is_file():
        return []
    lines = path.read_bytes().splitlines(keepends=True)
    whole = [line for line in lines if line.endswith(b"\n")]
    found = []
    for number, line in enumerate(whole, 1):
        try:
            found.append(from_json(line, Verdict))
        except DataError as error:
            raise UserError(f"{path}, line {number}: {error}; restore or delete the file") from error
    return found


def _batch(
    engine: Engine, waiting: Sequence[tuple[str, Case]], rubric: Rubric, options: JudgeOptions
) -> list[Verdict]:
    blank = Verdict(key="", judge=options.judge, rubric=rubric.mark, tries=0, fault="not asked yet")
    made = {key: msgspec.structs.replace(blank, key=key) for key, _ in waiting}
    faults: dict[str, tuple[tuple[str, str], ...]] = {key: () for key, _ in waiting}
    for _ in range(options.tries):
        left = [(key, case) for key, case in waiting if made[key].fault]
        prompts = [ask(rubric, case.asked, faults[key]) for key, case in left]
        replies = engine.generate(prompts, options.sampling) if prompts else []
        for (key, _case), reply in zip(left, replies, strict=True):
            made[key] = _read(rubric, made[key], reply)
            if made[key].fault:
                faults[key] += ((reply.text, made[key].fault),)
    for verdict in made.values():
        if verdict.fault:
            log.warning("no verdict on %s after %d tries: %s", verdict.key, verdict.tries, verdict.fault)
    return list(made.values())


def _read(rubric: Rubric, before: Verdict, reply: Completion) -> Verdict:
    counted = msgspec.structs.replace(
        before,
        reply=reply.text.encode(errors="replace").decode(),
        tries=before.tries + 1,
        tokens=before.tokens + reply.tokens,
    )
    if reply.finish == "error":
        return msgspec.structs.replace(counted, fault=reply.error or "the engine gave no reason")
    try:
        scores = read_scores(rubric, counted.reply)
    except DataError as error:
        return msgspec.structs.replace(counted, fault=str(error))
    return msgspec.structs.replace(counted, fault="", scores=scores.criteria, correct=scores.correct)


def _append(path: Path, verdicts: Sequence[Verdict]) -> None:
    with mending(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = path.read_bytes().rfind(b"\n") + 1 if path.is_file() else 0
        with path.open("r+b" if path.is_file() else "wb") as file:
            file.truncate(whole)  # a killed run leaves half a line
            file.seek(whole)
            file.write(b"".join(to_json(verdict) + b"\n" for verdict in verdicts))
            sync(file)


def _as_asked(sample: Sample, row: Prediction) -> Sample:
    """The sample with the options in the order that the row's model saw: a control may have permuted them."""
    if not isinstance(sample.answer, Choice) or not isinstance(row.truth, Mapping):
        return sample
    options, index = tuple(row.truth["options"]), row.truth["index"]
    return msgspec.structs.replace(sample, options=options, answer=Choice(index))


def _question(sample: Sample) -> str:
    """The question with its options under the letters that a candidate may have answered by."""
    if not sample.options:
        return sample.question
    lettered = not is_yes_no(sample.options)
    listed = [f"{option_label(i)}. {name}" if lettered else name for i, name in enumerate(sample.options)]
    return f"{sample.question} Options: {'; '.join(listed)}"


def _reference(sample: Sample) -> str | None:
    """The right answer in words; None where it is boxes or a mask."""
    match sample.answer:
        case Choice(index=index):
            answer = sample.options[index]
        case Text(value=answer):
            pass
        case _:
            return None
    return f"{sample.reasoning} Answer: {answer}" if sample.reasoning else answer
