import msgspec
import pytest

from malpighi.errors import ConfigError
from malpighi.models.families import FAMILIES
from malpighi.pipeline.recipe import Data, Recipe, check
from malpighi.recipes.mini import SIZES, mini


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("size", SIZES)
def test_every_size_holds_together(size, family):
    recipe = mini(size, family)
    check(recipe)
    assert (recipe.name, recipe.size, recipe.prompt.family) == ("mini", size, family)
    assert msgspec.json.decode(msgspec.json.encode(recipe), type=Recipe) == recipe


@pytest.mark.parametrize("size", SIZES)
def test_loops_split_evenly(size):
    """What the trainers would refuse after minutes is refused here."""
    stages = mini(size).stages
    for name in ("align", "supervise"):
        train = stages[name].train
        assert train.batch_size % train.micro_batch == 0
        assert train.steps > 0
    train = stages["reinforce"].train
    assert train.prompts * train.group % train.micro_batch == 0


def test_data_decide_the_usual_size():
    assert mini().size == "demo"
    assert mini(data="somewhere").size == "real"
    assert mini("smoke", data="somewhere").size == "smoke"
    assert mini(data="somewhere").stages["data"].folder == "somewhere"


def test_the_phantom_is_rendered_where_there_are_no_data():
    for size in ("demo", "smoke"):
        data = mini(size).stages["data"]
        assert isinstance(data, Data)
        assert data.phantom.cells > 0
        assert data.phantom.regions > 0


def test_the_last_model_reported_is_the_last_one_trained():
    stages = mini().stages
    assert list(stages["evaluate"].models.items())[-1] == ("reinforced", "reinforce")
    assert stages["evaluate"].classifier == "classify"


def test_an_unknown_size_or_family_is_refused():
    with pytest.raises(ConfigError, match="mini has no size 'huge'; take demo, smoke, real"):
        mini("huge")
    with pytest.raises(ConfigError, match="unknown model family 'gpt'"):
        mini(family="gpt")
