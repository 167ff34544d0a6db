"""The small network that every vision-language model must be compared with: EfficientNet-B0.

Source: Singpath-VL Table 4 compares against an EfficientNet-B0 trained on the same cells, and it wins there.
Departs: one backbone is shared by all choice exams of a run (a head each), and starts from random weights, as
the miniature vision-language model does.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from malpighi.models.classifier import ExamClassifier, build_classifier, save_classifier
from malpighi.models.pictures import Pictures
from malpighi.records import Choice, Sample
from malpighi.training.runtime import Curve, OnStep
from malpighi.training.settings import ClassifyConfig

# Shape suffixes: B batch, K classes of an exam.


def train_classifier(
    samples: Sequence[Sample],
    pictures: Pictures,
    config: ClassifyConfig,
    folder: Path,
    seed: int,
    on_step: OnStep | None = None,
) -> Curve:
    """Train one backbone with a head per choice exam on the first image of each sample, and save it.

    Args:
        samples: training samples; those without a Choice answer are passed over.
        pictures: opens images as the vision-language model sees them, so both look at the same pixels.
        config: settings.
        folder: where `model.safetensors` and `classifier.json` go.
        seed: of weights, order and flips.
        on_step: progress listener.

    Returns:
        Rows {step, loss, accuracy} over the training batches.
    """
    chosen = [sample for sample in samples if isinstance(sample.answer, Choice)]
    torch.manual_seed(seed)
    exams = {sample.exam: sample.options for sample in chosen}
    model = build_classifier(config.architecture, exams, config.image_size)
    rng = np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.learning_rate, total_steps=config.steps)
    model.train()
    rows: Curve = []
    window: list[tuple[float, float]] = []
    for step in range(1, config.steps + 1):
        batch = [chosen[i] for i in rng.choice(len(chosen), config.batch_size, p=_weights(chosen))]
        loss, accuracy = _loss(model, batch, pictures, rng)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        window.append((float(loss.detach()), accuracy))
        if step % config.log_every == 0 or step == config.steps:
            row = {"step": float(step), "loss": _mean(window, 0), "accuracy": _mean(window, 1)}
            rows.append(row)
            window.clear()
            if on_step is not None:
                on_step(step, config.steps, row)
    save_classifier(model, folder)
    return rows


def _weights(samples: Sequence[Sample]) -> np.ndarray:
    """Drawing weights: an exam is seen with the square root of its size, so that none is drowned."""
    _, inverse, counts = np.unique([s.exam for s in samples], return_inverse=True, return_counts=True)
    weight = 1.0 / np.sqrt(counts)[inverse]
    return np.asarray(weight / weight.sum())


def _loss(
    model: ExamClassifier, batch: Sequence[Sample], pictures: Pictures, rng: np.random.Generator
) -> tuple[Tensor, float]:
    images = model.tensor([pictures.prompt(sample).images[0] for sample in batch])
    images = torch.stack([_turned(image, int(rng.integers(8))) for image in images])
    features = model.features(images)
    losses, right = [], 0
    for index, sample in enumerate(batch):
        assert isinstance(sample.answer, Choice)
        logits_K = model.heads[model.exam_index[sample.exam]](features[index])
        losses.append(nn.functional.cross_entropy(logits_K, torch.tensor(sample.answer.index)))
        right += int(logits_K.argmax() == sample.answer.index)
    return torch.stack(losses).mean(), right / len(batch)


def _turned(image: Tensor, turn: int) -> Tensor:
    """One of the eight rotations and mirrorings; tissue has no up."""
    image = torch.rot90(image, turn % 4, dims=(1, 2))
    return image.flip(2) if turn >= 4 else image


def _mean(rows: list[Any], column: int) -> float:
    return float(np.mean([row[column] for row in rows]))
