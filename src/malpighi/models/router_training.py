"""Fits a router: its classifier, how sure it may be believed, and when it must pass.

Shapes: N texts, K classes.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from malpighi.errors import DataError
from malpighi.models.phrasings import OTHER, Phrase, draw, halves, shipped_grammar
from malpighi.models.prompt_classifier import (
    Floats,
    PromptClassifier,
    fit,
    fit_temperature,
    normalise,
)
from malpighi.models.router import (
    FORMAT_VERSION,
    Limit,
    Limits,
    Router,
    RouterFile,
    parts,
    plain_wording,
    quotations,
)
from malpighi.models.router_settings import RouterSettings
from malpighi.models.task_groups import TaskGroups, shipped_groups
from malpighi.records import TaskKind

_NEVER = -1e3
"""Score of a class that a fold's classifier has not met."""

_GRID = np.arange(0, 1, 0.02).round(2)
"""Limits that are tried."""


@dataclass(frozen=True)
class HeldOut:
    """What classifiers said of texts whose family and names they had not learned from.

    Attributes:
        classes: names of the classes.
        y_n: right class of each text.
        p_nk: calibrated probabilities.
        known_n: share of known words.
        rival_n: probability of the clearest part or quotation that speaks against the text's best class.
        temperature: that calibrates the scores.
    """

    classes: tuple[str, ...]
    y_n: NDArray[np.int64]
    p_nk: Floats
    known_n: Floats
    rival_n: Floats
    temperature: float


class _Asked(NamedTuple):
    """A held-out text: right class, scores of the text, parts and quotations, share of known words."""

    label: str
    logits_k: Floats
    parts_mk: Floats
    quotations_mk: Floats
    known: float


