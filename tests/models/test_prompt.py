import hashlib
import io
import json
import subprocess
import sys
import threading

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from malpighi.config import override
from malpighi.errors import ConfigError, DataError
from malpighi.geometry import Box, Frame, View
from malpighi.models.families import FAMILIES, family_named
from malpighi.models.pictures import Pictures
from malpighi.models.prompt import PromptStyle, build_prompt, shown_size, target_text
from malpighi.models.templates import TEMPLATES
from malpighi.records import (
    Boxes,
    Choice,
    ImageRef,
    MaskRef,
    Provenance,
    Sample,
    Scale,
    TaskKind,
    Text,
    Turn,
    option_label,
)
from malpighi.resolution import fit, tokens

CLASSES = ("NILM", "ASC-US", "LSIL")
STYLE = PromptStyle(family="qwen2_5_vl")


SECOND = Choice(1)


def make(answer=SECOND, task=TaskKind.CLASSIFICATION, sizes=((224, 200),), **changes):
    fields = {
        "id": "s1",
        "dataset": "d",
        "exam": "d/e",
        "task": task,
        "scale": Scale.CELL,
        "images": tuple(ImageRef(f"key{i}", size) for i, size in enumerate(sizes)),
        "turns": (Turn("user", "Which class?"),),
        "answer": answer,
        "options": CLASSES if isinstance(answer, Choice) else (),
        "group": "g",
        "licence": "CC0-1.0",
        "provenance": Provenance("test"),
    }
    return Sample(**(fields | changes))


