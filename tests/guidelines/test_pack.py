import math
import random
from itertools import combinations, product

import msgspec
import pytest

from malpighi.errors import ConfigError, DataError
from malpighi.guidelines.expression import CELL_CLASS
from malpighi.guidelines.findings import Finding, Observations, State
from malpighi.guidelines.pack import Decision, load_pack

CRISP_HSIL = Observations.of(
    present=["NE", "NH", "NM", "NCR"], absent=["NA", "KO", "CT", "NU", "NC"], cell_class="squamous_immature"
)


@pytest.fixture(scope="module")
def tbs():
    return load_pack("tbs")


def test_unknown_names_are_refused(tbs, tmp_path):
    with pytest.raises(ConfigError, match=r"have \['tbs'\]"):
        load_pack("../tbs")
    with pytest.raises(ConfigError, match="cannot read the pack"):
        load_pack(tmp_path / "none.yaml")
    with pytest.raises(DataError, match=r"no observation \['XX'\]"):
        tbs.decide(Observations.of(present=["XX"]))
    with pytest.raises(DataError, match="no cell class 'round'"):
        tbs.decide(Observations(cell_class="round"))
    with pytest.raises(ConfigError, match="no category 'CIN 2'"):
        tbs.counterfactuals(CRISP_HSIL, target="CIN 2")


def test_a_crisp_category_needs_every_observation(tbs):
    with pytest.raises(DataError, match=r"missing .*'NM'.* not in the pack \['XX'\]"):
        tbs.category({"NE": True, "XX": True}, "glandular")


def test_a_certain_decision(tbs):
    decision = tbs.decide(CRISP_HSIL)
    assert (decision.category, decision.candidates) == ("HSIL", ("HSIL",))
    assert decision.posterior["HSIL"] == 1.0
    fired = [step for step in decision.trace if step.fires == "yes"]
    assert [step.rule for step in fired] == ["HS-1"]
    assert fired[0].cite == ("tbs2015", "ininet")
    assert fired[0].confidence == "medium"
    assert [step.rule for step in decision.trace] == [rule.id for rule in tbs.definition.rules]


def test_an_uncertain_decision(tbs):
    cell = Observations.of(
        present=["NE", "NH", "NCR"], absent=["KO", "CT", "NU", "NC", "NA"], cell_class="squamous_immature"
    )
    decision = tbs.decide(cell)
    assert decision.category is None
    assert decision.candidates == ("ASC-H", "HSIL")
    assert decision.posterior["HSIL"] == pytest.approx(0.5)
    verdicts = {step.rule: (step.verdict, step.fires) for step in decision.trace}
    assert verdicts["HS-1"] == ("unknown", "possibly")
    assert verdicts["AH-1"] == ("satisfied", "possibly")
    assert verdicts["LS-1"] == ("failed", "no")
    waits = {step.rule: step.waits_for for step in decision.trace}
    assert (waits["HS-1"], waits["AH-1"], waits["LS-1"]) == (("NM",), (), ())
    unclassified = tbs.decide(Observations(cell.findings)).trace
    assert next(step for step in unclassified if step.rule == "HS-1").waits_for == (CELL_CLASS, "NM")


def test_a_category_can_be_certain_while_the_rule_is_not(tbs):
    cell = Observations.of(
        present=["KO", "NE"], absent=["NA", "CT", "NU", "NM", "NCR"], cell_class="squamous_immature"
    )
    decision = tbs.decide(cell)
    assert decision.category == "LSIL"
    cell = Observations.of(present=["NH", "NM", "NCR", "NE"], cell_class="glandular")
    assert tbs.decide(cell).category == "AGC"
    cell = Observations.of(present=["NH", "NM", "NCR"], cell_class="glandular")
    fires = [step.fires for step in tbs.decide(cell).trace]
    assert tbs.decide(cell).category == "AGC"
    assert (fires.count("possibly"), fires.count("yes")) == (2, 0)


def test_a_decision_is_json(tbs):
    decision = tbs.decide(CRISP_HSIL)
    assert msgspec.json.decode(msgspec.json.encode(decision), type=Decision) == decision


def test_posterior_equals_monte_carlo(tbs):
    cell = Observations(
        {
            "NE": Finding(State.PRESENT, 0.9),
            "NH": Finding(State.UNKNOWN, 0.3),
            "NM": Finding(State.PRESENT, 0.6),
            "NCR": Finding(State.PRESENT, 0.75),
            "KO": Finding(State.ABSENT, 0.1),
            "NU": Finding(State.ABSENT),
        }
    )
    posterior = tbs.decide(cell).posterior
    draw, drawn, counts = random.Random(7), 20_000, dict.fromkeys(posterior, 0)
    for _ in range(drawn):
        findings = {code: draw.random() < cell.chance(code) for code in tbs.codes}
        counts[tbs.category(findings, draw.choice(tbs.cell_classes))] += 1
    assert sum(posterior.values()) == pytest.approx(1)
    assert len([category for category, p in posterior.items() if p > 0.01]) == 6
    for category, p in posterior.items():
        error = math.sqrt(p * (1 - p) / drawn)
        assert counts[category] / drawn == pytest.approx(p, abs=4.5 * error)


