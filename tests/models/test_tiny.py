import json

import pytest
import torch
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen3VLForConditionalGeneration

from malpighi.errors import ConfigError
from malpighi.models.families import FAMILIES, PAD_TOKEN, SPECIAL_TOKENS, TAGS, TURN_END
from malpighi.models.sizes import TinySize
from malpighi.models.tiny import BRIGHT_FIELD_MEAN, build_tiny, train_tokenizer
from malpighi.models.vlm import load_vlm

TEXTS = ["Which class? (A) NILM, (B) ASC-US", "<think>Large nuclei.</think><answer>(B) ASC-US</answer>"]
SMALL = TinySize(
    hidden=64,
    layers=2,
    feed_forward=96,
    vision_hidden=32,
    vision_layers=3,
    vision_heads=2,
    vision_feed_forward=48,
)
CLASSES = {"qwen2_5_vl": Qwen2_5_VLForConditionalGeneration, "qwen3_vl": Qwen3VLForConditionalGeneration}


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_it_loads_as_the_real_architecture(family, tmp_path):
    vlm = load_vlm(build_tiny(family, tmp_path, TEXTS, size=SMALL))
    assert isinstance(vlm.model, CLASSES[family])
    assert vlm.family is FAMILIES[family]
    assert vlm.model.dtype == torch.float32
    assert not vlm.model.training
    images = vlm.processor.image_processor
    assert (images.patch_size, images.merge_size) == (vlm.family.patch, vlm.family.merge)
    assert list(images.image_mean) == BRIGHT_FIELD_MEAN
    assert vlm.model.lm_head.weight is vlm.model.model.language_model.embed_tokens.weight


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_default_size_is_near_two_and_a_half_million(family, tmp_path):
    vlm = load_vlm(build_tiny(family, tmp_path, TEXTS))
    assert 2.2e6 < sum(p.numel() for p in vlm.model.parameters()) < 3.3e6


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_seed_decides_the_weights(family, tmp_path):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    weights = [
        load_vlm(build_tiny(family, tmp_path / str(i), TEXTS, seed=seed, size=SMALL)).model.state_dict()
        for i, seed in enumerate((3, 3, 4))
    ]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not torch.equal(weights[0]["lm_head.weight"], weights[2]["lm_head.weight"])
    tokenizers = [(tmp_path / str(i) / "tokenizer.json").read_bytes() for i in (0, 1)]
    assert tokenizers[0] == tokenizers[1]


def test_qwen2_5_vl_keeps_windows_and_full_attention(tmp_path):
    vision = load_vlm(build_tiny("qwen2_5_vl", tmp_path, TEXTS)).model.config.vision_config
    assert vision.window_size == 112
    assert 0 < len(vision.fullatt_block_indexes) < vision.depth


def test_qwen3_vl_keeps_deepstack_and_interleaved_positions(tmp_path):
    model = load_vlm(build_tiny("qwen3_vl", tmp_path, TEXTS)).model
    assert len(set(model.config.vision_config.deepstack_visual_indexes)) == 3
    assert model.config.text_config.rope_parameters["mrope_interleaved"]
    assert len(model.model.visual.deepstack_merger_list) == 3


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_rotary_sections_fill_half_a_head(family, tmp_path):
    for hidden in (64, 160, 192, 256):
        size = TinySize(hidden=hidden, layers=1)
        build_tiny(family, tmp_path / str(hidden), TEXTS, size=size)
        text = json.loads((tmp_path / str(hidden) / "config.json").read_text())["text_config"]
        sections = text["rope_parameters"]["mrope_section"]
        assert sum(sections) == hidden // 4 // 2
        assert min(sections) > 0


def test_the_tokenizer_gives_back_what_it_was_given():
    tokenizer = train_tokenizer(TEXTS, 600)
    for text in ("Zellkern größer, 0.5 µm", "細胞核 🔬", "[[12, 345, 6, 7]]", " two  spaces\n\nlines", "''"):
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False) == text


def test_the_tokenizer_splits_digits_and_keeps_tags_whole():
    tokenizer = train_tokenizer(["1234 1234 1234 class class"] * 9, 600)
    assert len(tokenizer("1234")["input_ids"]) == 4
    assert len(tokenizer(" class")["input_ids"]) == 1
    for token in (*TAGS, *SPECIAL_TOKENS):
        assert len(tokenizer(token)["input_ids"]) == 1
    said = tokenizer("<think>a</think><|im_end|>")["input_ids"]
    assert tokenizer.decode(said, skip_special_tokens=True) == "<think>a</think>"
    assert (tokenizer.eos_token, tokenizer.pad_token) == (TURN_END, PAD_TOKEN)


def test_the_vocabulary_is_bounded():
    letters = "abcdefghij"
    text = " ".join(a + b + c + a for a in letters for b in letters for c in letters)
    assert len(train_tokenizer([text], 400)) == 400


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden": 100}, "multiple of"),
        ({"hidden": 32}, "at least 64"),
        ({"kv_heads": 3}, "must divide"),
        ({"vision_hidden": 90}, "vision_heads"),
        ({"vocabulary": 200}, "no room"),
    ],
)
def test_impossible_sizes_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        TinySize(**changes)


def test_unknown_families_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="known: qwen2_5_vl, qwen3_vl"):
        build_tiny("llava", tmp_path / "x", TEXTS)
    assert not (tmp_path / "x").exists()
