import shutil

import pytest
import torch
from safetensors.torch import load_file

from malpighi.errors import ConfigError, DataError
from malpighi.models.encode import IGNORED, encode
from malpighi.models.families import FAMILIES, TURN_END
from malpighi.models.prompt import target_text
from malpighi.models.vlm import load_vlm
from malpighi.training.runtime import StageRuntime
from malpighi.training.settings import Lora, SupervisedConfig
from malpighi.training.supervised import Batches, train_supervised

FOUR = SupervisedConfig(steps=4, batch_size=4, micro_batch=4, learning_rate=3e-3, log_every=1, save_every=2)
LORA = Lora(rank=4, alpha=8)


@pytest.fixture
def mini(miniatures):
    return miniatures("qwen2_5_vl")


def train(mini, folder, config=FOUR, *, seed=0, on_step=None, vlm=None):
    runtime = StageRuntime(folder, on_step)
    return train_supervised(vlm or mini.load(), mini.samples[:16], mini.pictures, config, runtime, seed)


def weights(folder):
    return load_file(folder / "model" / "model.safetensors")


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def logits(vlm, mini):
    with torch.inference_mode():
        batch = encode([mini.pictures.prompt(s) for s in mini.samples[:3]], None, vlm)
        return vlm.model.eval()(**batch).logits


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_only_the_target_is_learnt(miniatures, family):
    mini = miniatures(family)
    vlm, chosen = mini.load(), [mini.of("category")[0], mini.of("nuclei")[0], mini.of("describe")[0]]
    batch = Batches(vlm, mini.samples, mini.pictures)([{"id": sample.id} for sample in chosen])
    for sample, ids, labels in zip(chosen, batch["input_ids"], batch["labels"], strict=True):
        told = labels[labels != IGNORED]
        target = target_text(sample, mini.pictures.prompt(sample).views, mini.pictures.style)
        assert vlm.tokenizer.decode(told) == target + TURN_END
        assert torch.equal(ids[labels != IGNORED], told)
    assert (batch["labels"][batch["mm_token_type_ids"] == 1] == IGNORED).all()


def test_the_loss_falls_and_the_curve_tells_it(mini, tmp_path):
    told = []
    config = SupervisedConfig(steps=16, batch_size=8, micro_batch=8, learning_rate=5e-3, log_every=4)
    rows = train(mini, tmp_path, config, on_step=lambda *seen: told.append(seen))
    assert [row["step"] for row in rows] == [1, 4, 8, 12, 16]
    assert all(
        {"loss", "entropy", "token_accuracy", "grad_norm", "learning_rate"} <= row.keys() for row in rows
    )
    assert rows[-1]["loss"] < 0.75 * rows[0]["loss"]
    assert rows[-1]["token_accuracy"] > rows[0]["token_accuracy"]
    assert (told[0][:2], told[-1][:2]) == ((1, 16), (16, 16))


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_what_was_trained_is_what_is_saved(miniatures, tmp_path, family):
    mini = miniatures(family)
    vlm = mini.load()
    before = logits(mini.load(), mini)
    train(mini, tmp_path, replace_steps(2), vlm=vlm)
    after = logits(load_vlm(tmp_path / "model"), mini)
    assert torch.allclose(after, logits(vlm, mini), atol=1e-6)
    assert not torch.allclose(after, before, atol=1e-3)


def replace_steps(steps, **changes):
    fields = {name: getattr(FOUR, name) for name in FOUR.__struct_fields__}
    return SupervisedConfig(**{**fields, "steps": steps, **changes})


@pytest.mark.parametrize(
    ("family", "lora"),
    [pytest.param("qwen2_5_vl", 0), ("qwen3_vl", 0), ("qwen2_5_vl", 4)],
)
def test_a_resumed_stage_ends_as_a_straight_one_bit_for_bit(miniatures, tmp_path, family, lora):
    mini, config = miniatures(family), replace_steps(4, lora=Lora(rank=lora, alpha=8, dropout=0.1))
    straight = train(mini, tmp_path / "straight", config)
    again = tmp_path / "again"
    shutil.copytree(tmp_path / "straight" / "checkpoints", again / "checkpoints")
    shutil.rmtree(again / "checkpoints" / "checkpoint-4")
    resumed = train(mini, again, config)
    assert resumed == straight
    assert same(weights(again), weights(tmp_path / "straight"))


