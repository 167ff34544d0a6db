"""A small text classifier that says what a request asks for, and how sure it is.

Multinomial logistic regression over tf-idf of word and character n-grams, with an explicit vocabulary, so
that what spoke for a decision can be shown. It is fitted with scipy in seconds on one core, without torch.

Shapes: N texts, F features, K classes.
"""

import re
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, sparse, special

from malpighi.durable import replacing
from malpighi.errors import DataError
from malpighi.models.phrasings import Phrase
from malpighi.models.templates import answer_forms

Floats = NDArray[np.float64]

_LIST = re.compile(
    r"(?:[(（]?\b[a-z][)）.、:：]\s?[^\s,，;；()（）.?!。？！][^\n,，;；()（）.?!。？！]{0,79}[,，;；.。]?\s?){2,}"
)
_FORM = re.compile("|".join(re.escape(form.lower()).replace(r"\ ", r"\s+") for form in answer_forms()))
_SPACES = re.compile(r"\s+")
_TOKEN = re.compile(r"[㐀-鿿]|[^\W_㐀-鿿]+|[^\w\s]")
_BETWEEN_CHINESE = re.compile(r"(?<=[㐀-鿿]) (?=[㐀-鿿])")
_LONGEST_NGRAM = 2
_CHARACTERS = (3, 4)
LIST_TOKEN = "optionlist"
"""Stands for a lettered list: what is asked does not depend on the names in it."""


class Reading(NamedTuple):
    """What the classifier makes of a text.

    Attributes:
        probabilities: class -> calibrated probability; they sum to 1.
        known: share of the text's words and word pairs that occurred in training, 0 to 1.
    """

    probabilities: dict[str, float]
    known: float

    @property
    def best(self) -> str:
        """The likeliest class."""
        return max(self.probabilities, key=lambda name: self.probabilities[name])


