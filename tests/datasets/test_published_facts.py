"""What adapters say of their data sets adds up to what is published of them."""

import pytest

from malpighi.datasets.catalogue import adapter_named


@pytest.mark.parametrize(
    ("name", "total"),
    [
        ("ccrcc", 22_530 + 5_635),
        ("chaoyang", 4_021 + 2_139),
        ("esca", 178_187 + 189_142),
        ("pancancer_til", 304_100),
        ("unitopatho", 6_270 + 2_399),
        ("breakhis", 7_909),
        ("bracs_roi", 3_657 + 312 + 570),
        ("bmt", 600),
        ("cytocell_bench", 29_102),
    ],
)
def test_counts_add_up(name, total):
    assert sum(adapter_named(name).counts.values()) == total


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ccrcc", "22,530 and 5,635"),
        ("ccrcc", "21,095 and 6,074"),
        ("esca", "the reverse"),
        ("breakhis", "patients and fields are on both sides"),
        ("crc_msi", "2530835"),
        ("pancancer_til", "links"),
        ("pancancer_tcga", "Six resolutions"),
        ("morphopercept_bench", "proposed here"),
        ("cytocell_bench", "proposed here"),
    ],
)
def test_where_protocols_differ_a_trap_says_so(name, said):
    assert said in " ".join(adapter_named(name).traps)


@pytest.mark.parametrize("name", ["ccrcc", "crc_msi", "esca", "pancancer_til", "chaoyang"])
def test_a_licence_that_nobody_verified_is_said_to_be(name):
    adapter = adapter_named(name)
    assert "not verified" in adapter.licence
    assert adapter.use == "research"
