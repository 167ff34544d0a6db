"""An encoder examined end to end: a fake one that sees mean colour, on pictures whose colour is the class."""

import io

import msgspec
import numpy as np
import pytest
from PIL import Image

from malpighi.corpus import Corpus, blob_of
from malpighi.errors import DataError
from malpighi.evaluation.few_shot import FewShotSettings
from malpighi.evaluation.rows import read_predictions
from malpighi.evaluation.tables import results
from malpighi.pipeline.probing import Probe, ProbeSettings, probe
from malpighi.records import (
    Choice,
    ImageRef,
    Item,
    Provenance,
    Sample,
    Scale,
    Split,
    TaskKind,
    Text,
    Turn,
)

COLOURS = {"red tissue": (200, 60, 60), "green tissue": (60, 200, 60), "blue tissue": (60, 60, 200)}
NAMES = tuple(COLOURS)
SETTINGS = ProbeSettings(few_shot=FewShotSettings(shots=(2, 8, 500), draws=3), depths=(1, 3))


class SeesColour:
    """Mean colour of a picture; of a text, the colour that it names."""

    name, scale = "colour", 20.0

    def __init__(self):
        self.seen = 0

    def images(self, pictures):
        self.seen += len(pictures)
        return self._unit([np.asarray(picture, float).mean(axis=(0, 1)) - 100 for picture in pictures])

    def texts(self, words):
        return self._unit([np.asarray(self._colour(text), float) - 100 for text in words])

    def _colour(self, text):
        return next((colour for name, colour in COLOURS.items() if name.split()[0] in text), (101, 100, 100))

    def _unit(self, rows):
        stacked = np.stack(rows)
        return (stacked / np.linalg.norm(stacked, axis=1, keepdims=True)).astype(np.float32)


def item(number, task, split):
    name = NAMES[number % 3]
    random = np.random.default_rng(number)
    pixels = np.clip(random.normal(COLOURS[name], 40, (16, 16, 3)), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    blob = blob_of(file.getvalue(), ".png")
    caption = task is TaskKind.CAPTION
    sample = Sample(
        id=f"{task}/{number}",
        dataset="colours",
        exam=f"colours/{task}",
        task=task,
        scale=Scale.ROI,
        images=(ImageRef(blob.key, (16, 16)),),
        turns=(Turn("user", "What is this?"),),
        answer=Text(f"A picture of {name}.") if caption else Choice(NAMES.index(name)),
        options=() if caption else NAMES,
        group=f"g{number}",
        split=split,
        licence="CC0-1.0",
        provenance=Provenance("test"),
    )
    return Item(sample, (blob,))


@pytest.fixture
def corpus(tmp_path):
    with Corpus.create(tmp_path / "corpus") as made:
        for number in range(60):
            split = Split.TRAIN if number < 36 else Split.TEST
            made.add(item(number, TaskKind.CLASSIFICATION, split))
        for number in range(100, 112):
            made.add(item(number, TaskKind.CAPTION, Split.TEST))
    return Corpus.open(tmp_path / "corpus")


def test_an_encoder_that_sees_the_class_is_right_in_every_way(corpus, tmp_path):
    out = tmp_path / "out"
    found = probe(SeesColour(), corpus, out, SETTINGS)
    assert [(row.shots, row.draws) for row in found.few_shot] == [(2, 3), (8, 3)]
    assert all(row.worst <= row.accuracy.value <= row.best for row in found.few_shot)
    assert found.few_shot[1].accuracy.value == 1
    missing = "500 pictures per class, more than its rarest class has"
    assert found.left_out == [f"colours/classification: {missing}"]
    recalls = found.retrieval["colours/caption"]
    assert recalls.image_to_text.at == recalls.text_to_image.at == {1: 1.0, 3: 1.0}
    assert (recalls.image_to_text.queries, recalls.text_to_image.queries) == (12, 3)
    zero = read_predictions(out / "predictions/colour zero-shot.jsonl")
    assert [row.grade.score for row in zero] == [1.0] * 24
    assert all(abs(sum(row.chances) - 1) < 1e-9 for row in zero)
    majority = read_predictions(out / "predictions/majority.jsonl")
    table = results([*majority, *zero])
    scores = {row.model: row.score.value for row in table.rows}
    assert scores["majority"] == pytest.approx(1 / 3)
    assert len(read_predictions(out / "predictions/colour few-shot.jsonl")) == 24 * 6
    assert msgspec.json.decode((out / "probe.json").read_bytes(), type=Probe) == found


def test_features_are_kept_and_the_result_is_the_same(corpus, tmp_path):
    first, second = SeesColour(), SeesColour()
    before = probe(first, corpus, tmp_path / "out", SETTINGS)
    rows = (tmp_path / "out/predictions/colour few-shot.jsonl").read_bytes()
    assert probe(second, corpus, tmp_path / "out", SETTINGS) == before
    assert (first.seen, second.seen) == (72, 0)
    assert (tmp_path / "out/predictions/colour few-shot.jsonl").read_bytes() == rows


def test_a_blind_encoder_stays_at_chance(corpus, tmp_path):
    class Blind(SeesColour):
        name = "blind"

        def images(self, pictures):
            return np.tile(np.asarray([[1.0, 0, 0]], np.float32), (len(pictures), 1))

    found = probe(Blind(), corpus, tmp_path / "out", SETTINGS)
    assert all(row.accuracy.value == pytest.approx(1 / 3) for row in found.few_shot)
    assert found.retrieval["colours/caption"].image_to_text.at[1] == pytest.approx(1 / 3)


def test_a_corpus_without_choices_and_captions_is_refused(tmp_path):
    with Corpus.create(tmp_path / "corpus") as made:
        made.commit()
    with pytest.raises(DataError, match="nothing to ask"):
        probe(SeesColour(), Corpus.open(tmp_path / "corpus"), tmp_path / "out", SETTINGS)
