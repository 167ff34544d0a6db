import numpy as np
import pytest
from PIL import Image

from malpighi.records import Split

SIZE = (44, 36)
TUMOR, STROMA, NORMAL, WHITE = (0, 64, 128), (64, 128, 0), (243, 152, 0), (255, 255, 255)
SINGLE, SEVERAL = "1031280-2300-27920-[1, 0, 0]", "1031280-2300-27921-[1, 1, 0]"


def palettised(labels, colours):
    image = Image.fromarray(labels)
    image.putpalette([value for colour in colours for value in colour])
    return image


def build(tree, painted):
    def write(folder):
        root = folder / "WSSS4LUAD"
        regions = (("tumor", 0, 0, 20, 20), ("stroma", 20, 0, 44, 20), ("white", 0, 20, 44, 36))
        palettes = {
            "00": (["tumor", "stroma", "normal", "white"], [TUMOR, STROMA, NORMAL, WHITE]),
            "01": (["white", "tumor", "stroma", "normal"], [WHITE, TUMOR, STROMA, NORMAL]),
        }
        for part in ("2.validation", "3.testing"):
            for stem, (order, colours) in palettes.items():
                tree.image(root / part / f"img/{stem}.png", SIZE)
                labels = painted(SIZE, *((order.index(kind), *box) for kind, *box in regions))
                tree.pixels(root / part / f"mask/{stem}.png", palettised(labels, colours))
                white = painted(SIZE, (255, 0, 20, 44, 36), (255, 0, 0, 20, 4))
                tree.pixels(root / part / f"background-mask/{stem}.png", white)
        tree.image(root / "2.validation/img/02.png", SIZE)
        tree.image(root / "3.testing/img/03.png", SIZE)
        tree.pixels(root / "3.testing/mask/03.png", painted(SIZE, (9, 0, 0, 9, 9)))
        for stem in (SINGLE, SEVERAL, "436953-10,2-[0, 0, 1]", "odd"):
            tree.image(root / f"1.training/{stem}.png", SIZE)

    return write


def samples():
    for part in ("2.validation", "3.testing"):
        for stem in ("00", "01"):
            for kind in ("tumor_epithelial_tissue", "tumor-associated_stroma_tissue"):
                for exam in ("detection", "segmentation"):
                    yield f"{part}/{stem}:{exam}:{kind}", exam
            yield f"{part}/{stem}:absent:normal_tissue", "absent"


def test_wsss4luad_follows_the_contract(contract, tree, painted):
    found = contract(
        "wsss4luad",
        build(tree, painted),
        dict(samples()),
        {"2.validation/02": "no 02", "3.testing/03": "colour"},
        [f"WSSS4LUAD/2.validation/{kind}" for kind in ("img", "mask", "background-mask")],
    )
    assert found["2.validation/00:absent:normal_tissue"].split == Split.VALIDATION
    assert found["3.testing/00:absent:normal_tissue"].split == Split.TEST
    assert not any(name.startswith("1.training") for name in found), "training images have no masks"


@pytest.mark.parametrize("stem", ["00", "01"])
def test_palettes_are_read_by_colour_and_the_background_left_out(
    items, tree, painted, tmp_path, corners, mask_of, stem
):
    build(tree, painted)(tmp_path)
    found, _ = items("wsss4luad", tmp_path)
    tumor = found[f"2.validation/{stem}:segmentation:tumor_epithelial_tissue"]
    assert corners(tumor) == [(0, 4, 20, 20)]
    assert np.count_nonzero(mask_of(tumor)) == 16 * 20
    stroma = found[f"2.validation/{stem}:detection:tumor-associated_stroma_tissue"]
    assert corners(stroma) == [(20, 0, 44, 20)]


def test_without_masks_of_the_test_its_images_are_failures(items, tree, painted, tmp_path):
    build(tree, painted)(tmp_path)
    root = tmp_path / "WSSS4LUAD/3.testing"
    (root / "mask").rename(root / "elsewhere")
    found, failures = items("wsss4luad", tmp_path)
    assert {"3.testing/00", "3.testing/01", "3.testing/03"} <= set(failures)
    assert not any(name.startswith("3.testing") for name in found)
