from itertools import islice

from malpighi.training.dynamic_sampling import Group, Resampling, refill

NEVER = iter(())


def group(question, *rewards):
    return Group(question, [[1]] * len(rewards), list(rewards))


def test_a_group_is_dull_if_no_completion_earned_more():
    assert group("a", 1.0, 1.0).dull
    assert group("a", None, 1.0).dull
    assert group("a", None, None).dull
    assert not group("a", 1.0, 0.5, None).dull


def answers(table, asked):
    def draw(questions):
        asked.append(list(questions))
        return [group(question, *table[question]) for question in questions]

    return draw


TABLE = {"dull": (1, 1), "flat": (0, 0), "good": (0, 1), "fine": (1, 0), "best": (2, 0)}


def test_dull_places_are_filled_in_order_and_the_rest_keep_theirs():
    asked = []
    groups, drawn = refill(
        ["dull", "good", "flat"], answers(TABLE, asked), iter(["flat", "fine", "best"]), rounds=3
    )
    assert [g.question for g in groups] == ["fine", "good", "best"]
    assert asked == [["dull", "good", "flat"], ["flat", "fine"], ["best"]]
    assert drawn == 6


def test_rounds_and_questions_end():
    asked = []
    groups, drawn = refill(["dull"], answers(TABLE, asked), iter(["flat", "dull", "good"]), rounds=2)
    assert [g.question for g in groups] == ["dull"]
    assert drawn == 3
    groups, drawn = refill(["dull"], answers(TABLE, asked), iter(["flat"]), rounds=9)
    assert drawn == 2
    assert refill(["good"], answers(TABLE, asked), NEVER, rounds=9)[1] == 1


def test_further_questions_depend_on_seed_and_step_alone():
    how = Resampling(3, [f"q{i}" for i in range(40)], lambda *_: 0.0, seed=5)
    asked = ["q3", "q4"]
    drawn = list(how.further(7, asked))
    assert drawn == list(how.further(7, asked))
    assert sorted(drawn) == sorted(set(how.questions) - set(asked))
    assert list(Resampling(3, ["a", "b", "a"], lambda *_: 0.0, seed=5).further(7, ["b"])) == ["a"]
    assert list(islice(how.further(8, asked), 9)) != drawn[:9]
