import io
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from malpighi.errors import DataError
from malpighi.guidelines.pack import load_pack
from malpighi.phantom.generate import cell_items, region_items
from malpighi.phantom.regions import TISSUES
from malpighi.phantom.sampling import choose_questions, draw_cell
from malpighi.phantom.sheet import sheet
from malpighi.records import Boxes, Choice, MaskRef, Scale, TaskKind, Text, to_json

TBS = load_pack("tbs")


@pytest.fixture(scope="module")
def cells():
    return list(cell_items(1, 60))


@pytest.fixture(scope="module")
def regions():
    return list(region_items(1, 45))


def pixels(item, key=None):
    blob = next(b for b in item.blobs if b.key == (key or item.sample.images[0].key))
    return np.asarray(Image.open(io.BytesIO(blob.data)))


def test_items_are_the_same_again_and_do_not_depend_on_how_many_are_asked_for(cells, regions):
    assert [to_json(i.sample) for i in cell_items(1, 3)] == [to_json(i.sample) for i in cells[:18]]
    assert [i.blobs for i in region_items(1, 3)] == [i.blobs for i in regions[:3]]
    assert next(iter(cell_items(2, 1))).blobs != cells[0].blobs


def test_ids_are_unique_and_pictures_match_their_references(cells, regions):
    items = cells + regions
    assert len({i.sample.id for i in items}) == len(items)
    for item in items:
        (ref,) = item.sample.images
        assert pixels(item).shape == (ref.size[1], ref.size[0], 3)
        assert ref.mpp is not None
        assert item.sample.licence == "Apache-2.0 (generated)"


def test_the_category_is_the_packs_decision_on_the_findings_in_the_facts(cells):
    found = [i.sample for i in cells if i.sample.exam == "phantom/category"]
    counts = Counter(s.options[s.answer.index] for s in found)

    assert {s.options for s in found} == {("NILM", "ASC-US", "LSIL", "ASC-H", "HSIL", "AGC")}
    assert set(counts.values()) == {10}
    for s in found:
        category = TBS.category(s.facts["findings"], s.facts["cell_class"])
        assert s.options[s.answer.index] == category
        assert s.reasoning.endswith(f"This entails {category}.")
        assert len(s.reasoning.split()) <= 35


def test_observation_answers_follow_from_the_facts_and_the_pack_words_the_questions(cells):
    asked = [i.sample for i in cells if i.sample.exam.rpartition("/")[2] in TBS.codes]
    assert len(asked) == 120
    for s in asked:
        code = s.exam.rpartition("/")[2]
        assert s.question == TBS.observation(code).question
        assert s.options[s.answer.index] == ("yes" if s.facts["findings"][code] else "no")
        assert s.reasoning


def test_questions_cover_all_observations_with_both_answers_equally_often():
    rng = np.random.default_rng(0)
    names = [c.id for c in TBS.definition.categories]
    asked = Counter()
    for k in range(3000):
        findings = draw_cell(TBS, names[k % 6], rng).findings
        asked.update((code, findings[code]) for code in choose_questions(TBS, findings, 2, rng))
    shares = np.array([asked[code, answer] for code in TBS.codes for answer in (False, True)]) / 6000
    assert len(set(asked)) == 18
    assert shares.min() > 0.6 / 18
    assert shares.max() < 1.6 / 18


def test_descriptions_say_each_finding_as_it_is(cells):
    words = {"NE": " enlarged", "NH": " dark", "NA": "elongated", "CT": "coarse chromatin",
             "NM": "irregular membrane", "NU": "visible nucleolus", "NCR": "raised N:C ratio",
             "KO": "koilocytic halo", "NC": " nuclei"}  # fmt: skip
    texts = {
        i.sample.answer.value: i.sample.facts["findings"] for i in cells if i.sample.task is TaskKind.CAPTION
    }
    assert len(texts) > 40
    for text, findings in texts.items():
        assert {code for code, word in words.items() if word in f" {text.lower()}".replace("n:c", "N:C")} == {
            code for code, there in findings.items() if there
        }, text


