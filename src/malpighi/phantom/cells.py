"""One cervical cell with chosen observations, drawn as a Papanicolaou-stained smear would show it.

Sizes are relative to the patient's intermediate squamous nucleus, as the guideline's thresholds are. What was
drawn is measured by `measure.py`; the request is never taken for the truth.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from malpighi.errors import DataError
from malpighi.phantom.contours import Contour, Floats, ellipse, whole
from malpighi.phantom.cytoplasm import Cytoplasm, cytoplasm_of, paint_cytoplasm
from malpighi.phantom.nuclei import Chromatin, paint_nucleus
from malpighi.phantom.outlines import CELL_SIZE, CellSpec, Plan, plan_cell, plan_neighbours
from malpighi.phantom.stain import Pixels, Stain, develop
from malpighi.phantom.surroundings import paint_debris, paint_leucocytes, paint_passing_cells


@dataclass(frozen=True)
class Smear:
    """What the cells of one patient have in common.

    Attributes:
        group: the patient's id, e.g. `p0007`.
        stain: colours, light and focus.
        mpp: micrometres per pixel.
        nucleus_area: area of the patient's intermediate squamous nuclei, µm².
        nucleus_density: their mean optical density.
        dirt: amount of debris, 0 to 1.
        leucocytes: mean number of leucocytes per picture.
    """

    group: str
    stain: Stain
    mpp: float
    nucleus_area: float
    nucleus_density: float
    dirt: float
    leucocytes: float


@dataclass(frozen=True)
class RenderedCell:
    """A picture of a cell with what is exactly known about it.

    Attributes:
        rgb: the picture (H x W x 3).
        nuclei: instance mask of the cell's own nuclei (H x W), 1..n; neighbours' nuclei are not in it.
        cell: mask of the cell (H x W), its nuclei included, as far as the picture shows it.
        outline: outline of the whole cell (K x 2) as (x, y), px; may leave the picture.
        smear: the patient.
    """

    rgb: Pixels
    nuclei: NDArray[np.uint8]
    cell: NDArray[np.bool_]
    outline: Floats
    smear: Smear


def render_cell(spec: CellSpec, smear: Smear, rng: np.random.Generator) -> RenderedCell:
    """Draw one cell in the middle of a picture of `CELL_SIZE` px.

    Raises:
        DataError: a halo was asked for in a cell whose nucleus fills it.
    """
    if spec.findings["KO"] and spec.findings["NCR"]:
        raise DataError(
            "a phantom cell cannot have a halo (KO) and a raised N:C ratio (NCR); drop one of them"
        )
    plan = plan_cell(spec, smear.nucleus_area / smear.mpp**2, 3.0 / smear.mpp, rng)
    field = np.zeros((CELL_SIZE, CELL_SIZE, 3), dtype=np.float32)
    chromatin = _chromatin(spec.findings, smear, rng)
    _paint_background(field, plan, smear, rng)
    cytoplasm = cytoplasm_of(spec.cell_class, rng)
    if spec.cell_class == "glandular":
        for neighbour in plan_neighbours(plan, spec, smear.nucleus_area / smear.mpp**2, rng):
            _paint(field, neighbour, cytoplasm, chromatin, smear, rng)
    labels = _paint(field, plan, cytoplasm, chromatin, smear, rng)
    return RenderedCell(
        rgb=develop(field, smear.stain, rng),
        nuclei=labels,
        cell=(plan.cell.depth(whole((CELL_SIZE, CELL_SIZE))) > 0) | (labels > 0),
        outline=plan.cell.outline,
        smear=smear,
    )


def _paint(
    field: Floats,
    plan: Plan,
    cytoplasm: Cytoplasm,
    chromatin: Chromatin,
    smear: Smear,
    rng: np.random.Generator,
) -> NDArray[np.uint8]:
    paint_cytoplasm(field, plan, cytoplasm, smear.mpp, rng)
    labels = np.zeros(field.shape[:2], dtype=np.uint8)
    for number, nucleus in enumerate(plan.nuclei, start=1):
        labels[paint_nucleus(field, nucleus, chromatin, rng)] = number
    return labels


def _paint_background(field: Floats, plan: Plan, smear: Smear, rng: np.random.Generator) -> None:
    """Debris, overlapping squamous cells and leucocytes, all clear of the cell's nuclei and halo."""
    middle_x, middle_y = (float(v) for v in np.mean([(n.x, n.y) for n in plan.nuclei], axis=0))
    free = max(np.hypot(n.x - middle_x, n.y - middle_y) + n.reach for n in plan.nuclei)
    if plan.halo is not None:
        free = max(free, plan.halo.reach)
    keep_out = Contour(middle_x, middle_y, ellipse(np.pi * (free + 4.0) ** 2, 1.0, 0.0))
    paint_debris(field, keep_out, smear.dirt, smear.mpp, rng)
    paint_passing_cells(field, keep_out, smear.mpp, rng)
    paint_leucocytes(field, keep_out, int(rng.poisson(smear.leucocytes)), smear.mpp, rng)


def _chromatin(findings: dict[str, bool], smear: Smear, rng: np.random.Generator) -> Chromatin:
    ratio = rng.uniform(2.0, 2.5) if findings["NH"] else rng.uniform(0.88, 1.1)
    return Chromatin(
        density=smear.nucleus_density * ratio,
        grain=float(rng.uniform(0.34, 0.44) / smear.mpp) if findings["CT"] else float(0.3 / smear.mpp),
        clumping=1.0 if findings["CT"] else 0.0,
        rim=float(rng.uniform(0.3, 0.5) if findings["NM"] else rng.uniform(0.1, 0.25)),
        nucleoli=int(rng.integers(1, 3)) if findings["NU"] else 0,
    )
