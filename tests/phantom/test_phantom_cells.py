"""Labels against an independent measurement of the same pixels and masks."""

from functools import cache

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt, uniform_filter, zoom
from skimage.draw import polygon2mask
from skimage.measure import label, regionprops
from skimage.morphology import disk, erosion

from malpighi.errors import DataError
from malpighi.guidelines.pack import load_pack
from malpighi.phantom.cells import render_cell
from malpighi.phantom.generate import MeasuredCell, measured_cell, smear_of
from malpighi.phantom.measure import findings_of, is_clear, measure_cell
from malpighi.phantom.outlines import CellSpec
from malpighi.phantom.sampling import draw_cell

TBS = load_pack("tbs")
MANY = 240


@cache
def cells() -> tuple[MeasuredCell, ...]:
    return tuple(measured_cell(5, index, TBS) for index in range(MANY))


def density_of(cell):
    """Mean optical density, written out from the definition."""
    height, width = cell.rgb.shape[:2]
    stain = cell.smear.stain
    across, down = np.linspace(-0.5, 0.5, width), np.linspace(-0.5, 0.5, height)
    light = 1 + stain.tilt[0] * across[None, :] + stain.tilt[1] * down[:, None]
    ratio = np.maximum(cell.rgb, 1.0) / (light[..., None] * stain.white_3)
    return -np.log(ratio).mean(axis=2)


def independent(cell):
    """The nine findings by other means than the renderer's: region properties, distances, drawn polygons."""
    density = density_of(cell)
    labels = label(cell.nuclei > 0)
    regions = regionprops(labels)
    area = max(region.area for region in regions)
    mask = labels > 0
    inner = erosion(mask, disk(2))
    if not inner.any():
        inner = mask
    smooth = uniform_filter(density, 2)
    median = np.median(density[inner])
    spots = [
        spot
        for spot in regionprops(label(inner & (smooth > 1.5 * median)))
        if spot.area >= np.pi / 4 * (2 * np.sqrt(area / np.pi) / 8) ** 2 and spot.solidity > 0.7
    ]
    body = inner & ~(smooth > 1.5 * median)
    solid = min(
        regionprops(label(zoom(np.pad(r.image, 2).astype(float), 5, order=1) > 0.5))[0].solidity
        for r in regions
    )
    pad = 400
    outline = cell.outline[:, ::-1] + pad
    whole_area = polygon2mask((cell.nuclei.shape[0] + 2 * pad,) * 2, outline).sum()
    return {
        "NE": area * cell.smear.mpp**2 >= 2.5 * cell.smear.nucleus_area,
        "NA": max(region.eccentricity for region in regions) >= 0.75,
        "NH": density[mask].mean() >= 1.5 * cell.smear.nucleus_density,
        "KO": halo_is_clear(cell, mask, density, area),
        "CT": density[body].std() / density[body].mean() >= 0.24,
        "NU": bool(spots),
        "NC": len(regions) >= 2,
        "NCR": mask.sum() / whole_area >= 0.2,
        "NM": solid <= 0.94,
    }


def halo_is_clear(cell, mask, density, area):
    """Whether most of a ring half a nuclear radius wide is less than half as dense as the cytoplasm."""
    away = distance_transform_edt(~mask)
    radius = np.sqrt(area / np.pi)
    ring = cell.cell & (away > 2.5) & (away < max(0.5 * radius, 5))
    outside = cell.cell & (away > 1.3 * radius) & (away < 2.5 * radius)
    if not ring.any() or outside.sum() < 50:
        return False
    return float((uniform_filter(density, 3)[ring] < 0.5 * np.median(density[outside])).mean()) > 0.5


def test_an_independent_measurement_of_many_cells_finds_exactly_the_labels():
    wrong = []
    for index, drawn in enumerate(cells()):
        found = independent(drawn.cell)
        wrong += [(index, code) for code in TBS.codes if found[code] != drawn.findings[code]]
    assert wrong == []


def test_every_measurement_of_a_delivered_cell_is_clear_of_its_threshold():
    assert all(is_clear(drawn.measured, TBS) for drawn in cells())


def test_the_category_is_the_packs_decision_and_all_six_come_equally_often():
    found = [drawn.category for drawn in cells()]
    assert found == [TBS.category(drawn.findings, drawn.cell_class) for drawn in cells()]
    assert {found.count(category.id) for category in TBS.definition.categories} == {MANY // 6}


def test_every_observation_is_seen_present_and_absent():
    for code in TBS.codes:
        share = np.mean([drawn.findings[code] for drawn in cells()])
        assert 0.05 < share < 0.8, code


def test_what_is_measured_wins_over_what_was_asked():
    """Measured against another reference nucleus, the very same picture is enlarged or is not."""
    drawn = next(d for d in cells() if d.findings["NE"])
    smear = drawn.cell.smear
    large = type(smear)(**{**vars(smear), "nucleus_area": 3 * smear.nucleus_area})
    again = type(drawn.cell)(**{**vars(drawn.cell), "smear": large})
    assert not findings_of(measure_cell(again), TBS)["NE"]


def test_the_nuclei_lie_in_the_cell_and_do_not_touch():
    for drawn in cells():
        nuclei = drawn.cell.nuclei
        assert (drawn.cell.cell | (nuclei == 0)).all()
        assert label(nuclei > 0).max() == nuclei.max()


def test_a_cell_that_is_whole_in_the_picture_has_the_area_of_its_outline():
    whole = [d.cell for d in cells() if d.cell.outline.min() > 1 and d.cell.outline.max() < 127]
    assert len(whole) > 20
    for cell in whole:
        x, y = cell.outline.T
        area = abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
        assert cell.cell.sum() == pytest.approx(area, rel=0.04)


def test_drawing_is_the_same_again_and_in_any_order():
    later = measured_cell(5, 7, TBS)
    assert (later.cell.rgb == cells()[7].cell.rgb).all()
    assert (measured_cell(6, 7, TBS).cell.rgb != later.cell.rgb).any()


def test_cells_of_a_patient_share_their_stain_and_others_do_not():
    assert cells()[0].cell.smear.group == cells()[11].cell.smear.group != cells()[12].cell.smear.group
    assert not np.allclose(smear_of(5, 0).stain.matrix, smear_of(5, 1).stain.matrix)


def test_a_halo_in_a_cell_that_its_nucleus_fills_is_refused():
    findings = dict.fromkeys(TBS.codes, False) | {"KO": True, "NCR": True}
    with pytest.raises(DataError, match="drop one"):
        render_cell(CellSpec(findings, "squamous_mature"), smear_of(0, 0), np.random.default_rng(0))


def test_a_category_that_no_cell_reaches_is_refused():
    with pytest.raises(DataError, match="none of"):
        draw_cell(TBS, "CARCINOMA", np.random.default_rng(0))
