import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from malpighi.errors import ConfigError, DataError
from malpighi.resolution import fit, tokens

SIDES = st.one_of(st.integers(1, 400), st.integers(1, 200_000))
BUDGETS = st.sampled_from([1, 2, 3, 16, 64, 256, 1024])
PATCHES = st.sampled_from([28, 32])


@pytest.mark.parametrize(
    ("size", "budget", "expected"),
    [
        ((100, 100), 256, 16),
        ((224, 224), 256, 64),
        ((256, 256), 256, 81),
        ((300, 300), 256, 121),
        ((512, 512), 256, 256),
        ((1536, 2048), 256, 234),
        ((1024, 1024), 1024, 1024),
        ((3000, 9000), 1024, 990),
        ((50_000, 90_000), 1024, 966),
        ((1, 200_000), 256, 256),
        ((1000, 20), 16, 16),
        ((1, 1), 1, 1),
    ],
)
def test_known_token_counts_at_28_px(size, budget, expected):
    assert tokens(fit(size, budget, 28), 28) == expected


@given(SIDES, SIDES, BUDGETS, PATCHES)
def test_the_budget_holds_and_sides_are_multiples_for_any_size(width, height, budget, patch):
    shown = fit((width, height), budget, patch)
    assert all(side >= patch and side % patch == 0 for side in shown)
    assert tokens(shown, patch) <= budget


@given(SIDES, SIDES, BUDGETS, PATCHES)
def test_nothing_is_scaled_up_beyond_rounding_to_a_token(width, height, budget, patch):
    for shown, side in zip(fit((width, height), budget, patch), (width, height), strict=True):
        assert shown <= max(side + patch / 2, patch)


@given(st.integers(1, 4000), st.integers(1, 4000), BUDGETS, PATCHES)
def test_turning_the_image_turns_the_result(width, height, budget, patch):
    assert fit((width, height), budget, patch) == fit((height, width), budget, patch)[::-1]


@given(st.integers(200, 6000), st.integers(200, 6000), st.sampled_from([256, 1024]), PATCHES)
def test_aspect_is_kept_to_within_one_token_per_side(width, height, budget, patch):
    shown_width, shown_height = fit((width, height), budget, patch)
    if min(shown_width, shown_height) == patch:
        return
    shrink = max(1.0, math.sqrt(width * height / (budget * patch**2)))
    assert abs(shown_width - width / shrink) <= patch
    assert abs(shown_height - height / shrink) <= patch


@settings(max_examples=300)
@given(st.integers(28, 5000), st.integers(28, 5000), st.sampled_from([64, 256, 1024]), PATCHES)
def test_equals_the_library_wherever_the_library_keeps_the_budget(width, height, budget, patch):
    if max(width, height) > 200 * min(width, height) or min(width, height) < patch:
        return
    theirs = smart_resize(height, width, patch, min_pixels=1, max_pixels=budget * patch**2)
    if theirs[0] * theirs[1] <= budget * patch**2:
        assert fit((width, height), budget, patch) == theirs[::-1]


def test_the_library_breaks_the_budget_where_ours_holds():
    height, width = smart_resize(20, 1000, 28, min_pixels=1, max_pixels=16 * 784)
    assert height * width > 16 * 784
    assert fit((1000, 20), 16, 28) == (448, 28)


def test_refuses_what_has_no_answer():
    with pytest.raises(ConfigError, match="no budget"):
        fit((10, 10), 0, 28)
    with pytest.raises(ConfigError, match="no budget"):
        fit((10, 10), 4, 0)
    with pytest.raises(DataError, match="no pixels"):
        fit((0, 10), 4, 28)
    with pytest.raises(DataError, match="does not divide"):
        tokens((30, 28), 28)
    with pytest.raises(DataError, match="does not divide"):
        tokens((0, 28), 28)
