import json
import shutil
import warnings

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image
from safetensors.torch import load_file, save_file

from malpighi.errors import ConfigError, DataError, FormatVersionError
from malpighi.geometry import View
from malpighi.inference.engine import Sampling
from malpighi.inference.transformers_engine import TransformersEngine
from malpighi.models.adapters import (
    base_fingerprint,
    check_adapter,
    read_experts,
    save_adapter,
    start_experts,
)
from malpighi.models.encode import encode
from malpighi.models.experts import each_row_its_own, load_experts
from malpighi.models.families import FAMILIES
from malpighi.models.prompt import Prompt
from malpighi.models.sizes import TinySize
from malpighi.models.tiny import build_tiny
from malpighi.models.vlm import load_vlm
from malpighi.records import Turn

SMALL = TinySize(hidden=64, layers=2, feed_forward=96, vision_hidden=32, vision_layers=2, vision_heads=2)
LANGUAGE = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
GROUPS = ("classification", "detection", "vqa")
GREEDY = Sampling(max_new_tokens=8)


def trained(folder, seed, **settings):
    """A base with a LoRA adapter whose two matrices are random, as after some training."""
    settings = {"r": 32, "lora_alpha": 128, "target_modules": LANGUAGE, "task_type": "CAUSAL_LM"} | settings
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)
        model = get_peft_model(load_vlm(folder).model, LoraConfig(**settings))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    return model


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def base(request, tmp_path_factory):
    return build_tiny(request.param, tmp_path_factory.mktemp("base"), ["Answer. one two"], size=SMALL)


@pytest.fixture(scope="module")
def folder(base, tmp_path_factory):
    made = tmp_path_factory.mktemp("run") / "experts"
    for seed, group in enumerate(GROUPS):
        # Ranks and scaling differ, as those of adapters trained apart may.
        save_adapter(
            trained(base, seed, r=(32, 8, 4)[seed], lora_alpha=(128, 8, 16)[seed]), made, group, base
        )
    return made


@pytest.fixture(scope="module")
def experts(base, folder):
    return load_experts(load_vlm(base), folder)


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "experts")


def ask(vlm, index):
    side = vlm.family.pixels_per_token
    rng = np.random.default_rng(index)
    image = Image.fromarray(rng.integers(0, 256, (2 * side, side * (1 + index % 2), 3), dtype=np.uint8))
    shown = (image,) if index % 3 else ()
    words = "one two " * (1 + index % 4)
    return Prompt("", (Turn("user", words),), shown, tuple(View(i.size, i.size) for i in shown), str(index))


def logits_of(vlm, prompts, adapters):
    batch = encode(prompts, None, vlm, padding="left")
    with torch.inference_mode(), each_row_its_own(vlm.model, adapters):
        return vlm.model(**batch).logits[:, -1]


def test_the_layout_is_ordinary_peft_and_holds_no_path_of_the_machine(base, folder):
    for group in GROUPS:
        assert sorted(p.name for p in (folder / group).iterdir()) == [
            "adapter_config.json",
            "adapter_model.safetensors",
        ]
        text = (folder / group / "adapter_config.json").read_text()
        assert str(base.parent) not in text
        assert json.loads(text)["peft_type"] == "LORA"
    assert not list(folder.glob("*.part"))
    entries = read_experts(folder)
    assert sorted(entries.adapters) == sorted(GROUPS)
    assert (folder / entries.base).resolve() == base.resolve()
    assert not entries.base.startswith("/")


def test_peft_alone_loads_the_folder(base, folder):
    """What others do with it: PEFT's own loader, one adapter, the same answer."""
    vlm = load_vlm(base)
    prompts = [ask(vlm, 1)]
    ours = logits_of(load_experts(load_vlm(base), folder), prompts, ["detection"])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)
        model = PeftModel.from_pretrained(vlm.model, folder / "detection").eval()
    with torch.inference_mode():
        theirs = model(**encode(prompts, None, vlm, padding="left")).logits[:, -1]
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_tensor_names_are_those_that_vllm_reads(folder):
    # vLLM takes `base_model.model.` off, maps `model.language_model.` to `language_model.model.` for both
    # families (`hf_to_vllm_mapper`), and wants the layer's last name among its linear layers
    # (`LoRAModel.from_local_checkpoint`).
    linear = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    for group in GROUPS:
        config = json.loads((folder / group / "adapter_config.json").read_text())
        assert {"r", "lora_alpha", "target_modules"} <= set(config)  # PEFTHelper's required fields
        for name in load_file(folder / group / "adapter_model.safetensors"):
            inner = name.removeprefix("base_model.model.")
            assert inner.startswith("model.language_model.layers.")
            *module, matrix, kind = inner.split(".")
            assert module[-1] in linear
            assert (matrix, kind) in {("lora_A", "weight"), ("lora_B", "weight")}


