"""The shipped Bethesda pack over every cell there can be: 1,536 crisp states and 78,732 three-valued ones."""

from itertools import product

import pytest

from malpighi.guidelines.definition import OUR_CHOICE
from malpighi.guidelines.examine import examine
from malpighi.guidelines.findings import Finding, Observations, State
from malpighi.guidelines.pack import load_pack

FINDING = {state: Finding(state) for state in State}


@pytest.fixture(scope="module")
def tbs():
    return load_pack("tbs")


def by_hand(there, cell_class):
    """The same guideline written again, without the engine, as a cytologist would say it."""
    nuclear = len(there & {"NA", "NH", "CT", "NM"})
    dark = bool(there & {"NH", "CT"})
    if cell_class == "glandular":
        atypical = ("NE" in there and nuclear) or nuclear + ("NCR" in there) >= 3
        return "AGC" if atypical else "NILM"
    if {"NCR", "NM"} <= there and dark:
        if cell_class == "squamous_immature" or {"NH", "CT"} <= there:
            return "HSIL"
        return "ASC-H"
    if cell_class == "squamous_immature" and (
        ("NCR" in there and ("NE" in there or nuclear)) or ("NE" in there and nuclear >= 2)
    ):
        return "ASC-H"
    if "KO" in there:
        return "LSIL" if nuclear or there & {"NE", "NC"} else "ASC-US"
    if "NE" in there:
        if cell_class == "squamous_mature" and nuclear + len(there & {"NC", "NCR"}) >= 2:
            return "LSIL"
        bland = not nuclear and "NCR" not in there
        return "NILM" if bland and "NU" in there else "ASC-US"
    if nuclear + ("NCR" in there) >= 2:
        return "ASC-US"
    return "ASC-US" if cell_class == "squamous_immature" and "NCR" in there else "NILM"


@pytest.fixture(scope="module")
def crisp(tbs):
    """Category by (class, state of each code) for every crisp cell."""
    return {
        (cell_class, states): tbs.category(
            {code: state is State.PRESENT for code, state in zip(tbs.codes, states, strict=True)}, cell_class
        )
        for cell_class in tbs.cell_classes
        for states in product((State.PRESENT, State.ABSENT), repeat=len(tbs.codes))
    }


def test_every_crisp_cell_agrees_with_the_guideline_written_by_hand(tbs, crisp):
    assert len(crisp) == 512 * 3
    for (cell_class, states), category in crisp.items():
        there = {code for code, state in zip(tbs.codes, states, strict=True) if state is State.PRESENT}
        assert category == by_hand(there, cell_class), (cell_class, there)


def test_every_three_valued_cell(tbs, crisp):
    """Total, exact, sound: candidates are those of the completions, in all 4 * 3**9 states."""
    expected = {key: {category} for key, category in crisp.items()}
    for cell_class in tbs.cell_classes:
        for states in sorted(product(State, repeat=len(tbs.codes)), key=lambda s: s.count(State.UNKNOWN)):
            if State.UNKNOWN in states:
                at = states.index(State.UNKNOWN)
                yes, no = (
                    (*states[:at], state, *states[at + 1 :]) for state in (State.PRESENT, State.ABSENT)
                )
                expected[cell_class, states] = expected[cell_class, yes] | expected[cell_class, no]
    for states in product(State, repeat=len(tbs.codes)):
        expected[None, states] = set().union(*(expected[name, states] for name in tbs.cell_classes))
    assert len(expected) == 4 * 3**9
    for (cell_class, states), candidates in expected.items():
        cell = Observations({c: FINDING[s] for c, s in zip(tbs.codes, states, strict=True)}, cell_class)
        decision = tbs.decide(cell)
        assert set(decision.candidates) == candidates
        assert decision.category == (decision.candidates[0] if len(candidates) == 1 else None)
        assert {category for category, p in decision.posterior.items() if p > 0} == candidates
        assert abs(sum(decision.posterior.values()) - 1) < 1e-9
        check_trace(decision)


