"""Train attention-based pooling on the tile features of slides; stop when unseen patients gain no more.

Shape suffixes: B slides, N tiles, D features of a tile, K options.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from malpighi.config import Settings, digest
from malpighi.datasets.split import Member, SplitPlan, assign
from malpighi.durable import mending, replacing
from malpighi.errors import ConfigError, DataError
from malpighi.models.attention_mil import (
    AttentionMil,
    AttentionShape,
    load_attention_mil,
    save_attention_mil,
)
from malpighi.records import Choice, Sample, Split
from malpighi.training.runtime import Curve, OnStep

FeaturesOf = Callable[[Sample], NDArray]
"""From a sample about a slide to features_ND of its tiles."""

CURVE = "curve.json"


class SlideClassifyConfig(Settings, frozen=True):
    """How the network is trained.

    Attributes:
        epochs: most passes over the training slides.
        patience: passes without a lower validation loss after which training stops.
        batch_size: slides per step.
        most_tiles: tiles of a slide that one step sees, drawn anew each time; bounds memory.
        learning_rate: of AdamW.
        weight_decay: of AdamW.
        hidden: H, width after the first layer.
        attention: A, width of the attention branches.
        dropout: share of hidden numbers dropped while training.
        balanced: whether a rare class weighs as much as a frequent one.
        held_out: share of the training slides, by group, that decide when to stop where the samples have no
            validation split.
    """

    epochs: int = 60
    patience: int = 12
    batch_size: int = 8
    most_tiles: int = 2048
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    hidden: int = 128
    attention: int = 64
    dropout: float = 0.25
    balanced: bool = True
    held_out: float = 0.2

    def __post_init__(self) -> None:
        """Refuse numbers that cannot work."""
        least = min(self.epochs, self.patience, self.batch_size, self.most_tiles)
        if least < 1 or self.learning_rate <= 0 or not 0 < self.held_out < 1:
            raise ConfigError(
                "slide classifier: epochs, patience, batch_size and most_tiles must be at least 1, "
                "learning_rate above 0 and held_out between 0 and 1"
            )


class _Run(msgspec.Struct, frozen=True):
    """What is kept beside the network: what it was trained with, and how it went."""

    inputs: str
    curve: Curve


def train_slide_classifier(
    samples: Sequence[Sample],
    features_of: FeaturesOf,
    config: SlideClassifyConfig,
    folder: Path,
    *,
    encoder: str,
    seed: int = 0,
    on_step: OnStep | None = None,
) -> tuple[AttentionMil, Curve]:
    """Train on the train split of one exam, and keep the network of the lowest validation loss.

    Same samples, features, settings and seed: same weights. A folder that holds the outcome of the same call
    already is taken as it is; a call that was cut short is done again, which takes seconds to minutes.

    Args:
        samples: of one exam, answered by Choice, of the splits train and validation; others are passed over.
        features_of: the features of a sample's slide. Called once per slide and epoch, so a store that is
            read anew each time keeps memory flat.
        config: settings.
        folder: where the network goes, whole, at the end.
        encoder: name of what made the features; saved with the network.
        seed: of weights, order, drawn tiles and dropout.
        on_step: progress listener: (epoch, epochs, row).

    Returns:
        The network of the best epoch, and rows {epoch, loss, validation_loss, validation_accuracy}.

    Raises:
        DataError: no training slides, several exams, or a split without any slide.
    """
    train, validation = _parts(samples, config, seed)
    moments = _moments(train, features_of)
    inputs = digest(
        config,
        seed,
        encoder,
        [[s.id, s.group, s.answer] for s in (*train, *validation)],
        [moment.tolist() for moment in moments],
    )
    done = _finished(folder, inputs)
    if done is not None:
        return load_attention_mil(folder), done.curve
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _new_model(train, moments, config, encoder)
        trainer = _Trainer(model, train, features_of, config, np.random.default_rng(seed))
        curve = trainer.fit(validation, on_step)
    save_attention_mil(trainer.model, folder)
    with mending(folder), replacing(folder / CURVE) as file:
        file.write(msgspec.json.encode(_Run(inputs, curve)))
    return trainer.model, curve


def class_weights(labels: Sequence[int], options: int) -> NDArray[np.float64]:
    """Weights that make every class count alike: n / (classes that occur * n of the class); 0 for none.

    Example:
        >>> class_weights([0, 0, 0, 2], 3).round(3).tolist()
        [0.667, 0.0, 2.0]
    """
    counts = np.bincount(np.asarray(labels), minlength=options)
    weights = np.zeros(options)
    seen = counts > 0
    weights[seen] = counts.sum() / (seen.sum() * counts[seen])
    return weights


def padded(bags: Sequence[NDArray]) -> tuple[Tensor, Tensor]:
    """Slides of unlike length as one batch: features_BND float32 (0 where no tile is), and there_BN."""
    most = max(len(bag) for bag in bags)
    features_BND = torch.zeros(len(bags), most, bags[0].shape[1])
    there_BN = torch.zeros(len(bags), most, dtype=torch.bool)
    for row, bag in enumerate(bags):
        features_BND[row, : len(bag)] = torch.from_numpy(np.asarray(bag, np.float32))
        there_BN[row, : len(bag)] = True
    return features_BND, there_BN


class _Trainer:
    """One training: a network with its optimizer, the slides it learns from, and its random numbers."""

    def __init__(
        self,
        model: AttentionMil,
        train: Sequence[Sample],
        features_of: FeaturesOf,
        config: SlideClassifyConfig,
        rng: np.random.Generator,
    ) -> None:
        self.model = model
        self._train, self._features_of, self._config, self._rng = train, features_of, config, rng
        weights_K = np.ones(len(model.options))
        if config.balanced:
            weights_K = class_weights([_label(sample) for sample in train], len(model.options))
        self._weights_K = torch.from_numpy(weights_K).float()
        self._optimizer = torch.optim.AdamW(
            model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )

    def fit(self, validation: Sequence[Sample], on_step: OnStep | None) -> Curve:
        """Train until validation gains no more; the network ends as it was at its best."""
        best, kept, waited = float("inf"), self.model.state_dict(), 0
        curve: Curve = []
        for epoch in range(1, self._config.epochs + 1):
            loss = self._pass()
            held, accuracy = self._examined(validation)
            row = {
                "epoch": float(epoch),
                "loss": loss,
                "validation_loss": held,
                "validation_accuracy": accuracy,
            }
            curve.append(row)
            if on_step is not None:
                on_step(epoch, self._config.epochs, row)
            waited = 0 if held < best else waited + 1
            if held < best:
                best, kept = held, {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
            if waited >= self._config.patience:
                break
        self.model.load_state_dict(kept)
        self.model.eval()
        return curve

    def _pass(self) -> float:
        """One pass over the training slides in random order; the mean loss."""
        self.model.train()
        order = self._rng.permutation(len(self._train))
        losses = []
        for start in range(0, len(order), self._config.batch_size):
            samples = [self._train[i] for i in order[start : start + self._config.batch_size]]
            features_BND, there_BN = padded([self._drawn(sample) for sample in samples])
            logits_BK, _ = self.model(features_BND, there_BN)
            truth_B = torch.tensor([_label(sample) for sample in samples])
            loss_B = (
                nn.functional.cross_entropy(logits_BK, truth_B, reduction="none") * self._weights_K[truth_B]
            )
            loss = loss_B.mean()
            if not torch.isfinite(loss):
                raise DataError(
                    f"the loss became {float(loss)}; look for infinite features, or lower learning_rate="
                    f"{self._config.learning_rate}"
                )
            self._optimizer.zero_grad()
            loss.backward()
            self._optimizer.step()
            losses.append(float(loss.detach()) * len(samples))
        return sum(losses) / len(order)

    def _drawn(self, sample: Sample) -> NDArray:
        features_ND = self._features_of(sample)
        if len(features_ND) <= self._config.most_tiles:
            return features_ND
        return features_ND[self._rng.choice(len(features_ND), self._config.most_tiles, replace=False)]

    def _examined(self, samples: Sequence[Sample]) -> tuple[float, float]:
        """Loss and accuracy: the mean of the groups' means, so that no patient outweighs another."""
        losses: dict[str, list[float]] = {}
        right: dict[str, list[float]] = {}
        for sample in samples:
            chances_K = self.model.examine(self._features_of(sample)).probabilities_k
            label = _label(sample)
            loss = -float(np.log(max(chances_K[label], 1e-12))) * float(self._weights_K[label])
            losses.setdefault(sample.group, []).append(loss)
            right.setdefault(sample.group, []).append(float(chances_K.argmax() == label))
        return _mean_of_means(losses), _mean_of_means(right)