def test_a_stage_killed_after_its_last_step_only_saves(mini, tmp_path):
    straight = train(mini, tmp_path / "straight", FOUR)
    again = tmp_path / "again"
    shutil.copytree(tmp_path / "straight" / "checkpoints", again / "checkpoints")
    told = []
    assert train(mini, again, FOUR, on_step=lambda *seen: told.append(seen)) == straight
    assert not any("loss" in values for _, _, values in told)
    assert (again / "model" / "model.safetensors").is_file()


def test_batches_are_learnt_in_the_order_given(mini, tmp_path, monkeypatch):
    learnt = []
    collate = Batches.__call__

    def recorded(self, rows):
        learnt.extend(row["id"] for row in rows)
        return collate(self, rows)

    monkeypatch.setattr(Batches, "__call__", recorded)
    train(mini, tmp_path)
    given = [sample.id for sample in mini.samples[:16]]
    assert [sorted(learnt[i : i + 4]) for i in range(0, 16, 4)] == [
        sorted(given[i : i + 4]) for i in range(0, 16, 4)
    ]


@pytest.mark.parametrize("rank", [0, 4])
def test_the_seed_alone_decides(mini, tmp_path, rank):
    """Whatever the process drew before: a stage that starts over in a new process repeats itself."""
    settings = replace_steps(2, lora=Lora(rank=rank, alpha=8, dropout=0.1))
    torch.manual_seed(11)
    one = train(mini, tmp_path / "one", settings)
    torch.manual_seed(12)
    assert train(mini, tmp_path / "two", settings) == one
    assert same(weights(tmp_path / "one"), weights(tmp_path / "two"))
    if rank:
        assert train(mini, tmp_path / "three", settings, seed=1) != one


def test_an_adapter_is_saved_beside_the_model_it_is_merged_into(mini, tmp_path):
    vlm = mini.load()
    train(mini, tmp_path, replace_steps(3, lora=LORA, learning_rate=3e-2), vlm=vlm)
    assert (tmp_path / "adapter" / "adapter_config.json").is_file()
    merged = load_vlm(tmp_path / "model")
    worn = mini.load()
    worn.model.load_adapter(str(tmp_path / "adapter"))
    assert torch.allclose(logits(merged, mini), logits(worn, mini), atol=1e-4)
    assert not torch.allclose(logits(merged, mini), logits(mini.load(), mini), atol=1e-2)


def test_an_adapter_leaves_the_eyes_alone(mini, tmp_path):
    train(mini, tmp_path, replace_steps(2, lora=LORA))
    before, after = load_file(mini.folder / "model.safetensors"), weights(tmp_path)
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all("_proj." in name and "visual" not in name for name in changed)


def test_full_training_reaches_the_eyes(mini, tmp_path):
    train(mini, tmp_path, replace_steps(2))
    before, after = load_file(mini.folder / "model.safetensors"), weights(tmp_path)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any("visual" in name for name in changed)


def test_a_loss_that_is_no_number_stops_the_training(mini, tmp_path):
    vlm = mini.load()
    with torch.no_grad():
        vlm.model.get_input_embeddings().weight[:] = float("nan")
    with pytest.raises(DataError, match="the loss became nan at step 1"):
        train(mini, tmp_path, vlm=vlm)
    assert not (tmp_path / "model").exists()


def test_batches_that_do_not_split_evenly_are_refused(mini, tmp_path):
    with pytest.raises(ConfigError, match="micro_batch 3 does not divide batch_size 4"):
        train(mini, tmp_path, replace_steps(1, micro_batch=3))


def test_nothing_to_learn_from_is_refused(mini, tmp_path):
    with pytest.raises(ConfigError, match=r"no sample to train on for align\.part; check the data"):
        train_supervised(mini.load(), [], mini.pictures, FOUR, StageRuntime(tmp_path / "align.part"), 0)
