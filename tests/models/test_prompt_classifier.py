import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from malpighi.errors import DataError
from malpighi.models.phrasings import Phrase
from malpighi.models.prompt_classifier import (
    LIST_TOKEN,
    PromptClassifier,
    fit,
    fit_temperature,
    normalise,
    tokens,
)

PHRASES = [
    Phrase(text, group, f"{group}{i}")
    for group, texts in {
        "detection": ["find all nuclei", "find all glands", "box the nuclei", "box the glands"],
        "vqa": ["is the nucleus dark", "is the gland dark", "are the nuclei large", "are the glands large"],
    }.items()
    for i, text in enumerate(texts)
]


@pytest.fixture(scope="module")
def classifier():
    return fit(PHRASES, 1e-4, least=1)


def test_it_learns_what_it_is_taught(classifier):
    assert [classifier.read(p.text).best for p in PHRASES] == [p.group for p in PHRASES]
    assert classifier.read("box the vessels").best == "detection"
    assert classifier.telling("box the nuclei", "detection")[0] in ("box", "box the")


def test_what_is_unknown_is_seen(classifier):
    assert classifier.read("is the nucleus dark").known == 1
    assert classifier.read("wie spät ist es").known == 0
    assert 0 < classifier.read("is the sky dark").known < 1
    assert classifier.read("").known == 0


@settings(deadline=None)
@given(st.text(max_size=80))
def test_probabilities_sum_to_one_for_any_text(classifier, text):
    reading = classifier.read(text)
    assert sum(reading.probabilities.values()) == pytest.approx(1)
    assert 0 <= reading.known <= 1


@settings(deadline=None)
@given(st.text(max_size=80))
def test_reading_a_text_does_not_depend_on_its_form(text):
    assert normalise(normalise(text)) == normalise(text)
    assert normalise(f"  {text}\n") == normalise(text)
    assert all(token.strip() for token in tokens(text))


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("Which? (A) tumour, (B) stroma", f"which? {LIST_TOKEN}"),
        ("Which?\nA. tumour\nB. stroma\nAnswer now", f"which? {LIST_TOKEN} answer now"),
        ("哪一类？（A）腺癌，（B）正常", f"哪一类? {LIST_TOKEN}"),
        ("Is this (A) alone a list?", "is this (a) alone a list?"),
        ("ＤＥＴＥＣＴ  12 cells", "detect 0 cells"),
    ],
)
def test_lists_of_options_are_cut_out(text, normal):
    assert normalise(text) == normal


@pytest.mark.parametrize(
    "text", ["a." + " " * 50_000, "a. x " * 10_000, "(a) " * 10_000, "a." + " \t\n" * 9_000]
)
def test_no_text_is_hard_to_read(text):
    """A pattern with two ways to take white space would not come to an end here."""
    assert len(normalise(text)) <= len(text)


def test_families_count_alike_however_many_texts_they_have():
    rare = Phrase("outline it", "detection", "rare")
    same = [Phrase("outline it", "vqa", "frequent")] * 50
    probability = fit([*PHRASES, rare, *same], 1e-5).read("outline it").probabilities["detection"]
    assert probability == pytest.approx(0.5, abs=0.1)


def test_temperature_is_found():
    """Scores drawn so that the model is overconfident by a factor of three."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (4000, 3))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    y = np.array([rng.choice(3, p=row) for row in p])
    assert fit_temperature(logits, y) == pytest.approx(1, abs=0.1)
    assert fit_temperature(3 * logits, y) == pytest.approx(3, abs=0.3)


def test_saving_keeps_everything(classifier, tmp_path):
    classifier.save(tmp_path / "c.npz")
    loaded = PromptClassifier.load(tmp_path / "c.npz")
    assert loaded.classes == classifier.classes
    assert loaded.vocabulary == classifier.vocabulary
    texts = [p.text for p in PHRASES]
    np.testing.assert_allclose(loaded.logits(texts), classifier.logits(texts), atol=1e-4)


def test_a_pickle_is_never_opened(tmp_path):
    path = tmp_path / "c.npz"
    np.savez(path, classes=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match="allow_pickle=False"):
        PromptClassifier.load(path)


def test_arrays_that_do_not_fit_are_refused(classifier, tmp_path):
    odd = PromptClassifier(
        classifier.classes[:1],
        list(classifier.vocabulary),
        classifier.idf_f,
        classifier.weights_kf,
        classifier.bias_k,
    )
    odd.save(tmp_path / "c.npz")
    with pytest.raises(DataError, match="do not fit together"):
        PromptClassifier.load(tmp_path / "c.npz")
    with pytest.raises(DataError, match="holds no prompt classifier"):
        PromptClassifier.load(tmp_path / "none.npz")


def test_one_class_is_too_few():
    with pytest.raises(DataError, match="at least two classes; found vqa"):
        fit(PHRASES[4:], 1e-3)
