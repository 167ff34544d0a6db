"""The rules of the house, held by reading every source file; each rule is shown a house that breaks it."""

import ast
import importlib.metadata
import re
import statistics
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FLOORS = {
    **dict.fromkeys(("malpighi", "errors"), 0),  # the package's own name and version; what all may raise
    **dict.fromkeys(("geometry", "resolution", "config", "durable", "lifetime", "pixels", "claims"), 1),
    **dict.fromkeys(("records", "corpus", "guidelines"), 2),
    **dict.fromkeys(("models", "slides", "grading", "likeness"), 3),
    **dict.fromkeys(("inference", "datasets", "phantom"), 4),
    **dict.fromkeys(("curation", "training", "evaluation", "copilot"), 5),
    **dict.fromkeys(("pipeline", "recipes"), 6),
    **dict.fromkeys(("terminal", "slide_cli", "data_cli", "exam_cli", "figures_cli", "cli"), 7),
}
# The only rooms that stand on a room of their own floor.
STANDS_ON = {
    ("corpus", "records"),
    ("recipes", "pipeline"),
    ("cli", "terminal"),
    ("cli", "slide_cli"),
    ("cli", "data_cli"),
    ("cli", "exam_cli"),
    ("cli", "figures_cli"),
    ("slide_cli", "terminal"),
    ("data_cli", "terminal"),
    ("exam_cli", "terminal"),
    ("figures_cli", "terminal"),
}

# `malpighi --help` must answer at once, so each command imports what it needs.
LATE_IMPORTS = {f"malpighi.{name}" for name in ("cli", "slide_cli", "data_cli", "exam_cli", "figures_cli")}

# The phantom draws in micrometres: it makes pixels at a scale, and converts none from one scale to another.
SCALES = {"geometry", "phantom"}

VAGUE_NAMES = {"utils", "common", "helpers", "base", "misc", "experiments"}
# The one name shared with a package we use: the design names this room after what it holds.
SHARED_NAMES = {"datasets"}

Sources = dict[str, str]  # dotted module name -> text


def read_sources() -> Sources:
    """Every module of the package."""
    named = {}
    for path in sorted((ROOT / "src/malpighi").rglob("*.py")):
        parts = path.relative_to(ROOT / "src").with_suffix("").parts
        named[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text()
    return named


def room_of(module: str) -> str:
    """The folder or file right under `malpighi` that a module lies in."""
    return module.split(".")[1] if "." in module else module


def imports(module: str, sources: Sources) -> Iterator[tuple[int, str]]:
    """(line, module of ours) for every import, wherever it stands; `from room import file` is the file."""
    known = {*sources, *(f"malpighi.{room}" for room in FLOORS)}
    for node in ast.walk(ast.parse(sources[module])):
        found: list[str] = []
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            full = [f"{node.module}.{alias.name}" for alias in node.names]
            found = [name if name in known else node.module for name in full]
        yield from ((node.lineno, name) for name in found if name.split(".")[0] == "malpighi")


def functions(text: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of the body without the docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def unknown_rooms(sources: Sources) -> list[str]:
    return [f"{module}: give the room a floor" for module in sources if room_of(module) not in FLOORS]


def imports_not_down(sources: Sources) -> list[str]:
    wrong = []
    for module in sources:
        here = room_of(module)
        for line, target in imports(module, sources):
            there = room_of(target)
            down = FLOORS.get(there, 99) < FLOORS.get(here, -1)
            if not down and there != here and (here, there) not in STANDS_ON:
                wrong.append(f"{module}:{line} imports {target}")
    return wrong


def relative_imports(sources: Sources) -> list[str]:
    return [
        f"{module}:{node.lineno}"
        for module, text in sources.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom) and node.level
    ]


def late_imports(sources: Sources) -> list[str]:
    """Imports inside functions, and imports by name that no reading of the text can follow."""
    return [
        f"{module}:{node.lineno}"
        for module, text in sources.items()
        for function in functions(text)
        for node in ast.walk(function)
        if module not in LATE_IMPORTS and isinstance(node, ast.Import | ast.ImportFrom)
    ] + [
        f"{module}:{node.lineno}"
        for module, text in sources.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).split(".")[-1] in ("__import__", "import_module")
    ]


def circles(sources: Sources) -> list[str]:
    graph = {module: {target for _, target in imports(module, sources)} for module in sources}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [" -> ".join(error.args[1])]
    return []


def vague_names(sources: Sources) -> list[str]:
    return [module for module in sources if VAGUE_NAMES & set(module.split("."))]


def borrowed_names(sources: Sources) -> list[str]:
    """Modules named like a package that this project depends on."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    lists = [
        project["project"]["dependencies"],
        *project["project"]["optional-dependencies"].values(),
        project["dependency-groups"]["dev"],
    ]
    needed = {re.split(r"[^\w-]", entry)[0].replace("-", "_").lower() for names in lists for entry in names}
    taken = needed | {
        package
        for package, origins in importlib.metadata.packages_distributions().items()
        if needed & {origin.replace("-", "_").lower() for origin in origins}
    }
    return [module for module in sources if set(module.split(".")[1:]) & taken - SHARED_NAMES]


def scaling_elsewhere(sources: Sources) -> list[str]:
    """Sums with micrometres per pixel outside the files that may do them."""
    wrong = []
    for module, text in sources.items():
        for node in ast.walk(ast.parse(text)) if room_of(module) not in SCALES else ():
            operands: list[ast.expr] = []
            if isinstance(node, ast.BinOp):
                operands = [node.left, node.right]
            elif isinstance(node, ast.AugAssign):
                operands = [node.target, node.value]
            names = {getattr(operand, "id", getattr(operand, "attr", "")) for operand in operands}
            if names & {"mpp", "downsample"}:
                wrong.append(f"{module}:{node.lineno} {ast.unparse(node)}")
    return wrong


def room_fronts(sources: Sources) -> list[str]:
    """A room's `__init__.py` is a docstring of one line: importing a room must cost nothing."""
    rooms = {module.rpartition(".")[0] for module in sources} & set(sources) - {"malpighi"}
    wrong = []
    for room in sorted(rooms):
        tree = ast.parse(sources[room])
        if len(tree.body) != 1 or "\n" in (ast.get_docstring(tree) or "\n"):
            wrong.append(room)
    return wrong


