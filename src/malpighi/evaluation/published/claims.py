"""Figures of the running text beside what the tables give."""

from collections.abc import Callable

import msgspec
import numpy as np

from malpighi.evaluation.published import averages, ranks
from malpighi.evaluation.published.rows import Paper


class Claim(msgspec.Struct, frozen=True):
    """One figure of the text.

    Attributes:
        section: where it stands.
        subject: what it is a figure of.
        printed: as it stands.
        found: what the tables give.
        holds: whether the two agree to the digits printed.
    """

    section: str
    subject: str
    printed: str
    found: str
    holds: bool


def claims(paper: Paper) -> list[Claim]:
    """The claims of a paper that its tables can test."""
    return _CLAIMS[paper.name](paper)


def _smartpath(paper: Paper) -> list[Claim]:
    r1, patho = paper.system, "PathoR1"
    by_rule = {ranking.rule: ranking for ranking in ranks.rankings(paper)}
    plain, middle = by_rule["ties: average"], by_rule[ranks.MIDDLE]
    firsts = f"{plain.firsts[r1]} and {plain.firsts[patho]}"
    narrow, wide = _mean(paper, r1, "wsi_vqa", external=False), _mean(paper, r1, "wsi_vqa")
    return [
        Claim("2", "tasks", "72", str(plain.tasks), plain.tasks == 72),
        _figure("2", f"average rank of {r1}", "1.1", plain.ranks[r1]),
        Claim("2", f"tasks won by {r1} and {patho}", "68 and 3", firsts, firsts == "68 and 3"),
        Claim(
            "2",
            f"average rank of {patho}",
            "2.9",
            f"{plain.ranks[patho]:.3f} with averaged ties, {middle.ranks[patho]:.3f} where the middle "
            "of the interval orders equal figures",
            round(plain.ranks[patho], 1) == 2.9,
        ),
        _figure(
            "2", "margin over the second in ROI classification", "0.383", _margin(paper, "roi_classification")
        ),
        _figure(
            "2", "margin over the second in WSI classification", "0.155", _margin(paper, "wsi_classification")
        ),
        _figure("2", f"mean accuracy of {r1} in 9 columns of ROI VQA", "0.738", _mean(paper, r1, "roi_vqa")),
        Claim(
            "2",
            f"mean accuracy of {r1} in 13 WSI VQA tasks",
            "0.695",
            f"{narrow:.3f} over 13; {wide:.3f} over 17",
            round(narrow, 3) == 0.695,
        ),
    ]


def _patho(paper: Paper) -> list[Claim]:
    ours, rival = paper.system, "PathGen-LLaVA-13B"
    gains = {}
    for split in ("test_tiny", "test", "val"):
        first, second = (
            paper.find(dataset=averages.OVERALL, split=split, method=method)[0].value
            for method in (ours, rival)
        )
        gains[split] = 100 * (first - second)
    shots = {
        row.dataset: row.value for row in paper.find(group="zero_shot", method="PathoCLIP-L", averages=0)
    }
    conch = {row.dataset: row.value for row in paper.find(group="zero_shot", method="CONCH")}
    best = [
        dataset
        for dataset, value in shots.items()
        if value == max(row.value for row in paper.find(group="zero_shot", dataset=dataset))
    ]
    others = ", ".join(dataset for dataset in shots if dataset not in best)
    return [
        _figure("4.4.2", f"{ours} above {rival}, PathMMU test-tiny, points", "11.51", gains["test_tiny"]),
        _figure("4.4.2", f"{ours} above {rival}, PathMMU test, points", "10", gains["test"]),
        _figure("4.4.2", f"{ours} above {rival}, PathMMU val, points", "5", gains["val"]),
        *(
            _figure(
                "4.2",
                f"PathoCLIP-L above CONCH, {dataset}, points",
                printed,
                100 * (shots[dataset] - conch[dataset]),
            )
            for dataset, printed in (("WSSS4LUAD", "30.75"), ("SICAPv2", "7.73"))
        ),
        Claim(
            "4.2",
            "data sets on which PathoCLIP-L is best",
            "all 5",
            f"{len(best)}; not {others}",
            len(best) == 5,
        ),
    ]


def _singpath(paper: Paper) -> list[Claim]:
    ours, people = paper.system, "Inter-rater agreement"
    cells = {(row.dataset, row.method): 100 * row.value for row in paper.rows if row.group == "cytology"}
    gaps = {
        name: cells[f"CytoCell-Bench/{name}", ours] - cells[f"CytoCell-Bench/{name}", "EfficientNet B0"]
        for name in ("ASC-US", "ASC-H")
    }
    both = [
        [row.value for row in paper.find(group="morphology", method=method, averages=0)]
        for method in (ours, people)
    ]
    above = sum(model > agreement for model, agreement in zip(*both, strict=True))
    means = [float(np.mean(values)) for values in both]
    return [
        _figure("3.3", "Singpath-VL above EfficientNet B0, ASC-US, points", "5.5", gaps["ASC-US"]),
        _figure("3.3", "Singpath-VL above EfficientNet B0, ASC-H, points", "3.7", gaps["ASC-H"]),
        Claim(
            "3.2",
            "Singpath-VL above the agreement of people",
            "on average",
            f"{100 * means[0]:.1f} against {100 * means[1]:.1f}; in {above} of {len(both[0])} features",
            means[0] > means[1],
        ),
    ]


def _figure(section: str, subject: str, printed: str, found: float) -> Claim:
    decimals = len(printed.partition(".")[2])
    holds = abs(found - float(printed)) <= 0.5 * 10**-decimals + 1e-9
    return Claim(section, subject, printed, f"{found:.{max(decimals + 1, 2)}f}", holds)


def _mean(paper: Paper, method: str, group: str, *, external: bool | None = None) -> float:
    rows = paper.find(group=group, method=method, metric="accuracy", averages=0)
    return float(np.mean([row.value for row in rows if external is None or row.external == external]))


def _margin(paper: Paper, group: str) -> float:
    means = sorted((_mean(paper, method, group) for method in ranks.MODELS), reverse=True)
    return means[0] - means[1]


_CLAIMS: dict[str, Callable[[Paper], list[Claim]]] = {
    "smartpath-r1": _smartpath,
    "patho-r1": _patho,
    "singpath-vl": _singpath,
}
