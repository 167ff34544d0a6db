import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra `train`")

from malpighi.errors import ConfigError, DataError  # noqa: E402
from malpighi.models.attention_mil import load_attention_mil  # noqa: E402
from malpighi.records import (  # noqa: E402
    Choice,
    ImageRef,
    Provenance,
    Sample,
    Scale,
    Split,
    TaskKind,
    Text,
    Turn,
)
from malpighi.training.slide_classifier import (  # noqa: E402
    SlideClassifyConfig,
    class_weights,
    padded,
    train_slide_classifier,
)

QUICK = SlideClassifyConfig(epochs=25, patience=8, hidden=16, attention=8, learning_rate=5e-3)
OPTIONS = ("normal", "carcinoma")


def sample(index, label, split=Split.TRAIN, **changes):
    values = {
        "id": f"s{index}",
        "dataset": "d",
        "exam": "d/e",
        "task": TaskKind.CLASSIFICATION,
        "scale": Scale.SLIDE,
        "images": (ImageRef(f"slide:{index}", (9, 9), slide=f"{index}.svs"),),
        "turns": (Turn("user", "?"),),
        "answer": Choice(label),
        "options": OPTIONS,
        "group": f"p{index // 2}",
        "split": split,
        "licence": "CC0",
        "provenance": Provenance("test"),
    }
    return Sample(**{**values, **changes})


def bag(one):
    """20 to 40 tiles of noise; with carcinoma, three of them stand out."""
    index = int(one.id[1:])
    rng = np.random.default_rng(index)
    features = rng.normal(size=(int(rng.integers(20, 41)), 6)).astype(np.float32)
    if one.answer.index:
        features[:3, 0] += 4
    return features


@pytest.fixture(scope="module")
def slides():
    splits = [Split.TRAIN] * 24 + [Split.VALIDATION] * 8 + [Split.TEST] * 16
    return [sample(i, (i // 2) % 2, split) for i, split in enumerate(splits)]


def test_it_finds_the_few_tiles_that_matter(slides, tmp_path):
    model, curve = train_slide_classifier(slides, bag, QUICK, tmp_path / "m", encoder="noise", seed=3)
    test = [one for one in slides if one.split is Split.TEST]
    verdicts = [model.examine(bag(one)) for one in test]
    right = [v.probabilities_k.argmax() == one.answer.index for v, one in zip(verdicts, test, strict=True)]
    assert np.mean(right) >= 0.9
    with_carcinoma = [v.attention_n for v, one in zip(verdicts, test, strict=True) if one.answer.index]
    assert min(attention[:3].mean() / attention[3:].mean() for attention in with_carcinoma) > 3
    assert curve[-1]["loss"] < curve[0]["loss"]
    assert model.encoder == "noise"


def test_the_best_epoch_is_kept_and_training_stops_when_nothing_is_gained(slides, tmp_path):
    config = SlideClassifyConfig(epochs=80, patience=3, hidden=16, attention=8, learning_rate=2e-2)
    model, curve = train_slide_classifier(slides, bag, config, tmp_path / "m", encoder="noise")
    losses = [row["validation_loss"] for row in curve]
    assert len(curve) < 80
    assert len(losses) - 1 - int(np.argmin(losses)) == 3
    held = [one for one in slides if one.split is Split.VALIDATION]
    found = [-np.log(model.examine(bag(one)).probabilities_k[one.answer.index]) for one in held]
    assert np.mean(found) == pytest.approx(min(losses), rel=1e-5)


def test_same_seed_same_weights(slides, tmp_path):
    def weights(name, seed):
        config = SlideClassifyConfig(epochs=2, hidden=8, attention=4, most_tiles=10)
        model, _ = train_slide_classifier(slides, bag, config, tmp_path / name, encoder="noise", seed=seed)
        return torch.cat([tensor.ravel() for tensor in model.state_dict().values()])

    before = torch.get_rng_state()
    assert torch.equal(weights("a", 1), weights("b", 1))
    assert not torch.equal(weights("c", 1), weights("d", 2))
    assert torch.equal(before, torch.get_rng_state())


def test_what_is_done_is_not_done_again_unless_something_changed(slides, tmp_path):
    config = SlideClassifyConfig(epochs=2, hidden=8, attention=4)
    heard = []

    def listen(epoch, epochs, row):
        heard.append((epoch, epochs))

    def train(features_of, **changes):
        heard.clear()
        given = {"encoder": "noise", "seed": 1, **changes}
        return train_slide_classifier(slides, features_of, config, tmp_path, on_step=listen, **given)

    model, curve = train(bag)
    assert heard == [(1, 2), (2, 2)]
    again, same = train(bag)
    assert (heard, same) == ([], curve)
    assert torch.equal(again.head.weight, model.head.weight)
    assert torch.equal(load_attention_mil(tmp_path).head.weight, model.head.weight)
    train(lambda one: bag(one) + 1)
    assert heard  # features changed under the same name
    train(bag, seed=2)
    assert heard


def test_without_a_validation_split_groups_are_held_out(slides, tmp_path):
    train_only = [one for one in slides if one.split is Split.TRAIN]
    seen = []

    def watched(one):
        seen.append(one.id)
        return bag(one)

    config = SlideClassifyConfig(epochs=1, hidden=8, attention=4, held_out=0.25)
    train_slide_classifier(train_only, watched, config, tmp_path, encoder="noise")
    counts = {one.id: seen.count(one.id) for one in train_only}
    held = {one.group for one in train_only if counts[one.id] == 1}  # looked at once, to examine
    learnt = {one.group for one in train_only if counts[one.id] == 2}  # for the moments, and to learn
    assert len(held) in (2, 3, 4)
    assert not held & learnt
    assert held | learnt == {one.group for one in train_only}


def test_what_cannot_be_trained_is_refused(slides, tmp_path):
    cases = [
        [],
        [one for one in slides if one.split is Split.TEST],
        [sample(0, 0), sample(2, 1, exam="d/other")],
        [sample(0, 0), sample(2, 1, options=("a", "b"))],
        [sample(0, 0), sample(1, 0)],  # one group only
        [sample(0, 0, answer=Text("x"))],
    ]
    for samples in cases:
        with pytest.raises(DataError):
            train_slide_classifier(samples, bag, QUICK, tmp_path, encoder="noise")
    with pytest.raises(DataError, match="features finite: False"):
        train_slide_classifier(slides, lambda one: bag(one) * np.inf, QUICK, tmp_path, encoder="noise")
    assert not list(tmp_path.iterdir())


def test_a_rare_class_weighs_as_much_as_a_frequent_one():
    weights = class_weights([0] * 9 + [2], 4)
    assert weights.tolist() == pytest.approx([10 / 18, 0, 5, 0])
    assert 9 * weights[0] == pytest.approx(weights[2])


def test_padding_keeps_every_tile():
    features_BND, there_BN = padded([np.ones((2, 3)), np.full((4, 3), 2.0)])
    assert features_BND.shape == (2, 4, 3)
    assert there_BN.tolist() == [[True, True, False, False], [True] * 4]
    assert (features_BND[0, 2:] == 0).all()
    assert (features_BND[1] == 2).all()


@pytest.mark.parametrize(
    "changes", [{"epochs": 0}, {"patience": 0}, {"held_out": 1.0}, {"learning_rate": 0.0}]
)
def test_settings_that_cannot_work_are_refused(changes):
    with pytest.raises(ConfigError):
        SlideClassifyConfig(**changes)
