"""Classification by words alone: each class is the mean of its names in many sentences.

Source: Radford et al. 2021 (CLIP), section 3.1.4, for templates; Lu et al. 2024 (CONCH) and Patho-R1,
section 4.2, for synonyms in histology. Departs: the papers' lists are theirs; ours are in `zero_shot.yaml`,
and a class that has no synonyms there is asked for by its name alone.

Shape suffixes: N pictures, K classes, D features.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib import resources

import msgspec
import numpy as np
from numpy.typing import NDArray

from malpighi.errors import ConfigError, DataError
from malpighi.records import Choice, Sample

Features = NDArray[np.float32]
Texts = Callable[[Sequence[str]], Features]


class Words(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is said for the classes of exams.

    Attributes:
        version: of the list; goes into the tables.
        templates: sentences with `{}` for the name.
        synonyms: option's name -> further names for it.
    """

    version: int
    templates: tuple[str, ...]
    synonyms: dict[str, tuple[str, ...]] = {}

    def __post_init__(self) -> None:
        """Refuse sentences without a place for the name."""
        if not self.templates or any("{}" not in template for template in self.templates):
            raise ConfigError(f"zero-shot templates need '{{}}' for the class; found {self.templates}")


def shipped_words() -> Words:
    """The list that ships."""
    data = (resources.files(__package__) / "zero_shot.yaml").read_bytes()
    return msgspec.yaml.decode(data, type=Words)


def class_vectors(options: Sequence[str], words: Words, texts: Texts) -> Features:
    """vectors_KD: per class the mean over names and sentences of unit vectors, made a unit vector again."""
    vectors = []
    for option in options:
        names = (option, *words.synonyms.get(option, ()))
        said = [template.replace("{}", name) for name in names for template in words.templates]
        mean = texts(said).mean(axis=0)
        vectors.append(mean / np.linalg.norm(mean))
    return np.stack(vectors).astype(np.float32)


def chances(features_ND: Features, vectors_KD: Features, scale: float) -> NDArray[np.float64]:
    """chances_NK: softmax over classes of the scaled cosine similarities.

    Example:
        >>> one = np.eye(2, dtype=np.float32)
        >>> chances(one, one, 100.0).round(3).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    logits_NK = scale * (features_ND.astype(float) @ vectors_KD.astype(float).T)
    raised_NK = np.exp(logits_NK - logits_NK.max(axis=1, keepdims=True))
    return np.asarray(raised_NK / raised_NK.sum(axis=1, keepdims=True))


def by_options(samples: Sequence[Sample]) -> Mapping[tuple[str, tuple[str, ...]], list[Sample]]:
    """The samples with a choice, by exam and options: each is one set of classes.

    Raises:
        DataError: none has a choice.
    """
    found: dict[tuple[str, tuple[str, ...]], list[Sample]] = {}
    for sample in samples:
        if isinstance(sample.answer, Choice) and len(sample.images) == 1:
            found.setdefault((sample.exam, sample.options), []).append(sample)
    if not found:
        raise DataError("no sample with one picture and options to choose from; zero-shot needs such an exam")
    return found
