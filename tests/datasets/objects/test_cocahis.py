import h5py
import numpy as np
import pytest

from malpighi.datasets.objects import cocahis
from malpighi.errors import DataError
from malpighi.records import Split

SIZE = (46, 34)  # wider than high, as the real ones are
PATIENTS, SPLITS = [1, 1, 2, 2], ["train", "train", "test", "test"]
NAMES = [
    f"{patient}_{image}_{row}"
    for row, (patient, image) in enumerate(zip(PATIENTS, [1, 2, 1, 2], strict=True))
]


def build(tree, painted, attributes, value=1):
    def write(folder):
        folder.mkdir(exist_ok=True)
        marks = [painted(SIZE, (value, 2, 3, 30, 20), (value, 40, 30, 42, 32))] * 3 + [painted(SIZE)]
        with h5py.File(folder / "CoCaHis.hdf5", "w") as file:
            raw = np.stack([tree.noise(SIZE) for _ in NAMES])
            for name in ("raw", "sn1", "sn2"):
                file[f"HE/{name}"] = raw
            for name in ("GT_majority_vote", "GT1", "GT7"):
                file[f"GT/{name}"] = np.stack(marks)
            file["HE"].attrs.update(attributes)

    return write


BYTES = {
    "train_test_split": np.array(SPLITS, dtype="S"),
    "patient_num": np.array(PATIENTS),
    "image_num": np.array([b"1", b"2", b"1", b"2"]),
}
TEXT = {
    "train_test_split": SPLITS,
    "patient_num": list(map(str, PATIENTS)),
    "image_num": ["1", "2", "1", "2"],
}
SAMPLES = {
    f"{name}:{exam}:metastatic_colon_cancer": exam
    for row, name in enumerate(NAMES)
    for exam in (("detection", "segmentation") if row < 3 else ("absent",))
}


@pytest.mark.parametrize(("attributes", "value"), [(BYTES, 1), (TEXT, 255)])
def test_cocahis_follows_the_contract(contract, tree, painted, corners, attributes, value):
    samples = contract("cocahis", build(tree, painted, attributes, value), SAMPLES, needed=["CoCaHis.hdf5"])
    first = samples["1_1_0:detection:metastatic_colon_cancer"]
    assert first.split == Split.TRAIN
    assert first.group == "patient 1"
    assert first.images[0].size == SIZE
    assert corners(first) == [(2, 3, 30, 20)]
    assert samples["2_1_2:detection:metastatic_colon_cancer"].split == Split.TEST


def test_specks_of_the_vote_are_left_out(items, tree, painted, tmp_path, mask_of):
    build(tree, painted, BYTES)(tmp_path)
    mask = mask_of(items("cocahis", tmp_path)[0]["1_1_0:segmentation:metastatic_colon_cancer"])
    assert mask.shape == SIZE[::-1]
    assert mask.any()
    assert not mask[28:, 38:].any()


def test_an_unknown_split_is_a_failure_by_id(items, tree, painted, tmp_path):
    build(tree, painted, TEXT | {"train_test_split": ["train", "?", "test", "test"]})(tmp_path)
    found, failures = items("cocahis", tmp_path)
    assert list(failures) == ["1_2_1"]
    assert not any(name.startswith("1_2_1") for name in found)


@pytest.mark.parametrize("lost", ["HE/raw", "GT/GT_majority_vote"])
def test_a_file_of_another_form_is_refused(items, tree, painted, tmp_path, lost):
    build(tree, painted, TEXT)(tmp_path)
    with h5py.File(tmp_path / "CoCaHis.hdf5", "a") as file:
        del file[lost]
    with pytest.raises(DataError, match=r"CoCaHis\.hdf5"):
        items("cocahis", tmp_path)


def test_a_torn_file_is_refused(items, tree, painted, tmp_path):
    build(tree, painted, TEXT)(tmp_path)
    path = tmp_path / "CoCaHis.hdf5"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DataError, match=r"CoCaHis\.hdf5"):
        items("cocahis", tmp_path)


def test_without_the_reader_of_hdf5_one_is_told_what_to_install(items, tree, painted, tmp_path, monkeypatch):
    build(tree, painted, TEXT)(tmp_path)
    monkeypatch.setattr(cocahis, "h5py", None)
    with pytest.raises(DataError, match=r"malpighi\[slides\]"):
        items("cocahis", tmp_path)
