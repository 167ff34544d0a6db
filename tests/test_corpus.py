import errno
import io
import json
import os
import pickle
import signal
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from malpighi.corpus import Corpus, blob_of, key_of
from malpighi.errors import DataError, FormatVersionError, UserError
from malpighi.geometry import Box
from malpighi.records import (
    Blob,
    Failure,
    ImageRef,
    Item,
    MaskRef,
    Provenance,
    Sample,
    Scale,
    Split,
    TaskKind,
    Text,
    Turn,
)

ARCHIVE = Path(__file__).parent / "archives" / "corpus-v1"


def png(colour, size=(8, 6)):
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "png")
    return file.getvalue()


def item(name, colour=(10, 20, 30), **changes):
    blob = blob_of(png(colour), ".png")
    values = {
        "id": f"toy/{name}",
        "dataset": "toy",
        "exam": "toy/colour",
        "task": TaskKind.VQA,
        "scale": Scale.ROI,
        "images": (ImageRef(blob.key, (8, 6)),),
        "turns": (Turn("user", "Which colour?"),),
        "answer": Text(str(colour)),
        "group": str(name),
        "licence": "CC0 1.0",
        "provenance": Provenance("test"),
    }
    return Item(Sample(**{**values, **changes}), (blob,))


def filled(folder, number=5, **options):
    with Corpus.create(folder, **options) as corpus:
        for i in range(number):
            corpus.add(item(i, (i, 0, 0)))
        corpus.fail(Failure("toy/x", "data", "broken"))
    return folder


def test_what_is_added_is_read_back(tmp_path):
    folder = filled(tmp_path / "c")
    corpus = Corpus.open(folder)
    assert corpus.samples() == [item(i, (i, 0, 0)).sample for i in range(5)]
    assert corpus.failures() == [Failure("toy/x", "data", "broken")]
    assert corpus.image_bytes(item(3, (3, 0, 0)).blobs[0].key) == png((3, 0, 0))
    assert len(corpus) == 5


@settings(max_examples=15, deadline=None)
@given(
    colours=st.lists(st.tuples(*[st.integers(0, 255)] * 3), max_size=12),
    shard_bytes=st.integers(1, 5000),
    names=st.text(min_size=1, max_size=8),
)
def test_any_items_round_trip(tmp_path_factory, colours, shard_bytes, names):
    items = [item(f"{names}{i}", colour) for i, colour in enumerate(colours)]
    folder = tmp_path_factory.mktemp("any")
    with Corpus.create(folder, shard_bytes=shard_bytes) as corpus:
        for each in items:
            corpus.add(each)
    corpus = Corpus.open(folder)
    assert corpus.samples() == [each.sample for each in items]
    assert corpus.image_keys == sorted({each.blobs[0].key for each in items})
    for each in items:
        assert corpus.image_bytes(each.blobs[0].key) == each.blobs[0].data


def test_samples_are_narrowed(tmp_path):
    with Corpus.create(tmp_path) as corpus:
        corpus.add(item("a", split=Split.TRAIN))
        corpus.add(item("b", split=Split.TEST, exam="toy/other"))
        corpus.add(item("c", dataset="second"))
    corpus = Corpus.open(tmp_path)
    assert [s.id for s in corpus.samples(split=Split.TEST)] == ["toy/b"]
    assert [s.id for s in corpus.samples(exam="toy/colour", dataset="toy")] == ["toy/a"]
    assert [s.id for s in corpus.samples(dataset="second")] == ["toy/c"]
    assert corpus.samples(dataset="third") == []


def test_the_same_image_is_stored_once(tmp_path):
    with Corpus.create(tmp_path) as corpus:
        corpus.add(item("a"))
        length = len(corpus.image_keys)
        corpus.add(item("b"))
        assert len(corpus.image_keys) == length == 1
    with tarfile.open(next((tmp_path / "shards").glob("*.tar"))) as tar:
        assert len(tar.getnames()) == 2


def test_the_same_id_twice_is_refused(tmp_path):
    with Corpus.create(tmp_path) as corpus:
        corpus.add(item("a"))
        with pytest.raises(DataError, match="toy/a"):
            corpus.add(item("a", (1, 1, 1)))
    with Corpus.extend(tmp_path) as corpus, pytest.raises(DataError, match="toy/a"):
        corpus.add(item("a"))
    assert len(Corpus.open(tmp_path)) == 1


