"""Whole GRPO steps: TRL as it is against each prompt computed once for its group, in one process.

A step is rollout, reward, loss, backward pass and update, over random pictures and weights; the reward counts
letters. Rounds of the two alternate; CPU time, one thread. Prints tables and, as last line, one JSON object
of ratios (TRL over ours). Usage: python benchmarks/reinforce.py [--quick]
"""

import argparse
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import PrinterCallback, TrainerCallback
from transformers.utils import logging as transformers_logging
from trl import GRPOConfig, GRPOTrainer

from datasets import Dataset
from malpighi.models.encode import chat, encode_one
from malpighi.models.families import SPECIAL_TOKENS
from malpighi.models.pictures import Pictures
from malpighi.models.prompt import PromptStyle
from malpighi.models.rollout import Drawing
from malpighi.models.sizes import TinySize
from malpighi.models.tiny import build_tiny
from malpighi.models.vlm import load_vlm
from malpighi.records import Blob, ImageRef, Provenance, Sample, Scale, TaskKind, Text, Turn
from malpighi.training.runtime import settle
from malpighi.training.shared_prefix import SharedPrefixTrainer

PROMPTS = 2
STEPS = 3

# The vision tower's share of the prefill is near that of Qwen2.5-VL-3B (0.8 to 0.9 of it, by arithmetic).
SIZE = TinySize(
    hidden=256, layers=4, heads=8, kv_heads=2, feed_forward=688, vision_hidden=160, vision_layers=2,
    vision_heads=4, vision_feed_forward=432, vocabulary=2048,
)  # fmt: skip


class Clock(TrainerCallback):
    """CPU seconds of each step."""

    def __init__(self):
        self.seconds = []

    def on_step_begin(self, args, state, control, **_):
        """Start the clock."""
        self.start = time.process_time()

    def on_step_end(self, args, state, control, **_):
        """Stop it."""
        self.seconds.append(time.process_time() - self.start)