def _new_model(
    train: Sequence[Sample], moments: Sequence[NDArray], config: SlideClassifyConfig, encoder: str
) -> AttentionMil:
    centre_D, spread_D = moments
    shape = AttentionShape(len(centre_D), config.hidden, config.attention, config.dropout)
    model = AttentionMil(shape, train[0].options, encoder)
    model.centre_d.copy_(torch.from_numpy(centre_D))
    model.spread_d.copy_(torch.from_numpy(spread_D))
    return model


def _parts(
    samples: Sequence[Sample], config: SlideClassifyConfig, seed: int
) -> tuple[list[Sample], list[Sample]]:
    chosen = [sample for sample in samples if isinstance(sample.answer, Choice)]
    train = [sample for sample in chosen if sample.split is Split.TRAIN]
    validation = [sample for sample in chosen if sample.split is Split.VALIDATION]
    kinds = {(sample.exam, sample.options) for sample in (*train, *validation)}
    if not train or len(kinds) != 1:
        raise DataError(
            f"{len(train)} training slides of {len(kinds)} exams or lists of options; the slide classifier "
            "needs at least one slide, all of one exam"
        )
    if not validation:
        plan = SplitPlan(1 - config.held_out, config.held_out, 0.0, seed)
        splits = assign((Member(sample.group, _label(sample)) for sample in train), plan)
        validation = [sample for sample in train if splits[sample.group] is Split.VALIDATION]
        train = [sample for sample in train if splits[sample.group] is Split.TRAIN]
    if not train or not validation:
        raise DataError("too few groups to train on some and stop by others; at least two are needed")
    return train, validation


