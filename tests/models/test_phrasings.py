from pathlib import Path

import numpy as np
import pytest

from malpighi.errors import DataError, FormatVersionError
from malpighi.models.phrasings import OTHER, draw, fill, halves, load_grammar, shipped_grammar
from malpighi.records import TaskKind

EXAMINATION = Path(__file__).parents[2] / "benchmarks" / "router_prompts.yaml"


def skeletons(grammar):
    """What is left of the patterns without their slots."""
    empty, rng = {slot: ["_", "_"] for slot in grammar.slots}, np.random.default_rng(0)
    patterns = (pattern for family in grammar.families for pattern in family.patterns)
    return {" ".join(fill(pattern, empty, rng).lower().split()) for pattern in patterns}


def test_same_seed_same_requests_other_seed_other_requests():
    grammar = shipped_grammar()
    assert draw(grammar, 500, 1) == draw(grammar, 500, 1)
    assert draw(grammar, 500, 1) != draw(grammar, 500, 2)


def test_requests_differ_and_families_are_balanced():
    grammar = shipped_grammar()
    drawn = draw(grammar, 1000, 0)
    assert len({phrase.text for phrase in drawn}) == len(drawn) > 900
    counts = [sum(phrase.family == family.id for phrase in drawn) for family in grammar.families]
    assert min(counts) >= 1
    assert max(counts) - min(counts) <= 5


def test_the_grammar_covers_every_group_in_two_languages():
    drawn = draw(shipped_grammar(), 2000, 0)
    assert {phrase.group for phrase in drawn} == {*TaskKind, OTHER} - {TaskKind.CONVERSATION}
    for group in ("classification", "detection", "segmentation", "vqa", OTHER):
        chinese = [p for p in drawn if p.group == group and any("一" <= c <= "鿿" for c in p.text)]
        assert len(chinese) > 20, group


def test_the_shipped_names_are_not_those_of_the_examination():
    """Nor are its wordings: a router is examined on requests that it cannot have learned by heart."""
    taught, asked = shipped_grammar(), load_grammar(EXAMINATION)
    names = {name.lower() for values in taught.names.values() for name in values}
    asked_names = {name.lower() for values in asked.names.values() for name in values}
    assert {name for name in names & asked_names if not name.isdigit()} == set()
    assert skeletons(taught) & skeletons(asked) == set()


def test_halves_share_no_name():
    grammar = shipped_grammar()
    first, second = halves(grammar, 0)
    assert [f.id for f in first.families] == [f.id for f in second.families]
    for slot, values in grammar.names.items():
        assert sorted(first.names[slot] + second.names[slot]) == sorted(values)
        assert not set(first.names[slot]) & set(second.names[slot])
    assert first.words == second.words == grammar.words
    assert halves(grammar, 0) == (first, second)


def test_slots_are_filled():
    rng = np.random.default_rng(0)
    slots = {"a": ["x", "y", "z"]}
    assert fill("{a} and {a}", {"a": ["x"]}, rng) == "x and x"
    listed = fill("{options:a}", slots, rng)
    assert sum(name in listed for name in slots["a"]) >= 2
    assert len(fill("{long:a}", slots, rng)) > 5000


HEAD = "format_version: 1\nnames: {a: [x]}\n"


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("format_version: 3", FormatVersionError, "of format 3, this release reads 1"),
        ("- x", FormatVersionError, "of format None"),
        (": :\n  - {", DataError, "is no YAML"),
        (HEAD, DataError, "families"),
        (HEAD + "families: []", DataError, "no families"),
        (
            HEAD + "families: [{id: f, group: vqa, patterns: []}]",
            DataError,
            "'f' occurs twice or has no patterns",
        ),
        (HEAD + "families: [{id: f, group: vqa, patterns: ['{b}?']}]", DataError, "uses the slot 'b'"),
        (
            HEAD + "families: [{id: f, group: vqa, patterns: [x]}, {id: f, group: vqa, patterns: [y]}]",
            DataError,
            "'f' occurs twice",
        ),
        (HEAD + "families: [{id: f, group: vqa, patterns: [x], colour: red}]", DataError, "colour"),
    ],
)
def test_a_grammar_that_cannot_be_used_is_explained(tmp_path, text, error, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(error, match=message):
        load_grammar(path)


def test_a_missing_grammar_is_named(tmp_path):
    with pytest.raises(DataError, match=r"cannot read the grammar .*mine\.yaml"):
        load_grammar(tmp_path / "mine.yaml")
