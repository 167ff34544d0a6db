"""What docs/concepts/guidelines.md shows is run."""

import re
from pathlib import Path

from malpighi.guidelines.examine import examine
from malpighi.guidelines.pack import load_pack

PAGE = (Path(__file__).parents[2] / "docs" / "concepts" / "guidelines.md").read_text(encoding="utf-8")


def block(language):
    found = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert len(found) == 1
    return found[0]


def test_the_example_pack_is_sound(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(block("yaml"), encoding="utf-8")
    pack = load_pack(path)
    assert pack.category({"NCR": True}, "urothelial") == "ATYPICAL"
    found = examine(pack)
    assert (
        found.unreachable_rules
        == found.unreachable_categories
        == found.idle_observations
        == found.falls
        == ()
    )


def test_the_example_code_prints_what_its_comments_say(capsys):
    code = block("python")
    exec(compile(code, "guidelines.md", "exec"), {})
    assert capsys.readouterr().out.splitlines() == re.findall(r"print\(.*\)  # (.*)", code)
