"""Every declared family in a tiny build: saved to disk, loaded by the real way, asked by the real engine."""

import json
from dataclasses import replace

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image

from malpighi.errors import ConfigError, DataError
from malpighi.geometry import Box, View
from malpighi.grading.boxes import read_boxes, to_image
from malpighi.inference.chat_engine import ChatEngine
from malpighi.inference.chat_families import CHAT_FAMILIES
from malpighi.inference.chat_model import load_chat
from malpighi.inference.engine import Sampling
from malpighi.models.families import EXAMINED, FAMILIES, family_named
from malpighi.models.prompt import Prompt, PromptStyle, build_prompt
from malpighi.records import Boxes, ImageRef, Provenance, Sample, Scale, TaskKind, Turn

TINY = ("qwen2_vl", "internvl", "llava", "llava_next", "llava_onevision", "gemma3", "paligemma", "mllama")
MANY = [name for name in TINY if CHAT_FAMILIES[name].many]
GREEDY = Sampling(max_new_tokens=6)
DRAWN = Sampling(max_new_tokens=6, temperature=1.0, seed=2)


@pytest.fixture(params=TINY)
def chat(request, chat_folder):
    return load_chat(chat_folder(request.param))


def image(number=0, size=(56, 84)):
    rng = np.random.default_rng(number)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def ask(words="one two?", images=1, system="Answer."):
    shown = tuple(image(len(words) + n) for n in range(images))
    views = tuple(View(picture.size, picture.size) for picture in shown)
    return Prompt(system, (Turn("user", words),), shown, views, f"{words}/{images}")


def prefer(chat, token):
    """Make a token the likeliest, whatever the model sees."""
    head = chat.model.get_output_embeddings()
    with torch.no_grad():
        head.weight.zero_()
    head.bias = torch.nn.Parameter(torch.zeros(head.weight.shape[0]))
    with torch.no_grad():
        head.bias[token] = 50.0


def test_every_family_is_declared_once_and_its_prompts_can_be_built():
    assert {family.facts.name for family in CHAT_FAMILIES.values()} == {*FAMILIES, *EXAMINED} - {"any"}
    for family in CHAT_FAMILIES.values():
        assert PromptStyle(family=family.facts.name, system="patho_r1").facts == family.facts


def test_as_many_completions_as_prompts_and_the_neighbours_do_not_matter(chat):
    prompts = [ask("word " * (1 + i * 5 % 7)) for i in range(5)]
    together = ChatEngine(chat, batch_size=3).generate(prompts, GREEDY)
    alone = [ChatEngine(chat).generate([prompt], GREEDY)[0] for prompt in prompts]
    assert together == alone
    assert all(completion.finish in ("stop", "length") for completion in together)
    assert all(0 < completion.tokens <= 6 for completion in together)
    assert ChatEngine(chat).generate([], GREEDY) == []


def test_the_image_is_looked_at(chat):
    prompt = ask()
    other = replace(prompt, images=(image(99),))
    first, second = (chat.encode([p], [chat.text(p)]) for p in (prompt, other))
    with torch.inference_mode():
        logits = [chat.model(**batch).logits[0, -1] for batch in (first, second)]
    assert not torch.allclose(logits[0], logits[1])


def test_draws_follow_the_seed_and_not_the_batch(chat):
    prompts = [ask(), ask("another one"), ask()]
    first = ChatEngine(chat, batch_size=2).generate(prompts, DRAWN)
    assert ChatEngine(chat, batch_size=3).generate(prompts, DRAWN) == first
    assert first[0] != first[2], "the same prompt twice gets two draws"
    other = ChatEngine(chat).generate(prompts, msgspec.structs.replace(DRAWN, seed=3))
    assert [c.text for c in other] != [c.text for c in first]


def test_an_end_token_stops_and_is_not_part_of_the_text(chat):
    prefer(chat, chat.end)
    done = ChatEngine(chat).generate([ask(), ask("two")], GREEDY)
    assert [(d.text, d.tokens, d.finish) for d in done] == [("", 1, "stop")] * 2


def test_the_familys_own_stop_ends_a_turn_where_the_checkpoint_does_not_name_it(chat_folder, tmp_path):
    chat = load_chat(chat_folder("gemma3"))
    chat.model.save_pretrained(tmp_path)
    chat.processor.save_pretrained(tmp_path)
    path = tmp_path / "generation_config.json"
    path.write_text(json.dumps({"eos_token_id": 1, "repetition_penalty": 9.0, "do_sample": True, "top_k": 1}))
    again = load_chat(tmp_path)
    assert chat.tokenizer.convert_tokens_to_ids("<end_of_turn>") in again.stops
    assert ChatEngine(again).generate([ask()], GREEDY) == ChatEngine(chat).generate([ask()], GREEDY)