def test_open_answers_are_short_text(cells):
    found = [i.sample for i in cells if i.sample.exam == "phantom/open"]
    assert len(found) == 60
    assert all(
        isinstance(s.answer, Text) and not s.options and len(s.answer.value.split()) <= 4 for s in found
    )
    assert len({s.answer.value for s in found}) > 4


def test_no_observations_may_be_asked(cells):
    exams = [i.sample.exam for i in cell_items(1, 2, observations=0)]
    each = ["phantom/category", "phantom/describe", "phantom/open"]
    assert exams == [*each, "phantom/nucleus", *each, "phantom/cell"]


def test_the_nuclei_asked_for_are_those_of_the_cell_in_the_middle(cells):
    found = [i.sample for i in cells if i.sample.exam == "phantom/nucleus"]
    assert len(found) == 30
    for s in found:
        assert len(s.answer.boxes) == int(s.facts["measured"]["NC"])
        assert all(0 <= v <= 128 for box in s.answer.boxes for v in box.corners)
        middle = np.mean([box.corners for box in s.answer.boxes], axis=0)
        assert np.hypot(middle[[0, 2]].mean() - 64, middle[[1, 3]].mean() - 64) < 32


def test_the_mask_of_a_cell_holds_its_nucleus_and_has_its_box(cells):
    found = [i for i in cells if i.sample.exam == "phantom/cell"]
    assert len(found) == 30
    for item in found:
        mask = pixels(item, item.sample.answer.key)
        rows, columns = np.nonzero(mask)
        (box,) = item.sample.answer.boxes
        assert set(np.unique(mask)) == {0, 1}
        assert box.corners == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert mask[56:72, 56:72].mean() > 0.5


def test_a_group_is_a_patient_of_twelve_pictures(cells, regions):
    pictures = {(i.sample.group, i.sample.images[0].key) for i in cells + regions}
    sizes = Counter(group for group, _ in pictures)
    assert sizes == {f"phantom/1/p{k:04d}": 12 for k in range(5)} | {
        f"phantom/1/r{k:04d}": 12 for k in range(3)
    } | {"phantom/1/r0003": 9}


def test_regions_come_in_turn_with_their_answers(regions):
    kinds = {"phantom/nuclei": Boxes, "phantom/glands": MaskRef, "phantom/tissue": Choice}
    assert [i.sample.exam for i in regions] == list(kinds) * 15
    assert all(isinstance(i.sample.answer, kinds[i.sample.exam]) for i in regions)
    assert all(i.sample.scale is Scale.ROI for i in regions)


def test_there_are_one_to_three_targets_and_the_question_names_them(regions):
    for item in regions[::3]:
        s = item.sample
        assert 1 <= len(s.answer.boxes) <= 3
        assert len(s.answer.boxes) == s.facts["counts"][s.facts["target"]]
        assert s.facts["target"] in s.question


def test_the_mask_of_the_glands_is_in_the_item_and_has_their_boxes(regions):
    for item in regions[1::3]:
        mask = pixels(item, item.sample.answer.key)
        assert mask.shape == (224, 224)
        for number, box in enumerate(item.sample.answer.boxes, start=1):
            rows, columns = np.nonzero(mask == number)
            assert box.corners == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert mask.max() == len(item.sample.answer.boxes)


def test_the_tissue_is_one_of_the_options(regions):
    answers = [i.sample.options[i.sample.answer.index] for i in regions[2::3]]
    assert {i.sample.options for i in regions[2::3]} == {TISSUES}
    assert all(answers.count(tissue) == 3 for tissue in TISSUES)
    assert answers == [i.sample.facts["tissue"] for i in regions[2::3]]


def test_a_sheet_shows_every_item_and_draws_boxes(cells, regions):
    page = sheet([cells[0], regions[0], regions[1]], columns=2, cell=100, lines=3)
    assert page.size == (2 * 106, 2 * (100 + 33 + 6))
    assert (np.asarray(page) == (0, 190, 0)).all(axis=-1).any()
    assert not (np.asarray(sheet([cells[0]])) == (0, 190, 0)).all(axis=-1).any()


def test_a_sheet_of_nothing_is_refused():
    with pytest.raises(DataError, match="at least one"):
        sheet([])
