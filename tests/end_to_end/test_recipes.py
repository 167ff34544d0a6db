"""Every other recipe runs whole, in miniature, and says what each model scores."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
SCRIPT = shutil.which("malpighi", path=str(Path(sys.executable).parent))
FEW = ("data.phantom.cells=36", "data.phantom.regions=36", "evaluate.per_exam=2", "report.draws=100")


def malpighi(*arguments):
    return subprocess.run(
        [SCRIPT, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=900
    )


@pytest.mark.parametrize(
    ("recipe", "settings", "models"),
    [
        ("smartpath", (), {"base", "supervised", "experts"}),
        ("smartpath", ("family=qwen3_vl", "reward=paper"), {"base", "supervised", "experts"}),
        ("patho_r1", (), {"base", "pretrained", "supervised", "reinforced"}),
        ("patho_r1", ("algorithm=grpo",), {"base", "pretrained", "supervised", "reinforced"}),
        (
            "controls",
            ("size=smoke",),
            {"supervised", "continued", "experts", "one_adapter", "paper_reward", "dapo"},
        ),
    ],
)
def test_it_runs_whole(tmp_path, recipe, settings, models):
    changes = [part for setting in (*settings, *FEW) for part in ("--set", setting)]
    ended = malpighi("run", recipe, "--work", tmp_path / "run", *changes)
    assert ended.returncode == 0, ended.stderr
    results = json.loads(malpighi("report", tmp_path / "run", "--json").stdout)["results"]
    assert set(results["models"]) - {"majority"} == models
    assert {row["model"] for row in results["rows"]} >= models
    assert (tmp_path / "run" / "report.html").is_file()
    compared = {(pair["first"], pair["second"]) for pair in results["comparisons"]}
    assert len(compared) >= len(models) - 1
