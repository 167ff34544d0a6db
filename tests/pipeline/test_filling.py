"""The data stage and whole slides: phantom ones drawn into the run folder, and a user's with their table."""

import pytest
from PIL import Image, ImageDraw

pytest.importorskip("openslide", reason="needs the extra `slides`")

from malpighi.errors import ConfigError, DataError
from malpighi.models.prompt import PromptStyle
from malpighi.pipeline.context import Context
from malpighi.pipeline.filling import expected_counts, run_data
from malpighi.pipeline.folder import RunFolder
from malpighi.pipeline.recipe import Data, Phantom, Recipe
from malpighi.records import Choice, Scale

NOTHING = Phantom(cells=0, regions=0)


def filled(root, stage):
    """The context of a run whose data stage is finished, and the result of that stage."""
    style = PromptStyle(family="qwen2_5_vl", budgets={Scale.SLIDE: 64, Scale.ROI: 64})
    recipe = Recipe(name="t", size="s", title="t", prompt=style, stages={"data": stage})
    context = Context(recipe, RunFolder(root), "data")
    work = context.folder.stage("data")
    work.mkdir(parents=True, exist_ok=True)
    return context, run_data(context, stage, work)


@pytest.fixture
def slides(tmp_path):
    """Four white pictures as slides, two of each patient, on the first of which something is drawn."""
    folder = tmp_path / "sets/mine"
    (folder / "scans").mkdir(parents=True)
    rows = ["slide,label,group,mpp"]
    for index in range(4):
        picture = Image.new("RGB", (400, 300), (242, 240, 243))
        ImageDraw.Draw(picture).ellipse((120, 90, 240, 200), fill=(150 + 20 * index, 70, 140))
        picture.save(folder / f"scans/{index}.png")
        rows.append(f"scans/{index}.png,{'tumour' if index < 2 else 'normal'},p{index // 2},0.5")
    (folder / "slides.csv").write_text("\n".join(rows) + "\n")
    return folder


def test_phantom_slides_become_samples_that_can_be_shown(tmp_path):
    stage = Data(phantom=Phantom(cells=0, regions=0, slides=2))
    context, result = filled(tmp_path / "run", stage)
    samples = context.corpus.samples()
    assert result.failures == []
    assert len(samples) == expected_counts(stage)[1] == 8
    for sample in samples:
        prompt = context.pictures.prompt(sample)
        assert 0 < sum(image.width * image.height for image in prompt.images) / 28**2 <= 64
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*.tiff")}
    filled(tmp_path / "run", stage)
    assert before == {path: path.stat().st_mtime_ns for path in before}, "slides are drawn once"
    assert len(before) == 2


@pytest.mark.parametrize("given", ["sets", "sets/mine"])
def test_a_folder_with_a_table_is_a_data_set_of_slides(slides, tmp_path, given):
    stage = Data(folder=str(tmp_path / given), phantom=NOTHING)
    context, result = filled(tmp_path / "run", stage)
    samples = context.corpus.samples()
    assert expected_counts(stage) == (4, 4)
    assert [(s.exam, s.answer, s.images[0].mpp) for s in samples] == [
        ("mine/classification", Choice(int(index < 2)), 0.5) for index in range(4)
    ]
    (about,) = result.notes["sets"]
    assert about["name"] == "mine"
    assert about["licence"] == "not stated"
    assert sum(about["counts"].values()) == 4
    prompt = context.pictures.prompt(samples[0])
    assert "micrometres per pixel" in prompt.turns[-1].text


def test_a_slide_that_is_gone_is_one_failure(slides, tmp_path):
    (slides / "scans/1.png").unlink()
    (slides / "scans/2.png").write_bytes(b"no picture")
    context, result = filled(tmp_path / "run", Data(folder=str(slides), phantom=NOTHING))
    assert sorted(failure.id for failure in result.failures) == [
        "mine/scans/1.png:classification",
        "mine/scans/2.png:classification",
    ]
    assert len(context.corpus.samples()) == 2
    assert result.notes["sets"][0]["failed"] == 2


def test_a_slide_outside_its_folder_keeps_its_path(slides, tmp_path):
    elsewhere = (slides / "scans/0.png").rename(tmp_path / "0.png")
    rows = (slides / "slides.csv").read_text().replace("scans/0.png", str(elsewhere))
    (slides / "slides.csv").write_text(rows)
    context, result = filled(tmp_path / "run", Data(folder=str(slides.parent), phantom=NOTHING))
    assert result.failures == []
    assert {s.images[0].slide for s in context.corpus.samples()} == {
        str(elsewhere), "mine/scans/1.png", "mine/scans/2.png", "mine/scans/3.png",
    }  # fmt: skip
    for sample in context.corpus.samples():
        assert context.pictures.prompt(sample).images


def test_slides_of_a_known_data_set_are_relative_to_the_folder_of_all(tmp_path):
    for number, cohort in enumerate(("LUAD", "LSCC")):
        (tmp_path / "sets/cptac_nsclc" / cohort).mkdir(parents=True)
        picture = Image.new("RGB", (300, 200), (200, 80 + 60 * number, 160))
        picture.save(tmp_path / f"sets/cptac_nsclc/{cohort}/C3L-0000{number}-21.svs", "TIFF")
    context, result = filled(tmp_path / "run", Data(folder=str(tmp_path / "sets"), phantom=NOTHING))
    assert result.failures == []
    samples = context.corpus.samples()
    assert [s.images[0].slide for s in samples] == [
        "cptac_nsclc/LUAD/C3L-00000-21.svs", "cptac_nsclc/LSCC/C3L-00001-21.svs",
    ]  # fmt: skip
    for sample in samples:
        assert context.pictures.prompt(sample).images


def test_pictures_with_a_table_are_a_data_set(slides, tmp_path):
    rows = [
        "image,label,group,boxes",
        'scans/0.png,tumours,p0,"[[120, 90, 240, 200]]"',
        "scans/3.png,low,p1,",
    ]
    (slides / "slides.csv").rename(slides / "unused.csv")
    (slides / "tasks.csv").write_text("\n".join(rows))
    stage = Data(folder=str(tmp_path / "sets"), phantom=NOTHING)
    context, result = filled(tmp_path / "run", stage)
    assert expected_counts(stage) == (2, 2)
    assert [s.exam for s in context.corpus.samples()] == ["mine/detection", "mine/classification"]
    assert [about["name"] for about in result.notes["sets"]] == ["mine"]
    assert len(context.corpus.image_keys) == 2
    assert context.pictures.prompt(context.corpus.samples()[0]).images


def test_a_folder_without_data_names_both_layouts(tmp_path):
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match=r"herlev.*slides\.csv or tasks\.csv"):
        filled(tmp_path / "run", Data(folder=str(tmp_path), phantom=NOTHING))
    with pytest.raises(ConfigError, match="no folder"):
        expected_counts(Data(folder=str(tmp_path / "none"), phantom=NOTHING))
