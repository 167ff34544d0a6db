"""What an examination needs while it asks: the model, the samples and how each is shown, and the grader."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from PIL import Image

from malpighi.claims import Claims
from malpighi.config import digest
from malpighi.durable import replacing
from malpighi.errors import ConfigError
from malpighi.evaluation.controls import (
    BLANK,
    MISMATCHED,
    PERMUTED,
    blanked,
    control_name,
    permutable,
    permuted,
    strangers,
)
from malpighi.evaluation.evaluate import EvaluateOptions
from malpighi.evaluation.leaks import LeakReport
from malpighi.evaluation.report import Panel
from malpighi.evaluation.shards import refuse_begun
from malpighi.geometry import View
from malpighi.grading.grade import Reading
from malpighi.inference.engine import Completion, Sampling
from malpighi.inference.slide_views import SlideViews
from malpighi.models.pictures import Pictures
from malpighi.models.prompt import Prompt, option_texts
from malpighi.models.segmenter import fingerprint, load_segmenter
from malpighi.pipeline.context import Tell
from malpighi.pipeline.exam_report import ExamPage
from malpighi.pipeline.exam_settings import OWN, RECORD, ExamSettings
from malpighi.pipeline.examinee import Asking, Examinee, open_examinee
from malpighi.pipeline.marking import Marker
from malpighi.pipeline.material import Material, chosen, of_suite, open_material
from malpighi.pipeline.run import environment
from malpighi.pipeline.screening import LEAKS, check_leaks, leak_panel
from malpighi.pixels import decode_image
from malpighi.records import Grade, MaskRef, Sample
from malpighi.slides.steps import tissue_map
from malpighi.slides.tissue import TissueSettings

CACHE = "answers.sqlite"
RECORD_VERSION = 1


class Sheet(NamedTuple):
    """One file of rows.

    Attributes:
        name: whose rows they are.
        samples: what is asked.
        prompt_of: how each is shown.
        borrowed: whether the images are those of other samples.
    """

    name: str
    samples: Sequence[Sample]
    prompt_of: Callable[[Sample], Prompt]
    borrowed: bool = False


@dataclass(frozen=True)
class Room:
    """Everything that asking needs.

    Attributes:
        examinee: who is asked.
        material: all data.
        samples: what is asked of it.
        pictures: builds the prompts.
        marker: grades the answers.
        settings: how it is asked.
        out: the run folder.
    """

    examinee: Examinee
    material: Material
    samples: list[Sample]
    pictures: Pictures
    marker: Marker
    settings: ExamSettings
    out: Path

    @classmethod
    def open(
        cls, model: str, data: str | Path | Material, out: Path, settings: ExamSettings, tell: Tell
    ) -> "Room":
        """Find model and data; loads no weights yet. Raises as `open_examinee` and `open_material`."""
        examinee = open_examinee(model, settings)
        material = open_material(data, out, settings, tell)
        frame = examinee.style.facts.frame
        views = SlideViews(material.root, tissue=partial(tissue_map, settings=TissueSettings()), frame=frame)
        pictures = Pictures(material.store.image_bytes, examinee.style, show=views.show)
        marker = Marker(material.store, frame, lambda: load_segmenter(settings.segmenter))
        samples = chosen(material, settings)
        return cls(examinee, material, samples, pictures, marker, settings, out)

    def asking(self) -> Asking:
        """The engine, with chances and cache as the settings say."""
        cache = self.out / CACHE if self.settings.cache else None
        return Asking(self.examinee, cache, with_chances=self.settings.with_chances)

    def sheets(self) -> list[Sheet]:
        """The exam itself, then its controls."""
        name, pictures = self.examinee.name, self.pictures
        sheets = [Sheet(name, self.samples, self.prompt)]
        if BLANK in self.settings.controls:
            pictured = [sample for sample in self.samples if sample.images]
            sheets.append(Sheet(control_name(name, BLANK), pictured, lambda s: blanked(pictures.prompt(s))))
        if MISMATCHED in self.settings.controls:
            other = strangers(self.samples)
            matched = [sample for sample in self.samples if sample.id in other]

            def strange(sample: Sample) -> Prompt:
                return pictures.prompt(msgspec.structs.replace(sample, images=other[sample.id].images))

            sheets.append(Sheet(control_name(name, MISMATCHED), matched, strange, borrowed=True))
        if PERMUTED in self.settings.controls:
            turned = [permuted(sample) for sample in self.samples if permutable(sample)]
            sheets.append(Sheet(control_name(name, PERMUTED), turned, self.prompt))
        return [sheet for sheet in sheets if sheet.samples]

    def grade_of(self, sheet: Sheet) -> Callable[[Sample, Completion, Prompt], Grade]:
        """The verdict on the completions of a sheet."""

        def grade_completion(sample: Sample, completion: Completion, prompt: Prompt) -> Grade:
            view = prompt.views[0] if prompt.views else None
            if sheet.borrowed and view is not None and not sample.images[0].unmade:
                # Boxes on a borrowed picture are read as if they lay at the same place of the own one.
                view = View(sample.images[0].size, view.resized_size)
            reading = Reading(truncated=completion.finish == "length", ceiling=self.marker.ceiling(sample))
            return self.marker.grade_text(sample, completion.text, view, reading)

        return grade_completion

    def options(self, sheet: Sheet) -> EvaluateOptions:
        """What the rows of a sheet are begun with: who answers, how asked, what makes masks of boxes."""
        masks = any(isinstance(sample.answer, MaskRef) for sample in sheet.samples)
        segmenter = fingerprint(self.settings.segmenter) if masks else ""
        asked = (self.examinee.fingerprint, self.examinee.style, self.settings.with_chances, segmenter)
        return EvaluateOptions(
            model=sheet.name,
            batch_size=self.examinee.batch_size,
            sampling=self.sampling,
            fingerprint=digest(*asked),
        )

    @property
    def sampling(self) -> Sampling:
        """How answers are drawn."""
        asked = self.settings
        return Sampling(asked.max_new_tokens, asked.temperature, asked.seed)

    def page(self) -> ExamPage:
        """What tables and report are made of."""
        return ExamPage(
            self.out,
            self.examinee,
            self.settings,
            self.material,
            self.samples,
            self.marker.grade_image,
            self._picture,
            environment(),
            self._panels(),
        )

    def check_leaks(self) -> None:
        """Look for what of the samples was trained on; written beside the answers.

        Raises:
            DataError: something was, and the settings refuse it.
            UserError: no training data are where the settings say.
        """
        asked = self.settings
        if not asked.train:
            return
        if self.material.corpus is None:
            raise ConfigError("leaks are looked for in a corpus on disk; these samples are in memory")
        train = self.material.corpus if asked.train == OWN else Path(asked.train)
        check_leaks(self.material.corpus, train, policy=asked.leaks, samples=self.samples, out=self._leaks)

    @property
    def _leaks(self) -> Path:
        """The folder of what this model was found to have seen; another model was trained on other data."""
        return self.out / "leaks" / self.examinee.name

    def _panels(self) -> list[Panel]:
        panels = []
        if self.settings.train:
            found = msgspec.json.decode((self._leaks / LEAKS).read_bytes(), type=LeakReport)
            panels.append(leak_panel(found, self.settings.train))
        if self.settings.suite:
            missing = of_suite(self.material, self.settings).missing
            rows = [{"task": one.task.name, "why": one.reason} for one in missing]
            title = f"Tasks of {self.settings.suite} that were not examined"
            panels.append(Panel("missing", title, f"{len(rows)} tasks.", rows))
        return panels

    def _picture(self, sample: Sample) -> Image.Image:
        """What a sample shows, as stored; of a slide, what the model saw."""
        ref = sample.images[0]
        if ref.unmade:
            return self.pictures.prompt(sample).images[0]
        return decode_image(self.material.store.image_bytes(ref.key))

    def path(self, sheet: Sheet) -> Path:
        """The file of a sheet's rows."""
        return self.out / "predictions" / f"{sheet.name}.jsonl"

    def prompt(self, sample: Sample) -> Prompt:
        """What the model is shown of a sample; raises as `Pictures.prompt`."""
        prompt = self.pictures.prompt(sample)
        if self.settings.with_chances:
            return replace(prompt, answers=option_texts(sample, self.examinee.style))
        return prompt


