"""Our encoding against the processor's own, and batches against single prompts."""

import numpy as np
import pytest
import torch
from PIL import Image

from malpighi.geometry import View
from malpighi.inference.engine import Sampling
from malpighi.inference.transformers_engine import TransformersEngine
from malpighi.models.encode import chat, encode
from malpighi.models.families import FAMILIES
from malpighi.models.prompt import Prompt
from malpighi.models.sizes import TinySize
from malpighi.models.tiny import build_tiny
from malpighi.models.vlm import load_vlm
from malpighi.records import Turn

TEXTS = [
    "Think, then answer.",
    "Which class? (A) NILM, (B) ASC-US",
    "<think></think><answer>(B) ASC-US</answer>",
]
SIZE = TinySize(hidden=64, layers=3, feed_forward=96, vision_hidden=32, vision_layers=4, vision_heads=2)
SHAPES = {
    "text": (),
    "one image": ((3, 2),),
    "one token": ((1, 1),),
    "wider than a window": ((9, 6),),
    "several images": ((2, 2), (5, 1), (2, 2)),
}


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def vlm(request, tmp_path_factory):
    loaded = load_vlm(build_tiny(request.param, tmp_path_factory.mktemp("tiny"), TEXTS, size=SIZE))
    # Random weights of 0.02 answer every prompt alike; larger ones make the model listen to its input.
    with torch.no_grad():
        for parameter in loaded.model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    return loaded


def ask(vlm, shapes, words="Which class?"):
    side = vlm.family.pixels_per_token
    rng = np.random.default_rng(abs(hash((shapes, len(words)))) % 2**32)
    images = tuple(
        Image.fromarray(rng.integers(0, 256, (side * rows, side * columns, 3), dtype=np.uint8))
        for columns, rows in shapes
    )
    views = tuple(View(image.size, image.size) for image in images)
    return Prompt("Think, then answer.", (Turn("user", words),), images, views, words + str(shapes))


def logits(vlm, batch):
    with torch.inference_mode():
        return vlm.model(**batch).logits


@pytest.mark.parametrize("kind", SHAPES)
def test_tokens_and_logits_equal_those_of_the_processor(vlm, kind):
    prompt = ask(vlm, SHAPES[kind])
    text = vlm.processor.apply_chat_template(chat(prompt), tokenize=False, add_generation_prompt=True)
    theirs = vlm.processor(
        text=[text], images=list(prompt.images) or None, do_resize=False, return_tensors="pt"
    )
    ours = encode([prompt], None, vlm)
    assert torch.equal(ours["input_ids"], theirs["input_ids"])
    assert torch.equal(ours["mm_token_type_ids"], theirs["mm_token_type_ids"].long())
    found, expected = logits(vlm, ours), logits(vlm, theirs)
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_another_image_gives_other_logits(vlm):
    """Guards the tests above: a model that ignores its image would pass them all."""
    one, other = ask(vlm, ((3, 2),)), ask(vlm, ((3, 2),), "Which other class?")
    swapped = Prompt(one.system, one.turns, other.images, one.views, "")
    difference = logits(vlm, encode([one], None, vlm)) - logits(vlm, encode([swapped], None, vlm))
    assert difference[0, -1].abs().max() > 1e-2


@pytest.mark.parametrize("padding", ["left", "right"])
def test_a_batch_gives_the_logits_of_its_prompts_alone(vlm, padding):
    prompts = [ask(vlm, shapes, "Which class?" * (1 + i)) for i, shapes in enumerate(SHAPES.values())]
    batch = encode(prompts, None, vlm, padding=padding)
    together = logits(vlm, batch)
    for index, prompt in enumerate(prompts):
        alone = logits(vlm, encode([prompt], None, vlm))[0]
        mine = together[index][batch["attention_mask"][index].bool()]
        torch.testing.assert_close(mine, alone, rtol=0, atol=1e-4)


def test_generation_in_batches_equals_generation_alone(vlm):
    prompts = [ask(vlm, shapes, "Which class?" * (1 + i)) for i, shapes in enumerate(SHAPES.values())]
    for sampling in (Sampling(max_new_tokens=12), Sampling(max_new_tokens=12, temperature=1.0, seed=3)):
        together = TransformersEngine(vlm, batch_size=5).generate(prompts, sampling)
        alone = [TransformersEngine(vlm, batch_size=1).generate([prompt], sampling)[0] for prompt in prompts]
        assert together == alone
        assert len({completion.text for completion in together}) > 1


def test_greedy_generation_equals_taking_the_likeliest_token_step_by_step(vlm):
    prompt = ask(vlm, ((3, 2),))
    banned = [
        vlm.token_id(token)
        for token in ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    ]
    said: list[int] = []
    for _ in range(8):
        scores = logits(vlm, encode([prompt], [said], vlm))[0, -1].clone()
        scores[banned] = -torch.inf
        said.append(int(scores.argmax()))
    engine = TransformersEngine(vlm)
    completion = engine.generate([prompt], Sampling(max_new_tokens=8))[0]
    expected = vlm.tokenizer.decode(said, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert completion.text == expected
