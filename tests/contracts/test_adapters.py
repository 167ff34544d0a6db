"""Every adapter on a small tree in the layout of the real data set, with one of every fault planted in it."""

import io
import json
import struct
import unicodedata
import warnings
import zlib
from collections import defaultdict

import numpy as np
import pytest
from PIL import Image

from malpighi.corpus import Corpus, decode_image, key_of
from malpighi.datasets.catalogue import ADAPTERS
from malpighi.datasets.check import check
from malpighi.datasets.split import SplitPlan
from malpighi.errors import DataError
from malpighi.pixels import decode_labels
from malpighi.records import (
    Boxes,
    Choice,
    Failure,
    Item,
    MaskRef,
    Split,
    TaskKind,
    Text,
    from_json,
    to_json,
)

NAMES = [
    "herlev",
    "lbc_cytology",
    "crc_val_he_7k",
    "lc25000",
    "bccd",
    "dsb2018_he",
    "ebhi_seg",
    "pathology_atlas",
]
SIZE = (64, 48)
ACCENT = "tümör-é"


def noise(seed):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8))


def encode(image, kind):
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def bomb():
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b"")


FAULTY_IMAGES = {
    "truncated": ("jpg", lambda: encode(noise(900), "jpeg")[:1500], "cut short"),
    "zero": ("jpg", lambda: b"", "0 bytes"),
    "bomb": ("png", bomb, "30000 x 30000"),
    "page": ("jpg", lambda: b"<html>404</html>", "not an image"),
    "zz-twin": ("jpg", None, "same bytes"),
}


class Tree:
    """A miniature: `good` names of images, `bad` failure id to a word of its reason."""

    def __init__(self, folder, name):
        self.folder, self.name = folder, name
        self.good, self.bad = [], {}
        self.made, self.first = 0, None

    def image(self, path, name):
        """A whole image, unlike all others."""
        self.made += 1
        write(self.folder / path, encode(noise(self.made), "jpeg" if path.endswith("jpg") else "png"))
        self.good.append(name)
        self.first = self.first or self.folder / path

    def faults(self, place, name):
        """The five faulty images; `place` and `name` make a path and an id from a stem."""
        for stem, (ending, make, reason) in FAULTY_IMAGES.items():
            data = make() if make else self.first.read_bytes()
            write(self.folder / f"{place(stem)}.{ending}", data)
            self.bad[f"{self.name}/{name(stem)}"] = reason
        for stray in (".DS_Store", "._hidden.jpg", "Thumbs.db", "notes.txt"):
            write((self.folder / place(stray)).with_name(stray), b"stray")


def class_folders(tree, labels):
    for label in labels:
        for i in range(4):
            tree.image(f"{label}/tile_{i}.jpg", f"{label}/tile_{i}")
    tree.image(f"{labels[0]}/{ACCENT}.jpg", f"{labels[0]}/{ACCENT}")
    tree.faults(lambda stem: f"{labels[1]}/{stem}", lambda stem: f"{labels[1]}/{stem}")
    write(tree.folder / "OTHER/x.jpg", encode(noise(500), "jpeg"))
    tree.bad[f"{tree.name}/OTHER/x"] = "OTHER"


def indexed(tree, labels):
    rows = []
    for place in labels:
        for i in range(8):
            tree.image(f"{place}/cell_{i}.jpg", f"{place}/cell_{i}")
            rows.append((f"{place}/cell_{i}.jpg", place.split("/")[-1], f"{place} {i // 2}"))
    decomposed = unicodedata.normalize("NFD", f"{labels[0]}/{ACCENT}.jpg")
    tree.image(decomposed, f"{labels[0]}/{ACCENT}")
    rows.append((f"{labels[0]}/{ACCENT}.jpg", labels[0].split("/")[-1], "slide é"))
    tree.faults(lambda stem: f"{labels[1]}/{stem}", lambda stem: f"{labels[1]}/{stem}")
    faulty = [f"{labels[1]}/{stem}.{ending}" for stem, (ending, *_) in FAULTY_IMAGES.items()]
    rows += [(path, labels[1].split("/")[-1], "slide 1") for path in faulty]
    for stem, label, group, reason in (
        ("gone", labels[0].split("/")[-1], "slide 1", "not there"),
        ("odd", "WRONG", "slide 1", "WRONG"),
        ("lone", labels[0].split("/")[-1], "", "no group"),
    ):
        if stem != "gone":
            write(tree.folder / f"{labels[0]}/{stem}.jpg", encode(noise(600), "jpeg"))
        rows.append((f"{labels[0]}/{stem}.jpg", label, group))
        tree.bad[f"{tree.name}/{labels[0]}/{stem}"] = reason
    write(tree.folder / f"{labels[0]}/unlisted.jpg", encode(noise(601), "jpeg"))
    tree.bad[f"{tree.name}/{labels[0]}/unlisted"] = "not in index.csv"
    table = "\n".join(",".join(row) for row in [("file", "label", "group"), *rows])
    write(tree.folder / "index.csv", b"\xef\xbb\xbf" + table.encode())


