import pytest
from hypothesis import given
from hypothesis import strategies as st

from malpighi.grading.words import bleu4, bleu4_paper, exact_match, normal_words, token_f1

PAIRS = st.tuples(st.text(max_size=200), st.text(max_size=60))


@pytest.mark.parametrize("answer", ["melanoma", "ductal carcinoma", "invasive ductal carcinoma"])
def test_a_right_short_answer_scores_1_except_in_the_published_variant(answer):
    assert exact_match(answer.title() + ".", answer) == 1.0
    assert token_f1(answer, answer) == bleu4(answer, answer) == 1.0
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
    for measure in (exact_match, token_f1, bleu4, bleu4_paper):
        assert 0.0 <= measure(*pair) <= 1.0


def test_a_very_long_answer_is_compared():
    assert bleu4("halo " * 20_000, "a halo around the nucleus") < 0.01
