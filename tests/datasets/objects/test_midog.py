import pytest

from malpighi.datasets.catalogue import adapter_named
from malpighi.datasets.windows import Window, cut
from malpighi.errors import DataError

MITOTIC = "breast_cancer_mitotic_figures"
OTHER = "breast_cancer_non-mitotic_figures"
SIZE = (140, 120)


def notes(images, marks):
    return {
        "info": {},
        "images": [{"id": int(name), "file_name": f"{name}.tiff", "width": SIZE[0]} for name in images],
        "categories": [{"id": 1, "name": "mitotic figure"}, {"id": 2, "name": "hard negative"}],
        "annotations": [
            {"id": i, "image_id": int(name), "category_id": kind, "bbox": box}
            for i, (name, kind, box) in enumerate(marks)
        ],
    }


def build(tree, index="MIDOG2022_training.json"):
    def write(folder):
        present = ["001", "002", "150", "151", "299", "300", "353", "354", "355"]
        for name in present:
            tree.image(folder / f"midog2/images/{name}.tiff", SIZE)
        tree.image(folder / "midog2/images/007.tiff", SIZE)
        marks = [(name, 1, [10, 20, 60, 70]) for name in present if name != "150"]
        marks += [("001", 2, [80, 60, 130, 110]), ("001", 1, [100, 20, 150, 70])]
        marks += [("002", 1, [60, 60, 50, 50]), ("002", 3, [1, 1, 51, 51]), ("002", 2, ["a", 1, 2, 3])]
        tree.json(folder / "midog2" / index, notes([*present, "149"], marks))

    return write


def breast(name, *kinds):
    for kind, exams in kinds:
        yield from ((f"{name}:{exam}:{kind}", exam) for exam in exams)


SHOWN, NOT_SHOWN = ("detection", "segmentation-of-boxes"), ("absent",)
BREAST = dict(
    [
        *breast("001", (MITOTIC, SHOWN), (OTHER, SHOWN)),
        *breast("002", (MITOTIC, SHOWN), (OTHER, NOT_SHOWN)),
        *breast("150", (MITOTIC, NOT_SHOWN), (OTHER, NOT_SHOWN)),
    ]
)
FAILURES = {
    "002#2": "x0, y0, x1, y1",
    "002#3": "category 3",
    "002#4": "'a'",
    "007": "does not name it",
    "149": "no such image",
}


def test_breast_follows_the_contract(contract, tree, corners):
    samples = contract("midog_breast", build(tree), BREAST, FAILURES, ["midog2/images"])
    assert samples[f"001:detection:{MITOTIC}"].group == "001"


def test_boxes_are_corners_and_look_alikes_are_no_targets(items, tree, tmp_path, corners):
    build(tree)(tmp_path)
    found, _ = items("midog_breast", tmp_path)
    assert corners(found[f"001:detection:{MITOTIC}"]) == [(10, 20, 60, 70), (100, 20, 140, 70)]
    assert corners(found[f"001:detection:{OTHER}"]) == [(80, 60, 130, 110)]
    assert found[f"001:detection:{MITOTIC}"].sample.question.startswith(
        "Detect breast cancer mitotic figures"
    )


def test_neuroendocrine_holds_both_ends_of_its_range(contract, tree):
    kinds = [f"neuroendocrine_tumor_{kind}" for kind in ("mitotic_figures", "non-mitotic_figures")]
    expected = [
        pair
        for name in ("300", "353", "354")
        for pair in breast(name, (kinds[0], SHOWN), (kinds[1], NOT_SHOWN))
    ]
    contract("midog_neuroendocrine", build(tree, "MIDOG.json"), dict(expected), needed=["midog2/images"])


def test_the_index_is_missed_by_name(items, tree, tmp_path):
    build(tree)(tmp_path)
    path = tmp_path / "midog2/MIDOG2022_training.json"
    path.rename(path.with_suffix(".bak"))
    with pytest.raises(DataError, match=r"MIDOG2022_training\.json"):
        items("midog_breast", tmp_path)


@pytest.mark.parametrize("index", ["{", "[]", '{"images": []}', '{"images": [{"id": 1}], "annotations": []}'])
def test_an_index_of_another_form_is_refused(items, tree, tmp_path, index):
    build(tree)(tmp_path)
    tree.write(tmp_path / "midog2/MIDOG2022_training.json", index)
    with pytest.raises(DataError, match="MIDOG"):
        items("midog_breast", tmp_path)


def test_windows_cut_boxes_and_ask_for_what_is_not_there(items, tree, tmp_path, corners):
    build(tree)(tmp_path)
    found, _ = items("midog_breast", tmp_path)
    pieces = {p.sample.id.split("@")[1]: p for p in cut(found[f"001:detection:{OTHER}"], Window(70, 60, 60))}
    assert corners(pieces["70,60"]) == [(10, 0, 60, 50)]
    assert pieces["0,0"].sample.exam == "midog_breast/absent"
    published = list(cut(found[f"001:detection:{OTHER}"], Window(70, 60, 60, keep_empty=False)))
    assert {p.sample.exam for p in published} == {"midog_breast/detection"}
    masks = list(cut(found[f"001:segmentation-of-boxes:{OTHER}"], Window(70, 60, 60)))
    assert {p.sample.exam for p in masks} == {"midog_breast/segmentation-of-boxes"}
    assert adapter_named("midog_breast").window == 1024
