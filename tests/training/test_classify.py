import hashlib
import io
import json

import pytest
import torch
from PIL import Image, ImageDraw

from malpighi.errors import DataError, UserError
from malpighi.models.classifier import build_classifier, load_classifier, save_classifier
from malpighi.models.pictures import Pictures
from malpighi.models.prompt import PromptStyle
from malpighi.records import (
    Choice,
    ImageRef,
    Provenance,
    Sample,
    Scale,
    TaskKind,
    Text,
    Turn,
)
from malpighi.training.classify import train_classifier
from malpighi.training.settings import ClassifyConfig

SIDE = 56
COLOURS = ("purple", "pink", "teal")
STYLE = PromptStyle(family="qwen2_5_vl", budgets=dict.fromkeys(Scale, 4))
# A smaller network than the default learns as a run's does, in a fraction of the time.
CONFIG = ClassifyConfig(
    steps=48, batch_size=12, image_size=32, architecture="resnet10t", learning_rate=3e-3, log_every=16
)


@pytest.fixture(scope="module")
def discs():
    """Discs of three colours, large or small: exams of three and of two options over the same pictures."""
    blobs, samples = {}, []
    for index in range(24):
        colour, large = index % 3, index % 2
        image = Image.new("RGB", (SIDE, SIDE), "white")
        radius = 24 if large else 9
        centre = SIDE // 2 + index % 4
        corners = (centre - radius, centre - radius, centre + radius, centre + radius)
        ImageDraw.Draw(image).ellipse(corners, fill=COLOURS[colour])
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        key = hashlib.sha256(buffer.getvalue()).hexdigest()
        blobs[key] = buffer.getvalue()
        samples.append(sample(f"{index}/colour", "discs/colour", key, COLOURS, colour))
        samples.append(sample(f"{index}/size", "discs/size", key, ("small", "large"), large))
    return samples, Pictures(blobs.__getitem__, STYLE)


def sample(key, exam, image, options, index):
    return Sample(
        id=key,
        dataset="discs",
        exam=exam,
        task=TaskKind.CLASSIFICATION,
        scale=Scale.CELL,
        images=(ImageRef(image, (SIDE, SIDE)),),
        turns=(Turn("user", "Which?"),),
        answer=Choice(index) if options else Text("words"),
        options=options,
        group=key,
        licence="none",
        provenance=Provenance("drawn"),
    )


def right(model, samples, pictures):
    """Share of right choices."""
    chosen = model.choose([pictures.prompt(s).images[0] for s in samples], [s.exam for s in samples])
    return sum(found == s.answer.index for found, s in zip(chosen, samples, strict=True)) / len(samples)


@pytest.fixture(scope="module")
def trained(discs, tmp_path_factory):
    samples, pictures = discs
    folder, told = tmp_path_factory.mktemp("cnn"), []
    rows = train_classifier(samples, pictures, CONFIG, folder, 0, lambda *seen: told.append(seen))
    return folder, rows, told


def test_obvious_classes_are_learnt(discs, trained):
    samples, pictures = discs
    folder, rows, told = trained
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"]
    assert right(load_classifier(folder), samples, pictures) > 0.9
    assert [row["step"] for row in rows] == [16, 32, 48]
    assert told == [(16, 48, rows[0]), (32, 48, rows[1]), (48, 48, rows[2])]


def test_an_untrained_one_knows_nothing(discs):
    samples, pictures = discs
    torch.manual_seed(0)
    exams = {"discs/colour": COLOURS, "discs/size": ("small", "large")}
    assert right(build_classifier("efficientnet_b0", exams, 32), samples, pictures) < 0.8


def test_exams_may_have_different_numbers_of_options(trained):
    model = load_classifier(trained[0])
    assert model.exams == {"discs/colour": COLOURS, "discs/size": ("small", "large")}
    assert [head.out_features for head in model.heads] == [3, 2]


def test_the_seed_alone_decides(discs, trained, tmp_path):
    samples, pictures = discs
    torch.manual_seed(99)
    assert train_classifier(samples, pictures, CONFIG, tmp_path, 0) == trained[1]
    one, other = (folder / "model.safetensors" for folder in (tmp_path, trained[0]))
    assert one.read_bytes() == other.read_bytes()


def test_the_last_step_is_always_a_curve_point(discs, tmp_path):
    samples, pictures = discs
    config = ClassifyConfig(steps=3, batch_size=2, image_size=32, log_every=2)
    rows = train_classifier(samples, pictures, config, tmp_path, 0)
    assert [row["step"] for row in rows] == [2, 3]
    assert all(0 <= row["accuracy"] <= 1 for row in rows)


def test_samples_without_options_are_passed_over(discs, tmp_path):
    samples, pictures = discs
    words = sample("words", "discs/words", samples[0].images[0].key, (), 0)
    config = ClassifyConfig(steps=1, batch_size=2, image_size=32)
    train_classifier([*samples, words], pictures, config, tmp_path, 0)
    assert set(load_classifier(tmp_path).exams) == {"discs/colour", "discs/size"}


def test_nothing_to_choose_is_refused(discs, tmp_path):
    samples, pictures = discs
    words = sample("words", "discs/words", samples[0].images[0].key, (), 0)
    with pytest.raises(DataError, match="no exam with options to choose from"):
        train_classifier([words], pictures, CONFIG, tmp_path, 0)


def test_saved_and_loaded_choose_alike(discs, tmp_path):
    samples, pictures = discs
    torch.manual_seed(1)
    exams = {"discs/colour": COLOURS, "discs/size": ("small", "large")}
    model = build_classifier("efficientnet_b0", exams, 48).eval()
    save_classifier(model, tmp_path / "kept")
    again = load_classifier(tmp_path / "kept").eval()
    assert (again.architecture, again.image_size, again.exams) == ("efficientnet_b0", 48, exams)
    images = model.tensor([pictures.prompt(s).images[0] for s in samples[:3]])
    assert images.shape == (3, 3, 48, 48)
    assert (images.min(), images.max()) >= (-1, 0)
    assert images.max() <= 1
    with torch.inference_mode():
        assert torch.equal(model.features(images), again.features(images))


def test_a_folder_without_classifier_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"holds no classifier\.json; train the classifier stage first"):
        load_classifier(tmp_path)


def test_another_format_is_refused(trained, tmp_path):
    card = json.loads((trained[0] / "classifier.json").read_text()) | {"format_version": 9}
    (tmp_path / "classifier.json").write_text(json.dumps(card))
    with pytest.raises(UserError, match="is of format 9, expected 1; train it again"):
        load_classifier(tmp_path)


def test_a_classifier_without_weights_is_refused(trained, tmp_path):
    (tmp_path / "classifier.json").write_bytes((trained[0] / "classifier.json").read_bytes())
    with pytest.raises(UserError, match=r"model\.safetensors"):
        load_classifier(tmp_path)
