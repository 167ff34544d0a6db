import pytest
from hypothesis import given
from hypothesis import strategies as st

from malpighi.grading.words import (
    bleu4,
    bleu4_paper,
    bleu4_sacrebleu,
    exact_match,
    normal_words,
    token_f1,
)

PAIRS = st.tuples(st.text(max_size=200), st.text(max_size=60))


@pytest.mark.parametrize("answer", ["melanoma", "ductal carcinoma", "invasive ductal carcinoma"])
def test_a_right_short_answer_scores_1_except_in_the_published_variant(answer):
    assert exact_match(answer.title() + ".", answer) == 1.0
    assert token_f1(answer, answer) == bleu4(answer, answer) == bleu4_sacrebleu(answer, answer) == 1.0
    assert bleu4_paper(answer, answer) == 0.0


def test_long_answers_agree_in_both_variants():
    truth = "the nuclei are enlarged and surrounded by a sharp halo"
    assert bleu4(truth, truth) == bleu4_paper(truth, truth) == 1.0
    said = "the nuclei are enlarged and surrounded by a pale halo"
    assert bleu4(said, truth) == pytest.approx(bleu4_paper(said, truth))
    assert 0.5 < bleu4(said, truth) < 1


def test_wrong_words_score_0():
    assert (
        exact_match("lymphoma", "melanoma")
        == token_f1("lymphoma", "melanoma")
        == bleu4("lymphoma", "melanoma")
        == 0
    )
    assert exact_match("", "") == 0.0
    assert exact_match("...", "!") == 0.0


def test_normalisation():
    assert normal_words("The  A an") == ["the", "a", "an"]
    assert exact_match("A melanoma", "the Melanoma!") == 1.0
    assert exact_match("p53+", "p53") == 0.0


def test_token_f1_counts_each_word_as_often_as_it_stands():
    assert token_f1("halo halo halo halo", "halo") == pytest.approx(0.4)


@given(PAIRS)
def test_any_two_texts_can_be_compared(pair):
    for measure in (exact_match, token_f1, bleu4, bleu4_sacrebleu, bleu4_paper):
        assert 0.0 <= measure(*pair) <= 1.0


def test_filler_pays_with_a_brevity_penalty_and_not_without():
    truth = "hyaline cartilage"
    assert bleu4_sacrebleu("cartilage", truth) < bleu4_sacrebleu("cartilage cartilage", truth)
    assert bleu4("cartilage", truth) == bleu4("cartilage cartilage", truth) == 0.5
    assert bleu4("cartilage cartilage cartilage", truth) < 0.5


LETTERS = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=12)


@given(LETTERS, LETTERS, st.integers(1, 30))
def test_words_that_the_truth_has_not_never_raise_bleu4(said, truth, count):
    before = bleu4(" ".join(said), " ".join(truth))
    assert bleu4(" ".join([*said, *["filler"] * count]), " ".join(truth)) <= before + 1e-12


@given(st.permutations("abcdefghij"), st.integers(0, 9), st.integers(1, 10), st.integers(2, 40))
def test_saying_a_part_of_the_truth_again_never_raises_bleu4(truth, start, length, times):
    said = truth[start : start + length]
    before = bleu4(" ".join(said), " ".join(truth))
    assert bleu4(" ".join(said * times), " ".join(truth)) <= before + 1e-12


def test_invisible_marks_and_full_width_change_nothing():
    assert bleu4("ｋｏｉｌｏｃｙｔｅ", "koilocyte") == bleu4("koi\u200blocyte", "koilocyte") == 1.0


def test_a_very_long_answer_is_compared():
    assert bleu4("halo " * 20_000, "a halo around the nucleus") < 0.01