class PromptClassifier:
    """A fitted classifier.

    Args:
        classes: names, in the order of the rows of `weights_kf`.
        vocabulary: n-grams, in the order of the columns.
        idf_f: inverse document frequency of each n-gram.
        weights_kf: one row of weights per class.
        bias_k: one number per class.
        temperature: divides the scores before they become probabilities; 1 leaves them.
    """

    def __init__(
        self,
        classes: Sequence[str],
        vocabulary: Sequence[str],
        idf_f: Floats,
        weights_kf: Floats,
        bias_k: Floats,
        temperature: float = 1.0,
    ) -> None:
        self.classes = tuple(classes)
        self.vocabulary = {ngram: index for index, ngram in enumerate(vocabulary)}
        self.idf_f = idf_f
        self.weights_kf = weights_kf
        self.bias_k = bias_k
        self.temperature = temperature

    def read(self, text: str) -> Reading:
        """The class probabilities of a text, and how much of it is known."""
        logits_k = self.logits([text])[0] / self.temperature
        probabilities = zip(self.classes, special.softmax(logits_k).tolist(), strict=True)
        return Reading(dict(probabilities), self.known(text))

    def logits(self, texts: Sequence[str]) -> Floats:
        """Scores before temperature, N x K."""
        return np.asarray(self._matrix(texts) @ self.weights_kf.T + self.bias_k)

    def telling(self, text: str, name: str, most: int = 3) -> list[str]:
        """The words and word groups of a text that speak most for a class, strongest first."""
        row_f = self._matrix([text])
        k = self.classes.index(name)
        rest_f = (self.weights_kf.sum(axis=0) - self.weights_kf[k]) / (len(self.classes) - 1)
        gains = row_f.multiply(self.weights_kf[k] - rest_f).tocoo()
        words = {ngram for ngram in _ngrams(tokens(text)) if not _is_mark(ngram)}
        named = list(self.vocabulary)
        ranked = sorted(zip(gains.data.tolist(), gains.col.tolist(), strict=True), reverse=True)
        found = [named[f] for gain, f in ranked if gain > 0 and named[f] in words][:most]
        return [_BETWEEN_CHINESE.sub("", ngram) for ngram in found]

    def known(self, text: str) -> float:
        """The share of a text's words and word pairs that training knew, 0 to 1."""
        found = {ngram for ngram in _ngrams(tokens(text)) if not _is_mark(ngram)}
        return sum(ngram in self.vocabulary for ngram in found) / len(found) if found else 0.0

    def _matrix(self, texts: Sequence[str]) -> Any:
        return _matrix([Counter(_features(text)) for text in texts], self.vocabulary, self.idf_f)

    def save(self, path: Path) -> None:
        """Write everything to one file of plain arrays (npz)."""
        with replacing(path) as file:
            np.savez_compressed(
                file,
                classes=np.array(self.classes),
                vocabulary=np.array(list(self.vocabulary)),
                idf=self.idf_f.astype(np.float32),
                weights=self.weights_kf.astype(np.float32),
                bias=self.bias_k.astype(np.float32),
                temperature=np.float32(self.temperature),
            )

    @classmethod
    def load(cls, path: Path) -> "PromptClassifier":
        """Read what `save` wrote; nothing in the file is ever run.

        Raises:
            DataError: no such file, or its arrays do not fit together.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                found = {name: arrays[name] for name in arrays.files}
            made = cls(
                found["classes"].tolist(),
                found["vocabulary"].tolist(),
                found["idf"].astype(np.float64),
                found["weights"].astype(np.float64),
                found["bias"].astype(np.float64),
                float(found["temperature"]),
            )
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(f"{path} holds no prompt classifier ({error}); train the router again") from error
        shape = (len(made.classes), len(made.vocabulary))
        fits = (
            made.weights_kf.shape == shape
            and made.bias_k.shape == shape[:1]
            and made.idf_f.shape == shape[1:]
        )
        if not fits:
            raise DataError(f"{path}: its arrays do not fit together; train the router again")
        return made


def fit(phrases: Sequence[Phrase], penalty: float, least: int = 2) -> PromptClassifier:
    """A classifier that minimises log loss plus `penalty` / 2 times the squared weights.

    Every family counts alike, however many texts it has; the loss is the mean over texts so weighted.

    Args:
        phrases: what to learn from; the classes are their groups.
        penalty: of the weights; the bias is free.
        least: n-grams that occur in fewer texts are left out.

    Raises:
        DataError: fewer than two classes.
    """
    classes = sorted({phrase.group for phrase in phrases})
    if len(classes) < 2:
        raise DataError(f"a classifier needs at least two classes; found {', '.join(classes) or 'none'}")
    counted = [Counter(_features(phrase.text)) for phrase in phrases]
    vocabulary, idf_f = _learn_vocabulary(counted, least)
    x_nf = _matrix(counted, vocabulary, idf_f)
    y_n = np.array([classes.index(phrase.group) for phrase in phrases])
    sizes = Counter(phrase.family for phrase in phrases)
    share_n = np.array([1.0 / sizes[phrase.family] for phrase in phrases])
    weights_kf, bias_k = _minimise(x_nf, y_n, share_n / share_n.sum(), len(classes), penalty)
    return PromptClassifier(classes, list(vocabulary), idf_f, weights_kf, bias_k)


def fit_temperature(logits_nk: Floats, y_n: NDArray[np.int64]) -> float:
    """The temperature under which held-out scores have the least log loss, within 0.05 to 20.

    Source: temperature scaling, Guo et al., On Calibration of Modern Neural Networks, 2017, section 4.2.
    """

    def loss(log_temperature: float) -> float:
        log_p_nk = special.log_softmax(logits_nk / np.exp(log_temperature), axis=1)
        return -float(log_p_nk[np.arange(len(y_n)), y_n].mean())

    found = optimize.minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded")
    return float(np.exp(found.x))


def normalise(text: str) -> str:
    r"""Text as the classifier reads it: what is asked, without the form that the answer should have.

    One form of each character, no capitals; lists of options and the phrases of `templates.py` on the form of
    an answer cut out: SmartPath-R1 asks for boxes in detection and in segmentation.

    Example:
        >>> normalise("Which class?  (A) Gland, (B) Ｖessel")
        'which class? optionlist'
        >>> normalise("Segment glands.\nBoxes [[x0, y0, x1, y1], ...].")
        'segment glands.'
    """
    lower = unicodedata.normalize("NFKC", text).lower()
    plain = _SPACES.sub(lambda run: "\n" if "\n" in run[0] else " ", lower)
    asked = _LIST.sub(f" {LIST_TOKEN} ", _FORM.sub("\n", plain))
    return re.sub(r"\d+", "0", " ".join(asked.split()))


def tokens(text: str) -> list[str]:
    """Words, Chinese characters and marks, in order.

    Example:
        >>> tokens("Detect nuclei: 核仁?")
        ['detect', 'nuclei', ':', '核', '仁', '?']
    """
    return _TOKEN.findall(normalise(text))


def _features(text: str) -> Iterator[str]:
    words = tokens(text)
    yield from _ngrams(words)
    for word in words:
        padded = f"<{word}>"
        if len(word) >= _CHARACTERS[0]:
            for length in range(_CHARACTERS[0], _CHARACTERS[1] + 1):
                yield from (f"#{padded[i : i + length]}" for i in range(len(padded) - length + 1))


def _ngrams(words: Sequence[str], longest: int = _LONGEST_NGRAM) -> Iterator[str]:
    for length in range(1, longest + 1):
        yield from (" ".join(words[i : i + length]) for i in range(len(words) - length + 1))


def _is_mark(ngram: str) -> bool:
    return not any(character.isalnum() for character in ngram)


def _learn_vocabulary(counted: Sequence[Counter[str]], least: int) -> tuple[dict[str, int], Floats]:
    """N-grams of at least `least` texts, and log((1 + N) / (1 + texts with it)) + 1 for each."""
    counts = Counter(chain.from_iterable(counted))
    kept = sorted(feature for feature, count in counts.items() if count >= least)
    idf_f = np.log((1 + len(counted)) / (1 + np.array([counts[feature] for feature in kept]))) + 1
    return {feature: index for index, feature in enumerate(kept)}, idf_f


def _matrix(counted: Sequence[Counter[str]], vocabulary: dict[str, int], idf_f: Floats) -> Any:
    """Rows of (1 + log count) * idf, of length 1: N x F, sparse."""
    found = [[(vocabulary[f], n) for f, n in counts.items() if f in vocabulary] for counts in counted]
    ends = np.cumsum([0, *(len(pairs) for pairs in found)])
    columns, counts = np.array([pair for pairs in found for pair in pairs], dtype=np.int64).reshape(-1, 2).T
    data = (1 + np.log(counts)) * idf_f[columns]
    matrix = sparse.csr_array((data, columns, ends), shape=(len(counted), len(vocabulary)))
    norms = np.sqrt(matrix.power(2).sum(axis=1))
    matrix.data /= np.repeat(norms, np.diff(ends))
    return matrix


def _minimise(
    x_nf: Any, y_n: NDArray[np.int64], share_n: Floats, classes: int, penalty: float
) -> tuple[Floats, Floats]:
    count, width = x_nf.shape
    one_hot_nk = np.zeros((count, classes))
    one_hot_nk[np.arange(count), y_n] = 1

    def objective(flat: Floats) -> tuple[float, Floats]:
        table = flat.reshape(classes, width + 1)
        weights_kf, bias_k = table[:, :-1], table[:, -1]
        log_p_nk = special.log_softmax(x_nf @ weights_kf.T + bias_k, axis=1)
        loss = -float(share_n @ (log_p_nk * one_hot_nk).sum(axis=1)) + penalty / 2 * float(
            (weights_kf**2).sum()
        )
        error_nk = (np.exp(log_p_nk) - one_hot_nk) * share_n[:, None]
        slope = np.empty_like(table)
        slope[:, :-1] = (x_nf.T @ error_nk).T + penalty * weights_kf
        slope[:, -1] = error_nk.sum(axis=0)
        return loss, slope.ravel()

    start = np.zeros(classes * (width + 1))
    found = optimize.minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 500})
    table = found.x.reshape(classes, width + 1)
    return table[:, :-1], table[:, -1]
