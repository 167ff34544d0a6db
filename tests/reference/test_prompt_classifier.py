"""The router's classifier against scikit-learn's logistic regression on the same matrix."""

import numpy as np
from scipy import special
from sklearn.linear_model import LogisticRegression

from malpighi.models.phrasings import draw, shipped_grammar
from malpighi.models.prompt_classifier import fit


def test_the_fit_is_that_of_scikit_learn():
    penalty = 1e-3
    phrases = [phrase._replace(family=str(i)) for i, phrase in enumerate(draw(shipped_grammar(), 400, 0))]
    ours = fit(phrases, penalty)
    texts = [phrase.text for phrase in phrases]
    theirs = LogisticRegression(C=1 / (penalty * len(texts)), tol=1e-6, max_iter=5000)
    theirs.fit(ours._matrix(texts), [phrase.group for phrase in phrases])
    assert theirs.classes_.tolist() == list(ours.classes)
    expected = theirs.predict_proba(ours._matrix(texts))
    found = special.softmax(ours.logits(texts), axis=1)
    np.testing.assert_allclose(found, expected, atol=5e-3)
    assert np.abs(found - 1 / len(ours.classes)).max() > 0.5  # and it says something
