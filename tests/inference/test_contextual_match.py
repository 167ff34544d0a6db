"""BERTScore on a tiny BERT from disk, against a plain loop over the formula."""

import pytest
import torch
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel, BertTokenizerFast

from malpighi.errors import ConfigError, DataError
from malpighi.inference.contextual_match import ContextualMatcher, Match

WORDS = ["the", "nucleus", "is", "large", "small", "round", "cell", "with", "halo", "##s", "a", "of", "gland"]
PAIRS = [
    ("the nucleus is large", "the nucleus is small"),
    ("a halo", "a cell with halos of the gland"),
    ("the nucleus is large", "the nucleus is large"),
    ("round", "unheard words"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("bert") / "tiny-bert"
    path.mkdir()
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    places = {word: place for place, word in enumerate(vocabulary)}
    BertTokenizerFast(vocab=places, model_max_length=16).save_pretrained(path)
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24}
    config = BertConfig(vocab_size=len(vocabulary), max_position_embeddings=16, **sizes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = BertModel(config)
        with torch.no_grad():
            for weights in model.parameters():
                weights.add_(torch.randn_like(weights) * 0.2)
    model.save_pretrained(path)
    return path


def by_hand(folder, candidate, reference, layer):
    """Piece by piece, one text at a time."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()

    def vectors(text):
        ids = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            return model(**ids, output_hidden_states=True).hidden_states[layer][0].double()

    def best(one, others):
        return max(float(torch.dot(one, other) / (one.norm() * other.norm())) for other in others)

    ours, theirs = vectors(candidate), vectors(reference)
    precision = sum(best(v, theirs) for v in ours[1:-1]) / (len(ours) - 2)
    recall = sum(best(v, ours) for v in theirs[1:-1]) / (len(theirs) - 2)
    return precision, recall, 2 * precision * recall / (precision + recall)


@pytest.mark.parametrize("layer", [1, 3])
def test_figures_equal_a_plain_loop(folder, layer):
    found = ContextualMatcher(folder, layer).match(*zip(*PAIRS, strict=True))
    for match, pair in zip(found, PAIRS, strict=True):
        assert match == pytest.approx(by_hand(folder, *pair, layer), abs=1e-6)
    assert found[2] == pytest.approx((1, 1, 1))
    assert found[0].f1 < 0.999
    assert len({round(match.f1, 6) for match in found}) == len(PAIRS)


def test_a_pair_does_not_depend_on_its_batch(folder):
    together = ContextualMatcher(folder, 2, batch_size=3).match(*zip(*PAIRS, strict=True))
    alone = [ContextualMatcher(folder, 2).match([c], [r])[0] for c, r in PAIRS]
    for one, other in zip(together, alone, strict=True):
        assert one == pytest.approx(other, abs=1e-6)


def test_turning_the_pair_turns_precision_and_recall(folder):
    matcher = ContextualMatcher(folder, 2)
    there, back = matcher.match(PAIRS[1][:1] + PAIRS[1][1:], PAIRS[1][1:] + PAIRS[1][:1])
    assert (there.precision, there.recall) == pytest.approx((back.recall, back.precision))


def test_long_texts_are_read_in_windows_to_their_end(folder):
    matcher = ContextualMatcher(folder, 2)
    long = "the nucleus is large " * 20
    same, other = matcher.match([long, long + "gland gland"], [long, long])
    assert same == pytest.approx((1, 1, 1))
    assert other.precision < 1


def test_an_empty_text_matches_nothing_but_itself(folder):
    found = ContextualMatcher(folder, 1).match(["", "halo", " "], ["halo", "", ""])
    assert found == [Match(0, 0, 0), Match(0, 0, 0), Match(1, 1, 1)]


def test_a_baseline_stretches_the_figures(folder, tmp_path):
    table = tmp_path / "floor.tsv"
    table.write_text("LAYER,P,R,F\n1,0.1,0.2,0.3\n2,0.4,0.5,0.6\n")
    plain = ContextualMatcher(folder, 2).match(["a halo"], ["the cell"])[0]
    matcher = ContextualMatcher(folder, 2, baseline=table)
    wanted = [(value - floor) / (1 - floor) for value, floor in zip(plain, (0.4, 0.5, 0.6), strict=True)]
    assert matcher.match(["a halo"], ["the cell"])[0] == pytest.approx(wanted)
    assert matcher.name == "BERTScore (tiny-bert, layer 2, rescaled)"
    with pytest.raises(ConfigError, match="no baseline of layer 3"):
        ContextualMatcher(folder, 3, baseline=table)


def test_what_cannot_be_is_refused(folder, tmp_path):
    with pytest.raises(ConfigError, match="no such folder"):
        ContextualMatcher(tmp_path / "absent", 1)
    with pytest.raises(ConfigError, match="no model"):
        ContextualMatcher(tmp_path, 1)
    with pytest.raises(ConfigError, match="it has layers 1 to 3"):
        ContextualMatcher(folder, 4)
    with pytest.raises(DataError, match="2 candidates for 1"):
        ContextualMatcher(folder, 1).match(["a", "b"], ["a"])