def train_router(
    prompts: Iterable[Phrase] = (),
    groups: TaskGroups | None = None,
    settings: RouterSettings | None = None,
) -> Router:
    """A router that knows the grammar's wordings and those of a run's own prompts.

    Args:
        prompts: the run's training prompts: last turn; its task group, kind of task or `OTHER`; its exam.
        groups: the task groups; default: those that ship.
        settings: how to fit.

    Returns:
        The router, with all groups served; `Router.load` looks at which adapters are there.

    Raises:
        DataError: fewer than two classes to tell apart.
    """
    settings, groups = settings or RouterSettings(), groups or shipped_groups()
    own = _grouped(prompts, groups)
    few = _few_of_each(own, settings)
    first, second = (
        [*_grouped(draw(half, settings.phrasings // 2, settings.seed), groups), *few]
        for half in halves(shipped_grammar(), settings.seed)
    )
    phrases = list(dict.fromkeys([*first, *second]))
    if len({phrase.family for phrase in phrases}) < settings.folds:
        raise DataError(
            f"a router is judged on held-out families of wordings: {settings.folds} folds need as many "
            "families; raise phrasings, or give prompts of more exams"
        )
    held_out = hold_out(first, second, groups.joins, settings)
    classifier = fit(phrases, settings.penalty)
    classifier.temperature = held_out.temperature
    limits, figures = _limits(held_out, phrases, settings)
    data = RouterFile(
        format_version=FORMAT_VERSION,
        groups=groups,
        wordings=_wordings(own, settings.repeats),
        limits=limits,
        trained_on={
            "texts": len(phrases),
            "families": len({phrase.family for phrase in phrases}),
            "own_prompts": len(own),
            "seed": settings.seed,
            **figures,
        },
    )
    return Router(data, classifier)


def hold_out(
    first: Sequence[Phrase], second: Sequence[Phrase], joins: Sequence[str], settings: RouterSettings
) -> HeldOut:
    """What a classifier that saw no text of its family and none of its half says of every text.

    Args:
        first: texts to learn from while those of `second` are asked, and the other way round.
        second: the other half.
        joins: where a request may go on to a second task.
        settings: folds, penalty and seed.
    """
    every = [*first, *second]
    fold_of = _folds(every, settings)
    classes = tuple(sorted({phrase.group for phrase in every}))
    asked: list[_Asked] = []
    for fold in range(settings.folds):
        for learned, other in ((first, second), (second, first)):
            classifier = fit([p for p in learned if fold_of[p.family] != fold], settings.penalty)
            asked += [_ask(classifier, p, classes, joins) for p in other if fold_of[p.family] == fold]
    y_n = np.array([classes.index(one.label) for one in asked])
    logits_nk = np.stack([one.logits_k for one in asked])
    temperature = fit_temperature(logits_nk, y_n)
    return HeldOut(
        classes,
        y_n,
        special.softmax(logits_nk / temperature, axis=1),
        np.array([one.known for one in asked]),
        np.array([_rival(one, classes, temperature) for one in asked]),
        temperature,
    )


def _ask(
    classifier: PromptClassifier, phrase: Phrase, classes: Sequence[str], joins: Sequence[str]
) -> _Asked:
    pieces, quoted = parts(phrase.text, joins), quotations(phrase.text)
    logits = np.full(
        (1 + len(pieces) + len(quoted), len(classes)), _NEVER
    )  # a class may lie in one fold alone
    columns = [classes.index(name) for name in classifier.classes]
    logits[:, columns] = classifier.logits([phrase.text, *pieces, *quoted])
    whole, of_parts, of_quoted = np.split(logits, [1, 1 + len(pieces)])
    return _Asked(phrase.group, whole[0], of_parts, of_quoted, classifier.known(phrase.text))


def _rival(asked: _Asked, classes: Sequence[str], temperature: float) -> float:
    """How sure the clearest part is of another group than the text, or a quotation of any; see `Router`."""
    own = classes[int(asked.logits_k.argmax())]
    strongest = 0.0
    for logits_mk, expected in ((asked.parts_mk, (own, OTHER)), (asked.quotations_mk, (OTHER,))):
        p_mk = special.softmax(logits_mk / temperature, axis=1)
        best = [(float(p_k.max()), classes[int(p_k.argmax())]) for p_k in p_mk]
        strongest = max([strongest, *(sure for sure, name in best if name not in expected)])
    return strongest


def _folds(phrases: Sequence[Phrase], settings: RouterSettings) -> dict[str, int]:
    """Family -> fold; the families of each class are spread over the folds."""
    rng = np.random.default_rng(settings.seed)
    of_class: dict[str, set[str]] = {}
    for phrase in phrases:
        of_class.setdefault(phrase.group, set()).add(phrase.family)
    folds: dict[str, int] = {}
    for _, families in sorted(of_class.items()):
        start = len(folds)
        for place, index in enumerate(rng.permutation(len(families))):
            folds[sorted(families)[index]] = (start + place) % settings.folds
    return folds


def choose_limits(held_out: HeldOut, precision: float) -> tuple[float, float]:
    """The limits (confidence, known) that route most texts, of all pairs that route precisely enough.

    A text is routed where its best class is a group, both limits are met, and no part of it rivals the whole.

    Args:
        held_out: what is known of each text.
        precision: least share of the routed that must be routed right.

    Returns:
        The limits; a confidence of 1 where no pair is precise enough, which routes nothing.
    """
    best_n = held_out.p_nk.argmax(axis=1)
    best = (0, 1.0, 0.0)
    for known in _GRID:
        for confidence in _GRID:
            routed_n = _routed(held_out, float(confidence), float(known))
            right = int((best_n == held_out.y_n)[routed_n].sum())
            count = int(routed_n.sum())
            if count and right >= precision * count and count > best[0]:
                best = (count, float(confidence), float(known))
    return best[1], best[2]


def _routed(held_out: HeldOut, confidence: float, known: float) -> NDArray[np.bool_]:
    other = held_out.classes.index(OTHER) if OTHER in held_out.classes else -1
    is_group_n = held_out.p_nk.argmax(axis=1) != other
    is_sure_n = (held_out.p_nk.max(axis=1) >= confidence) & (held_out.rival_n < confidence)
    return np.asarray(is_group_n & is_sure_n & (held_out.known_n >= known))


def _limits(
    held_out: HeldOut, phrases: Sequence[Phrase], settings: RouterSettings
) -> tuple[Limits, dict[str, float]]:
    confidence, known = choose_limits(held_out, settings.precision)
    routed_n = _routed(held_out, confidence, known)
    right_n = held_out.p_nk.argmax(axis=1) == held_out.y_n
    served_n = np.array([held_out.classes[y] != OTHER for y in held_out.y_n])
    figures = {
        "held_out_texts": len(right_n),
        "held_out_accuracy": round(float(right_n.mean()), 3),
        "held_out_precision": round(float(right_n[routed_n].mean()), 3) if routed_n.any() else 0.0,
        "held_out_coverage": round(float(routed_n[served_n].mean()), 3),
    }
    why = (
        f"with the other limit, routes most of all pairs that route {settings.precision:.0%} right, on "
        f"{len(right_n)} texts whose wording and names the classifier had not seen"
    )
    longest = max(len(normalise(phrase.text)) for phrase in phrases)
    return Limits(
        confidence=Limit(confidence, why),
        known=Limit(known, why),
        length=Limit(2.0 * longest, "twice the longest text that the classifier learned from"),
    ), figures


def _grouped(phrases: Iterable[Phrase], groups: TaskGroups) -> list[Phrase]:
    """The phrases with a task group, or `OTHER`, in place of a kind of task."""
    known = (*groups.names, *TaskKind)
    return [
        phrase._replace(group=(groups.of_task(phrase.group) if phrase.group in known else "") or OTHER)
        for phrase in phrases
    ]


def _few_of_each(own: Sequence[Phrase], settings: RouterSettings) -> list[Phrase]:
    rng = np.random.default_rng(settings.seed)
    exams: dict[str, list[Phrase]] = {}
    for phrase in dict.fromkeys(own):
        exams.setdefault(phrase.family, []).append(phrase)
    return [
        phrases[i]
        for _, phrases in sorted(exams.items())
        for i in rng.permutation(len(phrases))[: settings.own]
    ]


def _wordings(own: Sequence[Phrase], repeats: int) -> dict[str, str]:
    """Whole prompts that one group's training data repeats, and no other group's holds."""
    counts = Counter((plain_wording(phrase.text), phrase.group) for phrase in own)
    owners: dict[str, set[str]] = {}
    for text, group in counts:
        owners.setdefault(text, set()).add(group)
    return {
        text: group
        for (text, group), count in sorted(counts.items())
        if count >= repeats and len(owners[text]) == 1 and group != OTHER and text
    }
