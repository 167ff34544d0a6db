import numpy as np

from malpighi.datasets.objects.nucls import field_of_view
from malpighi.pixels import decode_image
from malpighi.records import Split

HEADER = (
    "raw_classification,main_classification,super_classification,type,xmin,ymin,xmax,ymax,coords_x,coords_y\n"
)
SIZE = (70, 60)
FIELD = (10, 5, 60, 50)


def stem(patient, number=1):
    return f"{patient}-DX1_id-5ea40{number}_left-7053_top-53967_bottom-54231_right-7311"


def square(kind, x0, y0, x1, y1, shape="polyline"):
    points = f'"{x0},{x1},{x1},{x0}","{y0},{y0},{y1},{y1}"' if shape == "polyline" else ","
    return f"{kind},other,other,{shape},{x0},{y0},{x1},{y1},{points}\n"


ROWS = (
    square("tumor", 20, 10, 30, 20)
    + square("tumor", 0, 10, 12, 20)  # two of twelve columns lie in the field
    + square("lymphocyte", 40, 30, 50, 40)
    + square("lymphocyte", 55, 30, 63, 40, "rectangle")
    + square("myoepithelium", 20, 30, 30, 40)
    + square("unlabeled", 20, 30, 30, 40)
    + square("fov", 10, 5, 60, 50, "rectangle")
)


def mask_image(painted, field=FIELD, code=253, size=SIZE):
    labels = painted(size, (code, *field), (1, field[0] + 10, field[1] + 5, field[0] + 20, field[1] + 15))
    return np.dstack([labels, labels * 0 + 1, labels * 0 + 7])


def build(tree, painted):
    def write(folder):
        root = folder / "NuCLS"
        for patient in ("TCGA-A1-A0SP", "TCGA-BH-A0AB"):
            name = stem(patient)
            tree.image(root / f"QC/rgb/{name}.png", SIZE)
            tree.write(root / f"QC/csv/{name}.csv", HEADER + ROWS)
            tree.pixels(root / f"QC/mask/{name}.png", mask_image(painted))
            tree.image(root / f"QC/visualization/{name}.png", SIZE)
        bad = stem("TCGA-BH-A0AB", 2)
        tree.image(root / f"QC/rgb/{bad}.png", SIZE)
        rows = (
            square("alien", 20, 10, 30, 20)
            + square("tumor", 30, 10, 20, 20)
            + square("tumor", 20, 10, 30, 20)
        )
        tree.write(root / f"QC/csv/{bad}.csv", HEADER + rows + "tumor,o,o,polyline,20,30,30,40,1,2\n")
        tree.pixels(root / f"QC/mask/{bad}.png", mask_image(painted))
        lone = stem("TCGA-BH-A0AB", 3)
        tree.image(root / f"QC/rgb/{lone}.png", SIZE)
        tree.image(root / "QC/rgb/nameless.png", SIZE)
        tree.write(root / "QC/csv/nameless.csv", HEADER)
        tree.write(root / "train_test_splits/fold_1_train.csv", ",slide_name\n0,TCGA-BH-A0AB-DX1\n")
        tree.write(root / "train_test_splits/fold_1_test.csv", ",slide_name\n0,TCGA-A1-A0SP-DX1\n")

    return write


ABSENT = [
    *("fibroblasts", "plasma_cells", "macrophages", "mitotic_figures", "vascular_endothelium"),
    *("apoptotic_bodies", "neutrophils", "ductal_epithelium"),
]


def samples():
    for name in (stem("TCGA-A1-A0SP"), stem("TCGA-BH-A0AB"), stem("TCGA-BH-A0AB", 2)):
        yield f"{name}:detection:tumor_cells", "detection"
        yield f"{name}:segmentation:tumor_cells", "segmentation"
        kinds = list(ABSENT)
        if name.startswith("TCGA-BH") and "402_" in name:
            kinds.append("lymphocytes")
        else:
            yield f"{name}:detection:lymphocytes", "detection"
            yield f"{name}:segmentation-of-boxes:lymphocytes", "segmentation-of-boxes"
        for kind in kinds:
            yield f"{name}:absent:{kind}", "absent"


def test_nucls_follows_the_contract(contract, tree, painted):
    bad = stem("TCGA-BH-A0AB", 2)
    found = contract(
        "nucls",
        build(tree, painted),
        dict(samples()),
        {
            f"{bad}#1": "alien",
            f"{bad}#2": "without extent",
            f"{bad}#4": "outline of 1 points",
            stem("TCGA-BH-A0AB", 3): "in csv",
            "nameless": "TCGA-XX-XXXX",
        },
        [f"NuCLS/QC/{part}" for part in ("rgb", "csv", "mask")],
    )
    assert found[f"{stem('TCGA-A1-A0SP')}:detection:tumor_cells"].split == Split.TEST
    assert found[f"{stem('TCGA-BH-A0AB')}:detection:tumor_cells"].split == Split.TRAIN
    assert found[f"{bad}:detection:tumor_cells"].group == "TCGA-BH-A0AB"


def test_images_are_cut_to_the_field_and_boxes_with_them(items, tree, painted, tmp_path, corners, mask_of):
    build(tree, painted)(tmp_path)
    found, _ = items("nucls", tmp_path)
    item = found[f"{stem('TCGA-A1-A0SP')}:detection:tumor_cells"]
    whole = np.random.default_rng(1).integers(0, 256, (60, 70, 3), np.uint8)
    assert item.sample.images[0].size == (50, 45)
    assert np.array_equal(np.asarray(decode_image(item.blobs[0].data)), whole[5:50, 10:60])
    assert corners(item) == [(10, 5, 20, 15)]
    lymphocytes = found[f"{stem('TCGA-A1-A0SP')}:segmentation-of-boxes:lymphocytes"]
    detection = found[f"{stem('TCGA-A1-A0SP')}:detection:lymphocytes"]
    assert corners(detection) == [(30, 25, 40, 35), (45, 25, 50, 35)]
    mask = mask_of(lymphocytes)
    assert set(np.unique(mask)) == {0, 1, 2}
    assert mask[30, 35] == 1
    assert mask[30, 47] == 2


def test_the_field_of_view(painted):
    assert field_of_view(mask_image(painted), SIZE) == FIELD
    assert field_of_view(mask_image(painted, code=255), SIZE) == FIELD
    assert field_of_view(mask_image(painted, code=99), SIZE) == (0, 0, *SIZE)
    smaller = mask_image(painted, field=(0, 0, 69, 59), size=(69, 59))
    assert field_of_view(smaller, SIZE) == (0, 0, 69, 59)


def test_without_lists_our_rule_splits_by_patient(items, tree, painted, tmp_path):
    build(tree, painted)(tmp_path)
    (tmp_path / "NuCLS/train_test_splits").rename(tmp_path / "NuCLS/elsewhere")
    found, _ = items("nucls", tmp_path)
    assert {item.sample.split for item in found.values()} == {Split.TRAIN, Split.TEST}
