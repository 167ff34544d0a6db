"""Suites of exams: what the papers set, and which samples answer to it."""

from collections import Counter

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from malpighi.datasets.catalogue import ADAPTERS
from malpighi.errors import ConfigError, DataError, FormatVersionError
from malpighi.evaluation.published.beside import exam_key, published_exams
from malpighi.evaluation.suite import Draw, load_suite, suite_names
from malpighi.records import Choice, Provenance, Sample, Scale, Split, TaskKind, Text, Turn

# Data sets that a suite names and no adapter makes yet. Take a name out when its adapter is there.
SMALL = """
format_version: 1
name: mine
title: Mine
groups:
  - name: first
    title: First
    metric: accuracy
    scale: roi
    tasks:
      - {name: grade, exams: [a/class, b/class], negatives: [a/absent]}
      - {name: high, exams: [a/class], answer: high, metric: recall, splits: [test, validation]}
      - {name: gone, unavailable: not published}
      - {name: elsewhere, exams: [c/class]}
"""


def sample(number, exam="a/class", group="g", split=Split.TEST, answer="low"):
    words = answer is None
    return Sample(
        id=f"{exam}/{number}",
        dataset="a",
        exam=exam,
        task=TaskKind.VQA,
        scale=Scale.ROI,
        images=(),
        turns=(Turn("user", "?"),),
        answer=Text("free") if words else Choice(("low", "high").index(answer)),
        options=() if words else ("low", "high"),
        group=group,
        split=split,
        licence="CC0",
        provenance=Provenance("test"),
    )


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    path = tmp_path_factory.mktemp("suite") / "mine.yaml"
    path.write_text(SMALL)
    return load_suite(path)


def test_the_papers_set_what_they_say():
    sizes = {}
    for name in suite_names():
        suite = load_suite(name)
        sizes[name] = Counter(suite.group_of(task.name).name for task in suite.tasks)
    assert sizes == {
        "smartpath-r1": {
            "roi_classification": 8, "roi_detection": 14, "roi_segmentation": 14, "roi_vqa": 10,
            "wsi_classification": 9, "wsi_vqa": 17,
        },
        "patho-r1": {"retrieval": 4, "zero_shot": 5, "few_shot": 2, "vqa_closed": 19, "vqa_open": 2},
        "singpath-vl": {"morphology": 9, "cytology": 6},
    }  # fmt: skip
    assert sizes["smartpath-r1"].total() == 72


def test_numbers_of_samples_are_those_of_the_papers():
    smartpath = {task.name: task for task in load_suite("smartpath-r1").tasks}
    classes = [task for name, task in smartpath.items() if task.exams[0].endswith("/class")]
    seven = ("CCRCC", "Chaoyang", "CRC-MSI", "ESCA", "PanCancer-TIL", "UniToPatho", "BreakHis")
    assert sum(smartpath[name].stated_n for name in seven) == 289_533
    assert sum(smartpath[name].implied_n for name in seven) == 11_000
    assert sum(task.implied_n for name, task in smartpath.items() if name.startswith("TCGA-VQA")) == 1494
    tcga = [task for task in classes if task.exams[0].startswith("tcga_")]
    assert sum(task.implied_n for task in tcga) == 291
    assert sum(task.external for task in smartpath.values()) == 2 + 2 + 2 + 3 + 4
    patho = {task.name: task.implied_n for task in load_suite("patho-r1").tasks}
    totals = {"test_tiny": 1139, "test": 8454, "val": 705}
    for part, total in totals.items():
        names = [f"PathMMU-{n}-{part}" for n in ("Atlas", "EduContent", "PathCLS", "PubMed", "SocialPath")]
        assert sum(patho[name] for name in names) == total
    assert patho["Quilt-VQA-closed"] + patho["PathVQA-closed"] == 3705
    singpath = load_suite("singpath-vl")
    assert [sum(task.stated_n for task in group.tasks) for group in singpath.groups] == [2069, 29_102]


def test_metrics_come_from_the_group_unless_a_task_says_otherwise():
    tasks = {task.name: task for task in load_suite("smartpath-r1").tasks}
    assert (tasks["CCRCC"].metric, tasks["CCRCC"].further) == ("accuracy", ("macro_f1",))
    assert (tasks["BCSS-detection"].metric, tasks["BCSS-detection"].further) == ("ap50", ("ap30", "ap70"))
    assert (tasks["PathVQA-open"].metric, tasks["PathVQA-open"].further) == ("bleu4", ("bertscore",))
    assert (tasks["PathVQA-closed"].metric, tasks["PathVQA-closed"].further) == ("accuracy", ())
    group = load_suite("smartpath-r1").group_of("BRACS")
    assert (group.name, group.scale) == ("wsi_classification", Scale.SLIDE)
    with pytest.raises(ConfigError, match="no task 'BRCAS'"):
        load_suite("smartpath-r1").group_of("BRCAS")


def test_every_exam_has_an_adapter_or_is_listed():
    exams = {
        exam
        for name in suite_names()
        for task in load_suite(name).tasks
        for exam in (*task.exams, *task.negatives)
    }
    assert {exam.split("/")[0] for exam in exams} <= set(ADAPTERS)


