import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedShuffleSplit

from malpighi.datasets.objects import conic
from malpighi.datasets.objects.conic import official_splits, survey_conic
from malpighi.datasets.objects.stratified import stratified_shuffle
from malpighi.errors import DataError
from malpighi.records import Split

COHORTS = {"consep": 5, "crag": 6, "dpath": 9, "glas": 7, "pannuke": 4}
NAMES = [f"{cohort}_{i}-{n:04d}" for cohort, count in COHORTS.items() for i in range(count) for n in range(2)]


def nuclei(painted):
    numbers = painted((24, 20), (1, 0, 0, 6, 6), (2, 6, 0, 12, 6), (300, 12, 10, 20, 18), dtype=np.uint16)
    classes = painted((24, 20), (2, 0, 0, 12, 6), (4, 12, 10, 20, 18), dtype=np.uint16)
    return np.stack([numbers, classes], axis=2)


def build(tree, painted, names=NAMES, more=0):
    def write(folder):
        (folder / "data").mkdir(parents=True)
        count = len(names) + more
        np.save(folder / "data/images.npy", np.stack([tree.noise((24, 20)) for _ in range(count)]))
        np.save(folder / "data/labels.npy", np.stack([nuclei(painted)] * count))
        tree.write(folder / "data/patch_info.csv", "patch_info\n" + "\n".join(names) + "\n")
        tree.write(folder / "data/counts.csv", "neutrophil\n999\n")

    return write


def expected(names):
    for name in names:
        for exam in ("detection", "segmentation"):
            yield f"{name}:{exam}:epithelial_cells", exam
            yield f"{name}:{exam}:plasma_cells", exam
        for kind in ("neutrophils", "lymphocytes", "eosinophils", "connective_tissue_cells"):
            yield f"{name}:absent:{kind}", "absent"


def test_conic_follows_the_contract(contract, tree, painted, corners):
    samples = contract(
        "conic2022",
        build(tree, painted, more=1),
        dict(expected(NAMES)),
        {f"images.npy#{len(NAMES)}": "does not name it"},
        ["data/images.npy", "data/labels.npy", "data/patch_info.csv"],
    )
    one = samples["dpath_3-0001:detection:epithelial_cells"]
    assert one.group == "dpath_3"
    assert corners(one) == [(0, 0, 6, 6), (6, 0, 12, 6)]
    assert corners(samples["dpath_3-0001:detection:plasma_cells"]) == [(12, 10, 20, 18)]
    splits = {sample.group: sample.split for sample in samples.values()}
    official = official_splits(NAMES)
    assert splits == official
    assert list(official.values()).count(Split.TEST) == 7


def test_a_truncated_array_is_failures_by_id(items, tree, painted, tmp_path):
    build(tree, painted)(tmp_path)
    for name in ("images", "labels"):
        array = np.load(tmp_path / f"data/{name}.npy")
        np.save(tmp_path / f"data/{name}.npy", array[:-2])
    _, failures = items("conic2022", tmp_path)
    assert set(failures) == {NAMES[-1], NAMES[-2]}


@pytest.mark.parametrize("name", ["images", "labels"])
def test_damaged_arrays_are_refused_by_name(items, tree, painted, tmp_path, name):
    build(tree, painted)(tmp_path)
    path = tmp_path / f"data/{name}.npy"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=name):
        items("conic2022", tmp_path)


def test_pickled_arrays_are_never_loaded(items, tree, painted, tmp_path):
    build(tree, painted)(tmp_path)
    np.save(tmp_path / "data/images.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"images\.npy"):
        items("conic2022", tmp_path)


def test_arrays_stay_on_disk(tree, painted, tmp_path):
    build(tree, painted)(tmp_path)
    survey = survey_conic(tmp_path)
    assert isinstance(survey.entries[0].detail["labels"], np.memmap)
    assert survey.entries[0].detail["labels"] is survey.entries[-1].detail["labels"]


def test_a_part_of_the_data_is_split_by_our_rule():
    assert set(official_splits(["consep_1-0000", "crag_2-0000", "crag_3-0000"]).values()) == {None}


def test_the_official_fold_is_that_of_the_baseline():
    sources = sorted({name.split("-")[0] for name in NAMES})
    cohorts = [source.split("_")[0] for source in sources]
    splitter = StratifiedShuffleSplit(10, train_size=0.8, test_size=0.2, random_state=conic.SEED)
    train, test = next(splitter.split(sources, cohorts))
    official = official_splits(NAMES)
    assert {s for s, split in official.items() if split == Split.TRAIN} == {sources[i] for i in train}
    assert {s for s, split in official.items() if split == Split.TEST} == {sources[i] for i in test}


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.integers(2, 40), min_size=2, max_size=6),
    st.sampled_from([0.2, 0.25, 0.5]),
    st.integers(0, 2**32 - 1),
    st.randoms(use_true_random=False),
)
def test_stratified_shuffle_equals_scikit_learn(counts, share, seed, order):
    labels = [f"class {i}" for i, count in enumerate(counts) for _ in range(count)]
    order.shuffle(labels)
    if len(labels) * share < len(counts):
        return
    splitter = StratifiedShuffleSplit(3, train_size=1 - share, test_size=share, random_state=seed)
    train, test = next(splitter.split(labels, labels))
    assert stratified_shuffle(labels, share, seed) == (train.tolist(), test.tolist())
