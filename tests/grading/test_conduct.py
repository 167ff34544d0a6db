import pytest
from hypothesis import given
from hypothesis import strategies as st

from malpighi.errors import ConfigError
from malpighi.grading.conduct import Length, mixing, overlong, repetition

ASKED = "Which Bethesda category fits this cell?"


@pytest.mark.parametrize(
    ("tokens", "fault"), [(0, 0.0), (1536, 0.0), (1664, 0.25), (2047, 511 / 512), (2048, 1.0), (9000, 1.0)]
)
def test_the_overlong_fault_grows_over_the_buffer(tokens, fault):
    assert overlong(Length(tokens, 2048, 512)) == pytest.approx(fault)


def test_without_a_buffer_the_limit_is_a_step():
    assert overlong(Length(10, 10, 0)) == 0.0
    assert overlong(Length(11, 10, 0)) == 1.0


@pytest.mark.parametrize("buffer", [-1, 11])
def test_a_buffer_that_does_not_fit_is_refused(buffer):
    with pytest.raises(ConfigError, match="give 0 to 10"):
        overlong(Length(5, 10, buffer))


@given(st.text(max_size=300))
def test_any_text_has_faults_from_0_to_1(text):
    assert 0 <= repetition(text) <= 1
    assert 0 <= mixing(text, "") <= 1
    assert 0 <= mixing(text, ASKED) <= 1


@pytest.mark.parametrize(
    "text", ["halo " * 100, "a" * 2_000, "!" * 2_000, "! " * 500, "核大" * 100, "[[0,0,9,9],[0,0,9,9]," * 50]
)
def test_endless_text_repeats_itself(text):
    assert repetition(text) > 0.9


@pytest.mark.parametrize(
    "text",
    [
        "",
        "(B)",
        "Immature squamous cell: chromatin coarse, N:C ratio raised, membrane irregular. This entails HSIL.",
        "[[10, 20, 30, 40], [50, 60, 70, 80], [90, 10, 120, 44]]",
        "细胞核增大,核质比升高,核膜不规则。",
    ],
)
def test_a_plain_reply_does_not(text):
    assert repetition(text) == 0.0


@given(
    st.lists(st.sampled_from(["halo", "nucleus", "dark", "large"]), min_size=4, max_size=20),
    st.integers(2, 9),
)
def test_saying_all_again_repeats_more(words, times):
    assert repetition(" ".join(words * times)) >= repetition(" ".join(words))


@pytest.mark.parametrize(
    ("text", "asked", "share"),
    [
        ("The nucleus is large", ASKED, 0.0),
        ("The 核 is large", ASKED, 0.25),
        ("细胞核增大", ASKED, 1.0),
        ("细胞核增大,符合 HSIL", "这个细胞属于哪一类?", 0.0),
        ("The nucleus is large", "这个细胞属于哪一类?", 1.0),
        ("Кoilocyte", ASKED, 1.0),
        ("The p53 stain, CD34 and β-catenin: HER2 3+", ASKED, 0.0),
        ('<think>核大</think><answer>{"bbox_2d": [1, 2, 3, 4], "label": "核"}</answer>', "找出细胞核", 0.0),
        ("[[1, 2, 3, 4]]", "", 0.0),
        ("mostly English with one 字", "", 1 / 5),
        ("", ASKED, 0.0),
    ],
)
def test_words_of_another_script(text, asked, share):
    assert mixing(text, asked) == pytest.approx(share)
