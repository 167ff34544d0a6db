import json
import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from malpighi.errors import DataError
from malpighi.training.runtime import Progress, StageRuntime, curves, save_curves, settle


def checkpoint(runtime, step, whole=True):
    folder = runtime.checkpoints / f"checkpoint-{step}"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    if whole:
        (folder / "trainer_state.json").write_text("{}")
    return folder


def test_a_fresh_stage_has_no_checkpoint(tmp_path):
    runtime = StageRuntime(tmp_path)
    assert runtime.last_checkpoint() is None
    assert runtime.checkpoints.is_dir()
    assert runtime.model == tmp_path / "model"


def test_the_newest_checkpoint_is_gone_on_from(tmp_path):
    runtime = StageRuntime(tmp_path)
    for step in (9, 100, 20):
        checkpoint(runtime, step)
    assert runtime.last_checkpoint() == str(runtime.checkpoints / "checkpoint-100")


def test_a_checkpoint_killed_while_it_was_written_is_passed_over(tmp_path):
    runtime = StageRuntime(tmp_path)
    checkpoint(runtime, 2)
    checkpoint(runtime, 4, whole=False)
    assert runtime.last_checkpoint() == str(runtime.checkpoints / "checkpoint-2")
    assert not (runtime.checkpoints / "checkpoint-4").exists()


def test_with_broken_checkpoints_alone_the_stage_starts_over(tmp_path):
    runtime = StageRuntime(tmp_path)
    checkpoint(runtime, 2, whole=False)
    assert runtime.last_checkpoint() is None


def test_a_checkpoint_may_be_broken_again_and_again(tmp_path):
    runtime = StageRuntime(tmp_path)
    for _ in range(3):
        checkpoint(runtime, 2, whole=False)
        assert runtime.last_checkpoint() is None


def test_curves_keep_the_learning_under_short_names():
    history = [
        {"loss": 2, "completions/mean_length": 7.0, "reward": 0.5, "epoch": 0.1, "num_tokens": 8, "step": 1},
        {"eval_runtime": 3.0, "step": 1},
        {"loss": 1.0, "mean_token_accuracy": 0.25, "note": "words", "step": 2},
        {"train_runtime": 9.0, "train_loss": 1.5, "total_flos": 1.0, "step": 2},
    ]
    assert curves(history) == [
        {"loss": 2.0, "length": 7.0, "reward": 0.5, "step": 1.0},
        {"loss": 1.0, "token_accuracy": 0.25, "step": 2.0},
    ]


def test_curves_are_saved_one_step_a_line(tmp_path):
    rows = [{"step": 1.0, "loss": 2.5}, {"step": 2.0, "loss": 1.5}]
    save_curves(rows, tmp_path / "curves.jsonl")
    assert [json.loads(line) for line in (tmp_path / "curves.jsonl").read_text().splitlines()] == rows


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_the_stage(loss):
    told = []
    progress = Progress(lambda *seen: told.append(seen))
    state = SimpleNamespace(global_step=7, max_steps=9)
    progress.on_log(None, state, None, {"loss": 1.0, "note": "words"})
    assert told == [(7, 9, {"loss": 1.0})]
    with pytest.raises(DataError, match="at step 7; lower the learning rate"):
        progress.on_log(None, state, None, {"loss": loss})
    assert len(told) == 1


def test_a_log_without_loss_or_listener_passes():
    Progress(None).on_log(None, SimpleNamespace(global_step=1, max_steps=2), None, None)


def test_threads_are_fixed_unless_left_open(untouched_process):
    settle(1)
    assert torch.get_num_threads() == 1
    settle(0)
    assert torch.get_num_threads() == 1
    assert torch.are_deterministic_algorithms_enabled()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc hands freed memory back at once")
def test_memory_freed_is_taken_again_without_page_faults():
    """In a process of its own: the setting lasts."""
    script = """
import resource, sys
import torch
from malpighi.training.runtime import settle
if sys.argv[1] == "settled":
    settle(1)
for _ in range(3):
    torch.empty(16_000_000).zero_()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    torch.empty(16_000_000).zero_()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    faults = {
        name: int(
            subprocess.run([sys.executable, "-c", script, name], capture_output=True, check=True).stdout
        )
        for name in ("settled", "as it comes")
    }
    assert faults["settled"] < faults["as it comes"] / 3
