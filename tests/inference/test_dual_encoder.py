"""Encoders of pictures and words, on the real classes built small and saved to disk."""

import json
import sys
import types

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    PreTrainedTokenizerFast,
)

from malpighi.errors import ConfigError, DataError
from malpighi.inference.dual_encoder import DualEncoder, load_dual_encoder
from malpighi.inference.embeddings import CHUNK, embed

WORDS = ["benign lung tissue", "adenocarcinoma", "a", "benign lung tissue " * 60]


def pictures(count=3):
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 256, (40 + i, 50, 3), np.uint8)) for i in range(count)]


@pytest.fixture(scope="module")
def open_clip_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny-open-clip")
    tower = {"layers": 1, "width": 32}
    config = {
        "model_cfg": {
            "embed_dim": 16,
            "vision_cfg": tower | {"image_size": 32, "patch_size": 8, "head_width": 16},
            "text_cfg": tower | {"context_length": 77, "vocab_size": 49408, "heads": 2},
        },
        "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "size": 32},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    model = open_clip.CLIP(**config["model_cfg"])
    torch.save(model.state_dict(), folder / "open_clip_pytorch_model.bin")
    return folder, model.eval()


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny-clip")
    letters = ["<pad>", "<end>", "<unk>", *"abcdefghijklmnopqrstuvwxyz"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(letters)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>", unk_token="<unk>"
    )
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config=tower
        | {"vocab_size": 40, "max_position_embeddings": 24, "eos_token_id": 1, "pad_token_id": 0},
        vision_config=tower | {"image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    torch.manual_seed(0)
    model = CLIPModel(config).eval()
    model.save_pretrained(folder)
    size = {"height": 32, "width": 32}
    prepare = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size)
    CLIPProcessor(prepare, fast).save_pretrained(folder)
    return folder, model


@pytest.mark.parametrize("kind", ["open_clip_folder", "clip_folder"])
def test_features_are_unit_vectors_that_batching_does_not_change(kind, request):
    folder, _ = request.getfixturevalue(kind)
    encoder = load_dual_encoder(str(folder))
    assert isinstance(encoder, DualEncoder)
    assert encoder.name.startswith(folder.name)
    assert encoder.scale == pytest.approx(1 / 0.07, rel=0.01)
    for encode, things in ((encoder.images, pictures()), (encoder.texts, WORDS)):
        together = encode(things)
        assert together.shape == (len(things), 16)
        assert together.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
        alone = np.concatenate([encode([thing]) for thing in things])
        np.testing.assert_allclose(together, alone, atol=1e-5)
    assert load_dual_encoder(str(folder)).name == encoder.name


def test_open_clip_features_are_those_of_its_own_model(open_clip_folder):
    folder, model = open_clip_folder
    encoder = load_dual_encoder(str(folder))
    with torch.inference_mode():
        said = model.encode_text(open_clip.get_tokenizer(f"local-dir:{folder}")(WORDS))
    expected = torch.nn.functional.normalize(said, dim=-1).numpy()
    np.testing.assert_allclose(encoder.texts(WORDS), expected, atol=1e-5)


def test_grey_and_transparent_pictures_are_shown_as_rgb(clip_folder):
    encoder = load_dual_encoder(str(clip_folder[0]))
    grey = pictures(1)[0].convert("L")
    np.testing.assert_array_equal(encoder.images([grey]), encoder.images([grey.convert("RGB")]))
    assert encoder.images([grey.convert("RGBA")]).shape == (1, 16)


def test_two_trainings_have_two_names(clip_folder, tmp_path):
    folder, model = clip_folder
    name = load_dual_encoder(str(folder)).name
    other = tmp_path / folder.name
    other.mkdir()
    for path in folder.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    assert load_dual_encoder(str(other)).name == name
    model.logit_scale.data += 1
    model.save_pretrained(other)
    model.logit_scale.data -= 1
    assert load_dual_encoder(str(other)).name != name


def test_the_name_depends_on_every_byte(clip_folder, tmp_path):
    """Trainings that share the ends of their files must not share features."""
    folder, _ = clip_folder
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    name = load_dual_encoder(str(tmp_path)).name
    weights = tmp_path / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    assert load_dual_encoder(str(tmp_path)).name != name


def test_what_is_no_such_model_is_refused(tmp_path, clip_folder):
    with pytest.raises(ConfigError, match="open_clip_config"):
        load_dual_encoder(str(tmp_path))
    with pytest.raises(ConfigError, match="nowhere is no model"):
        load_dual_encoder("nowhere")
    with pytest.raises(ConfigError, match="package conch is not installed"):
        load_dual_encoder("conch.plug:load")
    with pytest.raises(ConfigError, match="no attribute 'none'"):
        load_dual_encoder("json:none")
    with pytest.raises(ConfigError, match="returned a str"):
        load_dual_encoder("platform:node")
    bert = tmp_path / "bert"
    BertModel(
        BertConfig(
            vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
        )
    ).save_pretrained(bert)
    for path in clip_folder[0].glob("*token*"):
        (bert / path.name).write_bytes(path.read_bytes())
    with pytest.raises(DataError, match=r"cannot be loaded|no features of texts"):
        load_dual_encoder(str(bert))
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "open_clip_config.json").write_text("{")
    with pytest.raises(DataError, match="broken"):
        load_dual_encoder(str(broken))


def test_a_plug_in_is_called_by_name(monkeypatch, clip_folder):
    encoder = load_dual_encoder(str(clip_folder[0]))
    module = types.ModuleType("some_hospital")
    module.load = lambda: encoder
    monkeypatch.setitem(sys.modules, "some_hospital", module)
    assert load_dual_encoder("some_hospital:load") is encoder


def test_embeddings_are_computed_once_and_survive_a_kill(tmp_path):
    keys = [f"{number:04d}" for number in range(CHUNK + 40)]
    calls = []

    def load(key):
        return Image.new("RGB", (4, 4), (int(key) % 256, int(key) // 256, 0))

    def encode(batch):
        calls.append(len(batch))
        if len(calls) > 8:
            raise KeyboardInterrupt
        return np.stack([np.asarray(p, np.float32)[0, 0] for p in batch])

    with pytest.raises(KeyboardInterrupt):
        embed(keys, load, encode, tmp_path)
    calls.clear()
    told = []
    asked = [*reversed(keys), keys[5]]
    features, failures = embed(asked, load, encode, tmp_path, on_progress=lambda *done: told.append(done))
    assert failures == []
    assert sum(calls) == 40, "the finished chunk is computed again"
    assert told == [(CHUNK, CHUNK + 40), (CHUNK + 40, CHUNK + 40)]
    assert [int(row[0] + 256 * row[1]) for row in features] == [int(key) for key in asked]


def test_a_picture_that_cannot_be_read_is_one_row_of_nan(tmp_path):
    def load(key):
        if key == "b":
            raise DataError("cut short")
        return Image.new("RGB", (4, 4))

    def encode(batch):
        return np.ones((len(batch), 2), np.float32)

    for _ in range(2):
        features, failures = embed(["a", "b", "c"], load, encode, tmp_path)
        assert [failure.id for failure in failures] == ["b"]
        assert np.isnan(features).all(axis=1).tolist() == [False, True, False]
    assert embed([], load, encode, tmp_path)[0].shape == (0, 0)