def annotation(boxes, size=SIZE):
    things = "".join(
        f"<object><name>{kind}</name><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax>"
        f"<ymax>{y1}</ymax></bndbox></object>"
        for kind, x0, y0, x1, y1 in boxes
    )
    text = f"<annotation><size><width>{size[0]}</width><height>{size[1]}</height></size>{things}</annotation>"
    return text.encode()


def voc(tree, _):
    good = [("WBC", 1, 1, 64, 48), ("RBC", 5, 5, 20, 20), ("RBC", 30, 8, 40, 20)]
    lists = {"train": [], "val": [], "test": []}
    for i in range(9):
        stem = f"BloodImage_{i:05d}"
        tree.image(f"BCCD/JPEGImages/{stem}.jpg", stem)
        write(tree.folder / f"BCCD/Annotations/{stem}.xml", annotation(good))
        lists[["train", "val", "test"][i % 3]].append(stem)
    flawed = [("RBC", 1, 1, 9, 9), ("RBC", 7, 7, 7, 7), ("RBC", 60, 2, 65, 9), ("Alien", 1, 1, 9, 9)]
    tree.image("BCCD/JPEGImages/flawed.jpg", "flawed")
    write(tree.folder / "BCCD/Annotations/flawed.xml", annotation(flawed))
    tree.bad |= {
        "bccd/flawed:RBC#2": "without extent",
        "bccd/flawed:RBC#3": "outside the image",
        "bccd/flawed:Alien#1": "Alien",
    }
    tree.faults(lambda stem: f"BCCD/JPEGImages/{stem}", lambda stem: stem)
    for stem in FAULTY_IMAGES:
        write(tree.folder / f"BCCD/Annotations/{stem}.xml", annotation(good))
    for seed, stem, notes, reason in (
        (700, "torn", b"<annotation><size>", "XML"),
        (701, "resized", annotation(good, (99, 99)), "99 x 99"),
        (702, "silent", None, "no annotation"),
    ):
        write(tree.folder / f"BCCD/JPEGImages/{stem}.jpg", encode(noise(seed), "jpeg"))
        if notes is not None:
            write(tree.folder / f"BCCD/Annotations/{stem}.xml", notes)
        tree.bad[f"bccd/{stem}"] = reason
    lists["test"].append("missing")
    tree.bad["bccd/missing"] = "no such image"
    for name, stems in lists.items():
        write(tree.folder / f"BCCD/ImageSets/Main/{name}.txt", "\n".join(stems).encode())


def instance_mask(number):
    labels = np.zeros((SIZE[1], SIZE[0]), np.uint16)
    labels[4:10, 6:16] = 1
    labels[20:31, 40:64] = 300 + number
    return encode(Image.fromarray(labels), "png")


def gland_mask(_):
    mask = np.zeros((SIZE[1], SIZE[0]), np.uint8)
    mask[8:28, 6:30] = 255
    mask[40:42, 50:53] = 255
    return encode(Image.fromarray(mask), "jpeg")


def empty_mask(kind):
    return encode(Image.fromarray(np.zeros((SIZE[1], SIZE[0]), np.uint8)), kind)