class World:
    """A miniature and random pictures that take so many tokens each."""

    def __init__(self, visual_tokens, folder):
        side = 28 * round(visual_tokens**0.5)
        rng = np.random.default_rng(0)
        blobs, self.samples = {}, []
        for number in range(PROMPTS * STEPS):
            pixels = rng.integers(0, 255, (side, side, 3), dtype=np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG", compress_level=0)
            blob = Blob(f"{number:064x}", buffer.getvalue(), ".png")
            blobs[blob.key] = blob.data
            self.samples.append(question(number, ImageRef(blob.key, (side, side), None)))
        style = PromptStyle(family="qwen2_5_vl", budgets=dict.fromkeys(Scale, visual_tokens))
        self.pictures = Pictures(blobs.__getitem__, style)
        texts = [f"{word} {other}" for word in words() for other in words()]
        self.folder = build_tiny("qwen2_5_vl", folder, texts, size=SIZE)

    def prompt(self, key):
        """The prompt of the question with that id."""
        return self.pictures.prompt(self.samples[int(key)])


def question(number, ref):
    return Sample(
        id=str(number), dataset="random", exam="random/words", task=TaskKind.VQA, scale=Scale.ROI,
        images=(ref,), turns=(Turn("user", "What does this region show, and what does it mean?"),),
        answer=Text("nothing"), group=str(number), licence="generated", provenance=Provenance("random", 1),
    )  # fmt: skip


def words():
    return ("nucleus", "stroma", "gland", "enlarged", "irregular", "membrane", "chromatin", "coarse", "fine")


def letters(completions, **_):
    return [message[-1]["content"].count("e") / 10 for message in completions]


def settings(group, new_tokens, suppressed):
    return GRPOConfig(
        output_dir=tempfile.mkdtemp(), max_steps=STEPS, per_device_train_batch_size=PROMPTS * group,
        gradient_accumulation_steps=1, num_generations=group, max_completion_length=new_tokens, beta=0.0,
        learning_rate=1e-5, loss_type="grpo", save_strategy="no", report_to=[], disable_tqdm=True,
        use_cpu=True, bf16=False, gradient_checkpointing=False, remove_unused_columns=False,
        dataloader_pin_memory=False, logging_steps=1000, seed=0,
        generation_kwargs={"suppress_tokens": suppressed},
    )  # fmt: skip


def stock(world, group, new_tokens):
    """TRL's trainer as its users call it: the pictures in the messages."""
    vlm = load_vlm(world.folder)
    vlm.processor.image_processor.do_resize = False
    vlm.processor.tokenizer.padding_side = "left"

    def rows(batch):
        return {"prompt": [messages(world.prompt(key)) for key in batch["id"]], "id": batch["id"]}

    data = Dataset.from_dict({"id": [s.id for s in world.samples]}).with_transform(rows)
    return GRPOTrainer(
        model=vlm.model, processing_class=vlm.processor, reward_funcs=letters, train_dataset=data,
        args=settings(group, new_tokens, never(vlm)),
    )  # fmt: skip


def ours(world, group, new_tokens):
    vlm = load_vlm(world.folder)
    ids = [s.id for s in world.samples]
    rows = {"id": ids, "prompt": [[{"role": "user", "content": key}] for key in ids]}
    return SharedPrefixTrainer(
        vlm, lambda key: encode_one(world.prompt(key), None, vlm),
        Drawing(new_tokens, 1.0, (), tuple(never(vlm))),
        reward_funcs=letters, train_dataset=Dataset.from_dict(rows),
        args=settings(group, new_tokens, never(vlm)),
    )  # fmt: skip


def never(vlm):
    """Tokens that are not drawn: completions do not end before their time in either."""
    return [vlm.token_id(token) for token in SPECIAL_TOKENS]


def messages(prompt):
    waiting = iter(prompt.images)
    said = chat(prompt)
    for message in said:
        for part in message["content"]:
            if part["type"] == "image":
                part["image"] = next(waiting)
    return said


def seconds_of(make, world, *shape):
    """CPU seconds per step; the first step of a trainer, which sets things up, does not count."""
    trainer = make(world, *shape)
    trainer.remove_callback(PrinterCallback)
    clock = Clock()
    trainer.add_callback(clock)
    trainer.train()
    return statistics.median(clock.seconds[1:])


def compare(visual_tokens, new_tokens, group, rounds=1):
    """Median CPU seconds per step of TRL and of ours, rounds interleaved."""
    with tempfile.TemporaryDirectory() as folder:
        world = World(visual_tokens, Path(folder) / "model")
        found = {stock: [], ours: []}
        for _ in range(rounds):
            for make, seconds in found.items():
                seconds.append(seconds_of(make, world, group, new_tokens))
    return statistics.median(found[stock]), statistics.median(found[ours])


def peak_gigabytes(name, visual_tokens, new_tokens, group):
    """Peak memory of a process of its own that trains, less what it held before training."""
    command = [sys.executable, __file__, "--memory", name, str(visual_tokens), str(new_tokens), str(group)]
    return float(subprocess.run(command, capture_output=True, check=True, text=True).stdout.split()[-1])


def measure_memory(name, visual_tokens, new_tokens, group):
    with tempfile.TemporaryDirectory() as folder:
        world = World(visual_tokens, Path(folder) / "model")
        trainer = {"trl": stock, "ours": ours}[name](world, group, new_tokens)
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = resident("VmRSS")
        trainer.train()
        print(resident("VmHWM") - before)


def resident(name):
    """Gigabytes of memory that Linux tells of this process: `VmRSS` now, `VmHWM` at its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1e6


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="one shape, about a minute")
    parser.add_argument("--memory", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory:
        torch.set_num_threads(1)  # and let freed memory go, unlike `settle`
    else:
        settle(1)
    warnings.filterwarnings("ignore")
    transformers_logging.disable_progress_bar()
    if options.memory:
        name, *shape = options.memory
        measure_memory(name, *map(int, shape))
        return
    shapes = [(256, 64, 8)] if options.quick else [(256, 64, 8), (256, 64, 16), (1024, 64, 8), (1024, 64, 16)]
    ratios = {}
    print(f"{'visual/new/G':>14} {'TRL s':>8} {'ours s':>8} {'ratio':>6} {'memory ratio':>13}")
    for shape in shapes:
        theirs, own = compare(*shape, rounds=1 if options.quick else 3)
        name = "/".join(map(str, shape))
        memory = float("nan")
        if not options.quick:
            memory = peak_gigabytes("trl", *shape) / peak_gigabytes("ours", *shape)
            ratios[f"{name} memory"] = round(memory, 2)
        ratios[name] = round(theirs / own, 2)
        print(f"{name:>14} {theirs:8.2f} {own:8.2f} {theirs / own:6.2f} {memory:13.2f}", flush=True)
    if not options.quick:
        print(f"\n{'G (256/64)':>14} {'TRL s':>8} {'ours s':>8} {'ratio':>6}")
        for group in (2, 4, 8, 16, 32):
            theirs, own = compare(256, 64, group)
            ratios[f"G{group}"] = round(theirs / own, 2)
            print(f"{group:>14} {theirs:8.2f} {own:8.2f} {theirs / own:6.2f}", flush=True)
    print(json.dumps(ratios))


if __name__ == "__main__":
    main()