def check_trace(decision):
    """Three-valued logic may know less than enumeration, never something else."""
    fires = [step.fires for step in decision.trace]
    assert fires.count("yes") + (fires.count("possibly") >= 2) == 1
    assert {step.category for step in decision.trace if step.fires != "no"} == set(decision.candidates)
    satisfied = False
    for step in decision.trace:
        assert not (step.verdict == "failed" and step.fires != "no")
        assert not (satisfied and step.fires != "no")
        satisfied = satisfied or step.verdict == "satisfied"
    assert satisfied


def test_deterministic(tbs):
    cells = [
        Observations({c: FINDING[s] for c, s in zip(tbs.codes, states, strict=True)}, "squamous_mature")
        for states in list(product(State, repeat=len(tbs.codes)))[::97]
    ]
    assert [tbs.decide(cell) for cell in cells] == [tbs.decide(cell) for cell in reversed(cells)][::-1]


def test_every_rule_and_category_is_reached_and_every_observation_tells(tbs):
    found = examine(tbs)
    assert (found.unreachable_rules, found.unreachable_categories, found.idle_observations) == ((), (), ())
    assert {name: sum(counts.values()) for name, counts in found.counts.items()} == dict.fromkeys(
        tbs.cell_classes, 512
    )


def test_severity_never_falls_when_an_abnormal_finding_is_added(tbs, crisp):
    assert examine(tbs).falls == ()
    abnormal = {item.code for item in tbs.definition.observations if item.abnormal}
    compared = 0
    for (cell_class, states), category in crisp.items():
        for at, code in enumerate(tbs.codes):
            if code in abnormal and states[at] is State.ABSENT:
                more = crisp[cell_class, (*states[:at], State.PRESENT, *states[at + 1 :])]
                assert tbs.severity(more) >= tbs.severity(category), (cell_class, states, code)
                compared += 1
    assert compared == 3 * 8 * 256


def test_only_the_nucleolus_is_not_abnormal_and_says_why(tbs):
    normal = [item for item in tbs.definition.observations if not item.abnormal]
    assert [item.code for item in normal] == ["NU"]
    assert "repair" in normal[0].note


@pytest.mark.parametrize(
    ("present", "cell_class", "category"),
    [
        ("", "squamous_mature", "NILM"),
        ("NE NU", "squamous_mature", "NILM"),
        ("NU NC", "squamous_immature", "NILM"),
        ("KO", "squamous_mature", "ASC-US"),
        ("KO NCR", "squamous_immature", "ASC-US"),
        ("NE", "squamous_mature", "ASC-US"),
        ("NE NH", "squamous_mature", "ASC-US"),
        ("KO NE NH", "squamous_mature", "LSIL"),
        ("NE NH NC", "squamous_mature", "LSIL"),
        ("NE NCR", "squamous_immature", "ASC-H"),
        ("NE NCR NM NH CT", "squamous_immature", "HSIL"),
        ("NE NH", "glandular", "AGC"),
        ("NE NU", "glandular", "NILM"),
        ("KO", "glandular", "NILM"),
    ],
)
def test_textbook_cells(tbs, present, cell_class, category):
    assert tbs.category({code: code in present.split() for code in tbs.codes}, cell_class) == category


def test_the_pack_is_honest_about_itself(tbs):
    pack = tbs.definition
    assert (pack.reviewed_by, pack.use) == ("none", "research")
    cited = {source for rule in pack.rules for source in rule.cite}
    assert all(source in pack.sources or source == OUR_CHOICE for source in cited)
    assert all(rule.confidence == "low" for rule in pack.rules if OUR_CHOICE in rule.cite)
    assert all(item.confidence == "low" for item in pack.thresholds if item.source == OUR_CHOICE)


def test_severity_order(tbs):
    squamous = ["NILM", "ASC-US", "LSIL", "ASC-H", "HSIL"]
    assert sorted(squamous, key=tbs.severity) == squamous
    assert len({tbs.severity(category) for category in squamous}) == 5
    assert tbs.severity("AGC") == tbs.severity("ASC-H")
