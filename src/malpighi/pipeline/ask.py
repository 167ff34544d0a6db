"""Ask the model of a finished run about a picture."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from malpighi.config import digest
from malpighi.corpus import blob_of
from malpighi.errors import DataError, UserError
from malpighi.evaluation.cases import spoken
from malpighi.inference.engine import Sampling
from malpighi.inference.transformers_engine import TransformersEngine
from malpighi.models.prompt import build_prompt
from malpighi.pipeline.folder import RunFolder
from malpighi.pipeline.learning import answering
from malpighi.pipeline.recipe import Evaluate, Stage
from malpighi.pixels import decode_image
from malpighi.records import ImageRef, Provenance, Sample, Scale, TaskKind, Text, Turn


class Reply(NamedTuple):
    """What the model said: reasoning, answer, the raw text, and which stage's model it was."""

    reasoning: str
    answer: str
    text: str
    model: str


def ask(root: Path, image: Path, question: str, *, model: str = "", max_new_tokens: int = 256) -> Reply:
    """Put a free question about one picture to a model of a run.

    Args:
        root: the run folder.
        image: a picture file.
        question: in words; nothing is added to it but the recipe's system message.
        model: name in the tables, e.g. `supervised`; "" takes the last one.
        max_new_tokens: longest answer, tokens.

    Raises:
        UserError: no such run, picture or model, or the model is not trained yet.
    """
    folder = RunFolder(root)
    recipe = folder.recipe()
    models = _models(recipe.stages.values())
    name = model or list(models)[-1]
    if name not in models:
        raise UserError(f"the run has no model '{name}'; it has {', '.join(models)}")
    if folder.done(models[name]) is None:
        raise UserError(
            f"model '{name}' is not trained yet in {root}; finish it with: malpighi run {recipe.name}"
        )
    prompt = build_prompt(*_sample(image, question), recipe.prompt)
    vlm, route = answering(folder, models[name])
    engine = TransformersEngine(vlm, route=route)
    completion = engine.generate([prompt], Sampling(max_new_tokens=max_new_tokens))[0]
    if completion.finish == "error":
        raise UserError(f"the model gave no answer: {completion.error}")
    return Reply(*spoken(completion.text), completion.text, name)


def _models(stages: Iterable[Stage]) -> dict[str, str]:
    for stage in stages:
        if isinstance(stage, Evaluate):
            return dict(stage.models)
    raise UserError("this recipe evaluates no model, so there is none to ask")


def _sample(path: Path, question: str) -> tuple[Sample, list[Image.Image]]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"cannot read the picture {path}: {error.strerror}; give the path of an image file"
        ) from error
    picture = decode_image(data)
    sample = Sample(
        id=path.name,
        dataset="asked",
        exam="asked/free",
        task=TaskKind.VQA,
        scale=Scale.ROI,
        images=(ImageRef(blob_of(data, path.suffix).key, picture.size),),
        turns=(Turn("user", question),),
        answer=Text(""),
        group=path.name,
        licence="unknown",
        provenance=Provenance("asked", config=digest(question)),
    )
    return sample, [picture]