@pytest.mark.parametrize("sampling", [GREEDY, DRAWN], ids=["greedy", "drawn"])
def test_tokens_that_announce_an_image_are_never_said(chat, sampling):
    if chat.marks:
        prefer(chat, chat.marks[0])
    done = ChatEngine(chat).generate([ask()], sampling)[0]
    assert done.finish in ("stop", "length")
    assert not any(mark in done.text for mark in chat.family.marks)
    assert bool(chat.marks) == (chat.family.facts.name != "mllama")


def test_a_bad_prompt_costs_itself_only(chat):
    good = [ask("one"), ask("two two")]
    expected = ChatEngine(chat).generate(good, GREEDY)
    mark = chat.family.marks[0]
    torn = replace(ask("three"), images=(Image.new("RGB", (0, 0)),))
    done = ChatEngine(chat).generate([good[0], ask(f"a {mark} b"), torn, good[1]], GREEDY)
    assert [done[0], done[3]] == expected
    assert [done[1].finish, done[2].finish] == ["error", "error"]
    assert "special token" in done[1].error
    assert "no pixels" in done[2].error


def test_a_batch_that_fails_is_halved_down_to_the_prompt_at_fault(chat, monkeypatch):
    prompts = [ask(f"{n} {'x' * n}") for n in range(5)]
    expected = ChatEngine(chat).generate(prompts, GREEDY)
    encode = type(chat).encode

    def fails(self, batch, texts):
        if any("3 xxx" in text for text in texts):
            raise RuntimeError("out of memory")
        return encode(self, batch, texts)

    monkeypatch.setattr(type(chat), "encode", fails)
    done = ChatEngine(chat).generate(prompts, GREEDY)
    assert "out of memory" in done[3].error
    assert [d for i, d in enumerate(done) if i != 3] == [e for i, e in enumerate(expected) if i != 3]


@pytest.mark.parametrize("family", MANY)
def test_several_images_and_none(chat_folder, family):
    chat = load_chat(chat_folder(family))
    prompts = [ask("none", images=0), ask("three", images=3), ask("one"), ask("two", images=2)]
    done = ChatEngine(chat).generate(prompts, GREEDY)
    assert [completion.finish != "error" for completion in done] == [True] * 4
    assert done == [ChatEngine(chat).generate([prompt], GREEDY)[0] for prompt in prompts]


@pytest.mark.parametrize("family", sorted(set(TINY) - set(MANY)))
def test_families_of_one_image_say_so(chat_folder, family):
    done = ChatEngine(load_chat(chat_folder(family))).generate([ask(images=2), ask(images=0)], GREEDY)
    assert "takes one image; this prompt has 2" in done[0].error
    if family == "paligemma":
        assert "needs an image" in done[1].error
    else:
        assert done[1].finish != "error"


def test_the_system_message_goes_where_the_family_takes_it(chat):
    turns = (Turn("user", "first?"), Turn("assistant", "a gland"), Turn("user", "then?"))
    text = chat.text(replace(ask(system="Be brief."), turns=turns))
    place, words = text.index("Be brief."), [text.index(turn.text) for turn in turns]
    assert words == sorted(words)
    assert place < words[0]
    if chat.family.system == "own":
        assert "system\nBe brief.<|im_end|>" in text
    else:
        assert "Be brief.\n\nfirst?" in text
        assert "system" not in text
    ids = chat.encode([ask()], [chat.text(ask())])["input_ids"][0].tolist()
    if chat.tokenizer.bos_token_id is not None:
        assert ids.count(chat.tokenizer.bos_token_id) <= 1


def test_chances_are_the_probabilities_of_the_answers(chat):
    """Against token by token: each answer's probability from the scores that generation itself sees."""
    prompt, answers = ask(), ["one", "two three", "(A) tumor"]
    chances = ChatEngine(chat).chances(prompt, answers)
    assert sum(chances) == pytest.approx(1, abs=1e-12)
    logs = []
    for answer in answers:
        ids = [*chat.tokenizer(answer, add_special_tokens=False)["input_ids"], chat.end]
        batch = chat.encode([prompt], [chat.text(prompt)])
        forced = iter(ids)

        def only(batch_id, tokens, forced=forced):
            return [next(forced)]

        with torch.inference_mode():
            out = chat.model.generate(
                **batch,
                max_new_tokens=len(ids),
                do_sample=False,
                eos_token_id=None,
                pad_token_id=chat.filler,
                prefix_allowed_tokens_fn=only,
                output_logits=True,
                return_dict_in_generate=True,
            )
        steps = [
            torch.log_softmax(step[0].float(), -1)[token] for step, token in zip(out.logits, ids, strict=True)
        ]
        logs.append(sum(float(step) for step in steps))
    expected = np.exp(np.array(logs) - max(logs))
    assert np.allclose(chances, expected / expected.sum(), atol=1e-4)