def test_shards_are_sequential_web_dataset_tars(tmp_path):
    filled(tmp_path, shard_bytes=4000)
    shards = sorted((tmp_path / "shards").iterdir())
    assert len(shards) > 1
    seen = 0
    for shard in shards:
        with tarfile.open(shard, "r|") as tar:
            members = [(member.name, tar.extractfile(member).read()) for member in tar]
        for (name, data), (facts_name, facts) in zip(members[::2], members[1::2], strict=True):
            key = name.partition(".")[0]
            assert name == f"{key}.png"
            assert facts_name == f"{key}.json"
            assert key == key_of(data)
            assert json.loads(facts) == {"key": key, "suffix": ".png", "width": 8, "height": 6}
            seen += 1
    assert seen == 5


def test_tables_have_the_documented_columns(tmp_path):
    filled(tmp_path)
    table = pq.read_table(tmp_path / "tables/images-00000.parquet")
    wanted = {"key", "shard", "offset", "size", "suffix", "sha256", "width", "height"}
    assert set(table.column_names) == wanted
    row = table.to_pylist()[2]
    data = (tmp_path / row["shard"]).read_bytes()[row["offset"] : row["offset"] + row["size"]]
    assert key_of(data) == row["sha256"] == row["key"]
    samples = pq.read_table(tmp_path / "tables/samples-00000.parquet")
    assert samples.column_names == ["id", "dataset", "exam", "task", "split", "group", "json"]


def test_without_a_commit_there_is_no_corpus(tmp_path):
    corpus = Corpus.create(tmp_path)
    corpus.add(item("a"))
    with pytest.raises(DataError, match=r"corpus\.json"):
        Corpus.open(tmp_path)
    corpus.close()
    with pytest.raises(DataError, match="not open for writing"):
        corpus.commit()


def test_an_exception_inside_the_block_commits_nothing(tmp_path):
    def stopped():
        with Corpus.create(tmp_path) as corpus:
            corpus.add(item("a"))
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        stopped()
    with pytest.raises(DataError, match=r"corpus\.json"):
        Corpus.open(tmp_path)


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[2])
from test_corpus import Corpus, item
corpus = Corpus.{how}(sys.argv[1], shard_bytes=4000)
for i in range(20, 25):
    corpus.add(item(i, (i, 0, 0)))