def masks(tree, _):
    glands = tree.name == "ebhi_seg"
    folder, kind, make = ("masks", "jpg", gland_mask) if glands else ("instance_masks", "png", instance_mask)

    def stem_of(word):
        return f"GTXC201{len(word)}000-1-400-{word}" if glands else word

    for i in range(10):
        stem = f"GT201000{i // 2}-1-400-00{i}" if glands else f"{i:064x}"
        tree.image(f"images/{stem}.{kind}", stem)
        write(tree.folder / f"{folder}/{stem}.{kind}", make(i))
    tree.faults(lambda stem: f"images/{stem_of(stem)}", stem_of)
    for stem in FAULTY_IMAGES:
        write(tree.folder / f"{folder}/{stem_of(stem)}.{kind}", make(0))
    for i, (word, mask, reason) in enumerate(
        (
            ("empty", empty_mask("jpeg" if glands else "png"), "marks no"),
            ("size", encode(Image.new("L", (10, 10), 255), "png"), "10 x 10"),
            ("torn", make(0)[:100], "damaged|cut short"),
            ("nomask", None, "no mask"),
        )
    ):
        write(tree.folder / f"images/{stem_of(word)}.{kind}", encode(noise(700 + i), "jpeg"))
        if mask is not None:
            write(tree.folder / f"{folder}/{stem_of(word)}.{kind}", mask)
        tree.bad[f"{tree.name}/{stem_of(word)}"] = reason
    write(tree.folder / f"{folder}/{stem_of('orphan')}.{kind}", make(0))
    tree.bad[f"{tree.name}/{stem_of('orphan')}"] = "without an image"
    if glands:
        write(tree.folder / "images/unnamed.jpg", encode(noise(799), "jpeg"))
        write(tree.folder / "masks/unnamed.jpg", make(0))
        tree.bad["ebhi_seg/unnamed"] = "no group"


def captions(tree, _):
    lines = []

    def record(name, image, title="Myxoid liposarcoma", **more):
        url = f"https://atlas.example/{name.split('-')[0]}/HE.html"
        values = {"id": name, "image": image, "titleEN": title, "organEN": "", "stain": "HE2", "url": url}
        lines.append(json.dumps({**values, **more}, ensure_ascii=False))

    for i in range(20):
        name = f"case{i // 2}-HE{i}"
        tree.image(f"screenshots/{name}.jpg", name)
        record(name, f"screenshots/{name}.jpg", organEN=("Colon", "stomach")[i % 2])
    tree.image("screenshots/empty.jpg", "empty-HE")
    record("empty-HE", "screenshots/empty.jpg", title=" ", organEN=None)
    tree.image("screenshots/named.jpg", "named-HE")
    record("named-HE", "screenshots/named.jpg", title="some-case-10")
    tree.bad |= {"pathology_atlas/empty-HE:caption": "empty", "pathology_atlas/named-HE:caption": "file name"}
    tree.faults(lambda stem: f"screenshots/{stem}", lambda stem: stem)
    for stem, (ending, *_) in FAULTY_IMAGES.items():
        record(stem, f"screenshots/{stem}.{ending}")
    record("gone", "screenshots/gone.jpg")
    record("case0-HE0", "screenshots/case0-HE1.jpg")
    lines.append('{"id": ')
    lines.append("[1, 2]")
    record("climber", "../outside.jpg")
    first = len(lines) - 2
    tree.bad |= {
        "pathology_atlas/gone": "cannot read",
        "pathology_atlas/case0-HE0": "another file has this id",
        f"pathology_atlas/captions.jsonl#{first}": "not a usable record",
        f"pathology_atlas/captions.jsonl#{first + 1}": "expected an object",
        f"pathology_atlas/captions.jsonl#{first + 2}": "below the folder",
    }
    write(tree.folder / "captions.jsonl", "\n".join(lines).encode() + b"\n\n")


LAYOUTS = {
    "herlev": (indexed, ["test/carcinoma_in_situ", "train/normal_columnar"]),
    "lbc_cytology": (indexed, ["NL", "LSIL", "HSIL", "SCC"]),
    "crc_val_he_7k": (class_folders, ["ADI", "LYM", "MUC", "MUS", "NORM", "STR", "TUM"]),
    "lc25000": (class_folders, ["colon_aca", "colon_n", "lung_aca", "lung_n", "lung_scc"]),
    "bccd": (voc, None),
    "dsb2018_he": (masks, None),
    "ebhi_seg": (masks, None),
    "pathology_atlas": (captions, None),
}


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    made = {}
    for name, (build, labels) in LAYOUTS.items():
        made[name] = Tree(tmp_path_factory.mktemp("data") / name, name)
        build(made[name], labels)
    return made


