import json
import os
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch", reason="needs the extra `train`")
pytest.importorskip("openslide", reason="needs the extra `slides`")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from malpighi.errors import ConfigError, UserError
from malpighi.evaluation.evaluate import EvaluateOptions, evaluate
from malpighi.evaluation.rows import read_predictions
from malpighi.geometry import Box, Frame
from malpighi.grading.grade import grade
from malpighi.inference.engine import Sampling
from malpighi.inference.openai_engine import messages
from malpighi.inference.scripted_engine import ScriptedEngine
from malpighi.inference.slide_views import SlideViews
from malpighi.inference.zoom import ZoomEngine, ZoomSettings
from malpighi.models.encode import chat, encode_one
from malpighi.models.families import FAMILIES
from malpighi.models.pictures import Pictures
from malpighi.models.prompt import PromptStyle, build_prompt
from malpighi.records import (
    SLIDE_KEY,
    Choice,
    ImageRef,
    Provenance,
    Sample,
    Scale,
    TaskKind,
    Turn,
)
from malpighi.resolution import tokens
from malpighi.slides.opening import open_slide
from malpighi.slides.view import ViewSettings

DATA = Path(os.environ.get("MALPIGHI_TEST_DATA", Path(__file__).parents[3] / "shared/data")) / "slides"
ANSWER = "<think>seen</think><answer>(B) carcinoma</answer>"
GREEDY = Sampling()
PLAIN = ViewSettings(bar=False, pack=False)


def question(path, index=0):
    with open_slide(path) as slide:
        ref = ImageRef(f"{SLIDE_KEY}{index}", slide.size, slide.mpp, path.name)
    return Sample(
        id=f"s{index}",
        dataset="d",
        exam="d/e",
        task=TaskKind.CLASSIFICATION,
        scale=Scale.SLIDE,
        images=(ref,),
        turns=(Turn("user", "Which diagnosis?"),),
        answer=Choice(1),
        options=("normal", "carcinoma"),
        group=f"g{index}",
        licence="CC0",
        provenance=Provenance("test"),
    )


class Room:
    """A phantom slide with everything around it; remembers what the model was shown."""

    def __init__(self, path, family):
        self.path = path
        self.views = SlideViews(path.parent, PLAIN)
        self.style = PromptStyle(family=family, budgets={Scale.SLIDE: 20})
        self.pictures = Pictures({}.__getitem__, self.style, show=self.views.show)
        self.sample = question(path)
        self.seen = []

    def ask(self, *replies, **limits):
        """The completion to a scripted conversation, one reply per turn; the last one is repeated."""

        def reply(prompt):
            self.seen.append(prompt)
            return replies[min(len(self.seen), len(replies)) - 1]

        engine = ZoomEngine(
            ScriptedEngine(reply), self.views.look, ZoomSettings(family=self.style.family, **limits)
        )
        self.seen.clear()
        return engine.generate([self.pictures.prompt(self.sample)], GREEDY)[0]

    def spoken(self, x0, y0, x1, y1):
        """A box of shares of the first view, as the model writes it."""
        prompt = self.pictures.prompt(self.sample)
        width, height = prompt.views[0].extent(self.style.facts.frame)
        return f"<zoom>[{x0 * width:.0f}, {y0 * height:.0f}, {x1 * width:.0f}, {y1 * height:.0f}]</zoom>"


@pytest.fixture(params=sorted(FAMILIES))
def room(request, phantom):
    return Room(phantom[0], request.param)


def test_it_asks_and_gets_the_pixels_of_the_slide(room):
    request = room.spoken(0.25, 0.25, 0.5, 0.5)
    completion = room.ask(f"<think>There is something. {request} I guess it is", ANSWER)
    assert completion.text == ANSWER
    (look,) = completion.looks
    assert look.refused == ""
    first, second = room.seen
    with open_slide(room.path) as slide:
        expected = slide.read(look.region, second.images[1].size)
    assert np.array_equal(np.asarray(second.images[1]), expected)
    asked = first.maps[0].to_slide(first.views[0].convert(_box(room, look.asked), Frame.IMAGE))
    assert look.region.x <= asked.x0 + 1e-6
    assert look.region.y <= asked.y0 + 1e-6
    assert look.region.x + look.region.width >= asked.x1 - 1e-6
    assert look.region.y + look.region.height >= asked.y1 - 1e-6
    assert look.mpp == pytest.approx(look.region.width / second.images[1].width * 0.5, rel=1e-3)
    assert look.mpp < first.maps[0].mpp / 1.5


