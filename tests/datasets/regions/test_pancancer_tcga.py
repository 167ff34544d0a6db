from malpighi.datasets.regions.pancancer_tcga import FOLDERS
from malpighi.records import Choice, option_label

TILES = {
    "Adrenocortical_carcinoma": "TCGA-OR-A5J1-01Z-00-DX1",
    "Lymphoid_Neoplasm_Diffuse_Large_B-cell_Lymphoma": "TCGA-FF-8041-01Z-00-DX1",
    "Uveal_Melanoma": "TCGA-V4-A9E5-01Z-00-DX1",
}


def test_the_layout_with_its_traps(contract, write):
    def build(folder):
        for label, slide in TILES.items():
            for level in range(6):
                write(folder, f"{label}/{level}/{slide}/{level}-0.jpg")
        write(folder, "Thymoma/1/TCGA-X7-A8D6-01Z/1-0.jpg")
        write(folder, "Uveal_Melanoma/0/TCGA-V4-A9E5-01Z-00-DX2/0-1.jpg")
        write(folder, "Uveal_Melanoma/0/slide/0-0.jpg")
        write(folder, "Normal_tissue/0/TCGA-X7-A8D6-01Z/0-0.jpg")
        write(folder, ".cache/0/x.jpg")

    absent = [f"{label}/0" for label in FOLDERS if label not in TILES]
    samples = contract(
        "pancancer_tcga",
        build,
        {
            **{f"{label}/0/{slide}/0-0": "class" for label, slide in TILES.items()},
            "Uveal_Melanoma/0/TCGA-V4-A9E5-01Z-00-DX2/0-1": "class",
        },
        {
            **dict.fromkeys(absent, "no folder"),
            "Uveal_Melanoma/0/slide/0-0": "no TCGA barcode",
            "Normal_tissue": "32 classes",
        },
    )
    last = samples["Uveal_Melanoma/0/TCGA-V4-A9E5-01Z-00-DX1/0-0"]
    assert last.answer == Choice(31)
    assert option_label(31) == "AF"
    assert last.options[16] == "Lymphoid Neoplasm Diffuse Large B-cell Lymphoma"
    assert list(last.options) == sorted(last.options)
    assert last.group == samples["Uveal_Melanoma/0/TCGA-V4-A9E5-01Z-00-DX2/0-1"].group == "TCGA-V4-A9E5"
