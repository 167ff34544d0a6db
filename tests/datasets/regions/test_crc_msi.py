import pytest

from malpighi.datasets.catalogue import adapter_named
from malpighi.errors import DataError
from malpighi.records import Choice, Split

A, B, C = (f"TCGA-{code}-01Z-00-DX1" for code in ("AA-3692", "CM-4743", "G4-6302"))


def test_the_layout_with_its_traps(contract, write):
    def build(folder):
        write(folder, f"TRAIN/MSIH/blk-AAAA-{A}_x1.png")
        write(folder, f"TRAIN/nonMSIH/blk-AAAB-{B}_x1.png")
        write(folder, f"TEST/nonMSIH/blk-AAAC-{C}_x1.png")
        write(folder, f"TEST/nonMSIH/blk-AAAD-{B}_x9.png")
        write(folder, "TEST/nonMSIH/tile_7.png")
        write(folder, f"TRAIN/MSS/blk-AAAE-{C}_x1.png")

    samples = contract(
        "crc_msi",
        build,
        dict.fromkeys(
            (
                f"TRAIN/MSIH/blk-AAAA-{A}_x1",
                f"TRAIN/nonMSIH/blk-AAAB-{B}_x1",
                f"TEST/nonMSIH/blk-AAAC-{C}_x1",
                f"TEST/nonMSIH/blk-AAAD-{B}_x9",
            ),
            "class",
        ),
        {
            "TEST/MSIH": "no folder",
            "TEST/nonMSIH/tile_7": "no TCGA barcode",
            f"TRAIN/MSS/blk-AAAE-{C}_x1": "expected one of MSIH",
        },
    )
    assert samples[f"TRAIN/MSIH/blk-AAAA-{A}_x1"].split == Split.TRAIN
    assert samples[f"TRAIN/MSIH/blk-AAAA-{A}_x1"].answer == Choice(0)
    assert samples[f"TEST/nonMSIH/blk-AAAC-{C}_x1"].split == Split.TEST
    both = samples[f"TRAIN/nonMSIH/blk-AAAB-{B}_x1"]
    assert (both.group, both.split) == ("TCGA-CM-4743", Split.TEST), "a patient in both folders is test"


def test_the_record_of_2019_is_told_apart(tmp_path, write):
    write(tmp_path, f"CRC_DX_TRAIN/MSIMUT/blk-AAAA-{A}.png")
    with pytest.raises(DataError, match=r"TRAIN or TEST; found CRC_DX_TRAIN"):
        list(adapter_named("crc_msi").read(tmp_path))
