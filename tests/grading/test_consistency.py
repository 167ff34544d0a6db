import itertools
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from malpighi.grading.consistency import categories_of, inconsistency, observations_in
from malpighi.grading.grade import Reading, grade
from malpighi.grading.rows import read_sample
from malpighi.guidelines.pack import load_pack
from malpighi.phantom.wording import category_reasoning, description, finding_reasoning
from malpighi.records import Text

TBS = load_pack("tbs")
CATEGORIES = ("NILM", "ASC-US", "LSIL", "ASC-H", "HSIL", "AGC")
ASKED = read_sample(
    json.dumps({"id": 1, "task": "classification", "options": CATEGORIES, "answer": "E"})
).sample
CELLS = [
    (dict(zip(TBS.codes, there, strict=True)), cell_class)
    for cell_class in TBS.cell_classes
    for there in itertools.product([False, True], repeat=len(TBS.codes))
]


def test_the_reasons_of_every_known_cell_entail_its_category_and_no_other():
    for findings, cell_class in CELLS:
        text = category_reasoning(TBS, findings, cell_class)
        right = TBS.category(findings, cell_class)
        assert inconsistency(text, right, TBS) == 0.0, text
        assert all(inconsistency(text, wrong, TBS) == 1.0 for wrong in CATEGORIES if wrong != right)


def test_every_description_is_read_back_whole():
    for findings, cell_class in CELLS:
        stated = observations_in(description(TBS, findings, cell_class, 2), TBS)
        present = {code for code, there in findings.items() if there}
        assert stated == (present, set(TBS.codes) - present, {cell_class})


@pytest.mark.parametrize("code", TBS.codes)
def test_evidence_states_its_observation(code):
    assert observations_in(finding_reasoning(code, present=True), TBS)[:2] == ({code}, set())
    assert observations_in(finding_reasoning(code, present=False), TBS)[:2] == (set(), {code})


@pytest.mark.parametrize("observation", TBS.definition.observations, ids=lambda o: o.code)
def test_every_phrase_of_the_pack_says_what_it_should(observation):
    for phrase in (observation.name, *observation.phrases.present):
        assert observations_in(f"There is {phrase}.", TBS)[:2] == ({observation.code}, set())
        assert observations_in(f"There is no {phrase}.", TBS)[:2] == (set(), {observation.code})
    for phrase in observation.phrases.absent:
        assert observations_in(phrase, TBS)[:2] == (set(), {observation.code})


@pytest.mark.parametrize(
    ("text", "present", "absent"),
    [
        ("No halo and enlarged nucleus", {"NE"}, {"KO"}),
        ("no halo or enlarged nucleus", set(), {"NE", "KO"}),
        ("neither enlarged nor dark", set(), {"NE", "NH"}),
        ("The nucleolus is not visible", set(), {"NU"}),
        ("Nucleoli are absent.", set(), {"NU"}),
        ("lacks a halo", set(), {"KO"}),
        ("an absence of a halo", set(), {"KO"}),
        ("The membrane isn't irregular", set(), {"NM"}),
        ("The nucleus is not round", {"NA"}, set()),
        ("N/C ratio is high", {"NCR"}, set()),
        ("nothing of note", set(), set()),
        ("a dark nucleus that is not dark", {"NH"}, {"NH"}),
    ],
)
def test_negation_is_read(text, present, absent):
    assert observations_in(text, TBS)[:2] == (present, absent)


def test_what_is_left_open_counts_in_part():
    text = "N:C ratio raised, membrane irregular, chromatin coarse"
    assert inconsistency(f"Immature squamous cell: {text}", "HSIL", TBS) == 0.0
    possible = {TBS.category(dict.fromkeys(TBS.codes, False) | dict.fromkeys(("NCR", "NM", "CT"), True), c)
                for c in TBS.cell_classes}  # fmt: skip
    assert inconsistency(text, "HSIL", TBS) == pytest.approx(1 - 1 / len(possible))


@pytest.mark.parametrize(
    "text", ["", "It is HSIL.", "coarse chromatin, fine chromatin, raised N:C ratio, irregular membrane"]
)
def test_saying_nothing_or_everything_entails_nothing(text):
    assert all(inconsistency(text, category, TBS) == 1.0 for category in CATEGORIES)


def test_the_part_of_a_grade():
    reading = Reading(pack=TBS)
    seen = "Immature squamous cell: coarse chromatin, N:C ratio raised, irregular membrane."
    said = {answer: grade(ASKED, f"<think>{seen}</think><answer>{answer}</answer>", reading)
            for answer in ("(E) HSIL", "(A) NILM", "who knows")}  # fmt: skip
    assert {answer: g.parts["inconsistent"] for answer, g in said.items()} == {
        "(E) HSIL": 0.0, "(A) NILM": 1.0, "who knows": 1.0,
    }  # fmt: skip
    assert "inconsistent" not in grade(ASKED, "E").parts


def test_a_question_outside_of_the_guideline_has_no_fault():
    tissue = read_sample(
        '{"id": 1, "task": "classification", "options": ["Tumor", "Stroma"], "answer": "A"}'
    ).sample
    assert grade(tissue, "A", Reading(pack=TBS)).parts["inconsistent"] == 0.0
    assert categories_of(("Tumor", "NILM"), TBS) is None
    assert categories_of((), TBS) is None
    assert categories_of(("low-grade squamous intraepithelial lesion", "nilm"), TBS) == ("LSIL", "NILM")


def test_an_answer_in_words_beside_categories_names_none():
    worded = msgspec.structs.replace(ASKED, answer=Text("something else"))
    assert grade(worded, "HSIL", Reading(pack=TBS)).parts["inconsistent"] == 1.0


@given(st.text(max_size=200))
def test_any_text_is_read(text):
    assert 0.0 <= inconsistency(text, "HSIL", TBS) <= 1.0
