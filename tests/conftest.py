"""Fixtures that several rooms share: a handful of phantom samples, and one miniature per family."""

import logging
import sys
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from malpighi.phantom.generate import cell_items, region_items
from malpighi.records import Grade, Item, Sample, Scale

# torch is imported by the fixtures that need it: tests of the light rooms must not wait for it.
# ruff: noqa: PLC0415


class Miniature(NamedTuple):
    """A saved tiny model with the samples it was made from and their pictures."""

    folder: Path
    samples: list[Sample]
    pictures: Any
    masks: dict[str, Any]

    def load(self) -> Any:
        """A fresh copy of the model: training changes what it is given."""
        from malpighi.models.vlm import load_vlm

        return load_vlm(self.folder)

    def of(self, *exams: str) -> list[Sample]:
        """The samples of some exams, e.g. `category`."""
        return [s for s in self.samples if s.exam.removeprefix("phantom/") in exams]

    def grade_text(self, sample: Sample, text: str, prompt: Any, reading: Any) -> Grade:
        """The verdict as a run gives it."""
        from malpighi.grading.grade import grade

        frame = self.pictures.style.facts.frame
        known = replace(reading, view=prompt.views[0], frame=frame, load_mask=self.masks.__getitem__)
        return grade(sample, text, known)


@pytest.fixture(scope="session")
def phantom_items() -> list[Item]:
    return list(chain(cell_items(seed=3, count=12), region_items(seed=3, count=6)))


@pytest.fixture(scope="session")
def miniatures(tmp_path_factory, phantom_items):
    """The miniature of a family, built at first use."""
    from malpighi.models.pictures import Pictures
    from malpighi.models.prompt import PromptStyle, target_text
    from malpighi.models.sizes import TinySize
    from malpighi.models.tiny import build_tiny
    from malpighi.pixels import decode_labels

    size = TinySize(
        hidden=64,
        layers=2,
        feed_forward=96,
        vision_hidden=32,
        vision_layers=2,
        vision_heads=2,
        vision_feed_forward=64,
        vocabulary=420,
    )
    blobs = {blob.key: blob.data for item in phantom_items for blob in item.blobs}
    samples = [item.sample for item in phantom_items]
    masks = {
        s.answer.key: decode_labels(blobs[s.answer.key]) > 0 for s in samples if hasattr(s.answer, "key")
    }
    made: dict[str, Miniature] = {}

    def miniature(family: str) -> Miniature:
        if family not in made:
            style = PromptStyle(family=family, budgets=dict.fromkeys(Scale, 4))
            pictures = Pictures(blobs.__getitem__, style)
            texts: list[str] = []
            for sample in samples:
                prompt = pictures.prompt(sample)
                texts += [prompt.system, *(turn.text for turn in prompt.turns)]
                texts.append(target_text(sample, prompt.views, style))
            folder = build_tiny(family, tmp_path_factory.mktemp("miniature") / family, texts, size=size)
            made[family] = Miniature(folder, samples, pictures, masks)
        return made[family]

    return miniature


@pytest.fixture(scope="session")
def sam_folder(tmp_path_factory):
    """A SAM of 64 px in miniature, saved as transformers saves it; its masks are neither empty nor full."""
    import torch
    from transformers import SamConfig, SamModel

    config = SamConfig(
        vision_config={
            "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 64,
            "output_channels": 16, "num_pos_feats": 8, "window_size": 0, "global_attn_indexes": [0],
        },
        prompt_encoder_config={"hidden_size": 16, "image_size": 64, "mask_input_channels": 4},
        mask_decoder_config={
            "hidden_size": 16, "mlp_dim": 16, "num_attention_heads": 2, "iou_head_hidden_dim": 16,
        },
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = SamModel(config)
        for weights in model.parameters():
            weights.normal_(0, 0.4)
    folder = tmp_path_factory.mktemp("sam")
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def untouched_process():
    """Put back what a run changes in its process: threads, determinism, log handlers."""
    import torch

    threads, root = torch.get_num_threads(), logging.getLogger()
    handlers, level = list(root.handlers), logging.getLogger("malpighi").level
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(mode=False)
    torch.utils.deterministic.fill_uninitialized_memory = True
    logging.captureWarnings(capture=False)
    logging.getLogger("malpighi").setLevel(level)
    for handler in [h for h in root.handlers if h not in handlers]:
        root.removeHandler(handler)
        handler.close()


@pytest.fixture
def malpighi(monkeypatch, capsys):
    """Run a command in this process: (exit status, stdout, stderr)."""
    from malpighi import cli

    for name in ("OMP_WAIT_POLICY", "HF_HUB_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "1")  # the command sets them where they are not set; this puts them back

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["malpighi", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        told = capsys.readouterr()
        return ended.value.code or 0, told.out, told.err

    yield call
    logging.captureWarnings(capture=False)
