"""Equivalences: the same learning, however it is cut into forward passes."""

import pytest
import torch
from safetensors.torch import load_file

from malpighi.models.families import FAMILIES
from malpighi.records import Grade, Status
from malpighi.training.reinforce import train_reinforce
from malpighi.training.runtime import StageRuntime
from malpighi.training.settings import ReinforceConfig, SupervisedConfig
from malpighi.training.supervised import train_supervised

# AdamW divides a gradient by its own size: where a gradient is all rounding, an update may differ by as much
# as the learning rate. So the update as a whole is compared, not each weight.
LARGEST_DIFFERENCE = 0.02


def update(folder, mini):
    """The change of all weights, as one vector."""
    before = load_file(mini.folder / "model.safetensors")
    after = load_file(folder / "model" / "model.safetensors")
    return torch.cat([(after[name] - before[name]).flatten() for name in sorted(before)])


def assert_alike(one, other):
    assert one.norm() > 0
    assert (one - other).norm() < LARGEST_DIFFERENCE * one.norm()


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_eight_samples_at_once_teach_what_they_teach_one_by_one(miniatures, tmp_path, family):
    """Targets of unequal length: a mean of means would not pass."""
    mini = miniatures(family)
    samples = [*mini.of("category")[:4], *mini.of("open")[:4], *mini.of("describe")[:4], *mini.of("nuclei")]
    rows, updates = {}, {}
    for micro in (8, 2, 1):
        config = SupervisedConfig(
            steps=2, batch_size=8, micro_batch=micro, learning_rate=1e-3, log_every=1, weight_decay=0.0
        )
        folder = tmp_path / str(micro)
        rows[micro] = train_supervised(
            mini.load(), [*samples, *samples], mini.pictures, config, StageRuntime(folder), 0
        )
        updates[micro] = update(folder, mini)
    for micro in (2, 1):
        assert_alike(updates[micro], updates[8])
        for name in ("loss", "grad_norm"):
            pairs = zip(rows[micro], rows[8], strict=True)
            assert all(a[name] == pytest.approx(b[name], rel=1e-3) for a, b in pairs)


@pytest.mark.parametrize("loss", ["grpo", "dapo"])
def test_a_step_of_reinforcement_does_not_depend_on_the_cut(miniatures, tmp_path, loss):
    mini = miniatures("qwen2_5_vl")
    rows, updates = {}, {}
    for micro in (8, 2):
        config = ReinforceConfig(
            steps=1,
            prompts=2,
            group=4,
            micro_batch=micro,
            max_new_tokens=10,
            learning_rate=1e-3,
            weight_decay=0.0,
            loss=loss,
            log_every=1,
        )
        folder = tmp_path / str(micro)
        rows[micro] = train_reinforce(
            mini.load(), mini.of("category")[:4], mini.pictures, config, StageRuntime(folder), vowels, 0
        )
        updates[micro] = update(folder, mini)
    assert rows[2][0]["reward"] == rows[8][0]["reward"] > 0
    assert rows[2][0]["grad_norm"] == pytest.approx(rows[8][0]["grad_norm"], rel=1e-3)
    assert_alike(updates[2], updates[8])


def vowels(sample, text, prompt, reading):
    share = text.count("e") / max(len(text), 1)
    return Grade(share, Status.OK, parts={"task": share, "format": 0.0})