def test_the_conversation_is_told_as_it_was(room):
    request = room.spoken(0.1, 0.1, 0.4, 0.4)
    room.ask(f"<think>Look. {request} dropped", ANSWER, rounds=2)
    first, second = room.seen
    assert "at most 2 times" in first.turns[-1].text
    assert [turn.role for turn in second.turns] == ["user", "assistant", "user"]
    assert second.turns[0] == first.turns[0]
    assert second.turns[1].text == f"<think>Look. {request}"
    assert second.turns[2].text.startswith("Image 2: A region of the slide, ")
    assert second.turns[2].text.endswith("Closer looks left: 1.")
    assert (second.places, len(second.refs), len(second.views), len(second.maps)) == ((0, 2), 2, 2, 2)
    assert second.digest != first.digest
    assert [[part["type"] for part in message["content"]] for message in chat(second)[1:]] == [
        ["image", "text"],
        ["text"],
        ["image", "text"],
    ]
    sent = [message["content"] for message in messages(second)[1:]]
    assert [isinstance(content, str) for content in sent] == [False, True, False]


def test_a_real_model_can_be_shown_the_further_images(room, miniatures):
    room.ask(room.spoken(0.1, 0.1, 0.4, 0.4), ANSWER)
    vlm = miniatures(room.style.family).load()
    encoded = encode_one(room.seen[-1], None, vlm)
    side = vlm.family.pixels_per_token
    costs = [tokens(image.size, side) for image in room.seen[-1].images]
    assert (encoded.grid_i3.prod(-1) // 4).tolist() == costs
    placeholder = vlm.token_id("<|image_pad|>")
    runs = [
        len(run) for run in "".join("i" if t == placeholder else "." for t in encoded.ids).split(".") if run
    ]
    assert runs == costs


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ("<zoom></zoom>", "found 0 boxes"),
        ("<zoom>upper left</zoom>", "found 0 boxes"),
        ("<zoom>[1, 2, 3]</zoom>", "found 0 boxes"),
        ("<zoom>[1, 2, nan, 4]</zoom>", "found 0 boxes"),
        ("<zoom>[0, 0, 1e400, 9]</zoom>", "found 0 boxes"),
        ("<zoom>[1, 2, 3, 4], [5, 6, 7, 8]</zoom>", "found 2 boxes"),
        ("<zoom>[40, 40, 10, 10]</zoom>", "no extent"),
        ("<zoom>[40, 40, 40, 40]</zoom>", "no extent"),
        ("<zoom>[-90, -90, -10, -10]</zoom>", "outside"),
        ("<zoom>[1e7, 1e7, 2e7, 2e7]</zoom>", "outside"),
        ("<zoom>[0, 0, 5000, 5000]</zoom>", "no more detail"),
        ("<zoom>" + "[" * 100_000, "found 0 boxes"),
        ("<ZOOM>[9</ZOOM>", "found 0 boxes"),
    ],
)
def test_bad_requests_are_answered_in_words(phantom, request_, reason):
    room = Room(phantom[0], "qwen3_vl")
    completion = room.ask(request_, ANSWER, tokens_each=4)
    (look,) = completion.looks
    assert reason in look.refused
    assert look.region is None
    assert look.refused in room.seen[1].turns[-1].text
    assert len(room.seen[1].images) == 1
    assert len(look.asked) <= 200
    assert completion.text == ANSWER


def test_rounds_are_bounded_and_every_request_is_recorded(room):
    completion = room.ask(room.spoken(0.2, 0.2, 0.3, 0.3), rounds=3)
    assert len(room.seen) == 4
    assert [look.refused for look in completion.looks] == ["", "", "", "no closer looks are left"]
    assert room.seen[-1].turns[-1].text.endswith("Answer now.")
    assert grade(room.sample, completion.text).score == 0
    assert completion.tokens == sum(len(text.split()) for text in [completion.text] * 4)


def test_image_tokens_are_bounded(room):
    first = room.pictures.prompt(room.sample)
    side = room.style.facts.pixels_per_token
    shown = tokens(first.images[0].size, side)
    limits = {"rounds": 4, "tokens_each": 12, "tokens": shown + 20}
    completion = room.ask(room.spoken(0.2, 0.2, 0.4, 0.4), **limits)
    costs = [tokens(image.size, side) for image in room.seen[-1].images]
    assert sum(costs) <= shown + 20
    assert max(costs[1:]) <= 12
    assert any(look.refused for look in completion.looks)
    full = room.ask(room.spoken(0.2, 0.2, 0.4, 0.4), rounds=1, tokens=shown)
    assert full.looks[0].refused == "the budget of image tokens is used up"


def test_an_answer_ends_the_conversation(room):
    said = f"{room.spoken(0.1, 0.1, 0.2, 0.2)} {ANSWER}"
    completion = room.ask(said)
    assert (completion.text, completion.looks, len(room.seen)) == (said, (), 1)


