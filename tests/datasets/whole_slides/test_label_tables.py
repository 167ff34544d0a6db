"""Slides named by a table of labels: the TCGA cohorts, and CPTAC with and without a table."""

import pytest

from malpighi.datasets.catalogue import adapter_named
from malpighi.records import Choice, Failure, Scale

pytest.importorskip("openslide", reason="needs the extra `slides`")

ROWS = """dir,case_id,slide_id,label
BRCA,TCGA-A2-A0CM,TCGA-A2-A0CM-01Z-00-DX1.AA,Invasive ductal carcinoma
BRCA,TCGA-A2-A0CM,TCGA-A2-A0CM-01Z-00-DX2,invasive lobular CARCINOMA
BRCA,TCGA-A2-A0CN,TCGA-A2-A0CN-01Z-00-DX1,Invasive papillary carcinoma
u5,TCGA-A2-A0CP,TCGA-A2-A0CP-01Z-00-DX1,Invasive ductal carcinoma
BRCA,TCGA-A2-A0CQ,TCGA-A2-A0CQ-01Z-00-DX1.svs,Invasive ductal carcinoma
BRCA,TCGA-A2-A0CR,TCGA-A2-A0CR-01Z-00-DX1,Phyllodes tumour
BRCA,,TCGA-A2-A0CS-01Z-00-DX1,Invasive ductal carcinoma
BRCA,TCGA-A2-A0CT,TCGA-A2-A0CT-01Z-00-DX1,Invasive ductal carcinoma
"""


def test_tcga_slides_are_found_by_name_or_barcode(contract, slide):
    def build(folder):
        (folder / "labels.csv").write_text(ROWS)
        slide(folder / "u1/TCGA-A2-A0CM-01Z-00-DX1.AA.svs", 1)
        slide(folder / "u2/TCGA-A2-A0CM-01Z-00-DX2.BB.svs", 2)
        slide(folder / "u3/TCGA-A2-A0CN-01Z-00-DX1.CC.svs", 3)
        slide(folder / "u3/._TCGA-A2-A0CN-01Z-00-DX1.CC.svs", 3)
        slide(folder / "u4/TCGA-A2-A0CP-01Z-00-DX1.DD.svs", 4)
        slide(folder / "u5/TCGA-A2-A0CP-01Z-00-DX1.EE.svs", 5)
        slide(folder / "u6/TCGA-A2-A0CT-01Z-00-DX1.FF.svs", 6)
        (folder / "u6/TCGA-A2-A0CT-01Z-00-DX1.FF.svs").write_bytes(b"broken")

    samples = contract(
        "tcga_brca",
        build,
        {
            "TCGA-A2-A0CM-01Z-00-DX1.AA": "class",
            "TCGA-A2-A0CM-01Z-00-DX2": "class",
            "TCGA-A2-A0CN-01Z-00-DX1": "class",
            "TCGA-A2-A0CP-01Z-00-DX1": "class",
        },
        {
            "TCGA-A2-A0CQ-01Z-00-DX1.svs": "no slide",
            "TCGA-A2-A0CR-01Z-00-DX1": "Phyllodes",
            "TCGA-A2-A0CS-01Z-00-DX1": "case_id",
            "TCGA-A2-A0CT-01Z-00-DX1": "cannot be read as a slide",
        },
        needed=("labels.csv",),
    )
    first = samples["TCGA-A2-A0CM-01Z-00-DX1.AA"]
    assert (first.group, first.scale, first.answer) == ("TCGA-A2-A0CM", Scale.SLIDE, Choice(0))
    assert first.images[0].unmade
    assert first.images[0].slide == "u1/TCGA-A2-A0CM-01Z-00-DX1.AA.svs"
    assert samples["TCGA-A2-A0CM-01Z-00-DX2"].answer == Choice(1)
    assert samples["TCGA-A2-A0CP-01Z-00-DX1"].images[0].slide.startswith("u5/")  # settled by `dir`


def test_slides_in_records_can_be_relative_to_a_folder_above(tmp_path, slide):
    slide(tmp_path / "tcga_brca/u1/TCGA-A2-A0CM-01Z-00-DX1.AA.svs")
    (tmp_path / "tcga_brca/labels.csv").write_text("\n".join(ROWS.splitlines()[:2]))
    read = adapter_named("tcga_brca").read
    (below,) = read(tmp_path / "tcga_brca")
    (above,) = read(tmp_path / "tcga_brca", root=tmp_path)
    (elsewhere,) = read(tmp_path / "tcga_brca", root=tmp_path / "other")
    places = [item.sample.images[0].slide for item in (below, above, elsewhere)]
    assert places[0] == "u1/TCGA-A2-A0CM-01Z-00-DX1.AA.svs"
    assert places[1] == f"tcga_brca/{places[0]}"
    assert places[2] == str(tmp_path / places[1])
    assert len({item.sample.images[0].key for item in (below, above, elsewhere)}) == 1


