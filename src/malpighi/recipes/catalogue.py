"""All recipes by name, and how `--set` reaches them."""

import inspect
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path

import yaml

from malpighi.errors import ConfigError
from malpighi.pipeline.recipe import Recipe, with_settings
from malpighi.recipes.controls import controls
from malpighi.recipes.mini import mini
from malpighi.recipes.patho_r1 import patho_r1
from malpighi.recipes.smartpath import smartpath

RECIPES: dict[str, Callable[..., Recipe]] = {
    "mini": mini,
    "controls": controls,
    "smartpath": smartpath,
    "patho_r1": patho_r1,
}


def recipe_named(name: str, assignments: Sequence[str], data: Path | None = None) -> Recipe:
    """A recipe with `a.b=c` applied: what its function takes goes to the function, the rest to its settings.

    Args:
        name: of the recipe.
        assignments: e.g. `["size=smoke", "reinforce.train.steps=9"]`.
        data: the data folder; None for the recipe's default.

    Raises:
        ConfigError: no such recipe or setting, or a value of the wrong type.
    """
    if name not in RECIPES:
        near = get_close_matches(name, RECIPES, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there is {', '.join(RECIPES)}"
        raise ConfigError(f"there is no recipe '{name}'; {hint}")
    function = RECIPES[name]
    parameters = inspect.signature(function).parameters
    taken = {_name(a): a.partition("=")[2] for a in assignments if _name(a) in parameters}
    rest = [a for a in assignments if _name(a) not in parameters]
    arguments = {key: _argument(key, text, parameters[key]) for key, text in taken.items()}
    if data is not None:
        arguments["data"] = str(data)
    return with_settings(function(**arguments), rest)


def _name(assignment: str) -> str:
    """What an assignment names; "" for one without `=`, which is refused with the settings."""
    name, separator, _ = assignment.partition("=")
    return name if separator else ""


def _argument(name: str, text: str, parameter: inspect.Parameter) -> object:
    if parameter.annotation is str:
        return text
    value = yaml.safe_load(text) if text else None
    if type(value) is not parameter.annotation:
        expected = parameter.annotation.__name__
        raise ConfigError(f"--set {name}={text}: expected {expected}, found {text!r}")
    return value