def test_soften_widens_the_posterior_and_keeps_given_probabilities(tbs):
    cell = CRISP_HSIL.replace({"KO": Finding(State.ABSENT, 0.25), "NU": Finding(State.UNKNOWN)})
    soft = tbs.soften(cell)
    assert soft.chance("NE") == pytest.approx(tbs.observation("NE").accuracy)
    assert soft.chance("NC") == pytest.approx(1 - tbs.observation("NC").accuracy)
    assert (soft.chance("KO"), soft.chance("NU")) == (0.25, 0.5)
    assert {code: soft.state(code) for code in tbs.codes} == {code: cell.state(code) for code in tbs.codes}
    posterior = tbs.decide(tbs.soften(CRISP_HSIL)).posterior
    assert 0 < posterior["LSIL"] < posterior["ASC-US"] < posterior["ASC-H"] < posterior["HSIL"] < 1


def test_counterfactual_sentence(tbs):
    sentences = [change.sentence for change in tbs.counterfactuals(CRISP_HSIL)]
    assert "HSIL -> ASC-H if the nuclear membrane were smooth" in sentences
    assert len(sentences) == 3


def flipped(cell, codes):
    states = {code: State.ABSENT if cell.state(code) is State.PRESENT else State.PRESENT for code in codes}
    return cell.replace({code: Finding(state) for code, state in states.items()})


@pytest.mark.parametrize("target", [None, "NILM", "LSIL", "AGC"])
@pytest.mark.parametrize("seed", range(6))
def test_counterfactuals_flip_and_are_all_the_smallest(tbs, seed, target):
    draw = random.Random(seed)
    known = [code for code in tbs.codes if draw.random() < 0.85]
    present = [code for code in known if draw.random() < 0.5]
    cell = Observations.of(
        present=present, absent=set(known) - set(present), cell_class=draw.choice(tbs.cell_classes)
    )
    before = tbs.decide(cell).category
    changes = tbs.counterfactuals(cell, target=target)
    found = {frozenset(change.flips) for change in changes}
    expected: set[frozenset[str]] = set()
    for size in range(1, len(known) + 1) if before else ():
        for codes in combinations(known, size):
            after = tbs.decide(flipped(cell, codes)).category
            if after not in (None, before) and target in (None, after):
                expected.add(frozenset(codes))
        if expected:
            break
    assert found == expected
    for change in changes:
        changed = cell.replace({code: Finding(state) for code, state in change.flips.items()})
        assert change.before == before != change.after == tbs.decide(changed).category
        assert all(cell.state(code) is not state for code, state in change.flips.items())


def test_no_counterfactual_of_an_uncertain_cell(tbs):
    assert tbs.counterfactuals(Observations(cell_class="squamous_mature")) == ()


def entropy(posterior):
    return -sum(p * math.log2(p) for p in posterior.values() if p)


def test_the_cell_class_is_asked_first(tbs):
    question = tbs.most_informative(Observations())
    assert (question.about, question.text) == (CELL_CLASS, "Which kind of cell is this?")
    after = [entropy(tbs.decide(Observations(cell_class=name)).posterior) for name in tbs.cell_classes]
    assert question.gain == pytest.approx(entropy(tbs.decide(Observations()).posterior) - sum(after) / 3)


def test_nothing_is_asked_when_nothing_would_change(tbs):
    assert tbs.most_informative(CRISP_HSIL) is None
    certain = Observations.of(present=["NE", "NH"], cell_class="glandular")
    assert tbs.most_informative(certain) is None


@pytest.mark.parametrize("seed", range(8))
def test_the_question_with_the_largest_gain_is_asked(tbs, seed):
    draw = random.Random(seed)
    known = draw.sample(tbs.codes, 4)
    present = [code for code in known if draw.random() < 0.5]
    cell = Observations.of(
        present=present, absent=set(known) - set(present), cell_class=draw.choice(tbs.cell_classes)
    ).replace({code: Finding(State.UNKNOWN, draw.random()) for code in tbs.codes if code not in known})
    now = entropy(tbs.decide(cell).posterior)
    gains = {}
    for code in set(tbs.codes) - set(known):
        chance, after = cell.chance(code), 0.0
        for state, weight in ((State.PRESENT, chance), (State.ABSENT, 1 - chance)):
            after += weight * entropy(tbs.decide(cell.replace({code: Finding(state)})).posterior)
        gains[code] = now - after
    assert min(gains.values()) > -1e-9
    question = tbs.most_informative(cell)
    if max(gains.values()) < 1e-9:
        assert question is None
    else:
        assert question.gain == pytest.approx(max(gains.values()))
        assert gains[question.about] == pytest.approx(question.gain)
        assert question.text == tbs.observation(question.about).question


def test_thresholds_cover_every_observation(tbs):
    for code in tbs.codes:
        threshold = tbs.threshold(code)
        low, high = threshold.grey or (threshold.value - 1, threshold.value)
        wanted = [State.ABSENT, State.PRESENT]
        if threshold.present == "at most":
            wanted.reverse()
        assert [threshold.state(low), threshold.state(high)] == wanted
        if threshold.grey:
            assert threshold.state((low + high) / 2) is State.UNKNOWN
    assert "whole cell" in tbs.threshold("NCR").definition


def test_a_missing_threshold_is_named(tbs):
    with pytest.raises(DataError, match="no threshold for 'XX'"):
        tbs.threshold("XX")


def test_packs_answer_alike_when_loaded_again(tbs):
    again = load_pack("tbs")
    for states in product((True, False), repeat=3):
        cell = CRISP_HSIL.replace(
            {
                code: Finding(State.PRESENT if there else State.ABSENT)
                for code, there in zip(("NE", "KO", "NM"), states, strict=True)
            }
        )
        assert again.decide(cell) == tbs.decide(cell)