def picture(size, seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(values)


def pictures_of(sample):
    return [picture(ref.size, seed) for seed, ref in enumerate(sample.images)]


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_images_are_resized_to_the_budget_and_views_say_so(family):
    style = PromptStyle(family=family, budgets={Scale.CELL: 16})
    sample = make(sizes=((500, 300), (20, 1000)))
    prompt = build_prompt(sample, pictures_of(sample), style)
    patch = family_named(family).pixels_per_token
    for image, view, ref in zip(prompt.images, prompt.views, sample.images, strict=True):
        assert image.mode == "RGB"
        assert image.size == view.resized_size == fit(ref.size, 16, patch)
        assert tokens(image.size, patch) <= 16
        assert view.image_size == ref.size


def test_an_image_of_the_right_size_is_shown_pixel_for_pixel():
    sample = make(sizes=((224, 224),))
    original = picture((224, 224))
    shown = build_prompt(sample, [original], STYLE).images[0]
    assert np.array_equal(np.asarray(shown), np.asarray(original))


def test_resizing_is_bicubic():
    sample = make(sizes=((230, 201),))
    original = picture((230, 201))
    shown = build_prompt(sample, [original], STYLE).images[0]
    expected = original.resize((224, 196), Image.Resampling.BICUBIC)
    assert np.array_equal(np.asarray(shown), np.asarray(expected))


def test_scale_decides_the_budget():
    sample = make(sizes=((3000, 3000),))
    costs = {
        scale: tokens(
            build_prompt(msgspec.structs.replace(sample, scale=scale), [picture((3000, 3000))], STYLE)
            .images[0]
            .size,
            28,
        )
        for scale in (Scale.ROI, Scale.SLIDE)
    }
    assert costs == {Scale.ROI: 256, Scale.SLIDE: 1024}


def test_a_task_may_have_a_budget_of_its_own():
    style = msgspec.structs.replace(STYLE, task_budgets={TaskKind.DETECTION: 1024})
    sample = make(sizes=((3000, 3000),))
    costs = {
        task: tokens(shown_size(sample.images[0], msgspec.structs.replace(sample, task=task), style), 28)
        for task in (TaskKind.DETECTION, TaskKind.CLASSIFICATION)
    }
    assert costs == {TaskKind.DETECTION: 1024, TaskKind.CLASSIFICATION: 256}


def test_options_are_lettered_beyond_z():
    options = tuple(f"class {i}" for i in range(32))
    sample = make(Choice(31), options=options)
    prompt = build_prompt(sample, pictures_of(sample), STYLE)
    words = prompt.turns[-1].text
    assert words.startswith("Which class?\n(A) class 0, (B) class 1,")
    assert "(Z) class 25, (AA) class 26" in words
    assert words.endswith("(AF) class 31")
    assert target_text(sample, prompt.views, STYLE) == "<think></think><answer>(AF) class 31</answer>"


def test_labels_are_unique_and_in_spreadsheet_order():
    labels = [option_label(i) for i in range(1000)]
    assert len(set(labels)) == 1000
    assert sorted(labels, key=lambda text: (len(text), text)) == labels


def test_targets_of_every_kind_of_answer():
    view = View((224, 200), (224, 196))
    box = Box(0, 50, 112, 100)
    said = {
        "choice": target_text(make(reasoning="Large nuclei."), [view], STYLE),
        "text": target_text(make(Text("mitosis")), [view], STYLE),
        "boxes": target_text(make(Boxes((box,)), TaskKind.DETECTION), [view], STYLE),
        "none": target_text(make(Boxes(()), TaskKind.DETECTION), [view], STYLE),
        "mask": target_text(make(MaskRef("m", (box,)), TaskKind.SEGMENTATION), [view], STYLE),
    }
    assert said == {
        "choice": "<think>Large nuclei.</think><answer>(B) ASC-US</answer>",
        "text": "<think></think><answer>mitosis</answer>",
        "boxes": "<think></think><answer>[[0, 49, 112, 98]]</answer>",
        "none": "<think></think><answer>[]</answer>",
        "mask": "<think></think><answer>[[0, 49, 112, 98]]</answer>",
    }
    relative = PromptStyle(family="qwen3_vl")
    assert target_text(make(Boxes((box,))), [view], relative) == (
        "<think></think><answer>[[0, 250, 500, 500]]</answer>"
    )


def test_yes_or_no_is_said_in_words():
    sample = make(Choice(1), TaskKind.VQA, options=("yes", "no"))
    prompt = build_prompt(sample, pictures_of(sample), STYLE)
    assert "(A)" not in prompt.turns[-1].text
    assert target_text(sample, prompt.views, STYLE) == "<think></think><answer>no</answer>"


def test_without_thinking_neither_prompt_nor_target_speaks_of_it():
    style = PromptStyle(family="qwen3_vl", think=False)
    sample = make(reasoning="Large nuclei.")
    prompt = build_prompt(sample, pictures_of(sample), style)
    assert "think" not in prompt.system.lower()
    assert target_text(sample, prompt.views, style) == "<answer>(B) ASC-US</answer>"


def test_smartpath_words_are_the_published_ones():
    # Hashes of the sentences of Table 1, taken from the paper's text and not from this package.
    template = TEMPLATES["smartpath"]
    sentences = (template.system, template.choice.removesuffix("{options}"), template.boxes)
    assert [hashlib.sha256(text.encode()).hexdigest()[:16] for text in sentences] == [
        "98663cab9cf54b51",
        "aa7a2fa67912e38b",
        "9fb621b4de393410",
    ]
    sample = make()
    style = PromptStyle(family="qwen2_5_vl", system="smartpath")
    words = build_prompt(sample, pictures_of(sample), style).turns[-1].text
    assert words.endswith("one of these classes: (A) NILM, (B) ASC-US, (C) LSIL")


def test_patho_r1_asks_for_a_letter_and_teaches_one():
    style = PromptStyle(family="qwen2_5_vl", system="patho_r1")
    sample = make()
    prompt = build_prompt(sample, pictures_of(sample), style)
    assert prompt.turns[-1].text.endswith("A. NILM\nB. ASC-US\nC. LSIL")
    assert target_text(sample, prompt.views, style) == "<think></think><answer>B</answer>"
    boxes = make(Boxes(()), TaskKind.DETECTION)
    units = [
        build_prompt(boxes, pictures_of(boxes), PromptStyle(family=f, system="patho_r1")).turns[-1].text
        for f in ("qwen2_5_vl", "qwen3_vl")
    ]
    assert "pixels" in units[0]
    assert "0 to 1000" in units[1]


def test_the_digest_tells_prompts_apart():
    sample = make()
    same = build_prompt(sample, pictures_of(sample), STYLE)
    others = [
        build_prompt(make(sizes=((224, 200), (224, 200))), pictures_of(make()) * 2, STYLE),
        build_prompt(make(options=CLASSES[:2]), pictures_of(sample), STYLE),
        build_prompt(make(images=(ImageRef("other", (224, 200)),)), pictures_of(sample), STYLE),
        build_prompt(sample, pictures_of(sample), PromptStyle(family="qwen2_5_vl", think=False)),
        build_prompt(sample, pictures_of(sample), PromptStyle(family="qwen2_5_vl", budgets={Scale.CELL: 4})),
    ]
    assert build_prompt(sample, pictures_of(sample), STYLE).digest == same.digest
    assert len({same.digest, *(other.digest for other in others)}) == 6


def test_earlier_turns_are_kept():
    turns = (Turn("user", "What is seen?"), Turn("assistant", "A gland."), Turn("user", "Which class?"))
    sample = make(turns=turns)
    prompt = build_prompt(sample, pictures_of(sample), STYLE)
    assert prompt.turns[:2] == turns[:2]
    assert prompt.turns[2].text.startswith("Which class?\n(A)")


BOX_SIDES = st.sampled_from([(20, 1000), (1000, 20), (224, 224), (512, 400), (77, 1501), (3000, 2000)])


@settings(max_examples=1000, deadline=None)
@given(st.sampled_from(sorted(FAMILIES)), BOX_SIDES, st.data())
def test_boxes_come_back_within_rounding(family, size, data):
    facts = family_named(family)
    view = View(size, fit(size, 256, facts.pixels_per_token))
    xs = sorted(data.draw(st.lists(st.integers(0, size[0]), min_size=2, max_size=2, unique=True)))
    ys = sorted(data.draw(st.lists(st.integers(0, size[1]), min_size=2, max_size=2, unique=True)))
    box = Box(xs[0], ys[0], xs[1], ys[1])
    sample = make(Boxes((box,)), TaskKind.DETECTION, sizes=(size,))
    said = target_text(sample, [view], PromptStyle(family=family))
    numbers = json.loads(said.removeprefix("<think></think><answer>").removesuffix("</answer>"))[0]
    back = view.convert(Box(*numbers, facts.frame), Frame.IMAGE)
    assert back.area > 0
    steps = [size[i % 2] / view.extent(facts.frame)[i % 2] for i in range(4)]
    for found, true, step in zip(back.corners, box.corners, steps, strict=True):
        # half a step by rounding; a box thinner than a step is widened by one more
        thin = min((xs[1] - xs[0]) / steps[0], (ys[1] - ys[0]) / steps[1]) < 1
        assert abs(found - true) <= step * (1.5 if thin else 0.5) + 1e-6


@pytest.mark.parametrize(
    ("sample", "images", "message"),
    [
        (make(), [], "1 images but 0"),
        (make(), [picture((10, 10))], "record says"),
        (make(turns=(Turn("user", "a <|image_pad|> b"),)), [picture((224, 200))], "special token"),
        (make(options=("x<|im_end|>", "y")), [picture((224, 200))], "special token"),
    ],
)
def test_prompts_refuse_what_does_not_fit(sample, images, message):
    with pytest.raises(DataError, match=message):
        build_prompt(sample, images, STYLE)


@pytest.mark.parametrize(
    ("sample", "views", "message"),
    [
        (make(Choice(3)), 1, "outside its 3 options"),
        (make(Choice(-1)), 1, "outside its 3 options"),
        (make(Boxes((Box(0, 0, 1, 1),))), 2, "exactly one image"),
        (make(reasoning="so </think> there"), 1, "contains one of"),
        (make(Text("<answer>x")), 1, "contains one of"),
        (make(Text("x<|im_end|>")), 1, "special token"),
    ],
)
def test_targets_refuse_what_cannot_be_said(sample, views, message):
    with pytest.raises(DataError, match=message):
        target_text(sample, [View((224, 200), (224, 196))] * views, STYLE)


def test_styles_refuse_unknown_names_and_senseless_budgets():
    with pytest.raises(ConfigError, match="qwen3_vl"):
        PromptStyle(family="blip")
    with pytest.raises(ConfigError, match="patho_r1"):
        PromptStyle(family="qwen3_vl", system="polite")
    with pytest.raises(ConfigError, match="always thinks"):
        PromptStyle(family="qwen3_vl", system="smartpath", think=False)
    with pytest.raises(ConfigError, match="at least 1"):
        PromptStyle(family="qwen3_vl", budgets={Scale.ROI: 0})
    with pytest.raises(ConfigError, match="0 tokens for 'detection' images"):
        PromptStyle(family="qwen3_vl", task_budgets={TaskKind.DETECTION: 0})
    sample = make()
    with pytest.raises(ConfigError, match=r"budgets\.cell"):
        build_prompt(sample, pictures_of(sample), PromptStyle(family="qwen3_vl", budgets={Scale.ROI: 4}))


def test_styles_can_be_overridden_from_the_command_line():
    style = override(STYLE, ["budgets.cell=16", "system=smartpath", "task_budgets={detection: 64}"])
    assert (style.budgets[Scale.CELL], style.system) == (16, "smartpath")
    assert style.task_budgets == {TaskKind.DETECTION: 64}


def test_asking_needs_no_torch():
    rooms = ["models.pictures", "models.prompt", "inference.openai_engine", "inference.scripted_engine"]
    code = "import sys, " + ", ".join(f"malpighi.{room}" for room in rooms)
    code += "; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class Store:
    def __init__(self, sizes):
        self.reads = []
        self.files = {}
        for i, size in enumerate(sizes):
            buffer = io.BytesIO()
            picture(size, i).save(buffer, "PNG")
            self.files[f"key{i}"] = buffer.getvalue()

    def load(self, key):
        self.reads.append(key)
        return self.files[key]


def test_pictures_decode_once_and_give_the_same_prompt():
    store = Store([(500, 300)])
    pictures = Pictures(store.load, STYLE)
    sample = make(sizes=((500, 300),))
    first, second = pictures.prompt(sample), pictures.prompt(sample)
    assert store.reads == ["key0"]
    expected = build_prompt(sample, [picture((500, 300))], STYLE)
    assert first.digest == second.digest == expected.digest
    assert np.array_equal(np.asarray(first.images[0]), np.asarray(expected.images[0]))


def test_pictures_keep_within_their_bound_and_drop_the_oldest():
    sizes = [(56, 56)] * 4
    store = Store(sizes)
    pictures = Pictures(store.load, STYLE, keep_bytes=3 * 3 * 56 * 56)
    samples = [make(images=(ImageRef(f"key{i}", (56, 56)),)) for i in range(4)]
    for index in (0, 1, 2, 0, 3, 0, 1):
        pictures.prompt(samples[index])
        assert pictures.held_bytes <= 3 * 3 * 56 * 56
    assert store.reads == ["key0", "key1", "key2", "key3", "key1"]


def test_an_image_beyond_the_bound_is_shown_but_not_kept():
    store = Store([(56, 56)])
    pictures = Pictures(store.load, STYLE, keep_bytes=10)
    sample = make(sizes=((56, 56),))
    assert pictures.prompt(sample).images[0].size == (56, 56)
    assert pictures.held_bytes == 0


def test_pictures_are_safe_across_threads():
    sizes = [(84, 56)] * 6
    store = Store(sizes)
    pictures = Pictures(store.load, STYLE, keep_bytes=3 * 3 * 84 * 56)
    samples = [make(images=(ImageRef(f"key{i}", (84, 56)),)) for i in range(6)]
    expected = [pictures.prompt(sample).images[0].tobytes() for sample in samples]
    wrong = []

    def look(offset):
        for step in range(30):
            index = (offset + step) % 6
            if pictures.prompt(samples[index]).images[0].tobytes() != expected[index]:
                wrong.append(index)

    threads = [threading.Thread(target=look, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert 0 < pictures.held_bytes <= 3 * 3 * 84 * 56


def test_pictures_refuse_a_damaged_image():
    pictures = Pictures(lambda key: b"not an image", STYLE)
    with pytest.raises(DataError):
        pictures.prompt(make())