def test_mixed_rows_answer_as_alone(experts):
    prompts = [ask(experts, i) for i in range(8)]
    rows = [(*GROUPS, "")[i % 4] for i in range(8)]
    together = logits_of(experts, prompts, rows)
    for index, (prompt, row) in enumerate(zip(prompts, rows, strict=True)):
        alone = logits_of(experts, [prompt], [row])[0]
        torch.testing.assert_close(together[index], alone, atol=1e-5, rtol=1e-5)
    # The other direction: an adapter makes a difference that this tolerance would see.
    assert (
        logits_of(experts, prompts[:1], ["vqa"]) - logits_of(experts, prompts[:1], [""])
    ).abs().max() > 1e-2


def test_mixed_rows_answer_as_pefts_own(experts):
    prompts = [ask(experts, i) for i in range(8)]
    rows = [(*GROUPS, "")[i % 4] for i in range(8)]
    with torch.inference_mode():
        theirs = experts.model.base_model  # PEFT injects the names into the forward of every layer
        with theirs._enable_peft_forward_hooks(adapter_names=[row or "__base__" for row in rows]):
            expected = theirs.model(**encode(prompts, None, experts, padding="left")).logits[:, -1]
    torch.testing.assert_close(logits_of(experts, prompts, rows), expected, atol=1e-5, rtol=1e-5)


def test_base_rows_are_the_base(base, experts):
    plain = load_vlm(base)
    prompts = [ask(plain, i) for i in range(4)]
    with torch.inference_mode():
        expected = plain.model(**encode(prompts, None, plain, padding="left")).logits[:, -1]
        untold = experts.model(**encode(prompts, None, experts, padding="left")).logits[:, -1]
    torch.testing.assert_close(untold, expected, atol=0, rtol=0)
    mixed = logits_of(experts, prompts, ["", "vqa", "", "detection"])
    torch.testing.assert_close(mixed[[0, 2]], expected[[0, 2]], atol=1e-5, rtol=1e-5)


def test_an_adapter_that_overflows_spoils_no_other_row(experts):
    prompts = [ask(experts, i) for i in range(2)]
    weights = [m.lora_A["vqa"].weight for m in experts.model.modules() if hasattr(m, "lora_A")]
    kept = [weight.clone() for weight in weights]
    alone = logits_of(experts, prompts[:1], ["detection"])
    try:
        with torch.no_grad():
            weights[0].fill_(float("inf"))
        spoiled = logits_of(experts, prompts, ["detection", "vqa"])
    finally:
        with torch.no_grad():
            for weight, value in zip(weights, kept, strict=True):
                weight.copy_(value)
    assert not spoiled[1].isfinite().all()
    torch.testing.assert_close(spoiled[:1], alone, atol=1e-5, rtol=1e-5)


def test_nothing_is_left_behind(experts):
    prompts = [ask(experts, 0)]
    before = logits_of(experts, prompts, [""])
    with pytest.raises(RuntimeError, match="boom"), each_row_its_own(experts.model, ["vqa"]):
        raise RuntimeError("boom")
    torch.testing.assert_close(logits_of(experts, prompts, [""]), before, atol=0, rtol=0)
    assert not any(m._forward_hooks for m in experts.model.modules() if hasattr(m, "lora_A"))


