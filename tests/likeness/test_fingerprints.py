import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from malpighi.corpus import Corpus, blob_of
from malpighi.errors import DataError, FormatVersionError
from malpighi.likeness import fingerprints
from malpighi.likeness.fingerprints import fingerprint, read_fingerprints, write_fingerprints
from malpighi.records import ImageRef, Item, Provenance, Sample, Scale, TaskKind, Text, Turn


@pytest.fixture
def corpus(tmp_path, tissue):
    with Corpus.create(tmp_path / "corpus") as corpus:
        for number in range(5):
            path = tmp_path / "picture.png"
            Image.fromarray(tissue(number, 64, 64)).save(path)
            blob = blob_of(path.read_bytes(), ".png")
            sample = Sample(
                id=f"x/TCGA-A6-267{number}_{number}",
                dataset="x",
                exam="x/caption",
                task=TaskKind.CAPTION,
                scale=Scale.ROI,
                images=(ImageRef(blob.key, (64, 64)),),
                turns=(Turn("user", "Describe the picture in a few plain words, please."),),
                answer=Text(f"Nuclei number {number}"),
                group=f"patient {number}",
                licence="",
                provenance=Provenance("test"),
            )
            corpus.add(Item(sample, (blob,)))
    return Corpus.open(tmp_path / "corpus")


def count_hashing(monkeypatch):
    asked = []
    hashing = fingerprints.picture_hash
    monkeypatch.setattr(fingerprints, "picture_hash", lambda image: asked.append(1) or hashing(image))
    return asked


def same(a, b):
    return (
        a.pictures.keys == b.pictures.keys
        and np.array_equal(a.pictures.pdq, b.pictures.pdq)
        and np.array_equal(a.pictures.low, b.pictures.low)
        and a.pictures.quality.tolist() == b.pictures.quality.tolist()
    )


def test_a_second_time_costs_nothing_and_gives_the_same(corpus, monkeypatch):
    asked = count_hashing(monkeypatch)
    first = fingerprint(corpus, corpus.samples())
    assert len(asked) == 5
    again = fingerprint(Corpus.open(corpus.folder), corpus.samples())
    assert len(asked) == 5
    assert same(first, again)


def test_what_was_done_before_a_kill_is_kept(corpus, monkeypatch):
    monkeypatch.setattr(fingerprints, "_PART", 2)
    asked = count_hashing(monkeypatch)

    def stop(done, _):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fingerprint(corpus, corpus.samples(), workers=1, on_progress=stop)
    before = len(asked)
    told = []
    whole = fingerprint(corpus, corpus.samples(), on_progress=lambda *done: told.append(done))
    assert len(asked) - before == 3  # the first part of two was on disk
    assert told[0] == (2, 5)
    assert told[-1] == (5, 5)
    assert (whole.pictures.quality > 0).all()


def test_a_damaged_picture_is_a_failure_and_tried_again(corpus):
    shard = next((corpus.folder / "shards").glob("*.tar"))
    intact = shard.read_bytes()
    place = intact.find(b"IDAT")
    shard.write_bytes(intact[:place] + b"\0\0\0\0" + intact[place + 4 :])
    broken = fingerprint(corpus, corpus.samples())
    assert len(broken.failures) == 1
    assert "damaged" in broken.failures[0].reason
    assert (broken.pictures.quality == -1).sum() == 1
    shard.write_bytes(intact)
    assert not fingerprint(corpus, corpus.samples()).failures


def test_an_export_holds_no_words_and_no_patients_and_comes_back(corpus, tmp_path):
    prints = fingerprint(corpus, corpus.samples())
    write_fingerprints(prints, tmp_path / "export")
    text = b"".join(path.read_bytes() for path in (tmp_path / "export").iterdir())
    tables = [pq.read_table(path).to_pylist() for path in (tmp_path / "export").iterdir()]
    sources = [source for row in tables[0] + tables[1] for source in row.get("sources", ())]
    assert sources
    assert all(name.startswith("#") for _, name in sources)
    assert b"patient 1" not in text
    back = read_fingerprints(tmp_path / "export")
    assert same(prints, back)
    assert back.corpus is None
    assert [s.id for s in back.samples] == [s.id for s in prints.samples]
    pairs = zip(back.samples, prints.samples, strict=True)
    assert all(np.array_equal(x, y) for a, b in pairs for x, y in zip(a.texts, b.texts, strict=True))


def test_a_folder_of_another_version_is_refused_by_name(corpus, tmp_path):
    write_fingerprints(fingerprint(corpus, corpus.samples()), tmp_path / "export")
    path = tmp_path / "export/pictures.parquet"
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({b"malpighi.version": b"7"}), path)
    with pytest.raises(FormatVersionError, match=r"version 7; expected 1"):
        read_fingerprints(tmp_path / "export")
    path.write_bytes(b"PAR1 and nothing else")
    with pytest.raises(DataError, match="damaged"):
        read_fingerprints(tmp_path / "export")
    pq.write_table(pa.table({"key": ["x"]}).replace_schema_metadata({b"malpighi.version": b"1"}), path)
    with pytest.raises(DataError, match="columns"):
        read_fingerprints(tmp_path / "export")