def test_a_box_spoken_in_the_familys_frame_comes_back(chat):
    size, box = (200, 100), Box(20, 10, 120, 70)
    style = PromptStyle(family=chat.family.facts.name, system="patho_r1")
    sample = Sample(
        id="a",
        dataset="d",
        exam="d/e",
        task=TaskKind.DETECTION,
        scale=Scale.ROI,
        images=(ImageRef("0" * 64, size),),
        turns=(Turn("user", "Where are nuclei?"),),
        answer=Boxes((box,)),
        group="g",
        licence="CC0-1.0",
        provenance=Provenance("test"),
    )
    prompt = build_prompt(sample, [image(size=size)], style)
    said = prompt.views[0].spoken(box, style.facts.frame)
    texts = [f"[{list(said)}]"]
    if chat.family.facts.name == "paligemma":
        x0, y0, x1, y1 = (int(number) for number in said)
        texts.append(f"<loc{y0:04d}><loc{x0:04d}><loc{y1:04d}><loc{x1:04d}> nucleus")
    for text in texts:
        back = to_image(read_boxes(text).corners, prompt.views[0], style.facts.frame)
        assert np.allclose(back[0].corners, box.corners, atol=0.5)


def test_fixed_families_are_shown_as_many_pixels_as_their_tokens_hold():
    for name, family in EXAMINED.items():
        style = PromptStyle(family=name, budgets=dict.fromkeys(Scale, 16))
        sample = Sample(
            id="a", dataset="d", exam="d/e", task=TaskKind.DETECTION, scale=Scale.ROI,
            images=(ImageRef("0" * 64, (2000, 2000)),), turns=(Turn("user", "?"),), answer=Boxes(()),
            group="g", licence="CC0-1.0", provenance=Provenance("test"),
        )  # fmt: skip
        width, height = build_prompt(sample, [Image.new("RGB", (2000, 2000))], style).images[0].size
        assert width * height == (family.fixed or 16) * family.pixels_per_token**2


def test_large_images_become_tiles_where_the_family_has_them(chat_folder):
    chat = load_chat(chat_folder("internvl"))  # its side is 56 px
    counts = {}
    for sides in ((56, 56), (112, 56), (112, 112), (168, 112)):
        prompt = replace(ask(), images=(image(size=sides),))
        counts[sides] = chat.encode([prompt], [chat.text(prompt)])["pixel_values"].shape[0]
    assert counts == {(56, 56): 1, (112, 56): 3, (112, 112): 5, (168, 112): 7}
    prompts = [replace(ask(), images=(image(size=sides),)) for sides in counts]
    assert [c.finish != "error" for c in ChatEngine(chat).generate(prompts, GREEDY)] == [True] * 4


def test_a_square_family_loses_no_margin(chat_folder):
    chat = load_chat(chat_folder("llava"))
    wide = np.zeros((28, 84, 3), np.uint8)
    wide[:, :20] = 255  # a bright margin that a crop of the middle would cut off
    prompt = replace(ask(), images=(Image.fromarray(wide),))
    seen = chat.encode([prompt], [chat.text(prompt)])["pixel_values"]
    assert seen.max() > seen.min() + 1


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("config.json", None, "no config.json"),
        ("config.json", "{", "not a model configuration"),
        ("config.json", '{"model_type": "blip"}', "type 'blip'.*known types: qwen2_vl.*Serve it"),
        ("model.safetensors", None, "holds no weights"),
        ("tokenizer.json", "{", "cannot load the processor"),
    ],
)
def test_a_damaged_folder_is_named(chat_folder, tmp_path, name, text, message):
    chat = load_chat(chat_folder("llava"))
    chat.model.save_pretrained(tmp_path)
    chat.processor.save_pretrained(tmp_path)
    (tmp_path / name).unlink() if text is None else (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        load_chat(tmp_path)


def test_wrong_choices_are_refused(chat_folder):
    with pytest.raises(ConfigError, match="unknown dtype"):
        load_chat(chat_folder("llava"), dtype="int4")
    with pytest.raises(ConfigError, match="batch_size"):
        ChatEngine(load_chat(chat_folder("llava")), batch_size=0)
    with pytest.raises(ConfigError, match="unknown model family"):
        family_named("blip")


def test_half_precision_runs(chat):
    half = load_chat(chat.folder, dtype="bfloat16")
    assert ChatEngine(half).generate([ask()], GREEDY)[0].finish in ("stop", "length")
