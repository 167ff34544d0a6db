import numpy as np
import pytest
from skimage.measure import label, regionprops

from malpighi.phantom.glands import NORMAL, add_gland, gland_contour
from malpighi.phantom.regions import (
    TISSUES,
    RenderedRegion,
    mask_boxes,
    render_glands,
    render_nuclei,
    render_tissue,
    tissue_of,
)
from malpighi.phantom.sections import (
    EPITHELIAL,
    KINDS,
    LYMPHOCYTE,
    NEOPLASTIC,
    add_nucleus,
    new_section,
)
from malpighi.phantom.stain import he_stain


def rng_of(*seed):
    return np.random.default_rng(list(seed))


def by_kind(region):
    return {kind.name: region.boxes(kind) for kind in KINDS}


@pytest.mark.parametrize("seed", range(12))
def test_boxes_are_the_bounding_boxes_of_the_mask_and_every_nucleus_is_whole(seed):
    region = render_nuclei(he_stain(rng_of(1)), 0.35, rng_of(2, seed))
    found = {
        tuple(float(v) for v in (r.bbox[1], r.bbox[0], r.bbox[3], r.bbox[2]))
        for r in regionprops(region.nuclei)
    }
    boxes = [box for some in by_kind(region).values() for box in some]

    assert {box.corners for box in boxes} == found
    assert len(boxes) == len(region.kinds) == region.nuclei.max()
    assert all(0 < v < 112 for box in boxes for v in box.corners)
    assert label(region.nuclei > 0).max() == region.nuclei.max()


def test_types_differ_in_size_and_darkness_as_they_are_named():
    area, dark = {}, {}
    for seed in range(25):
        region = render_nuclei(he_stain(rng_of(1)), 0.35, rng_of(3, seed))
        for nucleus in regionprops(region.nuclei, intensity_image=255 - region.rgb.mean(axis=2)):
            kind = region.kinds[nucleus.label - 1].name
            area.setdefault(kind, []).append(nucleus.area * 0.35**2)
            dark.setdefault(kind, []).append(nucleus.intensity_mean)

    assert min(area[NEOPLASTIC.name]) > 1.5 * max(area[LYMPHOCYTE.name])
    assert np.mean(dark[LYMPHOCYTE.name]) > np.mean(dark[EPITHELIAL.name]) + 15
    for kind in (NEOPLASTIC, LYMPHOCYTE, EPITHELIAL):
        assert np.mean(area[kind.name]) == pytest.approx(np.mean(kind.area), rel=0.15)


@pytest.mark.parametrize("seed", range(8))
def test_glands_are_one_to_three_whole_separate_pieces(seed):
    region = render_glands(he_stain(rng_of(4)), 1.0, rng_of(5, seed))
    boxes = mask_boxes(region.glands)

    assert 1 <= len(boxes) <= 3
    assert label(region.glands > 0).max() == region.glands.max() == len(boxes)
    assert all(0 <= v <= 224 for box in boxes for v in box.corners)
    wall = region.rgb[region.glands > 0].mean(axis=0) - region.rgb[region.glands == 0].mean(axis=0)
    assert np.abs(wall).max() > 3


@pytest.mark.parametrize("tissue", TISSUES)
@pytest.mark.parametrize("seed", range(6))
def test_the_tissue_follows_from_the_nuclei_that_were_drawn(tissue, seed):
    region = render_tissue(tissue, he_stain(rng_of(6, seed)), 0.5, rng_of(7, seed))
    assert tissue_of(region) == tissue
    assert sum(region.shares().values()) == pytest.approx(1.0)


def test_the_tissue_changes_with_the_nuclei():
    region = render_tissue("lymphoid tissue", he_stain(rng_of(8)), 0.5, rng_of(9))
    renamed = tuple(NEOPLASTIC for _ in region.kinds)
    assert tissue_of(RenderedRegion(region.rgb, region.nuclei, renamed, region.glands, 0.5)) == "carcinoma"
    empty = RenderedRegion(region.rgb, np.zeros_like(region.nuclei), (), region.glands, 0.5)
    assert tissue_of(empty) == "stroma"


def test_drawing_is_the_same_again():
    first, again, other = (render_glands(he_stain(rng_of(1)), 1.0, rng_of(2, seed)) for seed in (0, 0, 1))
    assert (first.rgb == again.rgb).all()
    assert (first.glands == again.glands).all()
    assert (first.rgb != other.rgb).any()


def test_a_nucleus_is_refused_where_another_lies_or_nothing_would_be_seen():
    section = new_section((80, 80), 0.5, rng_of(0))
    assert add_nucleus(section, LYMPHOCYTE, (40.0, 40.0), 0.0, rng_of(1))
    assert not add_nucleus(section, LYMPHOCYTE, (41.0, 40.0), 0.0, rng_of(1))
    assert not add_nucleus(section, LYMPHOCYTE, (40.0, 54.0), 0.0, rng_of(1), gap=4.0)
    assert add_nucleus(section, LYMPHOCYTE, (40.0, 60.0), 0.0, rng_of(1))
    assert not add_nucleus(section, LYMPHOCYTE, (400.0, 40.0), 0.0, rng_of(1))
    assert section.labels.max() == len(section.kinds) == 2


def test_a_gland_has_a_pale_lumen_and_basal_nuclei():
    section = new_section((160, 160), 0.6, rng_of(3))
    contour = gland_contour(NORMAL, (80.0, 80.0), 9000.0, rng_of(4))
    add_gland(section, NORMAL, contour, rng_of(5))
    away = np.hypot(*(np.argwhere(section.labels > 0) - 80).T)

    assert section.field[80, 80].sum() < 0.1
    assert away.min() > 0.6 * contour.radii.min()
    assert {kind.name for kind in section.kinds} == {EPITHELIAL.name}
    assert len(section.kinds) > 15
