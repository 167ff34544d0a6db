import json

import msgspec
import pytest

from malpighi.errors import UserError
from malpighi.pipeline.folder import Done, RunFolder
from malpighi.pipeline.plan import Machine, measure, plan, total
from malpighi.pipeline.recipe import with_settings
from malpighi.recipes.mini import mini

MACHINE = Machine(flops=1e10, small=1e-5)


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "run")


def rows(folder, *settings, size="demo"):
    return {row.stage: row for row in plan(with_settings(mini(size), settings), folder, MACHINE)}


def test_every_stage_has_a_row(folder):
    found = rows(folder)
    assert list(found) == list(mini("demo").stages)
    assert all(row.seconds > 0 and row.gigabytes > 0 and row.count for row in found.values())
    assert {row.state for row in found.values()} == {"to do"}
    assert {name for name, row in found.items() if row.tokens} == {
        "align",
        "supervise",
        "reinforce",
        "evaluate",
    }
    assert not folder.root.exists()


def test_a_plan_is_json(folder):
    assert len(json.loads(msgspec.json.encode(list(rows(folder).values())))) == 8


@pytest.mark.parametrize(
    ("setting", "stage"),
    [
        ("data.phantom.cells=9000", "data"),
        ("supervise.train.steps=900", "supervise"),
        ("reinforce.train.group=32", "reinforce"),
        ("classify.train.image_size=224", "classify"),
        ("build.size.hidden=384", "align"),
    ],
)
def test_more_of_anything_costs_more(folder, setting, stage):
    assert rows(folder, setting)[stage].seconds > rows(folder)[stage].seconds


def test_bigger_micro_batches_cost_memory(folder):
    more = rows(folder, "supervise.train.micro_batch=32", "supervise.train.batch_size=32")
    assert more["supervise"].gigabytes > rows(folder, "supervise.train.micro_batch=1")["supervise"].gigabytes


def test_what_is_finished_costs_nothing_more(folder):
    before = total(list(rows(folder).values()))
    folder.begin("supervise", "x")
    folder.finish("supervise", Done(inputs="x", seconds=1.0), [])
    found = rows(folder)
    assert found["supervise"].state == "finished"
    assert total(list(found.values()))[0] == pytest.approx(before[0] - found["supervise"].seconds)
    assert total([]) == (0, 0)


def test_the_smoke_size_is_smaller(folder):
    assert total(list(rows(folder, size="smoke").values()))[0] < total(list(rows(folder).values()))[0] / 5


def test_real_weights_are_counted_from_their_files(folder, miniatures):
    mini_folder = miniatures("qwen3_vl").folder
    found = rows(folder, f"build.weights={mini_folder}")["build"]
    parameters = sum(p.numel() for p in miniatures("qwen3_vl").load().model.parameters())
    assert float(found.count.split()[0]) == pytest.approx(parameters / 1e6, abs=0.06)


def test_weights_that_are_not_there_are_refused(folder, tmp_path):
    with pytest.raises(UserError, match=str(tmp_path)):
        rows(folder, f"build.weights={tmp_path / 'nothing'}")


def test_the_machine_is_measured():
    found = measure()
    assert found.flops > 1e8
    assert 0 < found.small < 1e-2
