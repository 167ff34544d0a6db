from pathlib import Path

import pytest

from malpighi.errors import ConfigError
from malpighi.recipes.catalogue import RECIPES, recipe_named
from malpighi.recipes.mini import mini


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_found_by_the_name_it_bears(name):
    assert recipe_named(name, []).name == name


def test_settings_reach_function_and_stages_alike():
    made = recipe_named(
        "mini", ["size=smoke", "seed=3", "family=qwen3_vl", "reinforce.train.steps=2", "report.draws=10"]
    )
    assert (made.size, made.seed, made.prompt.family) == ("smoke", 3, "qwen3_vl")
    assert (made.stages["reinforce"].train.steps, made.stages["report"].draws) == (2, 10)
    assert made.stages["align"] == mini("smoke", "qwen3_vl").stages["align"]


def test_a_setting_wins_over_the_size_wherever_it_stands():
    for order in (["size=smoke", "data.phantom.cells=5"], ["data.phantom.cells=5", "size=smoke"]):
        assert recipe_named("mini", order).stages["data"].phantom.cells == 5


def test_data_come_from_the_command_line():
    made = recipe_named("mini", ["size=smoke"], Path("some/where"))
    assert made.stages["data"].folder == str(Path("some/where"))


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("mimi", [], "there is no recipe 'mimi'; did you mean mini?"),
        ("singular", [], "there is no recipe 'singular'; there is mini, controls"),
        ("mini", ["size=huge"], "mini has no size 'huge'"),
        ("mini", ["seed=three"], "--set seed=three: expected int, found 'three'"),
        ("mini", ["seed="], "--set seed=: expected int"),
        ("mini", ["sede=3"], "there is no setting 'sede'; did you mean seed"),
        pytest.param(
            "mini",
            ["size"],
            "is not of the form a.b=c",
        ),
        ("mini", ["align.train.steps=2.5"], "steps: Expected `int`"),
    ],
)
def test_mistakes_are_named(name, settings, words):
    with pytest.raises(ConfigError) as caught:
        recipe_named(name, settings)
    assert words in str(caught.value)


def test_true_is_no_number():
    with pytest.raises(ConfigError, match="expected int"):
        recipe_named("mini", ["seed=true"])
