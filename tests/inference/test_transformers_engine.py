import json
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from malpighi.errors import ConfigError
from malpighi.geometry import View
from malpighi.inference.engine import Sampling
from malpighi.inference.transformers_engine import TransformersEngine
from malpighi.models.encode import encode_one
from malpighi.models.families import FAMILIES, PAD_TOKEN, TURN_END, VISION_TOKENS
from malpighi.models.prompt import Prompt
from malpighi.models.sizes import TinySize
from malpighi.models.tiny import build_tiny
from malpighi.models.vlm import load_vlm
from malpighi.records import Turn

SMALL = TinySize(hidden=64, layers=2, feed_forward=96, vision_hidden=32, vision_layers=2, vision_heads=2)


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def folder(request, tmp_path_factory):
    return build_tiny(request.param, tmp_path_factory.mktemp("tiny"), ["Answer. one two"], size=SMALL)


@pytest.fixture
def vlm(folder):
    return load_vlm(folder)


def ask(vlm, words="one", images=1):
    side = vlm.family.pixels_per_token
    rng = np.random.default_rng(len(words))
    shown = tuple(
        Image.fromarray(rng.integers(0, 256, (side, 2 * side, 3), dtype=np.uint8)) for _ in range(images)
    )
    return Prompt("", (Turn("user", words),), shown, tuple(View(i.size, i.size) for i in shown), words)


def prefer(vlm, *tokens):
    """Make the model's likeliest tokens these, in falling order, whatever it sees."""
    bias = torch.zeros(len(vlm.tokenizer))
    for rank, token in enumerate(tokens):
        bias[vlm.token_id(token)] = 1000.0 - 10 * rank
    vlm.model.lm_head.bias = torch.nn.Parameter(bias)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_tokens_that_announce_an_image_are_never_said(vlm, temperature):
    prefer(vlm, *VISION_TOKENS, "<think>")
    done = TransformersEngine(vlm).generate([ask(vlm)], Sampling(max_new_tokens=4, temperature=temperature))
    assert done[0].text == "<think>" * 4
    assert (done[0].tokens, done[0].finish) == (4, "length")


@pytest.mark.parametrize("end", [TURN_END, PAD_TOKEN])
def test_an_end_token_stops_and_is_not_part_of_the_text(vlm, end):
    prefer(vlm, end)
    done = TransformersEngine(vlm).generate([ask(vlm), ask(vlm, "two", 0)], Sampling(max_new_tokens=5))
    assert [(d.text, d.tokens, d.finish) for d in done] == [("", 1, "stop")] * 2


def test_the_checkpoints_own_generation_settings_do_not_leak_in(folder, tmp_path):
    vlm = load_vlm(folder)
    prompts = [ask(vlm), ask(vlm, "two words here", 0)]
    expected = TransformersEngine(vlm).generate(prompts, Sampling(max_new_tokens=12))
    changed = vlm.save(tmp_path / "changed")
    settings = {"repetition_penalty": 5.0, "do_sample": True, "temperature": 9.0, "top_k": 1, "top_p": 0.1}
    settings |= {"no_repeat_ngram_size": 1, "eos_token_id": 5, "max_length": 3}
    (changed / "generation_config.json").write_text(json.dumps(settings))
    leaky = load_vlm(changed)
    assert leaky.model.generation_config.repetition_penalty == 5.0
    assert TransformersEngine(leaky).generate(prompts, Sampling(max_new_tokens=12)) == expected


def test_sampling_follows_the_models_probabilities(vlm):
    ids = [vlm.token_id(token) for token in ("<think>", "</think>", "<answer>")]
    bias = torch.full((len(vlm.tokenizer),), -1e9)
    bias[ids] = torch.tensor([0.6, 0.3, 0.1]).log()
    vlm.model.lm_head.bias = torch.nn.Parameter(bias)
    with torch.no_grad():
        vlm.model.lm_head.weight.zero_()
    engine = TransformersEngine(vlm, batch_size=50)
    done = engine.generate([ask(vlm, images=0)] * 200, Sampling(max_new_tokens=10, temperature=1.0))
    seen = Counter(
        tag for d in done for tag in ("<think>", "</think>", "<answer>") for _ in range(d.text.count(tag))
    )
    shares = [seen[tag] / 2000 for tag in ("<think>", "</think>", "<answer>")]
    assert np.allclose(shares, [0.6, 0.3, 0.1], atol=0.04)
    cold = engine.generate([ask(vlm, images=0)] * 40, Sampling(max_new_tokens=10, temperature=0.1))
    assert sum(d.text.count("<think>") for d in cold) > 395


def test_the_same_prompt_twice_gets_two_draws_and_the_seed_decides_them(vlm):
    engine = TransformersEngine(vlm, batch_size=2)
    prompts = [ask(vlm), ask(vlm, "two"), ask(vlm)]
    first = engine.generate(prompts, Sampling(max_new_tokens=8, temperature=1.0, seed=1))
    torch.manual_seed(99)
    again = engine.generate(prompts, Sampling(max_new_tokens=8, temperature=1.0, seed=1))
    other = engine.generate(prompts, Sampling(max_new_tokens=8, temperature=1.0, seed=2))
    assert first == again
    assert first[0] != first[2]
    assert all(a != b for a, b in zip(first, other, strict=True))


def test_a_draw_does_not_depend_on_the_neighbours(vlm):
    sampling = Sampling(max_new_tokens=8, temperature=1.0, seed=4)
    alone = TransformersEngine(vlm).generate([ask(vlm, "two")], sampling)[0]
    crowd = [ask(vlm, "one"), ask(vlm, "two"), ask(vlm, "a third one", 0)]
    assert TransformersEngine(vlm).generate(crowd, sampling)[1] == alone


def test_the_global_random_state_is_left_alone(vlm):
    before = torch.random.get_rng_state()
    TransformersEngine(vlm).generate([ask(vlm)], Sampling(max_new_tokens=2, temperature=1.0))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_training_model_is_given_back_in_training_mode(vlm):
    vlm.model.train()
    TransformersEngine(vlm).generate([ask(vlm)], Sampling(max_new_tokens=2))
    assert vlm.model.training


def test_a_failing_batch_is_split_down_to_the_prompt_at_fault(vlm, monkeypatch):
    prompts = [ask(vlm, f"{'word ' * i}x", images=0) for i in range(5)]
    engine = TransformersEngine(vlm, batch_size=5)
    expected = engine.generate(prompts, Sampling(max_new_tokens=3))
    generate = vlm.model.generate
    poisoned = len(encode_one(prompts[3], None, vlm).ids)

    def out_of_memory(**arguments):
        if poisoned in arguments["attention_mask"].sum(1):
            raise RuntimeError("out of memory")
        return generate(**arguments)

    monkeypatch.setattr(vlm.model, "generate", out_of_memory)
    done = engine.generate(prompts, Sampling(max_new_tokens=3))
    failed = [i for i, completion in enumerate(done) if completion.finish == "error"]
    assert failed == [3]
    assert "out of memory" in done[3].error
    assert [done[i] for i in (0, 1, 2, 4)] == [expected[i] for i in (0, 1, 2, 4)]


def test_a_prompt_over_the_bound_is_an_error_of_its_own(vlm):
    engine = TransformersEngine(vlm, max_prompt_length=40)
    short, long = engine.generate([ask(vlm), ask(vlm, "word " * 60)], Sampling(max_new_tokens=2))
    assert short.finish != "error"
    assert "max_length=40" in long.error


def test_a_senseless_batch_size_is_refused(vlm):
    with pytest.raises(ConfigError, match="batch_size"):
        TransformersEngine(vlm, batch_size=0)
