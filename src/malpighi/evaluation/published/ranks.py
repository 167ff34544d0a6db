"""Average ranks over the 72 tasks of SmartPath-R1, under every rule of ties."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from malpighi.evaluation.published.rows import Paper, Row

MODELS = ("Qwen2.5-VL", "LLaVA-Med", "Quilt-LLaVA", "PathoR1", "SmartPath-R1")
"""The five general models that took every task; without the supervised stage and the segmenter."""

MIDDLE = "ties: average, of the interval's middle too"
"""Equal figures are ordered by the middle of their interval, which carries a digit that the figure lost."""

METRICS = {
    "roi_classification": "accuracy",
    "roi_detection": "ap50",
    "roi_segmentation": "dice",
    "wsi_classification": "accuracy",
    "wsi_vqa": "accuracy",
    "roi_vqa": "accuracy",
}
OPEN = "bleu4"

TIES = ("min", "average", "max", "dense")
"""Tied models take the best, the mean or the worst of their ranks; `dense` leaves no rank out after a tie."""


class Ranking(NamedTuple):
    """Mean ranks under one rule.

    Attributes:
        rule: in words.
        ranks: model -> mean rank, 1 is best.
        firsts: model -> tasks in which no other model has a higher value.
        tasks: how many.
    """

    rule: str
    ranks: dict[str, float]
    firsts: dict[str, int]
    tasks: int


def tasks(
    paper: Paper, metrics: Mapping[str, str] = METRICS, open_metric: str = OPEN
) -> dict[str, dict[str, Row]]:
    """The ranked tasks: name -> method -> its row.

    Args:
        paper: SmartPath-R1's tables.
        metrics: kind of task -> the metric ranked by.
        open_metric: the metric of PathVQA's open questions.
    """
    found: dict[str, dict[str, Row]] = {}
    for row in paper.own:
        wanted = open_metric if row.split == "open" else metrics.get(row.group, "accuracy")
        if row.metric == wanted:
            found.setdefault(f"{row.group}: {row.column}", {})[row.method] = row
    return found


def rankings(paper: Paper) -> list[Ranking]:
    """The five models under each rule of ties, and with other metrics and models.

    BiomedParse is ranked where it stands, in detection and segmentation.
    """
    usual = tasks(paper)
    f1 = METRICS | {"roi_classification": "macro_f1", "wsi_classification": "macro_f1"}
    bertscore = tasks(paper, open_metric="bertscore")
    return [
        *(_ranking(f"ties: {name}", usual, MODELS, _printed(name)) for name in TIES),
        _ranking(MIDDLE, usual, MODELS, _middle),
        _ranking("average, BERTScore for the open task", bertscore, MODELS, _average),
        _ranking("average, macro-F1 for classification", tasks(paper, f1), MODELS, _average),
        _ranking("average, with BiomedParse", usual, (*MODELS, "BiomedParse"), _average),
        _ranking("average, with SmartPath-SFT", usual, (*MODELS, "SmartPath-SFT"), _average),
        _ranking("average, with both", usual, (*MODELS, "SmartPath-SFT", "BiomedParse"), _average),
    ]


Ranks = Callable[[Sequence[Row]], NDArray[np.float64]]


def _printed(method: str) -> Ranks:
    return lambda rows: np.asarray(stats.rankdata([-row.value for row in rows], method=method), float)


def _average(rows: Sequence[Row]) -> NDArray[np.float64]:
    return _printed("average")(rows)


def _middle(rows: Sequence[Row]) -> NDArray[np.float64]:
    """Ranks by value, then by the middle of the interval; see `MIDDLE`."""
    keys = [(row.value, ((row.low or 0.0) + (row.high or 0.0)) / 2) for row in rows]
    places = {key: place for place, key in enumerate(sorted(set(keys)))}
    return np.asarray(stats.rankdata([-places[key] for key in keys]), float)


def _ranking(
    rule: str, found: Mapping[str, Mapping[str, Row]], models: Sequence[str], ranks: Ranks
) -> Ranking:
    places: dict[str, list[float]] = {model: [] for model in models}
    firsts = dict.fromkeys(models, 0)
    for methods in found.values():
        rows = [methods[model] for model in models if model in methods]
        best = max(row.value for row in rows)
        for row, place in zip(rows, ranks(rows), strict=True):
            places[row.method].append(float(place))
            firsts[row.method] += row.value == best
    means = {model: float(np.mean(taken)) for model, taken in places.items()}
    return Ranking(rule, means, firsts, len(found))
