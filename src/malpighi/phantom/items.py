"""From a picture and its questions to records."""

import hashlib
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from malpighi.records import (
    Answer,
    Blob,
    ImageRef,
    Item,
    Provenance,
    Sample,
    Scale,
    TaskKind,
    Turn,
)

DATASET = "phantom"
LICENCE = "Apache-2.0 (generated)"


@dataclass(frozen=True)
class Question:
    """One question about a picture and its right answer.

    Attributes:
        exam: last part of the exam's name, e.g. `category`.
        task: decides the grader.
        text: the question.
        answer: the right answer.
        options: the names to choose from.
        reasoning: how one gets there; "" for none.
    """

    exam: str
    task: TaskKind
    text: str
    answer: Answer
    options: tuple[str, ...] = ()
    reasoning: str = ""


@dataclass(frozen=True)
class Picture:
    """A picture and what all its samples have in common.

    Attributes:
        id: first part of the samples' ids.
        blob: the encoded picture.
        size: (width, height), px.
        mpp: micrometres per pixel.
        scale: cell or roi.
        group: the patient.
        organ: e.g. `cervix`.
        stain: `PAP` or `HE`.
        provenance: what drew it.
        facts: what was measured on it.
    """

    id: str
    blob: Blob
    size: tuple[int, int]
    mpp: float
    scale: Scale
    group: str
    organ: str
    stain: str
    provenance: Provenance
    facts: dict[str, Any]

    def item(self, question: Question, *further: Blob) -> Item:
        """The sample that asks `question`, with the picture and any `further` blobs its answer refers to."""
        sample = Sample(
            id=f"{self.id}/{question.exam}",
            dataset=DATASET,
            exam=f"{DATASET}/{question.exam}",
            task=question.task,
            scale=self.scale,
            images=(ImageRef(self.blob.key, self.size, self.mpp),),
            turns=(Turn("user", question.text),),
            answer=question.answer,
            options=question.options,
            reasoning=question.reasoning,
            group=self.group,
            organ=self.organ,
            stain=self.stain,
            licence=LICENCE,
            provenance=self.provenance,
            facts=self.facts,
        )
        return Item(sample, (self.blob, *further))


def png_blob(pixels: NDArray[Any]) -> Blob:
    """Pixels (H x W x 3 uint8, or an H x W uint8 mask) as a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", compress_level=4)
    data = buffer.getvalue()
    return Blob(hashlib.sha256(data).hexdigest(), data, ".png")


def rounded(measured: dict[str, float]) -> dict[str, float]:
    """Measurements as they stand in a record's facts: four decimals."""
    return {name: round(float(value), 4) for name, value in measured.items()}
