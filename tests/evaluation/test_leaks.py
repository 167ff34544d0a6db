import io
import os
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from malpighi.corpus import Corpus, blob_of
from malpighi.errors import ConfigError, DataError
from malpighi.evaluation.leaks import LeakReport, LeakSettings, enforce, find_leaks, leak_rows, leak_table
from malpighi.likeness.fingerprints import fingerprint, read_fingerprints, write_fingerprints
from malpighi.records import ImageRef, Item, Provenance, Sample, Scale, TaskKind, Text, Turn


def tissue(seed, side=160):
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side]
    picture = np.full((side, side, 3), (236.0, 190.0, 214.0))
    for _ in range(60):
        x, y, radius = rng.uniform(0, side), rng.uniform(0, side), rng.uniform(0.01, 0.06) * side
        picture[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] *= rng.uniform(0.35, 0.8, 3)
    return np.clip(picture + rng.normal(0, 3, picture.shape), 0, 255).astype(np.uint8)


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG")
    return buffer.getvalue()


def jpeg(pixels, quality):
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def item(name, data, *, question="What?", answer="x", **changes):
    blob = blob_of(data, ".png" if data[:4] == b"\x89PNG" else ".jpg")
    size = Image.open(io.BytesIO(data)).size
    sample = Sample(
        id=name,
        dataset=name.split("/")[0],
        exam=name.rsplit("/", 1)[0],
        task=TaskKind.CAPTION,
        scale=Scale.ROI,
        images=(ImageRef(blob.key, size),),
        turns=(Turn("user", question),),
        answer=Text(answer),
        group=name,
        licence="",
        provenance=Provenance("test"),
    )
    return Item(msgspec.structs.replace(sample, **changes), (blob,))


def prints(folder, items):
    with Corpus.create(folder) as corpus:
        for one in items:
            corpus.add(one)
    corpus = Corpus.open(folder)
    return fingerprint(corpus, corpus.samples())


def check(tmp_path, train, test, **settings):
    sides = [prints(tmp_path / name, items) for name, items in (("train", train), ("test", test))]
    return find_leaks(*sides, LeakSettings(**settings))


def test_planted_copies_are_found_and_the_rest_is_clean(tmp_path):
    train = [item(f"a/x/{seed}", png(tissue(seed))) for seed in range(12)]
    picture = tissue(3)
    marked = picture.copy()
    marked[:24, :48] = 255
    small = np.asarray(Image.fromarray(picture).resize((60, 60), Image.Resampling.LANCZOS))
    test = [
        item("b/copy/same", png(picture)),
        item("b/copy/jpeg", jpeg(picture, 40)),
        item("b/copy/turned", png(np.rot90(picture))),
        item("b/copy/mirrored", png(picture[:, ::-1])),
        item("b/copy/small", png(small)),
        item("b/copy/crop", png(picture[2:-1, 1:-2])),
        item("b/copy/label", png(marked)),
        *(item(f"b/clean/{seed}", png(tissue(seed))) for seed in range(100, 112)),
    ]
    report = check(tmp_path, train, test)
    assert {leak.test for leak in report.leaks} == {one.sample.id for one in test if "copy" in one.sample.id}
    assert {leak.train for leak in report.leaks} == {"a/x/3"}
    assert {leak.kind for leak in report.leaks} == {"pixels"}
    shares = {exam.exam: exam.share for exam in report.exams}
    assert shares == {"b/copy": 1.0, "b/clean": 0.0}
    evidence = {leak.test: leak.evidence for leak in report.leaks}
    assert "same picture file" in evidence["b/copy/same"]
    assert "mirrored left-right" in evidence["b/copy/mirrored"]
    assert "turned by 90° right" in evidence["b/copy/turned"]


def test_blank_tiles_are_counted_and_match_nothing(tmp_path):
    rng = np.random.default_rng(0)
    blank = [png(np.clip(243 + rng.normal(0, 1, (64, 64, 3)), 0, 255).astype(np.uint8)) for _ in range(10)]
    white = png(np.full((64, 64, 3), 255, np.uint8))
    sides = [
        [item(f"{s}/x/{n}", data) for n, data in enumerate([*part, white])]
        for s, part in (("a", blank[:5]), ("b", blank[5:]))
    ]
    report = check(tmp_path, *sides)
    assert report.leaks == []
    assert report.counts["blank"] == 12


def test_without_pictures_only_nearly_equal_hashes_count(tmp_path):
    train = prints(tmp_path / "train", [item(f"a/x/{seed}", png(tissue(seed))) for seed in range(4)])
    write_fingerprints(train, tmp_path / "export")
    crop = png(tissue(2)[6:-4, 5:-5])
    test = prints(tmp_path / "test", [item("b/x/1", jpeg(tissue(1), 60)), item("b/x/2", crop)])
    report = find_leaks(read_fingerprints(tmp_path / "export"), test)
    assert report.leaked == {"b/x/1"}
    assert "pixels not compared" in report.leaks[0].evidence
    assert report.counts["undecided"] == 1
    assert find_leaks(train, test).leaked == {"b/x/1", "b/x/2"}


def test_a_copied_text_is_found_and_a_template_is_not(tmp_path):
    words = np.random.default_rng(1).choice([f"term{n}" for n in range(500)], (9, 30))
    texts = [" ".join(row) for row in words]
    asked = "Which of the following options describes the picture best of all?"
    train = [item(f"a/x/{n}", png(tissue(n, 40)), question=asked, answer=texts[n]) for n in range(5)]
    changed = " ".join([*words[2][:28], "other", "words"])
    test = [
        item("b/x/copy", png(tissue(50, 40)), question=asked, answer=changed.upper()),
        *(item(f"b/x/{n}", png(tissue(51 + n, 40)), question=asked, answer=texts[n]) for n in range(5, 9)),
        item("b/x/short", png(tissue(60, 40)), question="Is it cancer?", answer="term1"),
    ]
    report = check(tmp_path, train, test)
    assert [(leak.kind, leak.test, leak.train) for leak in report.leaks] == [("text", "b/x/copy", "a/x/2")]
    assert "answer" in report.leaks[0].evidence
    assert 0.05 < report.leaks[0].distance < 0.2
    assert report.counts["templates"] == 1
    assert report.counts["short"] >= 1


