"""The three ways of answering about a slide, end to end through the same examination."""

import msgspec
import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="needs the extra `train`")
pytest.importorskip("openslide", reason="needs the extra `slides`")

from malpighi.corpus import Corpus  # noqa: E402
from malpighi.errors import ConfigError, DataError  # noqa: E402
from malpighi.evaluation.evaluate import EvaluateOptions, evaluate, image_hash  # noqa: E402
from malpighi.evaluation.rows import read_predictions  # noqa: E402
from malpighi.geometry import Region  # noqa: E402
from malpighi.grading.grade import Reading, grade  # noqa: E402
from malpighi.inference.encoders import StainStatistics  # noqa: E402
from malpighi.inference.engine import Sampling  # noqa: E402
from malpighi.inference.option_likelihood import answer_chances  # noqa: E402
from malpighi.inference.scripted_engine import ScriptedEngine  # noqa: E402
from malpighi.inference.slide_answer import (  # noqa: E402
    FeatureAnswers,
    PoolSettings,
    TileAnswers,
    chosen,
    likelihoods,
    top_mean,
    votes,
)
from malpighi.inference.slide_views import SlideViews  # noqa: E402
from malpighi.inference.tile_features import TileSource, extract_features  # noqa: E402
from malpighi.inference.transformers_engine import TransformersEngine  # noqa: E402
from malpighi.models.attention_mil import AttentionMil, AttentionShape  # noqa: E402
from malpighi.models.encode import encode  # noqa: E402
from malpighi.models.pictures import Pictures, SlideShow  # noqa: E402
from malpighi.models.prompt import PromptStyle  # noqa: E402
from malpighi.phantom.slide_items import DIAGNOSES, SlideItemSettings, slide_items  # noqa: E402
from malpighi.records import Choice, ImageRef, Scale, TaskKind, Text  # noqa: E402
from malpighi.slides.features import FeatureStore  # noqa: E402
from malpighi.slides.grid import GridSettings  # noqa: E402
from malpighi.slides.opening import open_slide  # noqa: E402
from malpighi.slides.pyramid_view import PyramidSettings, pyramid_view  # noqa: E402
from malpighi.slides.view import ViewSettings  # noqa: E402

SMALL = SlideItemSettings(shortest=512, longest=640, mpp=1.0)
TILES = TileSource(GridSettings(size=256, mpp=None, tissue=0.0))
FAMILY = "qwen2_5_vl"
STYLE = PromptStyle(family=FAMILY, budgets={Scale.SLIDE: 9, Scale.ROI: 4})
GREEDY = Sampling(max_new_tokens=6)


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    """Four phantom slides of two patients in a corpus, and the folder that they lie in."""
    folder = tmp_path_factory.mktemp("answers")
    items = list(slide_items(folder / "slides", 5, 4, SMALL))
    with Corpus.create(folder / "corpus") as corpus:
        for item in items:
            corpus.add(item)
    return folder


@pytest.fixture(scope="module")
def samples(room):
    return Corpus.open(room / "corpus").samples()


@pytest.fixture(scope="module")
def vlm(miniatures):
    return miniatures(FAMILY).load()


def diagnoses(samples):
    return [sample for sample in samples if sample.exam == "phantom/slide-diagnosis"]


def graded(sample, completion, prompt):
    view = prompt.views[0] if prompt.views else None
    return grade(sample, completion.text, Reading(truncated=completion.finish == "length", view=view))


def pictures_of(room, style=STYLE, **options):
    return Pictures(
        Corpus.open(room / "corpus").image_bytes, style, show=SlideViews(room / "slides", **options).show
    )


def test_one_view_goes_through_the_examination_with_a_real_model(room, samples, vlm, tmp_path):
    pictures = pictures_of(room)
    engine = TransformersEngine(vlm, batch_size=4)
    out = tmp_path / "view.jsonl"
    told = evaluate(engine, samples, pictures.prompt, graded, out, EvaluateOptions("view", sampling=GREEDY))
    assert told.failures == []
    assert [row.sample for row in read_predictions(out)] == [sample.id for sample in samples]
    assert {row.task for row in told.predictions} == {TaskKind.CLASSIFICATION, TaskKind.VQA, TaskKind.CAPTION}
    shown = {row.sample.split("/")[1]: row.image_hash for row in told.predictions}
    assert len(set(shown.values())) == 4  # the four questions about a slide share its pixels, slides do not
    assert all(row.image_hash == shown[row.sample.split("/")[1]] for row in told.predictions)
    assert len({row.prompt_hash for row in told.predictions}) == len(samples)


