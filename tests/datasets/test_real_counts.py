"""The real folders: what is there against what should be."""

import os
from collections import Counter
from pathlib import Path

import pytest

from malpighi.datasets.catalogue import ADAPTERS, adapter_named, find_datasets
from malpighi.datasets.check import check
from malpighi.errors import ConfigError, DataError
from malpighi.records import Split

ROOT = Path(os.environ.get("MALPIGHI_TEST_DATA", Path(__file__).parents[2] / "../shared/data"))

EXCERPTS = {"lc25000": 20}
"""Items per class of data sets of which the folder holds only an excerpt."""

needs_data = pytest.mark.skipif(
    not ROOT.is_dir(), reason=f"no real data: {ROOT} is missing; set MALPIGHI_TEST_DATA"
)


@needs_data
@pytest.mark.realdata
@pytest.mark.parametrize("name", ADAPTERS)
def test_the_real_folder_holds_what_it_should(name):
    if not (ROOT / name).is_dir():
        pytest.skip(f"no real folder of {name} in {ROOT}")
    report = check(ADAPTERS[name], ROOT / name)
    if name in EXCERPTS:
        assert {count.found for count in report.counts} == {EXCERPTS[name]}, report.rows()
    else:
        assert report.complete, report.rows()
    assert report.leaks == ()
    assert set(report.splits) == set(map(str, Split))
    reasons = Counter(failure.reason.split(":")[0].split("'")[0].strip() for failure in report.failures)
    expected = {
        "bccd": {"a box without extent": 2},
        "pathology_atlas": {"the caption is empty": 59, "the caption": 20},
    }
    assert dict(reasons) == expected.get(name, {})


@needs_data
@pytest.mark.realdata
def test_the_two_bad_boxes_of_bccd_are_named():
    report = check(ADAPTERS["bccd"], ROOT / "bccd")
    assert [failure.id for failure in report.failures] == [
        "bccd/BloodImage_00338:RBC#13",
        "bccd/BloodImage_00343:RBC#4",
    ]
    assert report.groups == {"train": 205, "validation": 87, "test": 72}


@needs_data
@pytest.mark.realdata
def test_every_class_of_the_cytology_sets_is_in_every_split():
    for name in ("herlev", "lbc_cytology"):
        found = {(item.sample.split, item.sample.answer.index) for item in ADAPTERS[name].read(ROOT / name)}
        assert len(found) == 3 * len(item_options(name))


def item_options(name):
    return next(iter(ADAPTERS[name].read(ROOT / name))).sample.options


@needs_data
@pytest.mark.realdata
def test_all_data_sets_are_found():
    found = find_datasets(ROOT)
    assert {"herlev", "lbc_cytology", "crc_val_he_7k", "lc25000", "bccd"} <= set(found)
    assert list(found) == [name for name in ADAPTERS if (ROOT / name).is_dir()]


def test_data_sets_are_found_by_the_names_of_folders(tmp_path):
    for name in ("herlev", "bccd", "something"):
        (tmp_path / name).mkdir()
    assert find_datasets(tmp_path) == {"herlev": tmp_path / "herlev", "bccd": tmp_path / "bccd"}
    assert find_datasets(tmp_path / "bccd") == {"bccd": tmp_path / "bccd"}
    with pytest.raises(DataError, match="herlev"):
        find_datasets(tmp_path / "something")
    with pytest.raises(DataError, match="nowhere"):
        find_datasets(tmp_path / "nowhere")


def test_an_unknown_name_lists_those_known():
    assert adapter_named("bccd").name == "bccd"
    with pytest.raises(ConfigError, match="herlev"):
        adapter_named("Herlev")