def record(room: Room) -> None:
    """Note who is examined, on what and how; one entry per model, the last settings of each.

    Raises:
        UserError: the model's rows were begun with other settings; what is noted of them stays.
    """
    for sheet in room.sheets():
        refuse_begun(sheet.samples, room.path(sheet), room.options(sheet))
    path = room.out / RECORD
    path.parent.mkdir(parents=True, exist_ok=True)
    (room.out / "predictions").mkdir(exist_ok=True)
    with Claims(room.out / "report.claims") as claims, claims.holding("record", wait=True):
        models: dict[str, Any] = {}
        if path.is_file():
            models = json.loads(path.read_text(encoding="utf-8"))["models"]
        models[room.examinee.name] = {
            "what": room.examinee.what,
            "kind": room.examinee.kind,
            "fingerprint": room.examinee.fingerprint,
            "prompt": msgspec.to_builtins(room.examinee.style),
            "frame": str(room.examinee.style.facts.frame),
            "settings": msgspec.to_builtins(room.settings),
            "samples": len(room.samples),
            "corpus": str(room.material.corpus.resolve()) if room.material.corpus else "",
            "sets": [about["name"] for about in room.material.sets],
            "environment": environment(),
        }
        with replacing(path) as file:
            file.write(json.dumps({"version": RECORD_VERSION, "models": models}, indent=1).encode())
