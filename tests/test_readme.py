"""README.md says nothing that is not so: its commands parse, its paths exist, its links lead somewhere."""

import re
import shlex
from itertools import takewhile
from pathlib import Path

import pytest
from typer.main import get_command

from malpighi.cli import app
from malpighi.recipes.catalogue import recipe_named

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
MOST_LINES = 150
# A word that looks like a file or folder of the source tree: ends in a slash, or in a suffix that is ours.
PATH = re.compile(r"^[\w./-]+(?:/|\.py|\.md)$")


def blocks(text):
    """(language, text) of every fenced block."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


def commands(text):
    """The words of every `malpighi` command line inside a fenced block."""
    lines = [line for _, block in blocks(text) for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith("malpighi ")]


def tree(text):
    """Paths that a fenced block without language draws: a folder's children are indented below it."""
    found = []
    for language, block in blocks(text):
        if language:
            continue
        folder = Path()
        for line in block.splitlines():
            words = list(takewhile(PATH.match, line.split()))
            if not words:
                continue
            if not line.startswith(" "):
                folder = Path(words[0])
                found += [Path(word) for word in words]
            else:
                found += [folder / word for word in words]
    return found


def links(text):
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]


def parse(words):
    """Go through the app's own parser down to the last command; nothing runs."""
    command, context, rest = get_command(app), None, words[1:]
    name = words[0]
    while True:
        context = command.make_context(name, list(rest), parent=context, resilient_parsing=False)
        if not hasattr(command, "commands"):
            return context
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])


def test_the_readme_is_short():
    assert len(TEXT.splitlines()) <= MOST_LINES


def test_it_shows_commands_and_the_tree():
    assert len(commands(TEXT)) >= 5
    assert len(tree(TEXT)) >= 5


@pytest.mark.parametrize("words", commands(TEXT), ids=" ".join)
def test_every_command_parses(words):
    context = parse(words)
    for setting in context.params.get("settings") or []:
        recipe_named(context.params["recipe"], [setting])


def test_a_wrong_command_would_be_found():
    for wrong in (["malpighi", "fly"], ["malpighi", "run", "mini", "--colour"], ["malpighi", "data", "fly"]):
        with pytest.raises(Exception, match=r"No such (command|option)"):
            parse(wrong)


@pytest.mark.parametrize("setting", re.findall(r"`--set ([^`\s]+)`", TEXT))
def test_every_setting_named_in_passing_exists(setting):
    recipe_named("mini", [setting])


@pytest.mark.parametrize(
    "target", re.findall(r"^make (\w+)", "\n".join(b for _, b in blocks(TEXT)), re.MULTILINE)
)
def test_every_make_target_exists(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("path", tree(TEXT), ids=str)
def test_every_path_of_the_tree_exists(path):
    assert (ROOT / path).exists()


@pytest.mark.parametrize("link", links(TEXT))
def test_every_link_resolves(link):
    path, _, anchor = link.partition("#")
    target = ROOT / path if path else ROOT / "README.md"
    assert target.exists()
    if anchor:
        headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
        assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", re.findall(r"`([a-z_]+/[a-z_]+\.py)`", TEXT))
def test_every_file_named_in_words_exists(name):
    assert (ROOT / "src" / "malpighi" / name).exists()