def oversized(sources: Sources) -> list[str]:
    files = {module: len(text.splitlines()) for module, text in sources.items()}
    bodies = sorted(body_lines(function) for text in sources.values() for function in functions(text))
    wrong = [f"{module}: {lines} lines" for module, lines in files.items() if lines > 500]
    if statistics.median(files.values()) > 260:
        wrong.append("the median file is longer than 260 lines")
    if bodies and statistics.median(bodies) > 14:
        wrong.append("the median function is longer than 14 lines")
    if bodies and bodies[int(0.9 * len(bodies))] > 45:
        wrong.append("one function in ten is longer than 45 lines")
    return wrong


def many_parameters(sources: Sources) -> list[str]:
    wrong = []
    for module, text in sources.items():
        for function in functions(text):
            given = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
            if len([name for name in given if name.arg not in ("self", "cls")]) > 7:
                wrong.append(f"{module}:{function.lineno} {function.name}")
    return wrong


def lines(count: int) -> str:
    return "def f():\n" + "    pass\n" * count


BAD_HOUSES = [
    (unknown_rooms, {"malpighi.cellar.wine": ""}),
    (imports_not_down, {"malpighi.records": "from malpighi.training.reinforce import train"}),
    (imports_not_down, {"malpighi.records": "from malpighi import training"}),
    (imports_not_down, {"malpighi.slides.tiles": "import malpighi.grading.grade"}),
    (imports_not_down, {"malpighi.pipeline.run": "from malpighi.recipes.mini import mini"}),
    (imports_not_down, {"malpighi.config": "def f():\n    from malpighi.records import Sample"}),
    (imports_not_down, {"malpighi.cli": "from malpighi.cellar import wine"}),
    (relative_imports, {"malpighi.grading.grade": "from .match import pairs"}),
    (late_imports, {"malpighi.grading.grade": "class A:\n    def f(self):\n        import torch"}),
    (late_imports, {"malpighi.grading.grade": "import importlib\nimportlib.import_module('torch')"}),
    (late_imports, {"malpighi.cli": "__import__('torch')"}),
    (
        circles,
        {
            "malpighi.grading.a": "from malpighi.grading.b import x",
            "malpighi.grading.b": "from malpighi.grading import c",
            "malpighi.grading.c": "import malpighi.grading.a",
        },
    ),
    (vague_names, {"malpighi.grading.helpers": ""}),
    (vague_names, {"malpighi.utils.text": ""}),
    (borrowed_names, {"malpighi.models.transformers": ""}),
    (borrowed_names, {"malpighi.slides.openslide": ""}),
    (borrowed_names, {"malpighi.yaml": ""}),
    (scaling_elsewhere, {"malpighi.slides.view": "size = 64 / level.mpp"}),
    (scaling_elsewhere, {"malpighi.slides.view": "width *= downsample"}),
    (room_fronts, {"malpighi.grading": '"""Graders."""\nimport re', "malpighi.grading.a": ""}),
    (room_fronts, {"malpighi.grading": "", "malpighi.grading.a": ""}),
    (oversized, {"malpighi.errors": "x = 1\n" * 501, "malpighi.config": "", "malpighi.pixels": ""}),
    (oversized, {"malpighi.errors": "x = 1\n" * 261}),
    (oversized, {"malpighi.errors": lines(15)}),
    (oversized, {"malpighi.errors": lines(1) * 4 + lines(46)}),
    (many_parameters, {"malpighi.errors": "def f(a, b, c, d, /, e, f, *, g, h): pass"}),
]
RULES = list(dict.fromkeys(rule for rule, _ in BAD_HOUSES))


def name(value: object) -> str | None:
    return getattr(value, "__name__", None)


@pytest.fixture(scope="module")
def sources():
    return read_sources()


@pytest.mark.parametrize("rule", RULES, ids=name)
def test_the_house_keeps_the_rule(rule, sources):
    assert rule(sources) == []


@pytest.mark.parametrize(("rule", "bad"), BAD_HOUSES, ids=name)
def test_the_rule_refuses(rule, bad):
    assert rule(bad)


def test_what_is_allowed_passes():
    good = {
        "malpighi.corpus": "from malpighi.records import Sample",
        "malpighi.recipes.mini": "from malpighi.pipeline.recipe import Recipe\nimport malpighi.errors",
        "malpighi.grading.a": "from malpighi.grading.b import x\nfrom malpighi import geometry",
        "malpighi.grading.b": "from malpighi.geometry import Box\nfrom importlib.metadata import version",
        "malpighi.cli": "def run():\n    import malpighi.pipeline.run",
        "malpighi.datasets.voc": "def f(self, a, b, c, d, e, f, g): pass",
    }
    assert {rule.__name__: rule(good) for rule in RULES if rule(good)} == {}


def test_all_sources_are_read(sources):
    assert {"malpighi", "malpighi.cli", "malpighi.grading", "malpighi.grading.grade"} <= set(sources)


def test_nothing_else_is_installed_from_src():
    found = {path.name for path in (ROOT / "src").iterdir() if not path.name.startswith((".", "__"))}
    assert found == {"malpighi"}
