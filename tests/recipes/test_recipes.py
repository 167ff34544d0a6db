"""What holds for every recipe."""

import msgspec
import pytest

from malpighi.config import leaves
from malpighi.errors import ConfigError
from malpighi.grading.published import Mode
from malpighi.pipeline.recipe import Experts, Recipe, Reinforce, Supervised, check, needs, source_of
from malpighi.recipes.catalogue import RECIPES
from malpighi.recipes.controls import controls
from malpighi.recipes.mini import mini
from malpighi.recipes.patho_r1 import patho_r1
from malpighi.recipes.smartpath import smartpath

PAPERS = {
    "smartpath paper": smartpath(weights="w"),
    "patho_r1 paper, grpo": patho_r1(weights="w", algorithm="grpo"),
    "patho_r1 paper, dapo": patho_r1(weights="w", algorithm="dapo"),
    "controls smoke": controls("smoke"),
}
EVERY = {name: function() for name, function in RECIPES.items()} | PAPERS


@pytest.fixture(params=EVERY)
def recipe(request):
    return EVERY[request.param]


def test_it_holds_together(recipe):
    check(recipe)
    assert msgspec.json.decode(msgspec.json.encode(recipe), type=Recipe) == recipe


def test_every_number_says_where_it_comes_from(recipe):
    silent = [
        path
        for path, _ in leaves(recipe)
        if not path.startswith(("sources", "name", "size", "title", "prompt.family", "prompt.think"))
        and not path.endswith((".type", ".start"))
        and not source_of(recipe, path)
    ]
    assert silent == []


def test_no_source_names_what_is_not_there(recipe):
    paths = [path for path, _ in leaves(recipe)]
    unknown = [name for name in recipe.sources if not any(f"{p}.".startswith(f"{name}.") for p in paths)]
    assert unknown == []


def test_loops_split_evenly(recipe):
    """What the trainers would refuse after minutes is refused here."""
    for stage in recipe.stages.values():
        match stage:
            case Supervised(train=train):
                assert train.batch_size % train.micro_batch == 0
            case Reinforce(train=train) | Experts(train=train):
                assert train.prompts * train.group % train.micro_batch == 0
                assert train.micro_batch % train.group == 0


def test_smartpath_has_the_numbers_of_its_paper():
    recipe = smartpath(weights="w", reward="paper")
    supervise, experts = recipe.stages["supervise"].train, recipe.stages["experts"].train
    assert (supervise.learning_rate, supervise.weight_decay, supervise.schedule) == (1e-4, 0.1, "cosine")
    assert (experts.learning_rate, experts.weight_decay, experts.schedule) == (1e-5, 0.1, "cosine")
    assert (experts.beta, experts.epsilon, experts.epsilon_high, experts.group) == (1e-3, 0.2, 0.2, 8)
    assert (experts.lora.rank, experts.lora.alpha) == (32, 128)
    assert experts.mode is Mode.PAPER
    assert (recipe.prompt.budgets["roi"], recipe.prompt.budgets["slide"]) == (256, 1024)


def test_patho_r1_goes_both_ways():
    grpo = patho_r1(algorithm="grpo").stages["reinforce"].train
    dapo = patho_r1(algorithm="dapo").stages["reinforce"].train
    assert (grpo.loss, grpo.resample, grpo.epsilon_high, grpo.overlong_buffer) == ("grpo", 0, 0.2, 0)
    assert grpo.beta > 0
    assert (dapo.loss, dapo.beta, dapo.epsilon, dapo.epsilon_high) == ("dapo", 0.0, 0.2, 0.28)
    assert dapo.resample > 0
    assert {parts["overlong"] for parts in dapo.rewards.values()} == {-1.0}
    assert all("overlong" not in parts for parts in grpo.rewards.values())


def test_controls_all_start_from_the_same_model_and_differ_as_said():
    recipe = controls(seed=3)
    arms = [name for name in recipe.stages if "supervise" in needs(recipe.stages[name], recipe.stages)]
    assert arms == ["continued", "experts", "one_adapter", "paper_reward", "dapo", "evaluate"]
    assert recipe.stages["experts"] == mini(seed=3).stages["reinforce"]
    experts, one = recipe.stages["experts"].train, recipe.stages["one_adapter"].train
    assert one.lora.rank == 2 * experts.lora.rank
    assert one.lora.alpha / one.lora.rank == experts.lora.alpha / experts.lora.rank
    assert one.steps == 2 * experts.steps
    assert set(recipe.stages["report"].pairs) >= {("supervised", "experts"), ("dapo", "experts")}


@pytest.mark.parametrize(
    ("function", "arguments", "words"),
    [
        (smartpath, {"size": "huge"}, "smartpath has no size 'huge'; take paper, smoke"),
        (smartpath, {"size": "paper"}, "weights=FOLDER with Qwen2.5-VL"),
        (smartpath, {"reward": "kind"}, "smartpath has no reward 'kind'; take robust, paper"),
        (patho_r1, {"algorithm": "ppo"}, "patho_r1 has no algorithm 'ppo'; take grpo, dapo"),
        (patho_r1, {"size": "paper"}, "weights=FOLDER with Qwen2.5-VL"),
    ],
)
def test_mistakes_are_named(function, arguments, words):
    with pytest.raises(ConfigError) as caught:
        function(**arguments)
    assert words in str(caught.value)
