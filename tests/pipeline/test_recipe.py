import msgspec
import pytest

from malpighi.errors import ConfigError, FormatVersionError
from malpighi.models.prompt import PromptStyle
from malpighi.pipeline.recipe import (
    SAVED_VERSION,
    Build,
    Classify,
    Data,
    Evaluate,
    Phantom,
    Recipe,
    Reinforce,
    Report,
    Saved,
    Supervised,
    check,
    needs,
    parse,
    source_of,
    with_settings,
)
from malpighi.records import TaskKind
from malpighi.training.settings import ClassifyConfig, ReinforceConfig, SupervisedConfig


def recipe(**stages):
    """Every kind of stage once; `stages` replaces some."""
    usual = {
        "data": Data(phantom=Phantom(cells=12, regions=6)),
        "build": Build(),
        "supervise": Supervised(
            start="build", tasks=(TaskKind.VQA,), train=SupervisedConfig(steps=8, batch_size=4, micro_batch=4)
        ),
        "reinforce": Reinforce(start="supervise", tasks=(TaskKind.VQA,), train=ReinforceConfig(steps=2)),
        "classify": Classify(train=ClassifyConfig(steps=3)),
        "evaluate": Evaluate(
            models={"before": "build", "after": "reinforce"}, classifier="classify", tasks=(TaskKind.VQA,)
        ),
        "report": Report(evaluation="evaluate"),
    }
    return Recipe(
        name="r", size="s", title="t", prompt=PromptStyle(family="qwen2_5_vl"), stages={**usual, **stages}
    )


def test_every_stage_kind_survives_recipe_json():
    saved = Saved(version=SAVED_VERSION, recipe=recipe(), environment={})
    assert parse(msgspec.json.encode(saved)) == recipe()


def test_a_recipe_json_from_before_segmenters_can_be_read():
    saved = msgspec.to_builtins(Saved(version=SAVED_VERSION, recipe=recipe(), environment={}))
    del saved["recipe"]["segmenter"]
    assert parse(msgspec.json.encode(saved)).segmenter == "classical"


@pytest.mark.parametrize("damaged", [b"{}", b"{", b'{"name": 3}', b'{"colour": "red"}'])
def test_a_recipe_json_of_another_kind_is_refused(damaged):
    with pytest.raises(ConfigError, match="run the recipe again into a new folder"):
        parse(damaged)


def test_a_recipe_json_of_another_release_is_refused():
    with pytest.raises(FormatVersionError, match=f"is of format 99, this release reads {SAVED_VERSION}"):
        parse(b'{"version": 99, "recipe": {}}')


def test_settings_reach_every_depth():
    changed = with_settings(
        recipe(),
        [
            "seed=3",
            "prompt.think=false",
            "reinforce.train.steps=9",
            "stages.supervise.train.learning_rate=1e-5",
            "reinforce.train.lora.rank=4",
            "evaluate.models={before: build}",
            "data.fractions=[0.5, 0.25, 0.25]",
        ],
    )
    stages = changed.stages
    assert (changed.seed, changed.prompt.think) == (3, False)
    assert (stages["reinforce"].train.steps, stages["reinforce"].train.lora.rank) == (9, 4)
    assert stages["supervise"].train.learning_rate == 1e-5
    assert stages["evaluate"].models == {"before": "build"}
    assert stages["data"].fractions == (0.5, 0.25, 0.25)
    assert with_settings(recipe(), []) == recipe()


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("reinforce.train.step=9", "there is no setting 'stages.reinforce.train.step'; did you mean steps"),
        ("reinfroce.train.steps=9", "there is no setting 'reinfroce'"),
        ("reinforce.train.steps=many", "steps: Expected `int`, got `str`"),
        ("supervise.tasks=[vqa, guessing]", "Invalid enum value 'guessing'"),
        ("supervise.start=align", "stage 'supervise' needs 'align', which is not among the stages before it"),
        ("supervise.start=reinforce", "stage 'supervise' needs 'reinforce'"),
        ("prompt.family=qwen9", "unknown model family 'qwen9'"),
        ("build.size.hidden=7", "hidden=7 does not split over heads"),
        ("steps", "is not of the form a.b=c"),
    ],
)
def test_wrong_settings_are_refused_by_name(assignment, words):
    with pytest.raises(ConfigError) as caught:
        with_settings(recipe(), [assignment])
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "stages",
    [
        {"supervise": Supervised(start="", tasks=(), train=SupervisedConfig(steps=1))},
        {"evaluate": Evaluate(models={"a": "nothing"}, tasks=())},
        {"evaluate": Evaluate(models={"a": "build"}, classifier="cnn", tasks=())},
        {"evaluate": Evaluate(models={"a": "report"}, tasks=())},
        {"report": Report(evaluation="report")},
    ],
)
def test_a_stage_must_stand_after_what_it_needs(stages):
    check(recipe())
    with pytest.raises(ConfigError, match="which is not among the stages before it"):
        check(recipe(**stages))


def test_what_each_stage_reads():
    stages = recipe().stages
    assert {name: needs(stage, stages) for name, stage in stages.items()} == {
        "data": (),
        "build": ("data",),
        "supervise": ("data", "build"),
        "reinforce": ("data", "supervise"),
        "classify": ("data",),
        "evaluate": ("data", "build", "reinforce", "classify"),
        "report": ("data", "evaluate"),
    }


def test_the_nearest_source_speaks_for_a_setting():
    made = msgspec.structs.replace(recipe(), sources={"stages.build": "paper", "stages.build.size": "ours"})
    assert source_of(made, "stages.build.size.hidden") == "ours"
    assert source_of(made, "stages.build.weights") == "paper"
    assert source_of(made, "stages.buildings") == ""
