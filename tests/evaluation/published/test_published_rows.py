import json
import os
import re
from collections import Counter
from pathlib import Path

import pytest

from malpighi.errors import ConfigError
from malpighi.evaluation.published.rows import NAMES, paper, read_table

DATA = Path(os.environ.get("MALPIGHI_TEST_DATA", Path(__file__).parents[3] / "../shared/data"))
EXTRACTED = DATA.parent / "published"
NUMBER = re.compile(r"\d+(?:\.\d+)?")


@pytest.mark.parametrize(
    ("name", "rows", "averages"),
    [("smartpath-r1", 816, 52), ("patho-r1", 672, 114), ("singpath-vl", 102, 12)],
)
def test_every_figure_is_there(name, rows, averages):
    found = paper(name)
    assert (len(found.rows), len(found.averages)) == (rows, averages)
    assert len(found.own) == rows - averages
    assert len({(row.table, *row.key, row.method) for row in found.rows}) == rows


@pytest.mark.parametrize("name", NAMES)
def test_values_are_the_printed_ones(name):
    for row in paper(name).rows:
        value, *ends = (float(number) for number in NUMBER.findall(row.printed))
        scale = 100 if row.percent else 1
        assert row.value * scale == pytest.approx(value, abs=1e-9), row
        assert [end for end in (row.low, row.high) if end is not None] == ends
        assert 0 <= row.value <= 1


@pytest.mark.parametrize("name", NAMES)
def test_units_are_those_of_the_last_digit(name):
    units = {
        row.unit for row in paper(name).rows if row.decimals == max(r.decimals for r in paper(name).rows)
    }
    assert units == {{"smartpath-r1": 0.001, "patho-r1": 0.0001, "singpath-vl": 0.001}[name]}


@pytest.mark.realdata
@pytest.mark.parametrize("name", NAMES)
def test_the_transcription_holds_the_same_numbers(name):
    source = EXTRACTED / f"{name.replace('-', '_')}.json"
    if not source.is_file():
        pytest.skip(f"no extraction to compare with: {source} is missing")
    rows = json.loads(source.read_text())["rows"]
    ours = paper(name).rows
    numbers = Counter(number for row in rows for number in NUMBER.findall(row["printed"]))
    assert Counter(number for row in ours for number in NUMBER.findall(row.printed)) == numbers
    places = [
        (row["dataset"], row["split"] or "", row["metric"], row["method"], row["value"]) for row in rows
    ]
    assert [(row.dataset, row.split, row.metric, row.method, row.value) for row in ours] == places


def test_an_unknown_paper_names_the_known():
    with pytest.raises(ConfigError, match="smartpath-r1, patho-r1, singpath-vl"):
        paper("smartpath")


def test_stated_counts_find_their_rows(smartpath, patho):
    def stated(source, **wanted):
        found = source.stated_for(source.find(**wanted)[0])
        return found and found.samples

    assert stated(smartpath, dataset="ESCA") == 189_142
    assert stated(smartpath, dataset="PathMMU-Atlas", split="val") == 288
    assert stated(smartpath, dataset="TCGA-VQA-Risk Factors") == 1501
    assert stated(smartpath, dataset="TCGA-BRCA") is None
    assert stated(patho, dataset="PathMMU-Atlas", split="test") == 8454
    assert stated(patho, dataset="Quilt-VQA") == 3705
    assert stated(patho, dataset="ARCH") is None


def test_the_headings_name_the_papers():
    for name in NAMES:
        assert paper(name).title in read_table(f"{name.replace('-', '_')}.csv")[0][0]
    assert paper("patho-r1").title.startswith("Patho-R1")
