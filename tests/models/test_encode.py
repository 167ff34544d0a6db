import numpy as np
import pytest
import torch
from PIL import Image

from malpighi.errors import DataError
from malpighi.geometry import View
from malpighi.models.encode import IGNORED, collate, encode, encode_one
from malpighi.models.families import FAMILIES, IMAGE_TOKEN, PAD_TOKEN, TURN_END
from malpighi.models.prompt import Prompt
from malpighi.models.sizes import TinySize
from malpighi.models.tiny import build_tiny
from malpighi.models.vlm import load_vlm
from malpighi.records import Turn

SMALL = TinySize(hidden=64, layers=2, feed_forward=96, vision_hidden=32, vision_layers=2, vision_heads=2)
TEXTS = [
    "Think, then answer.",
    "Which class? (A) NILM, (B) ASC-US",
    "<think></think><answer>(B) ASC-US</answer>",
]
TARGET = "<think>Large.</think><answer>(B) ASC-US</answer>"


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def vlm(request, tmp_path_factory):
    return load_vlm(build_tiny(request.param, tmp_path_factory.mktemp("tiny"), TEXTS, size=SMALL))


def ask(vlm, *shapes, words="Which class?", system="Think, then answer.", turns=()):
    """A prompt with random images of (columns, rows) tokens."""
    side = vlm.family.pixels_per_token
    rng = np.random.default_rng(len(words))
    images = tuple(
        Image.fromarray(rng.integers(0, 256, (side * rows, side * columns, 3), dtype=np.uint8))
        for columns, rows in shapes
    )
    views = tuple(View(image.size, image.size) for image in images)
    return Prompt(system, (*turns, Turn("user", words)), images, views, words)


def test_shapes_types_and_image_tokens(vlm):
    batch = encode([ask(vlm, (3, 2), (1, 1)), ask(vlm), ask(vlm, (2, 2))], None, vlm)
    assert "labels" not in batch
    assert {name: tensor.dtype for name, tensor in batch.items()} == {
        "input_ids": torch.int64,
        "attention_mask": torch.int64,
        "mm_token_type_ids": torch.int64,
        "pixel_values": torch.float32,
        "image_grid_thw": torch.int64,
    }
    image_id = vlm.token_id(IMAGE_TOKEN)
    assert (batch["input_ids"] == image_id).sum(1).tolist() == [7, 0, 4]
    assert batch["mm_token_type_ids"].sum(1).tolist() == [7, 0, 4]
    assert batch["image_grid_thw"].tolist() == [[1, 4, 6], [1, 2, 2], [1, 4, 4]]
    assert batch["pixel_values"].shape == (4 * 11, 3 * 2 * vlm.family.patch**2)


def test_a_batch_without_images_has_no_pixels(vlm):
    assert set(encode([ask(vlm)], None, vlm)) == {"input_ids", "attention_mask", "mm_token_type_ids"}


@pytest.mark.parametrize("padding", ["left", "right"])
def test_only_the_target_and_its_end_are_labelled(vlm, padding):
    prompts = [ask(vlm, (2, 2)), ask(vlm, (1, 1), words="Which of the many classes is it?")]
    targets = [TARGET, "<answer>no</answer>"]
    batch = encode(prompts, targets, vlm, padding=padding)
    for ids, mask, labels, target in zip(
        batch["input_ids"], batch["attention_mask"], batch["labels"], targets, strict=True
    ):
        told = labels[labels != IGNORED]
        assert torch.equal(told, ids[labels != IGNORED])
        assert vlm.tokenizer.decode(told[:-1]) == target
        assert told[-1] == vlm.token_id(TURN_END)
        assert (labels[mask == 0] == IGNORED).all()
        assert (ids[mask == 0] == vlm.token_id(PAD_TOKEN)).all()
        real = mask.nonzero().flatten()
        assert torch.equal(labels[real[-len(told) :]], told)


def test_padding_goes_to_the_side_asked_for(vlm):
    prompts = [ask(vlm), ask(vlm, (3, 3))]
    left = encode(prompts, None, vlm, padding="left")["attention_mask"]
    right = encode(prompts, None, vlm)["attention_mask"]
    assert left[0, -1] == 1
    assert left[0, 0] == 0
    assert torch.equal(left.flip(1), right)


def test_prompt_and_target_tokens_are_those_of_the_whole_conversation(vlm):
    """Tokenising the target apart must not differ from tokenising the finished conversation."""
    prompt = ask(vlm)
    ids = encode_one(prompt, TARGET, vlm).ids
    messages = [
        {"role": "system", "content": prompt.system},
        {"role": "user", "content": prompt.turns[0].text},
        {"role": "assistant", "content": TARGET},
    ]
    whole = vlm.processor.apply_chat_template(messages, tokenize=False)
    assert vlm.tokenizer.decode(list(ids)) + "\n" == whole
    assert list(ids) == vlm.tokenizer(whole.removesuffix("\n"))["input_ids"]


