from collections import Counter, defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from malpighi.datasets.split import Member, SplitPlan, assign, rule_text
from malpighi.errors import ConfigError
from malpighi.records import Split

TRAIN, VALIDATION, TEST = Split.TRAIN, Split.VALIDATION, Split.TEST


def members(sizes):
    """One label per key, one group per size."""
    return [
        Member(f"{label}{i}", label)
        for label, counts in sizes.items()
        for i, n in enumerate(counts)
        for _ in range(n)
    ]


def items_per_split(given_members, splits):
    return Counter(splits[member.group] for member in given_members)


@given(
    st.lists(st.tuples(st.integers(0, 9), st.sampled_from("abc")), min_size=1, max_size=60),
    st.integers(0, 3),
)
def test_every_group_gets_one_split_whatever_the_order(pairs, seed):
    given_members = [Member(str(group), label) for group, label in pairs]
    splits = assign(given_members, SplitPlan(seed=seed))
    assert set(splits) == {member.group for member in given_members}
    assert assign(reversed(given_members), SplitPlan(seed=seed)) == splits


def test_fractions_are_met_where_groups_are_small():
    many = members({"a": [1] * 200, "b": [1] * 100})
    counts = items_per_split(many, assign(many, SplitPlan()))
    assert counts == {TRAIN: 210, VALIDATION: 30, TEST: 60}


@pytest.mark.parametrize("sizes", [[27, 28, 21, 37], [27, 21, 15, 11], [50, 1, 1], [5, 5, 5]])
def test_a_class_with_few_slides_is_in_every_split(sizes):
    few = members({"rare": sizes, "common": [3] * 60})
    splits = assign(few, SplitPlan())
    assert {splits[m.group] for m in few if m.label == "rare"} == {TRAIN, VALIDATION, TEST}


def test_two_groups_go_to_train_and_test_and_one_to_train():
    two = members({"a": [4, 3]})
    assert sorted(assign(two, SplitPlan()).values()) == [TEST, TRAIN]
    assert assign(members({"a": [4]}), SplitPlan()) == {"a0": TRAIN}


def test_a_large_group_does_not_take_the_test_split():
    uneven = members({"a": [100, *[1] * 100]})
    splits = assign(uneven, SplitPlan())
    assert splits["a0"] == TRAIN
    counts = items_per_split(uneven, splits)
    assert counts[TEST] == pytest.approx(40, abs=2)


def test_groups_of_several_classes_are_balanced():
    mixed = [Member(str(i), label) for i in range(100) for label in ("a", "b")[: 1 + i % 2]]
    splits = assign(mixed, SplitPlan())
    per_label = defaultdict(Counter)
    for member in mixed:
        per_label[member.label][splits[member.group]] += 1
    assert per_label["b"] == {TRAIN: 35, VALIDATION: 5, TEST: 10}
    assert per_label["a"] == {TRAIN: 70, VALIDATION: 10, TEST: 20}


def test_official_lists_are_honoured():
    lists = [Member("x", "", TEST), Member("y", "", VALIDATION), Member("z", "")]
    splits = assign([*lists, *members({"": [1] * 20})], SplitPlan())
    assert splits["x"] == TEST
    assert splits["y"] == VALIDATION
    assert "z" in splits


@pytest.mark.parametrize("order", [(TRAIN, TEST), (TEST, TRAIN)])
def test_a_group_in_two_official_lists_goes_whole_to_the_stricter(order):
    assert assign([Member("x", "", split) for split in order], SplitPlan()) == {"x": TEST}


def test_the_seed_decides_between_equal_groups():
    same = members({"a": [1] * 50})
    assert assign(same, SplitPlan(seed=1)) == assign(same, SplitPlan(seed=1))
    assert assign(same, SplitPlan(seed=1)) != assign(same, SplitPlan(seed=2))


def test_a_split_of_fraction_zero_gets_nothing():
    some = members({"a": [1] * 10})
    splits = assign(some, SplitPlan(train=0.5, validation=0.0, test=0.5))
    assert Counter(splits.values()) == {TRAIN: 5, TEST: 5}


@pytest.mark.parametrize("fractions", [(0.5, 0.1, 0.1), (1.2, -0.2, 0.0)])
def test_impossible_fractions_are_refused(fractions):
    with pytest.raises(ConfigError, match="add up to 1"):
        SplitPlan(*fractions)


def test_the_rule_says_what_a_group_is():
    assert "slide" in rule_text("slide")
    assert "official" in rule_text("file", official=True)
    assert "official" not in rule_text("file")
