import json
import math

import msgspec
import pytest
from msgspec.structs import replace

from malpighi.errors import UserError
from malpighi.pipeline import run as spine
from malpighi.pipeline.context import StageResult
from malpighi.pipeline.cost import Machine, measure
from malpighi.pipeline.folder import Done, RunFolder
from malpighi.pipeline.plan import at_most, plan, spans, total
from malpighi.pipeline.recipe import with_settings
from malpighi.recipes.controls import controls
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


def by_name(found):
    return {span.stage: span for span in found}


def test_what_goes_side_by_side_takes_the_time_of_the_longest(folder):
    """Two processes: the classifier beside what is before supervision, then models two at a time."""
    found = plan(mini("demo"), folder, MACHINE)
    seconds = {row.stage: row.seconds for row in found}
    at = by_name(spans(found, 2))
    assert at["classify"].start == at["build"].start == seconds["data"]
    assert at["align"].start == pytest.approx(seconds["data"] + seconds["build"])
    assert at["evaluate"].end - at["evaluate"].start == pytest.approx(seconds["evaluate"] / 2)
    one, two, many = (total(found, workers)[0] for workers in (1, 2, 99))
    assert one == pytest.approx(sum(seconds.values()))
    assert one > two > many
    longest = sum(seconds[name] for name in ("data", "build", "align", "supervise", "report"))
    assert many == pytest.approx(longest + seconds["reinforce"] / 2 + seconds["evaluate"] / 4)


def test_what_goes_side_by_side_takes_memory_together(folder):
    found = plan(mini("demo"), folder, MACHINE)
    assert total(found, 1)[1] == max(row.gigabytes for row in found)
    assert total(found, 2)[1] >= 2 * next(row.gigabytes for row in found if row.stage == "reinforce")


def test_the_rounds_of_resampling_are_bounded(folder):
    found = plan(controls("demo"), folder, MACHINE)
    (dapo,) = (row for row in found if row.most > row.seconds)
    assert dapo.stage == "dapo"
    assert dapo.count.endswith("answers, drawn anew up to 3 times")
    more = plan(with_settings(controls("demo"), ["dapo.train.resample=6"]), folder, MACHINE)
    gap = {row.stage: row.most - row.seconds for row in more}["dapo"]
    assert gap == pytest.approx(2 * (dapo.most - dapo.seconds))
    assert at_most(found) == pytest.approx(total(found)[0] + dapo.most - dapo.seconds)
    assert at_most(plan(mini("demo"), folder, MACHINE)) == total(plan(mini("demo"), folder, MACHINE))[0]


def test_a_rollout_in_parts_takes_longer(folder):
    whole, parts = (rows(folder, *more)["reinforce"] for more in ([], ["reinforce.train.rollout_batch=8"]))
    assert parts.seconds > whole.seconds


class World:
    """A clock, and stages that take what their plan says; the spine shares them out among processes."""

    def __init__(self, rows):
        self.rows = {row.stage: row for row in rows}
        self.now = 0.0
        self.ahead = []
        self.inside = False

    def run_stage(self, context, stage, work):
        row = self.rows[context.name]
        if not self.inside:
            lanes = min(context.workers, row.parts)
            self.advance(self.now + row.seconds * math.ceil(row.parts / lanes) / row.parts)
        return StageResult([], {})

    def start(self, function, context, inputs):
        self.ahead.append(
            Elsewhere(self, self.now + self.rows[context.name].seconds, function, context, inputs)
        )
        return self.ahead[-1]

    def advance(self, to):
        """What works ahead leaves its results when its time has come, and no sooner."""
        self.inside = True
        for process in sorted(self.ahead, key=lambda process: process.end):
            if process.end <= to and process.is_alive():
                process.finish()
        self.inside = False
        self.now = max(self.now, to)


class Elsewhere:
    """A process of that world."""

    exitcode = 0

    def __init__(self, world, end, *call):
        self.world, self.end, self.call = world, end, call

    def is_alive(self):
        return bool(self.call)

    def finish(self):
        (function, *given), self.call = self.call, ()
        function(*given)

    def join(self):
        self.world.advance(self.end)


@pytest.mark.usefixtures("untouched_process")
@pytest.mark.parametrize("workers", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("lengths", ["estimated", "alike", "other"])
@pytest.mark.parametrize("recipe", [mini("smoke"), controls("smoke")], ids=lambda recipe: recipe.name)
def test_the_plan_shares_stages_out_as_the_run_does(folder, monkeypatch, recipe, lengths, workers):
    found = plan(recipe, folder, MACHINE)
    if lengths != "estimated":
        found = [
            replace(row, seconds=1.0 if lengths == "alike" else 1.0 + (7 * k % 5))
            for k, row in enumerate(found)
        ]
    world = World(found)
    for kind in spine.RUNNERS:
        monkeypatch.setitem(spine.RUNNERS, kind, world.run_stage)
    monkeypatch.setattr(spine.ahead, "start", world.start)
    spine.run(recipe, folder.root, spine.Silent(), workers)
    assert world.now == pytest.approx(total(found, workers)[0])
