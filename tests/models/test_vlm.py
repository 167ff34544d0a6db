import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from malpighi.errors import ConfigError, DataError
from malpighi.models.families import FAMILIES
from malpighi.models.sizes import TinySize
from malpighi.models.tiny import build_tiny
from malpighi.models.vlm import load_vlm

SMALL = TinySize(hidden=64, layers=2, feed_forward=96, vision_hidden=32, vision_layers=2, vision_heads=2)


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def saved(request, tmp_path_factory):
    return build_tiny(request.param, tmp_path_factory.mktemp(request.param), ["a few words"], size=SMALL)


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


def test_saving_and_loading_change_nothing(saved, tmp_path):
    first = load_vlm(saved)
    second = load_vlm(first.save(tmp_path / "again"))
    assert second.folder == tmp_path / "again"
    weights = second.model.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in first.model.state_dict().items())
    assert second.tokenizer.get_vocab() == first.tokenizer.get_vocab()
    assert second.processor.chat_template == first.processor.chat_template
    assert second.processor.image_processor.to_dict() == first.processor.image_processor.to_dict()


def test_the_dtype_is_as_asked(saved):
    assert load_vlm(saved, dtype="bfloat16").model.dtype == torch.bfloat16
    with pytest.raises(ConfigError, match="known: float32"):
        load_vlm(saved, dtype="float8")


def test_a_device_that_is_not_there_is_named(saved):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ConfigError, match="device 'cuda'"):
        load_vlm(saved, device="cuda")


def test_sharded_weights_load_and_a_missing_shard_is_named(copy):
    tensors = load_file(copy / "model.safetensors")
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, members in parts.items():
        save_file({name: tensors[name] for name in members}, copy / file, metadata={"format": "pt"})
    where = {name: file for file, members in parts.items() for name in members}
    (copy / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    (copy / "model.safetensors").unlink()
    assert load_vlm(copy).model is not None
    (copy / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(DataError, match="lacks 1 of 2 weight files, first model-00002"):
        load_vlm(copy)
    (copy / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(DataError, match="not an index of weights"):
        load_vlm(copy)


def test_a_missing_folder_says_how_to_get_one(tmp_path):
    with pytest.raises(DataError, match="hf download"):
        load_vlm(tmp_path / "nowhere")


def test_missing_files_are_named(copy):
    cases = {
        "model.safetensors": "holds no weights",
        "processor_config.json": "holds no image processor",
        "tokenizer.json": "holds no tokenizer",
        "config.json": "no config.json",
    }
    for name, message in cases.items():
        kept = (copy / name).read_bytes()
        (copy / name).unlink()
        with pytest.raises(DataError, match=message):
            load_vlm(copy)
        (copy / name).write_bytes(kept)
    assert load_vlm(copy).folder == copy


def test_a_missing_chat_template_is_named(copy):
    (copy / "chat_template.jinja").unlink()
    with pytest.raises(DataError, match="chat template"):
        load_vlm(copy)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"model_type": "llava"}', "type 'llava'; supported types: qwen2_5_vl, qwen3_vl"),
        ("{}", "type 'None'"),
        ("[1]", "not a model configuration"),
        ("{", "not a model configuration"),
    ],
)
def test_a_foreign_or_damaged_configuration_is_named(copy, content, message):
    (copy / "config.json").write_text(content)
    with pytest.raises(DataError, match=message):
        load_vlm(copy)


def test_incomplete_weights_are_refused_rather_than_filled_in(copy):
    tensors = load_file(copy / "model.safetensors")
    name = next(name for name in sorted(tensors) if "layers.1" in name)
    del tensors[name]
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match="lack 1 tensors"):
        load_vlm(copy)


def test_damaged_weights_are_named(copy):
    data = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match="cannot load the model"):
        load_vlm(copy)


def test_a_tokenizer_of_another_model_is_refused(copy):
    path = copy / "tokenizer.json"
    path.write_text(path.read_text().replace("<|image_pad|>", "<|picture|>"))
    config = copy / "tokenizer_config.json"
    config.write_text(config.read_text().replace("<|image_pad|>", "<|picture|>"))
    with pytest.raises(DataError, match=r"lacks <\|image_pad\|>"):
        load_vlm(copy)
