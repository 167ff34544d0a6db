"""Phantom samples: the room's face.

    for item in cell_items(seed=0, count=600):
        corpus.add(item)

Picture `index` of a `seed` is always the same, whatever was drawn before it. Twelve pictures in a row share a
patient: stain, light, focus and scale.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from malpighi.config import digest
from malpighi.guidelines.pack import Pack, load_pack
from malpighi.phantom.cells import RenderedCell, Smear, render_cell
from malpighi.phantom.items import Picture, Question, png_blob, rounded
from malpighi.phantom.measure import findings_of, is_clear, measure_cell
from malpighi.phantom.sampling import choose_questions, draw_cell
from malpighi.phantom.stain import pap_stain
from malpighi.phantom.wording import (
    CATEGORY_QUESTION,
    DESCRIBE_QUESTION,
    category_reasoning,
    description,
    finding_reasoning,
    open_question,
)
from malpighi.records import Choice, Item, Provenance, Scale, TaskKind, Text

VERSION = 1
PER_PATIENT = 12
YES_NO = ("yes", "no")
_CELL, _SMEAR, _ORDER, _ASK = 11, 12, 13, 14
_ATTEMPTS = 12


@dataclass(frozen=True)
class MeasuredCell:
    """A rendered cell and what the guideline makes of it.

    Attributes:
        cell: the picture and its masks.
        cell_class: one of the pack's cell classes.
        measured: one number per observation code.
        findings: the observations those numbers amount to.
        category: the category those findings amount to.
    """

    cell: RenderedCell
    cell_class: str
    measured: dict[str, float]
    findings: dict[str, bool]
    category: str


def cell_items(seed: int, count: int, *, pack: str = "tbs", observations: int = 2) -> Iterator[Item]:
    """Questions about `count` pictures of single cervical cells.

    Each picture gives the exams `phantom/category`, `phantom/describe`, `phantom/open` and `observations` of
    `phantom/NE` ... `phantom/NM`. Categories come equally often, within each patient too.

    Args:
        seed: another seed, other pictures.
        count: number of pictures, not of items.
        pack: the guideline that turns findings into a category.
        observations: number of yes-or-no questions per picture, 0 to 9.
    """
    guideline = load_pack(pack)
    config = digest("phantom:cell", seed, guideline.definition.id, guideline.definition.edition, PER_PATIENT)
    for index in range(count):
        drawn = measured_cell(seed, index, guideline)
        picture = Picture(
            id=f"phantom/cell-{seed}-{index:06d}",
            blob=png_blob(drawn.cell.rgb),
            size=(drawn.cell.rgb.shape[1], drawn.cell.rgb.shape[0]),
            mpp=drawn.cell.smear.mpp,
            scale=Scale.CELL,
            group=f"phantom/{seed}/{drawn.cell.smear.group}",
            organ="cervix",
            stain="PAP",
            provenance=Provenance("phantom:cell", VERSION, config=config),
            facts={
                "cell_class": drawn.cell_class,
                "category": drawn.category,
                "findings": drawn.findings,
                "measured": rounded(drawn.measured),
                "nucleus_area_um2": drawn.cell.smear.nucleus_area,
                "nucleus_density": drawn.cell.smear.nucleus_density,
            },
        )
        rng = np.random.default_rng([seed, _ASK, index])
        for question in _cell_questions(drawn, guideline, observations, rng):
            yield picture.item(question)


def measured_cell(seed: int, index: int, pack: Pack) -> MeasuredCell:
    """Draw cell `index` until it shows what was asked for, with every measurement clear of its grey band.

    Should no attempt succeed, the last one stands, and what was measured on it is the truth.
    """
    wanted = _wanted_category(seed, index, pack)
    rng = np.random.default_rng([seed, _CELL, index])
    for _ in range(_ATTEMPTS):
        spec = draw_cell(pack, wanted, rng)
        cell = render_cell(spec, smear_of(seed, index // PER_PATIENT), rng)
        measured = measure_cell(cell)
        findings = findings_of(measured, pack)
        if findings == spec.findings and is_clear(measured, pack):
            break
    return MeasuredCell(
        cell, spec.cell_class, measured, findings, pack.category(findings, spec.cell_class)
    )


def smear_of(seed: int, patient: int) -> Smear:
    """The stain, scale and dirt that the cells of one phantom patient share."""
    rng = np.random.default_rng([seed, _SMEAR, patient])
    return Smear(
        group=f"p{patient:04d}",
        stain=pap_stain(rng),
        mpp=round(float(rng.uniform(0.26, 0.30)), 4),
        nucleus_area=round(float(rng.uniform(37, 45)), 2),
        nucleus_density=round(float(rng.uniform(0.50, 0.60)), 3),
        dirt=float(rng.uniform(0, 1)),
        leucocytes=float(rng.uniform(0, 3)),
    )


def _wanted_category(seed: int, index: int, pack: Pack) -> str:
    categories = [category.id for category in pack.definition.categories]
    block, place = divmod(index, len(categories))
    order = np.random.default_rng([seed, _ORDER, block]).permutation(len(categories))
    return categories[int(order[place])]


def _cell_questions(
    drawn: MeasuredCell, pack: Pack, observations: int, rng: np.random.Generator
) -> Iterator[Question]:
    options = tuple(category.id for category in pack.definition.categories)
    findings, cell_class, nuclei = drawn.findings, drawn.cell_class, int(drawn.measured["NC"])
    yield Question(
        "category",
        TaskKind.CLASSIFICATION,
        CATEGORY_QUESTION,
        Choice(options.index(drawn.category)),
        options,
        category_reasoning(pack, findings, cell_class),
    )
    for code in choose_questions(pack, findings, observations, rng):
        yield Question(
            code,
            TaskKind.VQA,
            pack.observation(code).question,
            Choice(0 if findings[code] else 1),
            YES_NO,
            finding_reasoning(pack, code, present=findings[code]),
        )
    text = Text(description(pack, findings, cell_class, nuclei, rng))
    yield Question("describe", TaskKind.CAPTION, DESCRIBE_QUESTION, text)
    question, answer = open_question(pack, findings, cell_class, nuclei, rng)
    yield Question("open", TaskKind.VQA, question, Text(answer))