def test_a_row_too_many_is_refused(experts):
    with pytest.raises(RuntimeError, match="a batch of 1 rows, but adapters for 2"):
        logits_of(experts, [ask(experts, 0)], ["vqa", "vqa"])


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_engine_gives_each_prompt_what_it_gets_alone(experts, temperature):
    prompts = [ask(experts, i) for i in range(9)]
    names = {str(i): (*GROUPS, "")[i % 4] for i in range(9)}
    sampling = Sampling(max_new_tokens=8, temperature=temperature)
    mixed = TransformersEngine(experts, 9, route=lambda prompt: names[prompt.digest])
    alone = TransformersEngine(experts, 1, route=lambda prompt: names[prompt.digest])
    said = mixed.generate(prompts, sampling)
    assert said == alone.generate(prompts, sampling)
    assert [completion.adapter for completion in said] == [names[prompt.digest] for prompt in prompts]
    of_base = TransformersEngine(experts, 9).generate(prompts, sampling)
    # The logits show each adapter's effect; a greedy word of so small a model need not change with each.
    changed = {a.adapter for a, b in zip(said, of_base, strict=True) if a.text != b.text}
    assert changed
    assert "" not in changed


def test_without_a_route_the_base_answers(base, experts):
    prompts = [ask(experts, i) for i in range(3)]
    said = TransformersEngine(experts).generate(prompts, GREEDY)
    assert said == TransformersEngine(load_vlm(base)).generate(prompts, GREEDY)
    assert {completion.adapter for completion in said} == {""}


def test_a_folder_without_adapters_leaves_all_to_the_base(base, tmp_path):
    start_experts(tmp_path / "experts", base)
    start_experts(tmp_path / "experts", base)
    vlm = load_vlm(base)
    assert load_experts(vlm, tmp_path / "experts") is vlm
    assert not read_experts(tmp_path / "experts").adapters


def test_a_route_to_an_adapter_that_is_not_there_ends_the_run(base, experts):
    with pytest.raises(
        ConfigError, match="no adapter 'captions'; it carries: classification, detection, vqa"
    ):
        TransformersEngine(experts, route=lambda _: "captions").generate([ask(experts, 0)], GREEDY)
    plain = load_vlm(base)
    with pytest.raises(ConfigError, match="no adapter 'vqa'; it carries: none"):
        TransformersEngine(plain, route=lambda _: "vqa").generate([ask(plain, 0)], GREEDY)


def test_a_model_in_training_mixes_nothing(base):
    """Its adapter is active for all rows, so the rows' own would come on top."""
    vlm = load_vlm(base)
    model = trained(base, 0)
    with pytest.raises(ConfigError, match="active for all rows"), each_row_its_own(model, ["default"]):
        pass
    with each_row_its_own(model, [""]):
        pass
    assert vlm.adapters == ()


def test_vision_weights_are_refused_when_saved_and_when_loaded(base, folder, copy):
    everywhere = trained(base, 0, target_modules=r".*(q_proj|attn\.qkv)")
    with pytest.raises(
        DataError, match=r"2 layers outside the language model, first model\.visual.*merge it"
    ):
        save_adapter(everywhere, copy, "segmentation", base)
    assert not (copy / "segmentation").exists()
    assert not list(copy.glob("*.part"))
    assert sorted(read_experts(copy).adapters) == sorted(GROUPS)

    path = copy / "vqa" / "adapter_model.safetensors"
    tensors = load_file(path)
    tensors["base_model.model.model.visual.blocks.0.attn.qkv.lora_A.weight"] = torch.zeros(4, 32)
    save_file(tensors, path)
    with pytest.raises(DataError, match="outside the language model"):
        load_experts(load_vlm(base), copy)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights"),
        ({"lora_bias": True}, "lora_bias"),
    ],
)
def test_what_is_more_than_lora_is_refused(copy, change, named):
    path = copy / "vqa" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=f"uses {named}: .* plain LoRA"):
        check_adapter(copy / "vqa")


def test_plain_variants_of_lora_pass(copy):
    path = copy / "vqa" / "adapter_config.json"
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"init_lora_weights": "gaussian", "use_rslora": True})
    )
    assert check_adapter(copy / "vqa")


def damage_config(folder):
    (folder / "vqa" / "adapter_config.json").write_text("{")


def damage_weights(folder):
    (folder / "vqa" / "adapter_model.safetensors").write_bytes(b"\0" * 20)


def another_peft(folder):
    (folder / "vqa" / "adapter_config.json").write_text('{"peft_type": "IA3"}')


def other_tensors(folder):
    save_file({"x": torch.zeros(1)}, folder / "vqa" / "adapter_model.safetensors")


def missing_adapter(folder):
    shutil.rmtree(folder / "vqa")


def changed_weights(folder):
    path = folder / "vqa" / "adapter_model.safetensors"
    save_file({name: tensor + 1 for name, tensor in load_file(path).items()}, path)