def test_suites_and_published_columns_name_the_same_exams():
    beyond = {
        "patho-r1": {"arch/books_set", "arch/pubmed_set", "medxpertqa_mm/question", "omnimedvqa/microscopy",
                     "pathvqa/open", "quilt_vqa/open"},
        "smartpath-r1": {"nucls/segmentation-of-boxes"},
        "singpath-vl": set(),
    }  # fmt: skip
    for name, more in beyond.items():
        asked = {exam for task in load_suite(name).tasks for exam in task.exams}
        published = {exam for exam in published_exams(name) if not exam.startswith("arch/")}
        assert set(map(exam_key, asked - more)) == set(map(exam_key, published))


def test_samples_go_to_their_tasks(mine):
    samples = [
        sample(0), sample(1, answer="high"), sample(2, split=Split.TRAIN), sample(3, split=None),
        sample(4, split=Split.VALIDATION, answer="high"), sample(5, exam="b/class"),
        sample(6, exam="d/class"), sample(7, exam="a/absent"),
    ]  # fmt: skip
    found = mine.select(samples)
    chosen = {one.task.name: [s.id for s in one.samples] for one in found.chosen}
    assert chosen == {
        "grade": ["a/class/0", "a/class/1", "a/class/3", "b/class/5"],
        "high": ["a/class/1", "a/class/4"],
    }
    assert {one.task.name: one.reason for one in found.missing} == {
        "gone": "not published", "elsewhere": "no sample of c/class",
    }  # fmt: skip
    ids = [s.id for s in found.samples]
    assert sorted(ids) == ["a/class/0", "a/class/1", "a/class/3", "a/class/4", "b/class/5"]
    with_negatives = mine.select(samples, Draw(negatives=True)).chosen[0]
    assert [s.id for s in with_negatives.samples][-1] == "a/absent/7"


def test_a_task_whose_samples_are_in_other_parts_is_missing_with_the_reason(mine):
    found = mine.select([sample(0, split=Split.TRAIN), sample(1, exam="a/class", answer=None)])
    assert [one.task.name for one in found.chosen] == ["grade"]
    reasons = {one.task.name: one.reason for one in found.missing}
    assert reasons["high"] == "2 samples, none in test or validation with the answer high"


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=9),
    wanted=st.integers(1, 60),
    seed=st.integers(0, 5),
    shuffle=st.randoms(use_true_random=False),
)
def test_a_draw_takes_of_every_group_its_share(mine, sizes, wanted, seed, shuffle):
    samples = [
        sample(f"{group}-{k}", group=f"g{group}") for group, size in enumerate(sizes) for k in range(size)
    ]
    draw = Draw(per_exam=wanted, seed=seed)
    (one,) = (c for c in mine.select(samples, draw).chosen if c.task.name == "grade")
    assert one.available == len(samples)
    assert len(one.samples) == min(wanted, len(samples))
    counts = Counter(s.group for s in one.samples)
    share = min(1.0, wanted / len(samples))
    for group, size in enumerate(sizes):
        assert abs(counts[f"g{group}"] - size * share) < 1 + 1e-9
    other = list(samples)
    shuffle.shuffle(other)
    (again,) = (c for c in mine.select(other, draw).chosen if c.task.name == "grade")
    assert {s.id for s in again.samples} == {s.id for s in one.samples}
    kept = {s.id for s in again.samples}
    assert [s.id for s in again.samples] == [s.id for s in other if s.id in kept]


def test_other_seeds_draw_others_and_all_are_drawn_alike_often(mine):
    samples = [sample(k, group=f"g{k // 3}") for k in range(30)]
    counts, draws = Counter(), set()
    for seed in range(300):
        one = mine.select(samples, Draw(per_exam=10, seed=seed)).chosen[0]
        draws.add(tuple(s.id for s in one.samples))
        counts.update(s.id for s in one.samples)
    assert len(draws) > 290
    assert min(counts.values()) > 60
    assert max(counts.values()) < 140


def broken(**changes):
    tree = yaml.safe_load(SMALL)
    tree["groups"][0]["tasks"][0] |= changes
    return yaml.safe_dump(tree)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (broken(name="high"), "two tasks are named 'high'"),
        (broken(exams=[]), "expected exams, or why"),
        (broken(unavailable="lost"), "not both"),
        (broken(exams=["bracs"]), "'bracs'; expected e.g. bracs/class"),
        (broken(metric="acc"), "metric acc; expected accuracy"),
        (broken(splits=["tests"]), "tests"),
        (broken(exam="a/b"), "exam"),
        ("format_version: 1\nname: a\ntitle: b\ngroups: []\n", "no task"),
        ("[", "no YAML"),
    ],
)
def test_suites_of_another_form_are_refused(tmp_path, text, word):
    (tmp_path / "mine.yml").write_text(text)
    with pytest.raises(DataError, match=word):
        load_suite(tmp_path / "mine.yml")


def test_suites_that_are_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"unknown suite 'smartpath'; known: patho-r1, singpath-vl"):
        load_suite("smartpath")
    with pytest.raises(DataError, match="cannot read the suite"):
        load_suite(tmp_path / "none.yaml")
    (tmp_path / "new.yaml").write_text(SMALL.replace("format_version: 1", "format_version: 2"))
    with pytest.raises(FormatVersionError, match="reads 1"):
        load_suite(tmp_path / "new.yaml")
    with pytest.raises(ConfigError, match="per_exam is -1"):
        Draw(per_exam=-1)