def test_a_shared_patient_is_found_across_data_sets_even_when_hidden(tmp_path):
    train = prints(tmp_path / "train", [item("a/x/TCGA-A6-2672-01Z-00-DX1_9", png(tissue(1)))])
    test = prints(
        tmp_path / "test",
        [item("b/x/1", png(tissue(2)), facts={"case": "TCGA-A6-2672"}), item("b/x/2", png(tissue(3)))],
    )
    report = find_leaks(train, test)
    assert [(leak.kind, leak.test) for leak in report.leaks] == [("source", "b/x/1")]
    assert report.leaks[0].evidence == "the same patient, TCGA-A6-2672"
    write_fingerprints(train, tmp_path / "export")
    assert find_leaks(read_fingerprints(tmp_path / "export"), test).leaks == report.leaks
    assert find_leaks(train, test, LeakSettings(ignore=("patient",))).leaks == []


def test_two_samples_of_one_picture_both_leak_and_a_group_counts_once(tmp_path):
    data = png(tissue(1))
    report = check(
        tmp_path,
        [item("a/x/1", data, group="7"), item("a/x/2", png(tissue(2)), group="7")],
        [item("b/x/1", data), item("b/y/2", data), item("a/z/3", png(tissue(5)), group="7")],
    )
    assert [(leak.kind, leak.test) for leak in report.leaks] == [
        ("source", "a/z/3"),
        ("pixels", "b/x/1"),
        ("pixels", "b/y/2"),
    ]


def test_the_policy_refuses_or_flags(tmp_path):
    data = png(tissue(1))
    clean = check(tmp_path / "1", [item("a/x/1", data)], [item("b/x/1", png(tissue(2)))])
    assert enforce(clean, "refuse") == set()
    leaky = check(tmp_path / "2", [item("a/x/1", data)], [item("b/x/1", data), item("b/x/2", png(tissue(2)))])
    assert enforce(leaky, "flag") == {"b/x/1"}
    with pytest.raises(
        DataError, match=r"1 of 2 test samples .* b/x \(1 of 2\); e.g. b/x/1: the same picture"
    ):
        enforce(leaky, "refuse")


def test_the_report_travels_as_json_and_shows_every_exam(tmp_path):
    data = png(tissue(1))
    report = check(tmp_path, [item("a/x/1", data)], [item("b/x/1", data), item("b/y/2", png(tissue(2)))])
    assert msgspec.json.decode(msgspec.json.encode(report), type=LeakReport) == report
    assert [row["exam"] for row in leak_rows(report)] == ["b/x", "b/y"]
    assert leak_rows(report)[0] == {
        "exam": "b/x",
        "samples": "1",
        "leaked": "1",
        "share": "100.0%",
        "pixels": "1",
        "text": "0",
        "source": "0",
    }
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(leak_table(report))
    assert "100.0%" in console.export_text()


def test_a_picture_that_cannot_be_read_is_a_failure_by_key(tmp_path):
    train = prints(tmp_path / "train", [item("a/x/1", png(tissue(1)))])
    data = jpeg(tissue(2), 80)
    with Corpus.create(tmp_path / "test") as corpus:
        corpus.add(item("b/x/1", data))
        corpus.add(item("b/x/2", jpeg(tissue(1), 80)))
    shard = next((tmp_path / "test/shards").glob("*.tar"))
    content = shard.read_bytes()
    shard.write_bytes(content.replace(data, data[:200] + bytes(len(data) - 200)))
    corpus = Corpus.open(tmp_path / "test")
    report = find_leaks(train, fingerprint(corpus, corpus.samples()))
    assert [failure.id for failure in report.failures] == [item("b/x/1", data).sample.images[0].key]
    assert report.leaked == {"b/x/2"}
    assert report.counts["blank"] == 0


def test_progress_names_what_is_looked_for(tmp_path):
    side = prints(tmp_path / "one", [item("a/x/1", png(tissue(1)))])
    told = []
    find_leaks(side, side, on_progress=lambda kind, done: told.append((kind, done)))
    assert [kind for kind, done in told if done == 1.0][-3:] == ["pixels", "text", "source"]


@pytest.mark.parametrize("wrong", [{"jaccard": 0.4}, {"ignore": ("hospital",)}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ConfigError):
        LeakSettings(**wrong)


@pytest.mark.realdata
def test_real_tiles_and_their_copies(tmp_path):
    root = os.environ.get("MALPIGHI_TEST_DATA")
    paths = sorted(Path(root).glob("crc_val_he_7k/*/*.jpg")) if root else []
    if not paths:
        pytest.skip("MALPIGHI_TEST_DATA names no folder with crc_val_he_7k")
    tiles = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    train = [item(f"a/x/{n}", png(tile)) for n, tile in enumerate(tiles)]
    test = [item(f"b/x/{n}", jpeg(np.rot90(tile)[2:-2, 3:-1], 50)) for n, tile in enumerate(tiles[:20])]
    report = check(tmp_path, train, test)
    found = {(leak.test, leak.train) for leak in report.leaks}
    assert found == {(f"b/x/{n}", f"a/x/{n}") for n in range(20)}
