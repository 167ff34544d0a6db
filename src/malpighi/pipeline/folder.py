"""A run folder: what is finished, what is half done, and what must be done again.

recipe.json                resolved settings and the environment
stages/<name>/             a finished stage; done.json names what it was made from
stages/<name>.part/        a stage at work, or one that was killed
predictions/<model>.jsonl  one row per sample
report.html, logs/run.log
"""

import fcntl
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from malpighi.durable import replacing
from malpighi.errors import UserError
from malpighi.pipeline.recipe import SAVED_VERSION, Recipe, Saved, parse
from malpighi.records import Failure, from_json, to_json

FORMAT_VERSION = 1


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """A finished stage's last word.

    Attributes:
        inputs: hash of its settings and of all it was made from.
        seconds: time it took, over all its attempts.
        failures: number of items that failed.
        notes: what the stage says of its result, JSON-able.
    """

    inputs: str
    seconds: float
    failures: int = 0
    notes: dict[str, Any] = {}
    version: int = FORMAT_VERSION


class RunFolder:
    """The folder of one run.

    Args:
        root: the folder; made when the run starts.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.predictions = root / "predictions"
        self.report = root / "report.html"
        self.log = root / "logs" / "run.log"

    def stage(self, name: str) -> Path:
        """Folder of a finished stage."""
        return self.root / "stages" / name

    def part(self, name: str) -> Path:
        """Folder of a stage at work."""
        return self.root / "stages" / f"{name}.part"

    def done(self, name: str) -> Done | None:
        """What a finished stage left; None where it is not finished, or finished by another release."""
        try:
            found = from_json((self.stage(name) / "done.json").read_bytes(), Done)
        except FileNotFoundError:  # also where another process is putting a new one in its place
            return None
        return found if found.version == FORMAT_VERSION else None

    def begin(self, name: str, inputs: str) -> Path:
        """The working folder of a stage: what an earlier attempt with the same inputs left, or an empty one.

        A half-done attempt with other inputs is dropped here. A finished stage with other inputs keeps its
        place until the new one takes it, so that a mistaken setting costs no trained model.
        """
        part, marker = self.part(name), self.part(name) / "inputs.json"
        if not marker.is_file() or json.loads(marker.read_text())["inputs"] != inputs:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            with replacing(marker) as file:
                file.write(json.dumps({"inputs": inputs, "seconds": 0.0}).encode())
        return part

    def spent(self, name: str, seconds: float = 0.0) -> float:
        """Seconds that attempts at an unfinished stage took so far, after adding `seconds`."""
        marker = self.part(name) / "inputs.json"
        record = json.loads(marker.read_text())
        record["seconds"] += seconds
        if seconds:
            with replacing(marker) as file:
                file.write(json.dumps(record).encode())
        return float(record["seconds"])

    def finish(self, name: str, done: Done, failures: Sequence[Failure]) -> None:
        """Turn the working folder into the finished stage: write done.json into it, then rename it."""
        part, final = self.part(name), self.stage(name)
        with replacing(part / "failures.jsonl") as file:
            file.writelines(to_json(failure) + b"\n" for failure in failures)
        with replacing(part / "done.json") as file:
            file.write(msgspec.json.format(to_json(done), indent=1))
        shutil.rmtree(final, ignore_errors=True)
        part.rename(final)

    def state(self, name: str) -> dict[str, Any]:
        """A stage's name, state (`finished`, `half done`, `to do`), seconds so far and failed items."""
        done, half = self.done(name), self.part(name).is_dir()
        if done is not None and not half:
            return {"stage": name, "state": "finished", "seconds": done.seconds, "failed": done.failures}
        seconds = self.spent(name) if half else 0.0
        return {"stage": name, "state": "half done" if half else "to do", "seconds": seconds, "failed": 0}

    def failures(self, name: str) -> list[Failure]:
        """The items that failed in a finished stage."""
        path = self.stage(name) / "failures.jsonl"
        return [from_json(line, Failure) for line in path.read_bytes().splitlines()] if path.is_file() else []

    def recipe(self) -> Recipe:
        """The recipe that the folder was made with.

        Raises:
            UserError: the folder is not a run folder.
        """
        path = self.root / "recipe.json"
        if not path.is_file():
            raise UserError(
                f"{self.root} is not a run folder (no recipe.json); start one with: malpighi run mini"
            )
        return parse(path.read_bytes())

    def write_recipe(self, recipe: Recipe, environment: dict[str, str]) -> None:
        """Save the resolved settings and the environment they ran in."""
        tree = Saved(version=SAVED_VERSION, recipe=recipe, environment=environment)
        with replacing(self.root / "recipe.json") as file:
            file.write(msgspec.json.format(msgspec.json.encode(tree), indent=1))

    def environment(self) -> dict[str, str]:
        """The environment that the last run noted."""
        record = msgspec.json.decode((self.root / "recipe.json").read_bytes())
        return dict(record["environment"])

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for one process; the lock falls with the process, however it ends.

        Raises:
            UserError: another process works in the folder.
        """
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.predictions.mkdir(exist_ok=True)
        with (self.root / "run.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(
                    f"another run is at work in {self.root}; wait for it, end it, or give another folder"
                ) from error
            yield