def test_prompts_without_a_slide_pass_as_they_are(phantom):
    room = Room(phantom[0], "qwen3_vl")
    image = Image.new("RGB", (64, 64))
    stored = msgspec.structs.replace(room.sample, images=(ImageRef("k", image.size),), scale=Scale.ROI)
    plain = build_prompt(stored, [image], PromptStyle(family="qwen3_vl"))
    seen = []

    def reply(prompt):
        seen.append(prompt)
        return "<zoom>[1, 1, 9, 9]</zoom>" if len(prompt.images) == 1 and not prompt.maps else ANSWER

    engine = ZoomEngine(ScriptedEngine(reply), room.views.look, ZoomSettings(family="qwen3_vl"))
    told = engine.generate([plain, room.pictures.prompt(room.sample)], GREEDY)
    assert seen[0] is plain
    assert (told[0].text, told[0].looks, told[1].text) == ("<zoom>[1, 1, 9, 9]</zoom>", (), ANSWER)
    assert engine.generate([], GREEDY) == []


def test_a_slide_that_vanishes_is_said_and_recorded(room):
    def gone(*_):
        room.views = SlideViews(room.path.parent / "nowhere", PLAIN)
        return room.views.look(*_)

    engine = ZoomEngine(
        ScriptedEngine([room.spoken(0.2, 0.2, 0.3, 0.3), ANSWER]),
        gone,
        ZoomSettings(family=room.style.family),
    )
    (completion,) = engine.generate([room.pictures.prompt(room.sample)], GREEDY)
    assert "cannot be read (there is no slide" in completion.looks[0].refused
    assert completion.text == ANSWER


def test_a_failing_engine_ends_the_conversation(room):
    def fail(prompt):
        raise UserError("server gone")

    engine = ZoomEngine(ScriptedEngine(fail), room.views.look, ZoomSettings(family=room.style.family))
    (completion,) = engine.generate([room.pictures.prompt(room.sample)], GREEDY)
    assert (completion.finish, completion.error) == ("error", "server gone")


def test_requests_stand_in_the_rows_of_an_examination(phantom, tmp_path):
    room = Room(phantom[0], "qwen3_vl")
    samples = [question(phantom[0], index) for index in range(3)]
    replies = [room.spoken(0.2, 0.2, 0.3, 0.3), "<zoom>junk</zoom>", ANSWER, ANSWER, ANSWER]

    def reply(prompt):
        return replies.pop(0)

    engine = ZoomEngine(ScriptedEngine(reply), room.views.look, ZoomSettings(family="qwen3_vl"))
    out = tmp_path / "p.jsonl"
    told = evaluate(
        engine, samples, room.pictures.prompt, lambda s, c, p: grade(s, c.text), out, EvaluateOptions("zoom")
    )
    assert [len(row.looks) for row in told.predictions] == [1, 1, 0]
    assert told.predictions[0].looks[0].region.width > 0
    assert "found 0 boxes" in told.predictions[1].looks[0].refused
    assert read_predictions(out) == told.predictions
    assert "looks" not in json.loads(out.read_text().splitlines()[2])
    assert {row.grade.score for row in told.predictions} == {1.0}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(-200, 1200), min_size=4, max_size=4), st.integers(1, 40))
def test_any_request_is_granted_within_its_bounds_or_refused(phantom, numbers, each):
    room = Room(phantom[0], "qwen3_vl")
    completion = room.ask(f"<zoom>{numbers}</zoom>", ANSWER, tokens_each=each)
    (look,) = completion.looks
    assert bool(look.refused) != (look.region is not None)
    if look.region is not None:
        image = room.seen[1].images[1]
        assert tokens(image.size, 32) <= each
        assert look.region.width / image.width < room.seen[0].maps[0].step


@pytest.mark.realdata
def test_a_real_slide_and_its_dicom_twin_are_looked_at_alike():
    rooms = [DATA / name for name in ("cmu-1-small-region.svs", "cmu-1-small-region-dicom")]
    for path in rooms:
        if not path.exists():
            pytest.skip(f"no slide {path}; set MALPIGHI_TEST_DATA")
    pytest.importorskip("wsidicom", reason="needs the extra `dicom`")
    seen = []
    for path in rooms:
        room = Room(path, "qwen3_vl")
        (look,) = room.ask(room.spoken(0.5, 0.25, 0.75, 0.5), ANSWER).looks
        with open_slide(path) as slide:
            expected = slide.read(look.region, room.seen[1].images[1].size)
        assert np.array_equal(np.asarray(room.seen[1].images[1]), expected)
        seen.append((look, [np.asarray(image).astype(int) for image in room.seen[1].images]))
    assert seen[0][0] == seen[1][0]
    for one, twin in zip(seen[0][1], seen[1][1], strict=True):
        # The twin is lossy anew and has coarse levels of its own: not equal, but in the same place.
        apart = [np.abs(one - np.roll(twin, shift, axis=(0, 1))).mean() for shift in ((0, 0), (0, 1), (1, 0))]
        assert apart[0] < 0.6 * min(apart[1:])


def test_bounds_that_allow_nothing_are_refused():
    for changes in ({"rounds": 0}, {"tokens_each": 0}, {"tokens": 0}, {"family": "none"}):
        with pytest.raises(ConfigError):
            ZoomSettings(**{"family": "qwen3_vl", **changes})


def _box(room, asked):
    return Box(*json.loads(asked), room.style.facts.frame)