def no_list(folder):
    (folder / "experts.json").unlink()


def damaged_list(folder):
    (folder / "experts.json").write_text('{"format_version": 1, "base": 3}')


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_config, "no whole adapter"),
        (damage_weights, "no whole adapter"),
        (another_peft, "no LoRA adapter"),
        (other_tensors, "no LoRA matrix: x"),
        (missing_adapter, "no whole adapter"),
        (changed_weights, "has changed since it was saved"),
        (no_list, r"holds no experts\.json; train the experts first"),
        (damaged_list, "does not hold what it should"),
    ],
)
def test_damage_is_told_before_the_model_is_touched(base, copy, damage, message):
    damage(copy)
    vlm = load_vlm(base)
    with pytest.raises(DataError, match=message):
        load_experts(vlm, copy)
    assert not any("lora" in name for name, _ in vlm.model.named_parameters())


def test_a_file_of_another_version_is_refused(base, copy):
    path = copy / "experts.json"
    path.write_text(path.read_text().replace('"format_version": 1', '"format_version": 9'))
    with pytest.raises(FormatVersionError, match="of format 9, this release reads 1"):
        load_experts(load_vlm(base), copy)


def test_config_and_weights_must_belong_together(base, copy):
    path = copy / "vqa" / "adapter_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"target_modules": r".*language_model.*\.q_proj"}))
    with pytest.raises(DataError, match="do not belong together"):
        load_experts(load_vlm(base), copy)


def test_another_base_is_refused(base, folder, tmp_path):
    other = build_tiny(
        load_vlm(base).family.name, tmp_path / "other", ["Answer. one two"], seed=1, size=SMALL
    )
    assert base_fingerprint(other) != base_fingerprint(base)
    with pytest.raises(ConfigError, match="were trained on another base"):
        load_experts(load_vlm(other), folder)
    with pytest.raises(ConfigError, match="belong to another base"):
        save_adapter(trained(other, 0), folder, "segmentation", other)


def test_a_base_that_differs_in_one_late_tensor_is_another(base, tmp_path):
    """As after merging an adapter, which leaves embeddings and vision tower as they were."""
    other = shutil.copytree(base, tmp_path / "other")
    tensors = load_file(other / "model.safetensors")
    name = next(n for n in sorted(tensors) if "layers.1" in n and "down_proj" in n)
    save_file(tensors | {name: tensors[name] * 1.5}, other / "model.safetensors", {"format": "pt"})
    assert base_fingerprint(other) != base_fingerprint(base)
    copied = shutil.copytree(base, tmp_path / "same")
    assert base_fingerprint(copied) == base_fingerprint(base)


def test_an_adapter_of_another_size_is_refused(base, tmp_path):
    wide = build_tiny(
        load_vlm(base).family.name, tmp_path / "wide", ["Answer. one two"], size=TinySize(layers=2)
    )
    save_adapter(trained(wide, 0), tmp_path / "experts", "vqa", base)  # a wrong base is stated
    with pytest.raises(DataError, match=r"does not fit the model in .*, which has 96 there"):
        load_experts(load_vlm(base), tmp_path / "experts")


def test_loading_twice_is_refused(folder, experts):
    with pytest.raises(ConfigError, match="carries adapters already: classification, detection, vqa"):
        load_experts(experts, folder)


@pytest.mark.parametrize("name", ["base", "default", "other", "Über", "../x", "a.b", ""])
def test_names_that_cannot_be_adapters_are_refused(base, tmp_path, name):
    with pytest.raises(DataError, match="cannot name an adapter"):
        save_adapter(trained(base, 0), tmp_path, name, base)


def test_saving_again_replaces(base, copy):
    before = read_experts(copy).adapters
    save_adapter(trained(base, 77), copy, "vqa", base)
    after = read_experts(copy).adapters
    assert before["vqa"] != after["vqa"]
    assert before["detection"] == after["detection"]
    assert load_experts(load_vlm(base), copy).adapters == GROUPS


def test_an_adapter_that_is_not_in_the_model_cannot_be_saved(base, tmp_path):
    with pytest.raises(ConfigError, match="no adapter 'vqa' to save"):
        save_adapter(trained(base, 0), tmp_path / "experts", "vqa", base, adapter="vqa")
