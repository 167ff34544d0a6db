"""Phantom samples: the room's face.

    for item in chain(cell_items(seed=0, count=600), region_items(seed=0, count=300)):
        corpus.add(item)

Picture `index` of a `seed` is always the same, whatever was drawn before it. Twelve pictures in a row share a
patient: stain, light, focus and scale.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from malpighi.config import digest
from malpighi.guidelines.pack import Pack, load_pack
from malpighi.phantom.cells import RenderedCell, Smear, render_cell
from malpighi.phantom.items import Picture, Question, png_blob, rounded
from malpighi.phantom.measure import findings_of, is_clear, measure_cell
from malpighi.phantom.regions import (
    TISSUES,
    RenderedRegion,
    mask_boxes,
    render_glands,
    render_nuclei,
    render_tissue,
    tissue_of,
)
from malpighi.phantom.sampling import choose_questions, draw_cell
from malpighi.phantom.stain import Stain, he_stain, pap_stain
from malpighi.phantom.wording import (
    CATEGORY_QUESTION,
    CELL_QUESTION,
    DESCRIBE_QUESTION,
    NUCLEUS_QUESTION,
    category_reasoning,
    description,
    finding_reasoning,
    open_question,
)
from malpighi.records import Boxes, Choice, Item, MaskRef, Provenance, Scale, TaskKind, Text

VERSION = 3
PER_PATIENT = 12
YES_NO = ("yes", "no")
MOST_TARGETS = 3
_CELL, _SMEAR, _ORDER, _ASK, _REGION, _SECTION = 11, 12, 13, 14, 15, 16
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


def cell_items(
    seed: int, count: int, *, first: int = 0, pack: str = "tbs", observations: int = 2
) -> Iterator[Item]:
    """Questions about `count` pictures of single cervical cells.

    Each picture gives the exams `phantom/category`, `phantom/describe`, `phantom/open`, in turn
    `phantom/nucleus` (boxes) or `phantom/cell` (mask), and `observations` of `phantom/NE` ... `phantom/NM`.
    Categories come equally often, within each patient too.

    Args:
        seed: another seed, other pictures.
        count: number of pictures, not of items.
        first: index of the first picture, so that several processes can share the work.
        pack: the guideline that turns findings into a category.
        observations: number of yes-or-no questions per picture, 0 to 9.
    """
    guideline = load_pack(pack)
    config = digest("phantom:cell", seed, guideline.definition.id, guideline.definition.edition, PER_PATIENT)
    for index in range(first, first + count):
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
        yield _outlined(picture, drawn.cell, index)


def region_items(seed: int, count: int, *, first: int = 0) -> Iterator[Item]:
    """Questions about `count` H&E-like regions, one item each: nuclei, glands and tissues in turn.

    The exams are `phantom/nuclei` (boxes), `phantom/glands` (mask) and `phantom/tissue` (choice).
    """
    for index in range(first, first + count):
        yield (_nuclei_item, _glands_item, _tissue_item)[index % 3](seed, index)


def category_options(pack: Pack) -> tuple[str, ...]:
    """The categories in the order they are offered: the squamous line by severity, then the glandular one.

    Example:
        >>> category_options(load_pack("tbs"))
        ('NILM', 'ASC-US', 'LSIL', 'ASC-H', 'HSIL', 'AGC')
    """
    ordered = sorted(pack.definition.categories, key=lambda c: (c.branch == "glandular", c.severity))
    return tuple(category.id for category in ordered)


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
    return MeasuredCell(cell, spec.cell_class, measured, findings, pack.category(findings, spec.cell_class))


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
    options = category_options(pack)
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
            finding_reasoning(code, present=findings[code]),
        )
    text = Text(description(pack, findings, cell_class, nuclei))
    yield Question("describe", TaskKind.CAPTION, DESCRIBE_QUESTION, text)
    question, answer = open_question(pack, findings, cell_class, nuclei, rng)
    yield Question("open", TaskKind.VQA, question, Text(answer))


def _outlined(picture: Picture, cell: RenderedCell, index: int) -> Item:
    """Where the nuclei are, or where the cell is; together they are what an N:C ratio is measured on."""
    if index % 2 == 0:
        boxes = tuple(mask_boxes(cell.nuclei))
        return picture.item(Question("nucleus", TaskKind.DETECTION, NUCLEUS_QUESTION, Boxes(boxes)))
    mask = cell.cell.astype(np.uint8)
    blob = png_blob(mask)
    answer = MaskRef(blob.key, tuple(mask_boxes(mask)))
    return picture.item(Question("cell", TaskKind.SEGMENTATION, CELL_QUESTION, answer), blob)


def section_of(seed: int, patient: int) -> Stain:
    """The stain that the regions of one phantom patient share."""
    return he_stain(np.random.default_rng([seed, _SECTION, patient]))


def _nuclei_item(seed: int, index: int) -> Item:
    rng = np.random.default_rng([seed, _REGION, index])
    region = render_nuclei(
        section_of(seed, index // PER_PATIENT), round(float(rng.uniform(0.32, 0.38)), 4), rng
    )
    boxes = {kind.name: region.boxes(kind) for kind in dict.fromkeys(region.kinds)}
    names = sorted(name for name, found in boxes.items() if 1 <= len(found) <= MOST_TARGETS)
    target = names[int(rng.integers(len(names)))]
    question = Question(
        "nuclei",
        TaskKind.DETECTION,
        f"Detect {target} in pathology region.",
        Boxes(boxes[target]),
    )
    facts = {"target": target, "counts": {name: len(found) for name, found in boxes.items()}}
    return _region_picture(region, seed, index, facts).item(question)


def _glands_item(seed: int, index: int) -> Item:
    rng = np.random.default_rng([seed, _REGION, index])
    region = render_glands(
        section_of(seed, index // PER_PATIENT), round(float(rng.uniform(0.9, 1.1)), 4), rng
    )
    mask = png_blob(region.glands)
    question = Question(
        "glands",
        TaskKind.SEGMENTATION,
        "Segment glands in pathology region.",
        MaskRef(mask.key, tuple(mask_boxes(region.glands))),
    )
    facts = {"glands": int(region.glands.max()), "share": round(float((region.glands > 0).mean()), 4)}
    return _region_picture(region, seed, index, facts).item(question, mask)


def _tissue_item(seed: int, index: int) -> Item:
    rng = np.random.default_rng([seed, _REGION, index])
    wanted = TISSUES[index // 3 % len(TISSUES)]
    region = render_tissue(wanted, section_of(seed, index // PER_PATIENT), 0.5, rng)
    tissue, shares = tissue_of(region), region.shares()
    most = max(shares, key=lambda name: shares[name])
    question = Question(
        "tissue",
        TaskKind.CLASSIFICATION,
        "Which tissue does this region show?",
        Choice(TISSUES.index(tissue)),
        TISSUES,
        f"Most of the nuclei are {most}. This entails {tissue}.",
    )
    return _region_picture(region, seed, index, {"tissue": tissue, "shares": rounded(shares)}).item(question)


def _region_picture(region: RenderedRegion, seed: int, index: int, facts: dict[str, Any]) -> Picture:
    return Picture(
        id=f"phantom/region-{seed}-{index:06d}",
        blob=png_blob(region.rgb),
        size=(region.rgb.shape[1], region.rgb.shape[0]),
        mpp=region.mpp,
        scale=Scale.ROI,
        group=f"phantom/{seed}/r{index // PER_PATIENT:04d}",
        organ="colon",
        stain="HE",
        provenance=Provenance("phantom:region", VERSION, config=digest("phantom:region", seed, PER_PATIENT)),
        facts=facts,
    )
