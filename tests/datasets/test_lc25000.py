"""LC25000 in both layouts: as the archive unpacks, and as class folders alone."""

import numpy as np
import pytest
from PIL import Image

FILES = {
    "lung_aca/lungaca1": "lung",
    "lung_n/lungn1": "lung",
    "lung_scc/lungscc1": "lung",
    "colon_aca/colonca1": "colon",
    "colon_n/colonn1": "colon",
}


def draw(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)).save(path)


@pytest.mark.parametrize("above", ["lung_colon_image_set/{}_image_sets/", "{}_image_sets/", ""])
def test_ids_are_the_same_in_every_layout(contract, above):
    def build(folder):
        for seed, (name, organ) in enumerate(FILES.items()):
            draw(folder / above.format(organ) / f"{name}.jpeg", seed)
        draw(folder / above.format("lung") / "lung_other/x.jpeg", 9)

    samples = contract("lc25000", build, FILES, {"lung_other/x": "lies in 'lung_other'"})
    assert {name: sample.organ for name, sample in samples.items()} == FILES
    sample = samples["lung_scc/lungscc1"]
    assert sample.options[sample.answer.index] == "lung squamous cell carcinoma"
    assert len(sample.options) == 3, "a lung image is never asked about the colon"


def test_the_expected_folder_is_named_where_it_was_renamed(contract):
    def build(folder):
        draw(folder / "lung_colon_image_set/lung_image_sets/lung_n/lungn1.jpeg", 1)

    contract("lc25000", build, {"lung_n/lungn1": "lung"}, needed=("lung_colon_image_set",))
