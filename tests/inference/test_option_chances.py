import json
from dataclasses import replace

import msgspec
import pytest
import torch

from malpighi.errors import DataError
from malpighi.evaluation.rows import read_predictions
from malpighi.inference.chat_engine import ChatEngine
from malpighi.inference.chat_model import load_chat
from malpighi.inference.engine import Completion, Sampling, failed
from malpighi.inference.option_chances import WithChances
from malpighi.inference.option_likelihood import answer_chances
from malpighi.inference.transformers_engine import TransformersEngine
from malpighi.models.prompt import option_texts
from malpighi.pipeline.exam_settings import ExamSettings
from malpighi.pipeline.examining import examine
from malpighi.pipeline.marking import Store
from malpighi.pipeline.material import Material
from malpighi.records import Choice, Split

GREEDY = Sampling(max_new_tokens=4)


class Says:
    def __init__(self, *texts):
        self.texts = texts

    def generate(self, prompts, sampling):
        return [failed("down") if text is None else Completion(text, 3) for text in self.texts]


@pytest.fixture
def asked(miniatures):
    """A miniature with the prompts of its questions that have options."""
    mini = miniatures("qwen2_5_vl")
    style = mini.pictures.style
    samples = [sample for sample in mini.samples if isinstance(sample.answer, Choice)][:4]
    prompts = [replace(mini.pictures.prompt(s), answers=option_texts(s, style)) for s in samples]
    assert all(prompt.answers for prompt in prompts)
    return mini, prompts


def test_the_options_are_put_behind_the_models_own_thought():
    seen = []

    def chances(prompt, answers):
        seen.append(list(answers))
        return [0.75, 0.25]

    class Prompts:
        answers = ("<answer>a</answer>", "<answer>b</answer>")
        digest = "d"

    open_question = type("Open", (), {"answers": (), "digest": "o"})
    prompts = [Prompts, Prompts, Prompts, open_question]
    engine = WithChances(Says("<think>Why.</think><answer>b</answer>", "b", None, "x"), chances)
    done = engine.generate(prompts, GREEDY)
    assert seen == [
        ["<think>Why.</think><answer>a</answer>", "<think>Why.</think><answer>b</answer>"],
        ["<answer>a</answer>", "<answer>b</answer>"],
    ]
    assert [completion.chances for completion in done] == [(0.75, 0.25), (0.75, 0.25), (), ()]


def test_chances_that_cannot_be_had_are_left_out(asked, caplog):
    def refuse(prompt, answers):
        raise DataError("too long")

    done = WithChances(Says("a"), refuse).generate(asked[1][:1], GREEDY)
    assert done == [Completion("a", 3)]
    assert "too long" in caplog.text


def test_the_trained_families_tell_them(asked):
    mini, prompts = asked
    vlm = mini.load()
    engine = TransformersEngine(vlm)
    plain = engine.generate(prompts, GREEDY)
    done = WithChances(engine, engine.chances).generate(prompts, GREEDY)
    for prompt, before, after in zip(prompts, plain, done, strict=True):
        assert (after.text, after.tokens, after.finish) == (before.text, before.tokens, before.finish)
        start, found, _ = before.text.rpartition("<answer>")
        texts = [(start if found else "") + text for text in prompt.answers]
        expected = answer_chances(vlm, [prompt], [texts])[0]
        assert after.chances == pytest.approx(expected.tolist())
        assert sum(after.chances) == pytest.approx(1)


def test_what_the_model_learnt_shows_in_the_chances(asked):
    """A model pushed towards one answer's words gives that option nearly everything."""
    mini, prompts = asked
    vlm = mini.load()
    wanted = prompts[0].answers[-1]
    ids = vlm.tokenizer(wanted, add_special_tokens=False)["input_ids"]
    others = [vlm.tokenizer(text, add_special_tokens=False)["input_ids"] for text in prompts[0].answers[:-1]]
    only = set(ids) - {token for other in others for token in other}
    bias = torch.zeros(len(vlm.tokenizer))
    bias[list(only)] = 30.0
    vlm.model.lm_head.bias = torch.nn.Parameter(bias)
    engine = TransformersEngine(vlm)
    assert engine.chances(prompts[0], prompts[0].answers)[-1] > 0.99


def test_chat_models_tell_them(asked, chat_folder):
    engine = ChatEngine(load_chat(chat_folder("gemma3")))
    done = WithChances(engine, engine.chances).generate(asked[1], GREEDY)
    for prompt, completion in zip(asked[1], done, strict=True):
        assert len(completion.chances) == len(prompt.answers)
        assert sum(completion.chances) == pytest.approx(1)


@pytest.mark.parametrize("family", ["internvl", "paligemma"])
def test_a_chat_model_takes_an_exam_with_chances(asked, chat_folder, family, tmp_path, untouched_process):
    mini, _ = asked
    samples = [s for s in mini.samples if isinstance(s.answer, Choice)][:5]
    samples = [msgspec.structs.replace(sample, split=Split.TEST) for sample in samples]
    material = Material(samples, Store(mini.pictures._load_bytes, mini.masks.__getitem__))
    settings = ExamSettings(
        with_chances=True, max_new_tokens=4, batch_size=2, draws=50, shown=1, controls=("blank",)
    )
    run = examine(str(chat_folder(family)), material, tmp_path, settings)
    rows = read_predictions(run.predictions[family])
    assert run.failures == []
    assert [sum(row.chances) for row in rows] == pytest.approx([1] * 5)
    record = json.loads((tmp_path / "exam.json").read_text())["models"][family]
    assert (record["kind"], record["prompt"]["family"]) == ("chat", family)
