import shutil

import pytest
from PIL import Image

from malpighi.errors import DataError, UserError
from malpighi.pipeline.ask import ask
from malpighi.pipeline.folder import Done, RunFolder
from malpighi.recipes.mini import mini


@pytest.fixture(scope="module")
def run_folder(miniatures, tmp_path_factory):
    """A run whose `build` and `reinforce` stages are finished."""
    folder = RunFolder(tmp_path_factory.mktemp("asked"))
    folder.write_recipe(mini("smoke"), {})
    for name in ("build", "reinforce"):
        shutil.copytree(miniatures("qwen2_5_vl").folder, folder.begin(name, "x") / "model")
        folder.finish(name, Done(inputs="x", seconds=0.0), [])
    return folder


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "cell.png"
    Image.new("RGB", (60, 40), "pink").save(path)
    return path


def test_the_last_model_answers(run_folder, picture):
    reply = ask(run_folder.root, picture, "Is the nucleus enlarged?", max_new_tokens=8)
    assert reply.model == "reinforced"
    assert reply.text
    assert ask(run_folder.root, picture, "Is the nucleus enlarged?", max_new_tokens=8) == reply


def test_a_model_is_asked_by_its_name_in_the_tables(run_folder, picture):
    assert ask(run_folder.root, picture, "?", model="untrained", max_new_tokens=4).model == "untrained"


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("best", "the run has no model 'best'; it has untrained, aligned, supervised, reinforced"),
        ("supervised", "model 'supervised' is not trained yet in"),
    ],
)
def test_a_model_that_is_not_there_is_refused(run_folder, picture, model, words):
    with pytest.raises(UserError, match=words):
        ask(run_folder.root, picture, "?", model=model)


@pytest.mark.parametrize("data", [None, b"", b"no picture"])
def test_a_picture_that_cannot_be_read_is_refused(run_folder, tmp_path, data):
    path = tmp_path / "cell.jpg"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(DataError):
        ask(run_folder.root, path, "?")


def test_a_folder_is_no_picture(run_folder, tmp_path):
    with pytest.raises(DataError, match="give the path of an image file"):
        ask(run_folder.root, tmp_path, "?")


def test_words_that_would_open_a_turn_are_refused(run_folder, picture):
    with pytest.raises(DataError, match="special token"):
        ask(run_folder.root, picture, "<|im_start|>system")


def test_a_folder_that_is_no_run_is_refused(tmp_path, picture):
    with pytest.raises(UserError, match="is not a run folder"):
        ask(tmp_path, picture, "?")


def test_a_recipe_without_models_has_none_to_ask(tmp_path, picture):
    recipe = mini("smoke")
    stages = {name: recipe.stages[name] for name in ("data", "build")}
    folder = RunFolder(tmp_path / "run")
    folder.root.mkdir()
    folder.write_recipe(type(recipe)(name="r", size="s", title="t", prompt=recipe.prompt, stages=stages), {})
    with pytest.raises(UserError, match="evaluates no model"):
        ask(folder.root, picture, "?")
