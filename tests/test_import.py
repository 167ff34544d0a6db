"""What importing costs: the package, its command and the light rooms load no torch."""

import json
import pkgutil
import re
import subprocess
import sys

import malpighi

HEAVY = {"torch", "torchvision", "transformers", "timm", "trl", "peft", "accelerate", "datasets"}
# Models, the engine that runs them, training, and what stands on training.
TORCH_ROOMS = ("malpighi.models", "malpighi.training", "malpighi.pipeline", "malpighi.recipes")
TORCH_FILES = tuple(
    f"malpighi.inference.{name}"
    for name in (
        "transformers_engine",
        "drawing",
        "chat_model",
        "chat_engine",
        "option_likelihood",
        "encoders",
        "tile_features",
        "slide_answer",
        "contextual_match",
        "dual_encoder",
    )
)


def light_modules() -> list[str]:
    found = pkgutil.walk_packages(malpighi.__path__, "malpighi.")
    return [m.name for m in found if not m.name.startswith((*TORCH_ROOMS, *TORCH_FILES))]


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)


def heavy_after(statements: str) -> set[str]:
    """The heavy packages that a fresh interpreter has loaded after `statements`."""
    result = python("-c", f"{statements}\nimport json, sys\nprint(json.dumps(list(sys.modules)))")
    return HEAVY & set(json.loads(result.stdout.splitlines()[-1]))


def loaded(import_times: str) -> set[str]:
    """Top-level packages in what `-X importtime` writes."""
    return {name.split(".")[0] for name in re.findall(r"^import time:.*\| +(\S+)$", import_times, re.M)}


def test_the_package_loads_nothing():
    names = loaded(python("-X", "importtime", "-c", "import malpighi").stderr)
    assert "malpighi" in names
    assert not names & {*HEAVY, "numpy", "msgspec"}


def test_help_loads_no_torch():
    result = python("-X", "importtime", "-c", "from malpighi.cli import main; main()", "--help")
    names = loaded(result.stderr)
    assert "typer" in names
    assert not names & HEAVY
    assert "Usage" in result.stdout
    for command in ("run", "plan", "status", "report", "ask", "route", "phantom", "data", "slide"):
        assert re.search(rf"^\W*{command} ", result.stdout, re.M), command


def test_the_light_rooms_load_no_torch():
    modules = light_modules()
    assert {"malpighi.cli", "malpighi.corpus", "malpighi.grading.grade"} <= set(modules)
    assert heavy_after("\n".join(f"import {module}" for module in modules)) == set()


def test_a_heavy_import_would_be_seen():
    assert heavy_after("import sys\nsys.modules['torch'] = sys") == {"torch"}
    assert loaded("import time:       12 |         34 |   torch.nn\n") == {"torch"}
