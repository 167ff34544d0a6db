"""Which observations and questions are drawn: plausible together, balanced over categories and answers."""

import functools

import numpy as np
from numpy.typing import NDArray

from malpighi.errors import DataError
from malpighi.guidelines.pack import Pack, load_pack
from malpighi.phantom.outlines import CellSpec

_TRIES = 4000
_POOL = 40

# Chance of each observation in a bland and in a severe cell. Not a prevalence: chosen so that every category
# and every answer is reached often and the combinations are such as occur.
_CHANCES = {
    "NE": (0.05, 0.70),
    "NA": (0.05, 0.50),
    "NH": (0.05, 0.70),
    "CT": (0.05, 0.70),
    "NM": (0.05, 0.70),
    "NU": (0.22, 0.25),
    "NC": (0.18, 0.25),
}
_CLASS_WEIGHTS = {"squamous_mature": 0.45, "squamous_immature": 0.3, "glandular": 0.25}
_RATIO_CHANCES = {"squamous_mature": (0.02, 0.15), "squamous_immature": (0.15, 0.85), "glandular": (0.2, 0.8)}
_HALO_CHANCES = {"squamous_mature": (0.08, 0.55), "squamous_immature": (0.03, 0.06), "glandular": (0.0, 0.0)}


def draw_cell(pack: Pack, category: str, rng: np.random.Generator) -> CellSpec:
    """A plausible cell that the pack puts into `category`.

    Raises:
        DataError: no such cell was met; the pack hardly ever gives this category.
    """
    for _ in range(_TRIES):
        cell_class = str(rng.choice(list(_CLASS_WEIGHTS), p=list(_CLASS_WEIGHTS.values())))
        findings = _draw_findings(pack, cell_class, rng)
        if pack.category(findings, cell_class) == category:
            return CellSpec(findings, cell_class)
    raise DataError(
        f"pack {pack.definition.id}: none of {_TRIES} drawn cells is {category!r}; "
        "ask for a category that its rules reach"
    )


def choose_questions(
    pack: Pack, findings: dict[str, bool], count: int, rng: np.random.Generator
) -> tuple[str, ...]:
    """Observation codes to ask about: over many cells, every code and both its answers equally often."""
    answers = [int(findings[code]) for code in pack.codes]
    chances = _question_weights(pack.definition.id)[np.arange(len(pack.codes)), answers]
    chosen = rng.choice(len(pack.codes), size=count, replace=False, p=chances / chances.sum())
    return tuple(pack.codes[k] for k in chosen)


@functools.cache
def _question_weights(pack_name: str) -> NDArray[np.float64]:
    """Weight of asking about code k when its answer is v (codes x 2), by iterative proportional fitting."""
    pack = load_pack(pack_name)
    rng = np.random.default_rng(0)
    pool = [draw_cell(pack, c.id, rng).findings for c in pack.definition.categories for _ in range(_POOL)]
    answers_NC = np.array([[cell[code] for code in pack.codes] for cell in pool], dtype=int)
    codes = np.arange(len(pack.codes))
    weights = np.ones((len(pack.codes), 2))
    for _ in range(200):
        chances_NC = weights[codes, answers_NC]
        chances_NC = chances_NC / chances_NC.sum(axis=1, keepdims=True)
        asked = np.stack([(chances_NC * (answers_NC == v)).mean(axis=0) for v in (0, 1)], axis=1)
        weights /= np.maximum(asked * weights.size, 1e-6)
    return weights


def _draw_findings(pack: Pack, cell_class: str, rng: np.random.Generator) -> dict[str, bool]:
    severity = rng.random()
    chances = {**_CHANCES, "NCR": _RATIO_CHANCES[cell_class], "KO": _HALO_CHANCES[cell_class]}
    findings = {code: bool(rng.random() < _between(chances[code], severity)) for code in pack.codes}
    if findings["NE"] and cell_class != "squamous_mature" and rng.random() < 0.9:
        findings["NCR"] = True
    if findings["NCR"]:
        findings["KO"] = False
    return findings


def _between(ends: tuple[float, float], share: float) -> float:
    return ends[0] + (ends[1] - ends[0]) * share