@pytest.mark.parametrize(
    ("name", "last", "number"),
    [
        ("tcga_brca", "Invasive micropapillary carcinoma", 5),
        ("tcga_coad", "Signet ring cell carcinoma", 5),
        ("tcga_hnsc", "Non-invasive squamous carcinoma", 4),
        ("tcga_lgg", "Glioblastoma multiforme", 4),
        ("tcga_luad", "Solid", 5),
        ("tcga_lusc", "Verrucous squamous cell carcinoma", 4),
    ],
)
def test_the_cohorts_have_the_published_options(contract, slide, name, last, number):
    def build(folder):
        slide(folder / "TCGA-A2-A0CM-01Z-00-DX1.svs")
        (folder / "labels.csv").write_text(
            f"dir,case_id,slide_id,label\n,TCGA-A2-A0CM,TCGA-A2-A0CM-01Z-00-DX1,{last}\n"
            ",TCGA-A2-A0CN,TCGA-A2-A0CN-01Z-00-DX1,Phyllodes\n"
        )

    (sample,) = contract(
        name,
        build,
        {"TCGA-A2-A0CM-01Z-00-DX1": "class"},
        {"TCGA-A2-A0CN-01Z-00-DX1": "Phyllodes"},
        needed=("labels.csv",),
    ).values()
    assert len(sample.options) == number
    assert sample.options[sample.answer.index] == last


def test_ambiguous_names_and_wrong_barcodes_are_failures(tmp_path, slide):
    folder = tmp_path / "tcga_brca"
    slide(folder / "u1/TCGA-A2-A0CM-01Z-00-DX1.AA.svs", 1)
    slide(folder / "u2/TCGA-A2-A0CM-01Z-00-DX1.BB.svs", 2)
    slide(folder / "u2/TCGA-A2-A0CN-01Z-00-DX1.svs", 3)
    (folder / "labels.csv").write_text(
        "dir,case_id,slide_id,label\n,c1,TCGA-A2-A0CM-01Z-00-DX1,Invasive ductal carcinoma\n"
        ",c2,TCGA-A2-A0CN-01Z-00-DX1,Invasive ductal carcinoma\n"
    )
    found = list(adapter_named("tcga_brca").read(folder))
    failure = next(one for one in found if isinstance(one, Failure))
    assert "2 slides are named" in failure.reason
    assert "u1/TCGA-A2-A0CM-01Z-00-DX1.AA.svs" in failure.reason


def test_cptac_by_folder(contract, slide):
    def build(folder):
        slide(folder / "LUAD/C3L-00001-21.svs", 1)
        slide(folder / "LUAD/C3L-00001-26.svs", 2)
        slide(folder / "LSCC/C3N-00002-22.svs", 3)
        slide(folder / "LSCC/overview.png", 4)
        slide(folder / "LSCC/C3N-00003-22.svs", 3)

    samples = contract(
        "cptac_nsclc",
        build,
        dict.fromkeys(("C3L-00001-21", "C3L-00001-26", "C3N-00002-22"), "class"),
        {"overview": "C3L-03976-27", "C3N-00003-22": "same bytes"},
        needed=("LUAD", "LSCC"),
    )
    assert [s.answer for s in samples.values()] == [Choice(0), Choice(0), Choice(1)]
    assert samples["C3L-00001-21"].group == samples["C3L-00001-26"].group == "C3L-00001"


def test_cptac_by_table_leaves_out_normal_slides(contract, slide):
    def build(folder):
        slide(folder / "LUAD/C3L-00001-21.svs", 1)
        slide(folder / "LUAD/C3L-00001-26.svs", 2)
        slide(folder / "LSCC/C3N-00002-22.svs", 3)
        (folder / "labels.csv").write_text(
            "dir,case_id,slide_id,label\nLUAD,C3L-00001,C3L-00001-21,LUAD\n"
            "LSCC,C3N-00002,C3N-00002-22,Lung squamous cell carcinoma\n"
        )

    samples = contract("cptac_nsclc", build, dict.fromkeys(("C3L-00001-21", "C3N-00002-22"), "class"))
    assert samples["C3N-00002-22"].options == ("Lung adenocarcinoma", "Lung squamous cell carcinoma")
