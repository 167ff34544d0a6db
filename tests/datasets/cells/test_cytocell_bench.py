import json

import pytest

from malpighi.datasets.catalogue import adapter_named
from malpighi.datasets.cells.singpath_records import CATEGORIES
from malpighi.errors import DataError
from malpighi.records import Choice


def test_folders_of_categories(contract, write):
    def build(folder):
        for label in CATEGORIES:
            write(folder, f"{label}/sLide{label[0]}_12_5.png")
        write(folder, "SCC/x_1.png")

    samples = contract(
        "cytocell_bench",
        build,
        {f"{label}/sLide{label[0]}_12_5": "class" for label in CATEGORIES},
        {"SCC/x_1": "expected one of NILM"},
    )
    assert samples["ASC-H/sLideA_12_5"].answer == Choice(3)
    assert samples["ASC-H/sLideA_12_5"].options == ("NILM", "ASC-US", "LSIL", "ASC-H", "HSIL", "AGC")
    assert samples["ASC-H/sLideA_12_5"].group == samples["AGC/sLideA_12_5"].group == "sLideA"


def test_a_list_beside_the_images(contract, write):
    records = [
        {"image_name": "s1_1_2.jpg", "label": "HSIL"},
        {"image_name": "s2_1_2.jpg", "label": "NILM"},
        {"image_name": "s3_1_2.jpg", "label": "CIN 2"},
        {"image_name": "gone_1.jpg", "label": "NILM"},
        {"image_name": "same_1.jpg", "label": "NILM"},
        {"label": "NILM"},
    ]

    def build(folder):
        for name in ("a/s1_1_2", "b/s2_1_2", "b/s3_1_2", "a/same_1", "b/same_1", "b/extra_1"):
            write(folder, f"images/{name}.jpg")
        write(folder, "CytoCell-Bench.json", json.dumps(records))

    samples = contract(
        "cytocell_bench",
        build,
        {"s1_1_2": "class", "s2_1_2": "class"},
        {
            "s3_1_2": "label 'CIN 2'",
            "gone_1": "0 images",
            "same_1": "2 images",
            "CytoCell-Bench.json#5": "0 images",
            "extra_1": "not in CytoCell-Bench.json",
        },
        needed=("CytoCell-Bench.json",),
    )
    assert samples["s1_1_2"].answer == Choice(4)


def test_neither_layout_is_said(tmp_path, write):
    write(tmp_path, "cells/x_1.png")
    with pytest.raises(DataError, match=r"CytoCell-Bench\.json or NILM.*found cells"):
        list(adapter_named("cytocell_bench").read(tmp_path))