def test_the_view_is_within_the_budget_and_leads_back_to_the_slide(room, samples):
    prompt = pictures_of(room).prompt(samples[0])
    (ref,) = prompt.refs
    width, height = prompt.images[0].size
    assert (width // 28) * (height // 28) <= 9
    assert (ref.slide, ref.size, ref.unmade) == (samples[0].images[0].slide, (width, height), False)
    assert ref.mpp == pytest.approx(ref.region.width / width, rel=1e-3)  # level 0 is at 1.0
    assert "micrometres per pixel" in prompt.turns[0].text
    assert samples[0].question in prompt.turns[0].text


def test_the_hash_is_that_of_the_pixels_shown(room, samples):
    first, again = (pictures_of(room).prompt(samples[0]) for _ in range(2))
    assert image_hash(samples[0], first) == image_hash(samples[0], again)
    larger = PromptStyle(family=FAMILY, budgets={Scale.SLIDE: 16})
    assert image_hash(samples[0], pictures_of(room, larger).prompt(samples[0])) != image_hash(
        samples[0], first
    )
    assert image_hash(samples[0], first) != image_hash(samples[0])


def test_a_view_is_made_once_and_kept_within_bounds(room, samples):
    views, calls = SlideViews(room / "slides"), []

    def show(ref, tokens, side):
        calls.append(ref.slide)
        return views.show(ref, tokens, side)

    pictures = Pictures({}.__getitem__, STYLE, show=show)
    for sample in samples:
        pictures.prompt(sample)
    assert len(calls) == 4
    assert 0 < pictures.held_bytes <= 4 * 9 * 28 * 28 * 3
    tight = Pictures({}.__getitem__, STYLE, keep_bytes=9 * 28 * 28 * 3, show=show)
    for sample in samples:
        tight.prompt(sample)
        assert tight.held_bytes <= 9 * 28 * 28 * 3


def test_a_pyramid_of_views_is_one_prompt_of_several_images(room, samples):
    def pyramid(slide, settings):
        return pyramid_view(slide, PyramidSettings(view=settings, regions=2, zoom=2.0))

    style = PromptStyle(family=FAMILY, budgets={Scale.SLIDE: 60})
    prompt = pictures_of(room, style, view_of=pyramid).prompt(samples[0])
    assert len(prompt.images) > 1
    assert len(prompt.refs) == len(prompt.views) == len(prompt.maps) == len(prompt.images)
    assert sum(i.width * i.height for i in prompt.images) <= 60 * 28 * 28
    assert prompt.maps[1].step < prompt.maps[0].step


def test_a_region_of_a_slide_is_shown_alone(room, samples):
    ref = samples[0].images[0]
    part = msgspec.structs.replace(ref, region=Region(100, 100, 84, 84))
    pictures = pictures_of(room, settings=ViewSettings(bar=False))
    prompt = pictures.prompt(msgspec.structs.replace(samples[0], images=(part,)))
    assert (prompt.refs[0].region.x, prompt.refs[0].region.width) == (100, 84)
    with open_slide(room / "slides" / ref.slide) as slide:
        expected = slide.read_level(0, (100, 100), (84, 84))
    assert np.array_equal(np.asarray(prompt.images[0]), expected)


def test_what_cannot_be_shown_fails_with_its_reason(room, samples, tmp_path):
    lost = msgspec.structs.replace(samples[0].images[0], slide="gone.tiff")
    broken = msgspec.structs.replace(samples[0], images=(lost,), id="broken")
    engine = ScriptedEngine(lambda prompt: "<answer>A</answer>")
    told = evaluate(
        engine,
        [broken, samples[0]],
        pictures_of(room).prompt,
        graded,
        tmp_path / "p.jsonl",
        EvaluateOptions("view"),
    )
    assert [failure.id for failure in told.failures] == ["broken"]
    assert "there is no slide" in told.failures[0].reason
    with pytest.raises(DataError, match="pass Pictures"):
        Pictures({}.__getitem__, STYLE).prompt(samples[0])

    def greedy(ref, tokens, side):
        show = SlideViews(room / "slides").show(ref, tokens, side)
        return SlideShow(show.pictures * 2)

    with pytest.raises(DataError, match="the budget is 9"):
        Pictures({}.__getitem__, STYLE, show=greedy).prompt(samples[0])


@pytest.mark.parametrize("kind", ["votes", "likelihoods"])
def test_pooled_tiles_go_through_the_examination_with_a_real_model(room, samples, vlm, kind, tmp_path):
    judge = votes(TransformersEngine(vlm)) if kind == "votes" else likelihoods(vlm, STYLE)
    answers = TileAnswers(judge, TILES, STYLE, PoolSettings(top=2), root=room / "slides")
    chosen_samples = [sample for sample in samples if isinstance(sample.answer, Choice)]
    out = tmp_path / "tiles.jsonl"
    options = EvaluateOptions("tiles", sampling=GREEDY, batch_size=4)
    told = evaluate(answers, chosen_samples, answers.prompt, graded, out, options)
    assert len(read_predictions(out)) == len(chosen_samples)
    if kind == "likelihoods":
        assert told.failures == []
        assert all(row.grade.status == "ok" and row.grade.parts["format"] == 1 for row in told.predictions)
    else:  # an untrained model says nothing that can be read, and that is said
        assert all("none of 4 tiles" in failure.reason for failure in told.failures)
    assert len({row.image_hash for row in told.predictions}) == 4


def test_the_tiles_of_carcinoma_decide(room, samples, tmp_path):
    """An engine that knows carcinoma by its tile's pixels: right on every slide, by one tile in four."""
    carcinoma = {}
    for sample in diagnoses(samples):
        with open_slide(room / "slides" / sample.images[0].slide) as slide:
            tile = Image.fromarray(slide.read_level(0, (256, 0), (256, 256)))
            resized = tile.resize((56, 56), Image.Resampling.BICUBIC)
            carcinoma[resized.tobytes()] = sample.answer == Choice(1)
    seen = []

    def reply(prompt):
        seen.append(prompt)
        positive = carcinoma.get(prompt.images[0].tobytes(), False)
        return f"<answer>{'(B) carcinoma' if positive else '(A)'}</answer>"

    settings = PoolSettings(top=1, negative=DIAGNOSES[0])
    answers = TileAnswers(votes(ScriptedEngine(reply)), TILES, STYLE, settings, room / "slides")
    told = evaluate(
        answers, diagnoses(samples), answers.prompt, graded, tmp_path / "p.jsonl", EvaluateOptions("tiles")
    )
    assert [row.grade.score for row in told.predictions] == [1.0] * 4
    said = [("carcinoma 1.00" in row.text, row.grade.parsed) for row in told.predictions]
    assert said == [(True, sample.answer.index) for sample in diagnoses(samples)]
    assert len(seen) == 16
    assert {prompt.views[0].region.width for prompt in seen} == {256}
    assert all(prompt.refs[0].slide for prompt in seen)


def test_features_go_through_the_examination(room, samples, tmp_path):
    encoder = StainStatistics()
    store = FeatureStore(tmp_path, encoder.name)
    for sample in diagnoses(samples):
        name = sample.images[0].slide
        with open_slide(room / "slides" / name) as slide:
            row = extract_features(slide, name, store, encoder, TILES)
            assert (row["tiles"], row["made"]) == (4, 4)
    torch.manual_seed(0)
    model = AttentionMil(AttentionShape(encoder.width, 8, 4), DIAGNOSES, encoder.name)
    answers = FeatureAnswers(model, store, STYLE)
    out = tmp_path / "p.jsonl"
    told = evaluate(answers, diagnoses(samples), answers.prompt, graded, out, EvaluateOptions("attention"))
    expected = [
        model.examine(store.read(sample.images[0].slide).features).probabilities_k.argmax()
        for sample in diagnoses(samples)
    ]
    assert told.failures == []
    assert [row.grade.parsed for row in told.predictions] == expected
    assert all(row.grade.parts["format"] == 1 for row in told.predictions)
    other = [sample for sample in samples if sample.exam == "phantom/slide-pen"]
    refused = evaluate(answers, other, answers.prompt, graded, tmp_path / "q.jsonl", EvaluateOptions("a"))
    assert all("the classifier knows" in failure.reason for failure in refused.failures)
    assert len(refused.failures) == 4


def test_what_does_not_go_together_is_refused(room, samples, tmp_path):
    model = AttentionMil(AttentionShape(3), DIAGNOSES, "a")
    with pytest.raises(ConfigError, match=r"trained on features of 'a'"):
        FeatureAnswers(model, FeatureStore(tmp_path, "b"), STYLE)
    answers = FeatureAnswers(model, FeatureStore(tmp_path, "a"), STYLE)
    caption = next(sample for sample in samples if isinstance(sample.answer, Text))
    stored = msgspec.structs.replace(diagnoses(samples)[0], images=(ImageRef("k", (9, 9)),))
    for sample in (caption, stored):
        with pytest.raises(DataError, match="a choice about one slide"):
            answers.prompt(sample)
    plain = pictures_of(room).prompt(samples[0])
    (failed,) = answers.generate([plain], GREEDY)
    assert "names no slide" in failed.error
    missing = answers.generate([answers.prompt(diagnoses(samples)[0])], GREEDY)[0]
    assert "there are no features" in missing.error


def test_chances_are_those_of_the_words(vlm, miniatures):
    """Against the definition: one forward pass per text, the product over its tokens."""
    miniature = miniatures(FAMILY)
    prompts = [miniature.pictures.prompt(sample) for sample in miniature.of("category")[:3]]
    answers = [["<answer>(A) x</answer>", "<answer>(B) a much longer answer</answer>", "no"]] * 3
    found = answer_chances(vlm, prompts, answers, batch_size=2)
    for prompt, said, row in zip(prompts, answers, found, strict=True):
        logs = []
        for text in said:
            batch = encode([prompt], [text], vlm)
            labels = batch.pop("labels")[0, 1:]
            with torch.inference_mode():
                scores = torch.log_softmax(vlm.model(**batch).logits[0, :-1].double(), dim=-1)
            logs.append(sum(float(scores[i, token]) for i, token in enumerate(labels.tolist()) if token >= 0))
        expected = np.exp(np.array(logs) - max(logs))
        assert row == pytest.approx(expected / expected.sum(), rel=1e-3)
    assert found.sum(axis=1) == pytest.approx(np.ones(3))


def test_pooling_takes_the_highest_of_each_option():
    chances = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.0, 0.0]])
    assert top_mean(chances, 1).tolist() == [0.9, 0.9]
    assert top_mean(chances, 2) == pytest.approx([0.85, 0.55])
    assert top_mean(chances, 99) == pytest.approx(chances.mean(axis=0))


@pytest.mark.parametrize(
    ("scores", "means", "negative", "expected"),
    [
        ([0.9, 0.9], [0.4, 0.6], None, 1),  # a tie goes to the mean
        ([0.9, 0.9], [0.5, 0.5], None, 0),  # and then to the first
        ([1.0, 0.6], [0.9, 0.1], 0, 1),
        ([1.0, 0.5], [0.9, 0.1], 0, 0),  # the threshold must be exceeded
        ([0.6, 1.0, 0.7], [0, 0, 0], 1, 2),
    ],
)
def test_the_option_that_scores_speak_for(scores, means, negative, expected):
    assert chosen(np.array(scores), np.array(means), negative=negative, threshold=0.5) == expected


def test_settings_that_cannot_work_are_refused():
    for changes in ({"top": 0}, {"batch_size": 0}, {"threshold": 1.5}):
        with pytest.raises(ConfigError):
            PoolSettings(**changes)