def _finished(folder: Path, inputs: str) -> _Run | None:
    try:
        run = msgspec.json.decode((folder / CURVE).read_bytes(), type=_Run)
    except (OSError, msgspec.MsgspecError):
        return None
    return run if run.inputs == inputs else None


def _moments(
    samples: Sequence[Sample], features_of: FeaturesOf
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation of each feature, every slide weighing the same; 1 where nothing varies."""
    total_D, square_D = np.zeros(1), np.zeros(1)
    for sample in samples:
        values_ND = np.asarray(features_of(sample), np.float64)
        if not len(values_ND) or not np.isfinite(values_ND).all():
            raise DataError(
                f"sample {sample.id}: {len(values_ND)} tiles, features finite: "
                f"{np.isfinite(values_ND).all()}; every slide needs at least one tile and finite features"
            )
        total_D = total_D + values_ND.mean(axis=0)
        square_D = square_D + (values_ND**2).mean(axis=0)
    centre_D = total_D / len(samples)
    spread_D = np.sqrt(np.maximum(square_D / len(samples) - centre_D**2, 0))
    spread_D[spread_D < 1e-6 * np.maximum(1, np.abs(centre_D))] = 1
    return centre_D.astype(np.float32), spread_D.astype(np.float32)


def _label(sample: Sample) -> int:
    assert isinstance(sample.answer, Choice)
    return sample.answer.index


def _mean_of_means(values: dict[str, list[float]]) -> float:
    return float(np.mean([np.mean(group) for group in values.values()]))