os.kill(os.getpid(), signal.SIGKILL)
"""


def kill_while_writing(folder, how):
    command = [sys.executable, "-c", KILLED.format(how=how), str(folder), str(Path(__file__).parent)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL


def test_killed_while_writing_and_begun_again(tmp_path):
    kill_while_writing(tmp_path / "c", "create")
    assert list((tmp_path / "c/shards").iterdir())
    with pytest.raises(DataError, match="cut short"):
        Corpus.open(tmp_path / "c")
    filled(tmp_path / "c")
    filled(tmp_path / "straight")
    again, straight = Corpus.open(tmp_path / "c"), Corpus.open(tmp_path / "straight")
    assert again.fingerprint() == straight.fingerprint()
    assert sorted(p.name for p in (tmp_path / "c/shards").iterdir()) == ["00000.tar"]


def test_killed_while_extending_keeps_the_last_commit(tmp_path):
    before = Corpus.open(filled(tmp_path)).fingerprint()
    kill_while_writing(tmp_path, "extend")
    assert Corpus.open(tmp_path).fingerprint() == before
    with Corpus.extend(tmp_path) as corpus:
        corpus.add(item("new", (99, 0, 0)))
    corpus = Corpus.open(tmp_path)
    assert len(corpus) == 6
    assert [corpus.image_bytes(key) for key in corpus.image_keys]


def test_commits_add_up(tmp_path):
    with Corpus.create(tmp_path) as corpus:
        corpus.add(item("a", (1, 0, 0)))
        corpus.commit()
        assert [s.id for s in Corpus.open(tmp_path).samples()] == ["toy/a"]
        corpus.add(item("b", (1, 0, 0)))
        corpus.add(item("c", (2, 0, 0)))
        assert corpus.image_bytes(item("c", (2, 0, 0)).blobs[0].key)
        fingerprint = corpus.fingerprint()
    corpus = Corpus.open(tmp_path)
    assert [s.id for s in corpus.samples()] == ["toy/a", "toy/b", "toy/c"]
    assert corpus.fingerprint() == fingerprint


def test_committing_nothing_new_changes_nothing(tmp_path):
    filled(tmp_path)
    before = (tmp_path / "corpus.json").read_bytes()
    with Corpus.extend(tmp_path) as corpus:
        corpus.commit()
    assert (tmp_path / "corpus.json").read_bytes() == before


def test_a_committed_corpus_is_not_overwritten(tmp_path):
    filled(tmp_path)
    with pytest.raises(DataError, match="already"):
        Corpus.create(tmp_path)


def test_an_open_corpus_takes_nothing(tmp_path):
    corpus = Corpus.open(filled(tmp_path))
    with pytest.raises(DataError, match="not open for writing"):
        corpus.add(item("z"))
    with pytest.raises(DataError, match="not open for writing"):
        corpus.fail(Failure("z", "data", "z"))


def test_the_fingerprint_knows_content_not_order(tmp_path):
    def build(name, items):
        with Corpus.create(tmp_path / name) as corpus:
            for each in items:
                corpus.add(each)
        return Corpus.open(tmp_path / name).fingerprint()

    a, b = item("a", (1, 0, 0)), item("b", (2, 0, 0))
    assert build("ab", [a, b]) == build("ba", [b, a])
    assert build("only", [a]) != build("ab2", [a, b])
    changed = item("b", (2, 0, 0), reasoning="since it is so")
    assert build("changed", [a, changed]) != build("ab3", [a, b])


def test_a_corrupt_byte_names_key_and_shard(tmp_path):
    filled(tmp_path)
    row = pq.read_table(tmp_path / "tables/images-00000.parquet").to_pylist()[1]
    shard = tmp_path / row["shard"]
    data = bytearray(shard.read_bytes())
    data[row["offset"] + 20] ^= 1
    shard.write_bytes(bytes(data))
    corpus = Corpus.open(tmp_path)
    with pytest.raises(DataError, match=rf"{row['key']}.*00000\.tar"):
        corpus.image_bytes(row["key"])
    healthy = [key for key in corpus.image_keys if key != row["key"]]
    assert len([corpus.image_bytes(key) for key in healthy]) == 4


def test_a_shortened_or_missing_shard_is_seen_when_opening(tmp_path):
    filled(tmp_path)
    shard = tmp_path / "shards/00000.tar"
    shard.write_bytes(shard.read_bytes()[:-512])
    with pytest.raises(DataError, match=r"00000\.tar.*expected"):
        Corpus.open(tmp_path)
    shard.unlink()
    with pytest.raises(DataError, match="found None"):
        Corpus.open(tmp_path)


@pytest.mark.parametrize("name", ["images", "samples", "failures"])
def test_a_damaged_table_is_refused(tmp_path, name):
    path = filled(tmp_path) / f"tables/{name}-00000.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=name):
        Corpus.open(tmp_path)
    path.unlink()
    with pytest.raises(DataError, match=name):
        Corpus.open(tmp_path)


def test_other_versions_are_refused(tmp_path):
    path = filled(tmp_path) / "corpus.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "version": 2}))
    with pytest.raises(FormatVersionError, match="version 2"):
        Corpus.open(tmp_path)
    path.write_text(json.dumps({**manifest, "format": "other"}))
    with pytest.raises(FormatVersionError, match="other"):
        Corpus.open(tmp_path)
    path.write_text("{}")
    with pytest.raises(FormatVersionError):
        Corpus.open(tmp_path)
    path.write_text('{"format": ')
    with pytest.raises(DataError, match="damaged"):
        Corpus.open(tmp_path)


def test_a_table_of_another_version_is_refused(tmp_path):
    path = filled(tmp_path) / "tables/samples-00000.parquet"
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, b"malpighi.version": b"9"}), path)
    with pytest.raises(FormatVersionError, match="version 9"):
        Corpus.open(tmp_path)
    pq.write_table(pa.table({"id": ["a"]}), path)
    with pytest.raises(FormatVersionError, match="samples"):
        Corpus.open(tmp_path)


def test_the_archived_corpus_of_version_1_is_read():
    corpus = Corpus.open(ARCHIVE)
    assert [s.id for s in corpus.samples()] == ["toy/0", "toy/1", "toy/mask"]
    assert corpus.failures() == [Failure("toy/x", "data", "broken")]
    assert corpus.fingerprint() == (ARCHIVE / "fingerprint.txt").read_text().strip()
    mask = corpus.mask(corpus.samples()[2].answer.key)
    assert mask.shape == (6, 8)
    assert mask.sum() == 4


def with_mask(name):
    mask = np.zeros((6, 8), np.uint8)
    mask[1:3, 2:4] = 255
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "png")
    blob = blob_of(file.getvalue(), ".png")
    answer = MaskRef(blob.key, (Box(2, 1, 4, 3),))
    plain = item(name, task=TaskKind.SEGMENTATION, answer=answer)
    return Item(plain.sample, (*plain.blobs, blob))


def test_masks_are_stored_and_read(tmp_path):
    with Corpus.create(tmp_path) as corpus:
        corpus.add(with_mask("m"))
    mask = Corpus.open(tmp_path).mask(with_mask("m").sample.answer.key)
    assert mask.dtype == bool
    assert np.argwhere(mask).tolist() == [[1, 2], [1, 3], [2, 2], [2, 3]]


def test_what_does_not_fit_is_refused_and_leaves_no_trace(tmp_path):
    good = item("a")
    key = good.blobs[0].key
    bad = {
        "not the SHA-256": Item(good.sample, (Blob("0" * 64, png((1, 2, 3)), ".png"),)),
        "suffix": Item(good.sample, (Blob(key, good.blobs[0].data, "png"),)),
        "suffix '.json'": Item(good.sample, (Blob(key, good.blobs[0].data, ".json"),)),
        "not an image": Item(good.sample, (blob_of(b"hello", ".png"),)),
        "neither stored": Item(good.sample, ()),
        "the sample says": item("a", images=(ImageRef(key, (9, 9)),)),
        "mask": Item(with_mask("m").sample, good.blobs),
    }
    with Corpus.create(tmp_path) as corpus:
        for words, each in bad.items():
            with pytest.raises(DataError, match=words):
                corpus.add(each)
    corpus = Corpus.open(tmp_path)
    assert corpus.samples() == []
    assert corpus.image_keys == []


def test_a_slide_region_needs_no_bytes(tmp_path):
    ref = ImageRef("", (8, 6), slide="case.svs")
    with Corpus.create(tmp_path) as corpus:
        corpus.add(Item(item("s", images=(ref,)).sample, ()))
    assert Corpus.open(tmp_path).samples()[0].images == (ref,)


def test_an_unknown_key_is_refused(tmp_path):
    with pytest.raises(DataError, match="f00"):
        Corpus.open(filled(tmp_path)).image_bytes("f00")


def test_a_committed_corpus_travels_to_other_processes(tmp_path):
    corpus = Corpus.open(filled(tmp_path))
    twin = pickle.loads(pickle.dumps(corpus))
    assert twin.fingerprint() == corpus.fingerprint()
    with Corpus.extend(tmp_path) as writing:
        writing.add(item("more", (50, 0, 0)))
        with pytest.raises(DataError, match="uncommitted"):
            pickle.dumps(writing)


def test_threads_read_side_by_side(tmp_path):
    with Corpus.create(tmp_path) as corpus:
        for i in range(50):
            corpus.add(item(i, (i, i, 0)))
    corpus = Corpus.open(tmp_path)
    keys = corpus.image_keys * 8
    with ThreadPoolExecutor(8) as pool:
        assert [key_of(data) for data in pool.map(corpus.image_bytes, keys)] == keys


@pytest.mark.parametrize(
    ("code", "advice"),
    [(errno.ENOSPC, "free space"), (errno.EROFS, "read-only"), (errno.EACCES, "permission denied")],
)
def test_a_failing_disk_says_what_to_do_and_keeps_the_last_commit(tmp_path, monkeypatch, code, advice):
    before = Corpus.open(filled(tmp_path)).fingerprint()

    def fail(_):
        raise OSError(code, os.strerror(code))

    corpus = Corpus.extend(tmp_path)
    corpus.add(item("more", (60, 0, 0)))
    monkeypatch.setattr("malpighi.durable.os.fsync", fail)
    with pytest.raises(UserError, match=advice):
        corpus.commit()
    assert Corpus.open(tmp_path).fingerprint() == before
    monkeypatch.undo()
    corpus.commit()
    assert len(Corpus.open(tmp_path)) == 6


def test_a_disk_that_fills_up_within_an_image_ends_the_writing(tmp_path, monkeypatch):
    corpus = Corpus.create(tmp_path)
    corpus.add(item("a", (1, 0, 0)))

    def fail(*_):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(tarfile.TarFile, "addfile", fail)
    with pytest.raises(UserError, match="free space"):
        corpus.add(item("b", (2, 0, 0)))
    monkeypatch.undo()
    with pytest.raises(DataError, match="not open for writing"):
        corpus.commit()
    with pytest.raises(DataError, match=r"corpus\.json"):
        Corpus.open(tmp_path)


def test_a_folder_that_cannot_be_made_is_a_user_error(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="file"):
        Corpus.create(tmp_path / "file" / "corpus")
