"""Words as classes and a handful of labels, on features whose truth is known."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from malpighi.errors import ConfigError, DataError
from malpighi.evaluation.few_shot import FewShotSettings, few_shot, possible
from malpighi.evaluation.zero_shot import Words, by_options, chances, class_vectors, shipped_words


def texts(words):
    """A fake encoder: each text points where its length says."""
    angles = np.asarray([len(word) for word in words], float)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_a_class_is_the_mean_of_its_names_in_all_sentences():
    words = Words(1, ("{}", "see {}"), {"fat": ("adipose", "lipid cells")})
    fat, bone = class_vectors(("fat", "bone"), words, texts)
    said = ["fat", "see fat", "adipose", "see adipose", "lipid cells", "see lipid cells"]
    mean = texts(said).mean(axis=0)
    np.testing.assert_allclose(fat, mean / np.linalg.norm(mean), rtol=1e-6)
    assert np.linalg.norm(bone) == pytest.approx(1)


def test_chances_are_the_softmax_of_scaled_similarities():
    random = np.random.default_rng(0)
    features, vectors = random.normal(size=(7, 5)), random.normal(size=(3, 5))
    np.testing.assert_allclose(chances(features, vectors, 14.3), softmax(14.3 * features @ vectors.T, axis=1))
    assert np.isfinite(chances(features * 1e4, vectors, 100.0)).all()


def test_the_shipped_words_say_every_class_in_a_sentence():
    words = shipped_words()
    assert words.version == 1
    assert all("{}" in template for template in words.templates)
    with pytest.raises(ConfigError, match="zero-shot templates need"):
        Words(1, ("an image",))
    with pytest.raises(DataError, match="options to choose from"):
        by_options([])


def data(count, seed=0, shift=2.0):
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    return (random.normal(size=(count, 6)) + shift * np.eye(3, 6)[labels]).astype(np.float32), labels


def test_more_labels_bring_more_and_each_draw_is_its_own():
    (train, labels), (test, truth) = data(300), data(600, seed=1)
    settings = FewShotSettings(shots=(64, 2), draws=4)
    draws = list(few_shot(train, labels, test, 3, settings))
    assert [(draw.shots, draw.number) for draw in draws] == [(k, n) for k in (2, 64) for n in range(4)]
    right = [float((draw.chances.argmax(axis=1) == truth).mean()) for draw in draws]
    assert np.mean(right[4:]) > np.mean(right[:4]) + 0.05
    assert len({draw.chances.tobytes() for draw in draws}) == 8
    alone = list(few_shot(train, labels, test, 3, FewShotSettings(shots=(64,), draws=4)))
    assert [a.chances.tobytes() for a in alone] == [d.chances.tobytes() for d in draws[4:]]


def test_all_labels_give_the_fit_of_scikit_learn():
    (train, labels), (test, _) = data(60), data(30, seed=1)
    (draw,) = few_shot(train, labels, test, 3, FewShotSettings(shots=(20,), draws=1))
    fitted = LogisticRegression(C=1.0, max_iter=1000).fit(train.astype(float), labels)
    np.testing.assert_allclose(draw.chances, fitted.predict_proba(test.astype(float)), atol=1e-3)


def test_features_without_meaning_stay_at_chance():
    (train, labels), (test, truth) = data(300, shift=0.0), data(900, seed=1, shift=0.0)
    draws = few_shot(train, labels, test, 3, FewShotSettings(shots=(32,), draws=5))
    right = np.mean([(draw.chances.argmax(axis=1) == truth).mean() for draw in draws])
    assert right == pytest.approx(1 / 3, abs=0.06)


def test_sizes_that_a_class_cannot_give_are_left_out():
    labels = np.asarray([0] * 9 + [1] * 3)
    assert possible(labels, 2, (2, 8, 3)) == [2, 3]
    assert possible(labels, 3, (1,)) == []
    with pytest.raises(ConfigError):
        FewShotSettings(shots=(0,))
    with pytest.raises(ConfigError):
        FewShotSettings(shots=())
