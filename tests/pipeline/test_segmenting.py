"""Boxes that become masks inside a run: the recipe's segmenter, for rewards and examination alike."""

import json

import msgspec
import numpy as np
import pytest

from malpighi.corpus import Corpus
from malpighi.evaluation.tables import results
from malpighi.grading.grade import Reading
from malpighi.pipeline.context import Context
from malpighi.pipeline.folder import RunFolder
from malpighi.pipeline.recipe import with_settings
from malpighi.recipes.mini import mini
from malpighi.records import MaskRef, Prediction, Split


@pytest.fixture(scope="module")
def folder(phantom_items, tmp_path_factory):
    """A run folder whose data stage is finished."""
    found = RunFolder(tmp_path_factory.mktemp("run"))
    with Corpus.create(found.stage("data") / "corpus") as corpus:
        for item in phantom_items:
            corpus.add(item._replace(sample=msgspec.structs.replace(item.sample, split=Split.TEST)))
    return found


def context_of(folder, segmenter):
    return Context(with_settings(mini("smoke"), [f"segmenter={segmenter}"]), folder, "evaluate")


def outlined(context):
    return [sample for sample in context.samples(Split.TEST) if isinstance(sample.answer, MaskRef)]


def right(sample):
    return json.dumps([box.corners for box in sample.answer.boxes])


@pytest.mark.parametrize("segmenter", ["boxes", "classical"])
def test_the_right_boxes_reach_the_ceiling(folder, segmenter):
    context = context_of(folder, segmenter)
    for sample in outlined(context):
        verdict = context.marker.grade_image(sample, right(sample))
        assert verdict.score == verdict.parts["dice_ceiling"] == context.ceiling(sample)
        nothing = context.marker.grade_image(sample, "[]")
        assert (nothing.score, nothing.parts["dice_ceiling"]) == (0.0, verdict.score)


def test_looking_at_the_picture_beats_filling(folder):
    filled, classical = (context_of(folder, name) for name in ("boxes", "classical"))
    gains = [classical.ceiling(sample) - filled.ceiling(sample) for sample in outlined(filled)]
    assert np.mean(gains) > 0.05


def test_a_wrong_box_stays_wrong(folder):
    context = context_of(folder, "classical")
    for sample in outlined(context):
        assert context.marker.grade_image(sample, "[[0, 0, 9, 9]]").score < 0.3


@pytest.mark.parametrize("segmenter", ["boxes", "classical"])
def test_a_reward_takes_the_same_way_in_the_models_frame(folder, segmenter):
    context = context_of(folder, segmenter)
    for sample in outlined(context):
        prompt = context.pictures.prompt(sample)
        frame = context.recipe.prompt.facts.frame
        spoken = [prompt.views[0].spoken(box, frame) for box in sample.answer.boxes]
        verdict = context.grade_text(sample, json.dumps(spoken), prompt, Reading())
        assert "dice_ceiling" not in verdict.parts, "a reward has no use for it"
        assert verdict.score == pytest.approx(context.ceiling(sample), abs=0.1), "boxes are whole numbers"


def test_a_sam_of_the_recipe_encodes_a_picture_once_for_all_completions(folder, sam_folder):
    context, encoded = context_of(folder, sam_folder), []
    context.segmenter._model.vision_encoder.register_forward_hook(lambda *_: encoded.append(1))
    assert context.segmenter is context_of(folder, sam_folder).segmenter, "loaded once per process"
    samples = outlined(context)[:2]
    verdicts = [
        context.marker.grade_image(sample, text)
        for sample in samples
        for text in (right(sample), "[[5, 5, 60, 60], [30, 20, 70, 90]]", "[]", "nowhere")
    ]
    assert len(encoded) == len(samples)
    for verdict, sample in zip(verdicts[::4], samples, strict=True):
        assert verdict.score == verdict.parts["dice_ceiling"] == context.ceiling(sample)
    assert verdicts[0].score != verdicts[0].parts["dice_filled"]


def test_a_ceiling_is_computed_once(folder, monkeypatch):
    context, calls = context_of(folder, "classical"), []
    sample = outlined(context)[0]
    segment = context.segmenter.segment
    monkeypatch.setattr(context.segmenter, "segment", lambda *given: calls.append(given) or segment(*given))
    for _ in range(5):
        context.ceiling(sample)
    assert len(calls) == 1
    other = next(s for s in context.samples(Split.TEST) if not isinstance(s.answer, MaskRef))
    assert context.ceiling(other) is None


def test_the_tables_tell_the_ceiling_of_the_rows(folder):
    context = context_of(folder, "classical")
    samples = [sample for sample in outlined(context) if sample.exam == "phantom/cell"]
    rows = [
        Prediction(
            model=model, exam=sample.exam, sample=sample.id, group=sample.group, task=sample.task, text=text,
            grade=context.marker.grade_image(sample, text), truth=[],
        )
        for sample in samples
        for model, text in (("right", right(sample)), ("unread", "somewhere"))
    ]  # fmt: skip
    found = {row.model: row for row in results(rows).rows}
    assert found["right"].ceiling == found["unread"].ceiling == pytest.approx(found["right"].score.value)
    assert "dice_ceiling" not in found["right"].metrics
