"""Pyramid views: one budget, regions that do not overlap, chosen by a selector that can be swapped."""

import math
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from malpighi.errors import ConfigError, DataError, FormatVersionError, MissingScaleError
from malpighi.geometry import Box, Frame, box_of
from malpighi.slides.fingerprint import fingerprint
from malpighi.slides.opening import open_slide
from malpighi.slides.pieces import TissueMap
from malpighi.slides.pyramid_view import FRAME_COLOUR, PyramidSettings, pyramid_view
from malpighi.slides.selectors import Attention, Context, Novelty, Outside, best_apart, by_density
from malpighi.slides.slide import Level, Slide, SlideFacts
from malpighi.slides.view import ViewSettings, view
from malpighi.slides.view_files import ViewFileSettings, read_sidecar, view_slide


class QuiltSlide(Slide):
    """A slide of squares, each of one colour, of any size; drawn when asked for."""

    def __init__(self, size, colours, mpp=0.25):
        kept = [Level((math.ceil(size[0] / f), math.ceil(size[1] / f)), float(f)) for f in (1, 4, 16, 64)]
        super().__init__(Path("quilt"), SlideFacts(reader="test", levels=tuple(kept), mpp=mpp))
        self.colours = np.asarray(colours, dtype=np.uint8)

    def _decode(self, level, corner, size, shrink):
        step = self.levels[level].downsample * shrink
        rows, columns = self.colours.shape[:2]
        x = (corner[0] + np.arange(size[0]) + 0.5) * step
        y = (corner[1] + np.arange(size[1]) + 0.5) * step
        i = np.clip(y * rows / self.size[1], 0, rows - 1).astype(int)
        j = np.clip(x * columns / self.size[0], 0, columns - 1).astype(int)
        out = self.colours[i[:, None], j[None, :]].copy()
        out[(y < 0) | (y >= self.size[1])] = 255
        out[:, (x < 0) | (x >= self.size[0])] = 255
        return out

    def close(self):
        pass

    def __reduce__(self):
        return (QuiltSlide, (self.size, self.colours, self.mpp))


GLASS, EOSIN, NUCLEI = (255, 255, 255), (240, 170, 200), (110, 80, 160)


@cache
def quilt(size=(40_000, 40_000)):
    """Pale tissue in the middle of glass, with nuclei densely packed in one square: row 6, column 3."""
    colours = np.full((10, 10, 3), GLASS, dtype=np.uint8)
    colours[2:9, 2:9] = EOSIN
    colours[6, 3] = NUCLEI
    return QuiltSlide(size, colours)


def any_scores(slide, candidates, context):
    return np.sin(candidates[:, 0] * 12.9 + candidates[:, 1] * 78.2)


SIDES = st.one_of(st.integers(1, 3000), st.integers(1, 200_000))


class BlankSlide(QuiltSlide):
    def __init__(self, size):
        super().__init__(size, np.full((1, 1, 3), 255), None)

    def read(self, region, size):
        assert region.width >= size[0] * (1 - 1e-9), "a level was enlarged"
        return np.full((size[1], size[0], 3), 255, dtype=np.uint8)


