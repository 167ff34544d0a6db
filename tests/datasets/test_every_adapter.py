"""No adapter goes untested, undescribed, or by a name that is no folder."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
import yaml
from PIL import Image

from malpighi.datasets import describe
from malpighi.datasets.catalogue import ADAPTERS
from malpighi.errors import DataError

HERE = Path(__file__).parent
CONTRACTS = HERE.parent / "contracts/test_adapters.py"
PAPERS = Path(describe.__file__).with_name("papers.yaml")


@cache
def held_to_the_contract():
    """Names that a test calls the fixture `contract` with, or that a parametrized test gives on to it."""
    found = set()
    for path in HERE.rglob("test_*.py"):
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(function, ast.FunctionDef):
                found |= _asked_in(function)
    return found


def _asked_in(function):
    calls = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
    first = [
        call.args[0]
        for call in calls
        if isinstance(call.func, ast.Name) and call.func.id == "contract" and call.args
    ]
    names = {node.value for node in first if isinstance(node, ast.Constant)}
    if any(not isinstance(node, ast.Constant) for node in first):
        given = [node for decorator in function.decorator_list for node in ast.walk(decorator)]
        names |= {node.value for node in given if isinstance(node, ast.Constant)}
    return names


@cache
def held_in_contracts():
    tree = ast.parse(CONTRACTS.read_text(encoding="utf-8"))
    (names,) = (
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "NAMES"
    )
    return set(ast.literal_eval(names))


@pytest.mark.parametrize("name", ADAPTERS)
def test_every_adapter_is_held_to_the_contract(name):
    assert name in held_to_the_contract() | held_in_contracts()


@pytest.mark.parametrize("name", ADAPTERS)
def test_every_adapter_says_what_a_user_must_know(name):
    adapter = ADAPTERS[name]
    assert adapter.name == name
    assert re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)*", name), "no folder-safe name"
    for field in ("title", "licence", "access", "source", "layout", "split_rule"):
        assert getattr(adapter, field).strip(), field
    assert adapter.use in ("any", "research")
    assert adapter.traps
    assert all(trap.strip().endswith(".") for trap in adapter.traps)
    assert all(number > 0 for number in adapter.counts.values())


def test_the_papers_name_data_sets_that_are_there():
    tree = yaml.safe_load(PAPERS.read_text(encoding="utf-8"))
    assert {name for used in tree.values() for name in used} <= set(ADAPTERS)


def test_only_these_stand_in_no_paper():
    tree = yaml.safe_load(PAPERS.read_text(encoding="utf-8"))
    used = {name for names in tree.values() for name in names}
    assert set(ADAPTERS) - used == {
        "herlev", "lbc_cytology", "crc_val_he_7k", "bccd", "dsb2018_he", "ebhi_seg", "pathology_atlas",
        "bracs_roi",
    }  # fmt: skip


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_folder_of_something_else_is_told_what_it_should_hold(name, tmp_path):
    (tmp_path / "x/y").mkdir(parents=True)
    Image.new("RGB", (9, 9)).save(tmp_path / "x/y/a.png")
    with pytest.raises(DataError) as caught:
        list(ADAPTERS[name].read(tmp_path))
    said = str(caught.value)
    assert said.startswith(f"{name}: ")
    assert str(tmp_path) in said
    assert ADAPTERS[name].layout in said
    assert "Errno" not in said