def test_sampled_token_ids_are_taken_as_they_are(vlm):
    sample = encode_one(ask(vlm), (5, 6, 7), vlm)
    assert sample.ids[sample.prompt_length :] == (5, 6, 7)


def test_images_stand_before_the_first_user_turn(vlm):
    turns = (Turn("user", "What is seen?"), Turn("assistant", "A gland."))
    ids = encode_one(ask(vlm, (1, 1), turns=turns), None, vlm).ids
    text = vlm.tokenizer.decode(list(ids))
    assert "user\n<|vision_start|><|image_pad|><|vision_end|>What is seen?<|im_end|>" in text
    assert text.endswith(
        "A gland.<|im_end|>\n<|im_start|>user\nWhich class?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_no_system_message_leaves_none(vlm):
    text = vlm.tokenizer.decode(list(encode_one(ask(vlm, system=""), None, vlm).ids))
    assert "system" not in text


def test_a_template_that_opens_the_thought_itself_is_undone(vlm):
    kept = vlm.processor.chat_template
    plain = encode_one(ask(vlm), None, vlm).ids
    vlm.processor.chat_template = kept.replace("assistant\\n' }}", "assistant\\n<think>\\n' }}")
    try:
        opened = vlm.processor.apply_chat_template(
            [{"role": "user", "content": "q"}], tokenize=False, add_generation_prompt=True
        )
        assert opened.endswith("<think>\n")
        assert encode_one(ask(vlm), None, vlm).ids == plain
    finally:
        vlm.processor.chat_template = kept


def test_too_long_is_refused_whole_never_cut(vlm):
    prompt = ask(vlm, (4, 4))
    length = len(encode_one(prompt, TARGET, vlm).ids)
    assert len(encode_one(prompt, TARGET, vlm, max_length=length).ids) == length
    for bound in (length - 1, 20, 1):
        with pytest.raises(DataError, match=rf"{length} tokens \(16 of images.*max_length={bound}"):
            encode([prompt], [TARGET], vlm, max_length=bound)


def test_encoding_ahead_and_collating_equals_encoding_at_once(vlm):
    prompts = [ask(vlm, (2, 1)), ask(vlm, words="And this?")]
    ahead = collate([encode_one(p, TARGET, vlm) for p in prompts], vlm)
    at_once = encode(prompts, [TARGET, TARGET], vlm)
    assert ahead.keys() == at_once.keys()
    assert all(torch.equal(ahead[name], at_once[name]) for name in ahead)


@pytest.mark.parametrize("text", ["<|image_pad|>", "x<|im_end|>", "<|vision_start|>"])
def test_special_tokens_in_words_are_refused_everywhere(vlm, text):
    for prompt in (ask(vlm, words=text), ask(vlm, system=text), ask(vlm, turns=(Turn("assistant", text),))):
        with pytest.raises(DataError, match="special token"):
            encode_one(prompt, None, vlm)
    with pytest.raises(DataError, match="special token"):
        encode_one(ask(vlm), text, vlm)


def test_images_of_the_other_family_are_refused(vlm):
    prompt = ask(vlm, (2, 2))
    side = vlm.family.pixels_per_token
    wrong = [Image.new("RGB", (side * 2, side * 2 - 4)), Image.new("L", (side, side))]
    for image in wrong:
        with pytest.raises(DataError, match="multiples of"):
            encode_one(Prompt("", prompt.turns, (image,), prompt.views, ""), None, vlm)


def test_a_template_without_the_image_is_refused(vlm):
    kept = vlm.processor.chat_template
    vlm.processor.chat_template = kept.replace("<|image_pad|>", "")
    try:
        with pytest.raises(DataError, match="0 image placeholders for 1 images"):
            encode_one(ask(vlm, (1, 1)), None, vlm)
    finally:
        vlm.processor.chat_template = kept


def test_counts_must_agree(vlm):
    with pytest.raises(DataError, match="1 prompts but 2 targets"):
        encode([ask(vlm)], ["a", "b"], vlm)
    with pytest.raises(DataError, match="at least one"):
        encode([], None, vlm)


def test_the_processors_own_resizing_never_runs(vlm):
    """Published checkpoints scale small images up and large ones down; ours stay as they are."""
    images = vlm.processor.image_processor
    kept = images.size
    images.size = {"shortest_edge": 65_536, "longest_edge": 65_536}
    try:
        batch = encode([ask(vlm, (2, 2), (20, 10))], None, vlm)
    finally:
        images.size = kept
    assert batch["image_grid_thw"].tolist() == [[1, 4, 4], [1, 20, 40]]
