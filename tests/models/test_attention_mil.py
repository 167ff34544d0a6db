import json

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra `train`")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from malpighi.errors import ConfigError, DataError, FormatVersionError  # noqa: E402
from malpighi.models.attention_mil import (  # noqa: E402
    CARD,
    WEIGHTS,
    AttentionMil,
    AttentionShape,
    load_attention_mil,
    save_attention_mil,
)

OPTIONS = ("normal", "carcinoma", "other")


def network(seed=0, features=7):
    torch.manual_seed(seed)
    model = AttentionMil(AttentionShape(features, hidden=5, attention=4), OPTIONS, "statistics").eval()
    model.centre_d.copy_(torch.randn(features))
    model.spread_d.copy_(torch.rand(features) + 0.5)
    return model


def reference(model, features_ND):
    """The equations of the paper, in numpy, tile by tile."""
    w = {name: tensor.numpy().astype(np.float64) for name, tensor in model.state_dict().items()}
    hidden, energies = [], []
    for x in features_ND.astype(np.float64):
        h = np.maximum(w["hidden.weight"] @ ((x - w["centre_d"]) / w["spread_d"]) + w["hidden.bias"], 0)
        tangent = np.tanh(w["tangent.weight"] @ h + w["tangent.bias"])
        gate = 1 / (1 + np.exp(-(w["gate.weight"] @ h + w["gate.bias"])))
        hidden.append(h)
        energies.append(float((w["energy.weight"] @ (tangent * gate))[0]))
    attention = np.exp(energies) / np.sum(np.exp(energies))
    pooled = sum(a * h for a, h in zip(attention, hidden, strict=True))
    logits = w["head.weight"] @ pooled + w["head.bias"]
    return np.exp(logits) / np.exp(logits).sum(), attention


def tiles(count, seed=0, features=7):
    return np.random.default_rng(seed).normal(size=(count, features)).astype(np.float32) * 3


@pytest.mark.parametrize("count", [1, 2, 50])
def test_it_computes_what_the_equations_say(count):
    model = network()
    verdict = model.examine(tiles(count))
    probabilities, attention = reference(model, tiles(count))
    assert verdict.probabilities_k == pytest.approx(probabilities, abs=1e-6)
    assert verdict.attention_n == pytest.approx(attention, abs=1e-6)
    assert verdict.attention_n.sum() == pytest.approx(1, abs=1e-6)
    assert verdict.probabilities_k.sum() == pytest.approx(1, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(0, 1000))
def test_the_order_of_tiles_means_nothing(count, seed):
    model, given_ND = network(), tiles(count, seed)
    order = np.random.default_rng(seed).permutation(count)
    straight, turned = model.examine(given_ND), model.examine(given_ND[order])
    assert turned.probabilities_k == pytest.approx(straight.probabilities_k, abs=1e-6)
    assert turned.attention_n == pytest.approx(straight.attention_n[order], abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=5), st.floats(-1e6, 1e6), st.integers(0, 1000))
def test_padding_means_nothing(counts, filler, seed):
    model = network()
    bags = [tiles(count, seed + row) for row, count in enumerate(counts)]
    most = max(counts) + 3
    features_BND = torch.full((len(bags), most, 7), filler, dtype=torch.float32)
    there_BN = torch.zeros(len(bags), most, dtype=torch.bool)
    for row, bag in enumerate(bags):
        features_BND[row, : len(bag)] = torch.from_numpy(bag)
        there_BN[row, : len(bag)] = True
    with torch.inference_mode():
        logits_BK, attention_BN = model(features_BND, there_BN)
    for row, bag in enumerate(bags):
        alone = model.examine(bag)
        assert torch.softmax(logits_BK[row], 0).numpy() == pytest.approx(alone.probabilities_k, abs=1e-5)
        assert attention_BN[row, : len(bag)].numpy() == pytest.approx(alone.attention_n, abs=1e-5)
        assert (attention_BN[row, len(bag) :] == 0).all()


def test_copies_of_all_tiles_change_nothing_but_their_attention():
    model, given_ND = network(), tiles(6)
    once, twice = model.examine(given_ND), model.examine(np.concatenate([given_ND, given_ND]))
    assert twice.probabilities_k == pytest.approx(once.probabilities_k, abs=1e-6)
    assert twice.attention_n[:6] * 2 == pytest.approx(once.attention_n, abs=1e-6)


def test_examining_leaves_the_mode_as_it_was():
    model = network().train()
    first, second = model.examine(tiles(9)), model.examine(tiles(9))
    assert model.training
    assert np.array_equal(first.probabilities_k, second.probabilities_k)  # no dropout


def test_saved_and_loaded_it_is_the_same(tmp_path):
    model = network()
    save_attention_mil(model, tmp_path / "model")
    loaded = load_attention_mil(tmp_path / "model")
    assert (loaded.options, loaded.encoder, loaded.shape) == (OPTIONS, "statistics", model.shape)
    assert np.array_equal(loaded.examine(tiles(9)).attention_n, model.examine(tiles(9)).attention_n)
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [CARD, WEIGHTS]


def test_what_cannot_be_loaded_is_refused(tmp_path):
    with pytest.raises(DataError, match="train the slide classifier first"):
        load_attention_mil(tmp_path)
    save_attention_mil(network(), tmp_path)
    card = json.loads((tmp_path / CARD).read_text())
    (tmp_path / CARD).write_text(json.dumps({**card, "format_version": 9}))
    with pytest.raises(FormatVersionError, match="format 9"):
        load_attention_mil(tmp_path)
    (tmp_path / CARD).write_text(json.dumps({**card, "shape": {**card["shape"], "hidden": 6}}))
    with pytest.raises(DataError, match="damaged"):
        load_attention_mil(tmp_path)
    (tmp_path / CARD).write_text(json.dumps(card))
    (tmp_path / WEIGHTS).write_bytes((tmp_path / WEIGHTS).read_bytes()[:200])
    with pytest.raises(DataError, match="damaged"):
        load_attention_mil(tmp_path)
    (tmp_path / WEIGHTS).unlink()
    with pytest.raises(DataError, match=WEIGHTS):
        load_attention_mil(tmp_path)


@pytest.mark.parametrize("shape", [(0, 7), (3, 6), (7,)])
def test_features_that_do_not_fit_are_refused(shape):
    with pytest.raises(DataError, match=r"expected \(tiles, 7\)"):
        network().examine(np.zeros(shape, np.float32))


def test_widths_without_extent_are_refused():
    for changes in ({"features": 0}, {"features": 3, "hidden": 0}, {"features": 3, "dropout": 1.0}):
        with pytest.raises(ConfigError):
            AttentionShape(**changes)