def read(tree, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results = list(ADAPTERS[tree.name].read(tree.folder, **options))
    items = [result for result in results if isinstance(result, Item)]
    return items, [result for result in results if isinstance(result, Failure)]


def test_every_adapter_has_a_layout_here():
    assert list(LAYOUTS) == NAMES


@pytest.mark.parametrize("name", NAMES)
class TestAdapter:
    def test_faults_are_listed_by_id_with_their_reason(self, trees, name):
        _, failures = read(trees[name])
        found = {failure.id: failure.reason for failure in failures}
        assert set(found) == set(trees[name].bad)
        assert len(failures) == len(found)
        for failure_id, reason in trees[name].bad.items():
            assert any(word in found[failure_id] for word in reason.split("|")), found[failure_id]
        assert {failure.stage for failure in failures} == {"data"}

    def test_good_items_are_intact(self, trees, name):
        tree = trees[name]
        items, _ = read(tree)
        images = {item.sample.id.removeprefix(f"{name}/").partition(":")[0] for item in items}
        assert images == {unicodedata.normalize("NFC", good) for good in tree.good} - {"empty-HE", "named-HE"}
        for item in items:
            ref, blob = item.sample.images[0], item.blobs[0]
            assert ref.key == blob.key == key_of(blob.data)
            assert decode_image(blob.data).size == ref.size == SIZE

    def test_records_are_whole_and_travel_as_json(self, trees, name):
        adapter = ADAPTERS[name]
        for item in read(trees[name])[0]:
            sample = item.sample
            assert from_json(to_json(sample), type(sample)) == sample
            assert sample.dataset == name
            assert sample.exam.startswith(f"{name}/")
            assert sample.licence == adapter.licence
            assert sample.provenance.operation == f"adapter:{name}"
            assert sample.split in tuple(Split)
            assert sample.group
            assert sample.reasoning == ""
            assert sample.turns[-1].role == "user"

    def test_answers_fit_question_and_image(self, trees, name):
        kinds = {
            TaskKind.CLASSIFICATION: Choice,
            TaskKind.DETECTION: Boxes,
            TaskKind.SEGMENTATION: MaskRef,
            TaskKind.CAPTION: Text,
        }
        for item in read(trees[name])[0]:
            answer = item.sample.answer
            assert isinstance(answer, kinds[item.sample.task])
            if isinstance(answer, Choice):
                assert item.sample.options[answer.index]
                assert len(set(item.sample.options)) == len(item.sample.options)
            if isinstance(answer, Text):
                assert answer.value.strip()
            if isinstance(answer, Boxes | MaskRef):
                assert answer.boxes
                for box in answer.boxes:
                    assert 0 <= box.x0 < box.x1 <= SIZE[0]
                    assert 0 <= box.y0 < box.y1 <= SIZE[1]
            if isinstance(answer, MaskRef):
                mask = decode_labels(next(b.data for b in item.blobs if b.key == answer.key))
                assert mask.shape == SIZE[::-1]
                outside = mask.copy()
                for box in answer.boxes:
                    outside[int(box.y0) : int(box.y1), int(box.x0) : int(box.x1)] = 0
                assert mask.any()
                assert not outside.any()

    def test_ids_are_unique_and_stable(self, trees, name):
        first, second = (read(trees[name])[0] for _ in range(2))
        ids = [item.sample.id for item in first]
        assert len(set(ids)) == len(ids)
        assert [item.sample for item in first] == [item.sample for item in second]

    def test_groups_never_straddle(self, trees, name):
        for plan in (None, SplitPlan(0.4, 0.3, 0.3, seed=5)):
            splits = defaultdict(set)
            for item in read(trees[name], plan=plan)[0]:
                splits[item.sample.group].add(item.sample.split)
            assert all(len(found) == 1 for found in splits.values())
            assert {split for found in splits.values() for split in found} == set(Split)

    def test_all_goes_into_a_corpus_and_comes_back(self, trees, name, tmp_path):
        items, failures = read(trees[name])
        with Corpus.create(tmp_path) as corpus:
            for item in items:
                corpus.add(item)
            for failure in failures:
                corpus.fail(failure)
        corpus = Corpus.open(tmp_path)
        assert corpus.samples() == [item.sample for item in items]
        assert corpus.failures() == failures

    def test_a_missing_or_empty_folder_is_refused(self, name, tmp_path):
        with pytest.raises(DataError, match="nowhere"):
            list(ADAPTERS[name].read(tmp_path / "nowhere"))
        with pytest.raises(DataError, match=r"expected|index\.csv|captions\.jsonl") as caught:
            list(ADAPTERS[name].read(tmp_path))
        assert str(tmp_path) in str(caught.value)

    def test_the_facts_for_the_report_are_there(self, name):
        adapter = ADAPTERS[name]
        assert adapter.name == name
        assert adapter.use in ("any", "research")
        assert adapter.licence
        assert adapter.source
        assert adapter.split_rule
        assert adapter.traps
        assert sum(adapter.counts.values()) > 0

    def test_the_check_counts_and_names_duplicates(self, trees, name):
        report = check(ADAPTERS[name], trees[name].folder)
        items, failures = read(trees[name])
        twins = [f for f in failures if "same bytes" in f.reason]
        assert len(report.failures) == len(failures) - len(twins) == len(trees[name].bad) - 1
        assert any(any("twin" in each for each in found.ids) for found in report.twins)
        assert set(report.leaks) <= set(report.twins)
        assert not report.complete
        assert sum(report.splits.values()) > len(items)
        assert len(report.rows()) == len(report.counts)
        assert "differs" in {row["verdict"] for row in report.rows()}


def by_id(tree):
    return {item.sample.id: item.sample for item in read(tree)[0]}


def test_classes_have_readable_names(trees):
    samples = by_id(trees["herlev"])
    sample = samples["herlev/test/carcinoma_in_situ/cell_0"]
    assert sample.options[sample.answer.index] == "carcinoma in situ"
    sample = by_id(trees["lbc_cytology"])["lbc_cytology/NL/cell_0"]
    assert sample.options == ("NILM", "LSIL", "HSIL", "SCC")
    assert sample.answer == Choice(0)
    sample = by_id(trees["lc25000"])["lc25000/lung_scc/tile_0"]
    assert (sample.organ, sample.options[sample.answer.index]) == ("lung", "lung squamous cell carcinoma")


def test_pascal_voc_boxes_count_from_one_and_include_the_last_pixel(trees):
    samples = by_id(trees["bccd"])
    whole = samples["bccd/BloodImage_00000:WBC"].answer.boxes
    assert [box.corners for box in whole] == [(0, 0, 64, 48)]
    assert len(samples["bccd/BloodImage_00000:RBC"].answer.boxes) == 2
    assert [box.corners for box in samples["bccd/flawed:RBC"].answer.boxes] == [(0, 0, 9, 9)]
    assert "bccd/BloodImage_00000:Platelets" not in samples


def test_official_lists_decide(trees):
    samples = by_id(trees["bccd"])
    found = [samples[f"bccd/BloodImage_{i:05d}:RBC"].split for i in range(3)]
    assert found == [Split.TRAIN, Split.VALIDATION, Split.TEST]


def test_nuclei_become_boxes_and_a_mask(trees):
    samples = by_id(trees["dsb2018_he"])
    boxes = samples[f"dsb2018_he/{3:064x}:nuclei"].answer.boxes
    assert [box.corners for box in boxes] == [(6, 4, 16, 10), (40, 20, 64, 31)]
    assert samples[f"dsb2018_he/{3:064x}:nuclei_mask"].answer.boxes == boxes


def test_lossy_masks_are_thresholded_without_specks(trees):
    (box,) = by_id(trees["ebhi_seg"])["ebhi_seg/GT2010000-1-400-000"].answer.boxes
    assert box.corners == pytest.approx((6, 8, 30, 28), abs=1)


def test_captions_name_organ_and_stain_and_organs_become_an_exam(trees):
    samples = by_id(trees["pathology_atlas"])
    sample = samples["pathology_atlas/case0-HE0:caption"]
    assert sample.answer == Text("Myxoid liposarcoma, colon, H&E")
    assert (sample.organ, sample.stain) == ("colon", "H&E")
    organ = samples["pathology_atlas/case0-HE1:organ"]
    assert organ.options == ("colon", "stomach")
    assert organ.answer == Choice(1)


def test_a_folder_named_like_an_image_is_a_failure(tmp_path):
    write(tmp_path / "TUM/whole.jpg", encode(noise(1), "jpeg"))
    (tmp_path / "TUM/folder.jpg").mkdir()
    first, second = ADAPTERS["crc_val_he_7k"].read(tmp_path)
    assert (first.id, second.sample.id) == ("crc_val_he_7k/TUM/folder", "crc_val_he_7k/TUM/whole")
    assert "cannot read" in first.reason


def test_a_folder_without_one_usable_image_names_the_layout_and_the_first_fault(tmp_path):
    write(tmp_path / "WRONG/a.jpg", encode(noise(1), "jpeg"))
    with pytest.raises(DataError, match=r"expected <class>/<image>.*WRONG/a"):
        list(ADAPTERS["crc_val_he_7k"].read(tmp_path))


def test_an_index_without_its_columns_is_refused(tmp_path):
    write(tmp_path / "index.csv", b"name,label\n")
    with pytest.raises(DataError, match="no column file, group"):
        list(ADAPTERS["herlev"].read(tmp_path))
    write(tmp_path / "index.csv", b"\xff\xfe\x00bad")
    with pytest.raises(DataError, match="UTF-8"):
        list(ADAPTERS["herlev"].read(tmp_path))