@settings(max_examples=80, deadline=None)
@given(
    st.tuples(SIDES, SIDES),
    st.integers(1, 4096),
    st.sampled_from([28, 32]),
    st.sampled_from([Frame.RESIZED, Frame.RELATIVE1000]),
    st.integers(0, 20),
    st.floats(0.05, 0.95),
    st.floats(1.5, 40),
)
def test_all_pictures_together_stay_within_the_budget(size, budget, side, frame, regions, share, zoom):
    slide = BlankSlide(size)
    plan = PyramidSettings(
        view=ViewSettings(tokens=budget, pixels_per_token=side, frame=frame),
        regions=regions,
        overview_share=share,
        zoom=zoom,
    )
    found = pyramid_view(slide, plan, selector=any_scores)
    cost = sum(image.rgb.shape[0] * image.rgb.shape[1] // side**2 for image in found.images)
    assert cost == found.tokens <= budget
    assert len(found.regions) <= regions
    boxes = [box_of(image.map.pieces[0].region) for image in found.regions]
    for index, one in enumerate(boxes):
        for other in boxes[:index]:
            apart = one.x0 >= other.x1 or other.x0 >= one.x1 or one.y0 >= other.y1 or other.y0 >= one.y1
            assert apart
    for image in found.regions:
        assert 1 <= image.map.step < found.overview.map.step
        shown = box_of(image.map.pieces[0].region)
        corner = Box(0, 0, 1000, 1000, Frame.RELATIVE1000)
        assert np.allclose(image.map.to_slide(corner).corners, shown.corners)
        x0, y0, x1, y1 = found.overview.map.from_slide(shown, Frame.IMAGE).corners
        assert 0 <= x0 < x1 <= found.overview.map.size[0]
        assert 0 <= y0 < y1 <= found.overview.map.size[1]


def test_the_densest_place_comes_first_and_glass_never():
    found = pyramid_view(quilt(), PyramidSettings(regions=4))
    first = box_of(found.regions[0].map.pieces[0].region)
    assert 12_000 <= (first.x0 + first.x1) / 2 <= 16_000
    assert 24_000 <= (first.y0 + first.y1) / 2 <= 28_000
    assert list(found.scores) == sorted(found.scores, reverse=True)
    for image in found.regions:
        assert (image.rgb == 255).all(axis=2).mean() < 0.3


def test_regions_lie_on_tissue_where_a_map_is_given():
    slide = quilt()
    mask = np.zeros((10, 10), dtype=bool)
    mask[7, 7] = True
    found = pyramid_view(slide, PyramidSettings(regions=3), tissue=TissueMap(mask, slide.whole))
    assert found.regions or found.overview.map.step < 8
    for image in found.regions:
        shown = box_of(image.map.pieces[0].region)
        assert min(shown.x1, 32_000) > max(shown.x0, 28_000)
        assert min(shown.y1, 32_000) > max(shown.y0, 28_000)


def test_the_same_slide_gives_the_same_view():
    one, two = (pyramid_view(quilt(), PyramidSettings()) for _ in range(2))
    assert one.prompt_line == two.prompt_line
    assert all((a.rgb == b.rgb).all() for a, b in zip(one.images, two.images, strict=True))


def test_frames_and_words_say_where_the_regions_are():
    found = pyramid_view(quilt(), PyramidSettings(regions=2))
    plain = view(quilt(), ViewSettings(tokens=512))
    assert found.prompt_line.startswith("Image 1: Whole slide, ")
    assert "Images 2 to 3: regions 1 to 2, framed and numbered in image 1" in found.prompt_line
    for number, image in enumerate(found.regions, start=1):
        box = box_of(image.map.pieces[0].region)
        assert f"{number} at {list(found.overview.map.spoken(box))}" in found.prompt_line
        x0, y0, x1, y1 = (round(v) for v in found.overview.map.from_slide(box, Frame.IMAGE).corners)
        assert (found.overview.rgb[y1 : y1 + 2, x0:x1] == FRAME_COLOUR).all()
        inside = (slice(y0 + 20, y1 - 20), slice(x0 + 20, x1 - 20))
        assert (found.overview.rgb[inside] == plain.rgb[inside]).all()


def test_novelty_takes_the_regions_that_look_least_alike():
    colours = np.full((8, 8, 3), (200, 200, 200), dtype=np.uint8)
    colours[1:3, 1:3], colours[5:7, 4:6] = (250, 0, 0), (0, 0, 250)
    slide = QuiltSlide((32_000, 32_000), colours)
    seen = []

    def embed(pixels):
        seen.append(pixels.shape)
        return pixels.mean(axis=(1, 2))

    found = pyramid_view(slide, PyramidSettings(regions=3), selector=Novelty(embed, pixels=16, most=400))
    means = {tuple((image.rgb[40:-40, 40:-40].mean(axis=(0, 1)) > 128).tolist()) for image in found.regions}
    assert means == {(True, True, True), (True, False, False), (False, False, True)}
    assert all(shape[1:] == (16, 16, 3) and shape[0] <= 32 for shape in seen)
    assert sum(shape[0] for shape in seen) <= 400


def test_an_embedding_of_the_wrong_shape_is_refused():
    with pytest.raises(DataError, match="one row of features each"):
        pyramid_view(quilt(), selector=Novelty(lambda pixels: pixels.mean()))


def test_attention_leads_to_where_the_model_looked():
    overview = pyramid_view(quilt(), PyramidSettings(regions=1), selector=any_scores).overview
    rows, columns = (length // 32 for length in overview.map.size[::-1])
    weights = np.zeros((rows, columns))
    weights[3, 15] = 1.0
    found = pyramid_view(quilt(), PyramidSettings(regions=1), selector=Attention(weights))
    middle = overview.map.to_slide(Box(15 * 32, 3 * 32, 16 * 32, 4 * 32))
    shown = box_of(found.regions[0].map.pieces[0].region)
    assert min(shown.x1, middle.x1) > max(shown.x0, middle.x0)
    assert min(shown.y1, middle.y1) > max(shown.y0, middle.y0)
    with pytest.raises(DataError, match="rows, columns"):
        pyramid_view(quilt(), PyramidSettings(regions=1), selector=Attention(weights.T[:3]))


def test_scores_from_outside_decide():
    def away_from_the_corner(candidates):
        return candidates[:, 0] + candidates[:, 1]

    found = pyramid_view(quilt(), PyramidSettings(regions=1), selector=Outside(away_from_the_corner))
    shown = box_of(found.regions[0].map.pieces[0].region)
    assert (shown.x1, shown.y1) == pytest.approx((40_000, 40_000))
    with pytest.raises(DataError, match="scores of shape"):
        pyramid_view(quilt(), selector=Outside(lambda candidates: np.zeros(3)))


def test_candidates_that_must_not_be_taken_are_not():
    places = np.array([[0, 0, 5, 5], [10, 0, 5, 5], [20, 0, 5, 5]], dtype=float)
    assert best_apart(places, np.array([-np.inf, np.nan, 0.5]), 3) == [2]


def test_density_scores_every_candidate_once(phantom):
    with open_slide(phantom[0]) as slide:
        overview = view(slide, ViewSettings(tokens=16)).map
        grid = np.array([[x, y, 128, 128] for y in range(0, 1024, 128) for x in range(0, 1536, 128)], float)
        scores = by_density(slide, grid, Context(overview, (128, 128)))
    tissue = phantom[1].tissue.reshape(8, 128, 12, 128).mean(axis=(1, 3)).ravel()
    assert scores[tissue == 0].max() < scores[tissue == 1].min()


def test_a_small_slide_gets_the_whole_budget_for_its_overview():
    found = pyramid_view(QuiltSlide((900, 700), np.zeros((2, 2, 3))))
    assert (found.regions, found.overview.map.step) == ((), 1)


def test_a_scale_of_regions_needs_the_scale_of_the_slide():
    plan = PyramidSettings(region_mpp=1.0)
    found = pyramid_view(quilt(), plan)
    assert found.regions[0].map.mpp == pytest.approx(1.0)
    with pytest.raises(MissingScaleError):
        pyramid_view(QuiltSlide((40_000, 40_000), np.zeros((2, 2, 3)), None), plan)


@pytest.mark.parametrize(
    "wrong", [{"regions": -1}, {"overview_share": 1.0}, {"zoom": 1.0}, {"region_mpp": 0.0}]
)
def test_settings_that_mean_nothing_are_refused(wrong):
    with pytest.raises(ConfigError, match="pyramid view"):
        PyramidSettings(**wrong)


def test_the_sidecar_leads_back_without_the_slide(phantom, tmp_path):
    path, _ = phantom
    with open_slide(path) as slide:
        plan = ViewFileSettings(view=ViewSettings(tokens=128), regions=3, zoom=3)
        row = view_slide(slide, tmp_path / "out", plan)
        shown = pyramid_view(slide, plan)
    msgspec.json.encode(row)
    sidecar = read_sidecar(tmp_path / "out/view.json")
    assert row["tokens"] == sidecar.tokens == shown.tokens <= 128
    assert sidecar.fingerprint == fingerprint(path)
    assert sidecar.prompt_line == shown.prompt_line
    assert [picture.file for picture in sidecar.pictures] == [
        "view.png",
        *(f"region-{number}.png" for number in range(1, row["regions"] + 1)),
    ]
    for picture, image in zip(sidecar.pictures, shown.images, strict=True):
        assert picture.map == image.map
        assert (np.asarray(Image.open(tmp_path / "out" / picture.file)) == image.rgb).all()
        a, b, c, d, e, f = picture.affines[0]
        there = picture.map.to_slide(Box(3, 4, 20, 30))
        assert there.corners == pytest.approx((3 * a + 4 * b + c, 3 * d + 4 * e + f, 20 * a + c, 30 * e + f))


def test_a_view_can_be_a_jpeg(phantom, tmp_path):
    with open_slide(phantom[0]) as slide:
        view_slide(slide, tmp_path, ViewFileSettings(quality=90))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["view.jpg", "view.json"]
    with pytest.raises(ConfigError, match="quality"):
        ViewFileSettings(quality=10)


def test_a_foreign_sidecar_is_refused(tmp_path):
    (tmp_path / "a.json").write_text("[1]")
    (tmp_path / "b.json").write_text('{"format": 99}')
    for name, error in (("a.json", DataError), ("b.json", FormatVersionError), ("none.json", DataError)):
        with pytest.raises(error):
            read_sidecar(tmp_path / name)
