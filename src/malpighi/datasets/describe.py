"""All that is known of a data set before it is on disk, for a person to read."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from malpighi.datasets.adapter import Adapter
from malpighi.datasets.download import sources

_PAPERS = Path(__file__).with_name("papers.yaml")
_BREAK = re.compile(r"; |, (?:and )?| and ")


def describe(adapter: Adapter) -> dict[str, Any]:
    """What a user must know of a data set, JSON-able.

    Returns:
        description: `name`, `title`, `papers` (paper to place and role), `access`, `fetch` (the address that
            `malpighi data get` takes; "" where it cannot), `licence`, `use`, `source`, `layout` (list of what
            the folder holds), `scale`, `organ`, `stain`, `counts` (what is expected), `expected` (their sum),
            `split_rule`, `traps`.

    Example:
        >>> from malpighi.datasets.voc import bccd
        >>> describe(bccd)["layout"]
        ['BCCD/JPEGImages', 'BCCD/Annotations', 'BCCD/ImageSets/Main']
    """
    source = sources().get(adapter.name)
    return {
        "name": adapter.name,
        "title": adapter.title,
        "papers": papers_of(adapter.name),
        "access": adapter.access,
        "fetch": source.page if source else "",
        "licence": adapter.licence,
        "use": adapter.use,
        "source": adapter.source,
        "layout": pieces(adapter.layout),
        "scale": str(adapter.scale),
        "organ": adapter.organ,
        "stain": adapter.stain,
        "counts": dict(adapter.counts),
        "expected": sum(adapter.counts.values()),
        "split_rule": adapter.split_rule,
        "traps": list(adapter.traps),
    }


def rows(description: dict[str, Any]) -> list[dict[str, str]]:
    """A description as a table of two columns; what is empty is left out, lists take several rows."""
    texts = {
        "data set": [f"{description['name']}: {description['title']}"],
        "in the papers": [f"{paper}: {role}" for paper, role in description["papers"].items()],
        "access": [description["access"]],
        "get": [f"malpighi data get {description['name']}  ({description['fetch']})"]
        if description["fetch"]
        else [],
        "licence": [f"{description['licence']} (use: {description['use']})"],
        "source": [description["source"]],
        "folder": description["layout"],
        "shows": [", ".join(filter(None, (description[key] for key in ("scale", "organ", "stain"))))],
        "expected": [f"{what}: {number:,}" for what, number in description["counts"].items()],
        "split": [description["split_rule"]],
        "know": description["traps"],
    }
    return [
        {"": name if place == 0 else "", "what is known": line}
        for name, lines in texts.items()
        for place, line in enumerate(lines)
    ]


def papers_of(name: str) -> dict[str, str]:
    """The papers that use a data set, each with the place and the role.

    Example:
        >>> papers_of("quilt1m")["smartpath-r1"]
        'Table 45, training'
    """
    return {paper: used[name] for paper, used in _papers().items() if name in used}


def pieces(layout: str) -> list[str]:
    """A layout in words, taken apart at commas and `and` that no bracket holds.

    Example:
        >>> pieces("index.csv (file, label) and images/{a,b}/<image>")
        ['index.csv (file, label)', 'images/{a,b}/<image>']
    """
    found, start = [], 0
    for cut in _BREAK.finditer(layout):
        before = layout[: cut.start()]
        if all(before.count(left) == before.count(right) for left, right in ("()", "{}", "[]", "<>")):
            found.append(layout[start : cut.start()])
            start = cut.end()
    return [*found, layout[start:]]


@cache
def _papers() -> dict[str, dict[str, str]]:
    tree: dict[str, dict[str, str]] = yaml.safe_load(_PAPERS.read_text(encoding="utf-8"))
    return tree
