"""The spine: run a recipe's stages in order, skip what is finished, record what failed.

    malpighi run mini --work runs/mini

A stage is done when its folder stands under its final name; its done.json holds a hash of the settings and
of everything it was made from. Kill the run anywhere and give the same command again: finished stages are
kept, a half-done one goes on from its last checkpoint or last written row, and the result is the same.
"""

import errno
import logging
import platform
import shutil
import subprocess
import time
from collections.abc import Callable
from importlib.metadata import version
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple, Protocol

import torch

import malpighi
from malpighi.config import digest
from malpighi.durable import mending
from malpighi.errors import UserError
from malpighi.models.segmenter import fingerprint
from malpighi.pipeline import ahead
from malpighi.pipeline.context import Context, StageResult
from malpighi.pipeline.evaluating import run_evaluate
from malpighi.pipeline.filling import listing, run_data
from malpighi.pipeline.folder import Done, RunFolder
from malpighi.pipeline.learning import (
    run_build,
    run_classify,
    run_experts,
    run_reinforce,
    run_supervised,
)
from malpighi.pipeline.process import set_up
from malpighi.pipeline.recipe import (
    Build,
    Classify,
    Data,
    Evaluate,
    Experts,
    Recipe,
    Reinforce,
    Report,
    Stage,
    Supervised,
    check,
    needs,
)
from malpighi.pipeline.reporting import run_report
from malpighi.records import Failure, TaskKind

log = logging.getLogger(__name__)

# What runs a stage of each kind.
RUNNERS: dict[type, Callable[..., StageResult]] = {
    Data: run_data,
    Build: run_build,
    Supervised: run_supervised,
    Reinforce: run_reinforce,
    Experts: run_experts,
    Classify: run_classify,
    Evaluate: run_evaluate,
    Report: run_report,
}

# Raise when the same settings would give another result than before.
STAGE_VERSION = 1

_FULL = {errno.ENOSPC, errno.EDQUOT}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_LOW_DISK_BYTES = 8 * 2**20


class Listener(Protocol):
    """Hears how a run goes, to show it."""

    def started(self, stage: str, *, resumed: bool) -> None:
        """A stage begins, or goes on."""

    def progressed(self, done: int, total: int, text: str) -> None:
        """Some of the stage's work is done."""

    def finished(self, stage: str, seconds: float, *, skipped: bool) -> None:
        """A stage is finished, or was already."""


class Silent:
    """Hears a run, and says nothing."""

    def started(self, stage: str, *, resumed: bool) -> None:
        """A stage begins, or goes on."""

    def progressed(self, done: int, total: int, text: str) -> None:
        """Some of the stage's work is done."""

    def finished(self, stage: str, seconds: float, *, skipped: bool) -> None:
        """A stage is finished, or was already."""


class RunResult(NamedTuple):
    """What a run left: its folder, every item that failed, and seconds per stage."""

    folder: RunFolder
    failures: list[Failure]
    seconds: dict[str, float]


def run(recipe: Recipe, root: Path, listener: Listener, workers: int = 1) -> RunResult:
    """Run every stage that is not finished yet.

    Args:
        recipe: what to do.
        root: the run folder; an earlier run's is gone on with.
        listener: hears the progress.
        workers: processes that work at once; the result does not depend on them. A script that asks for
            more than one needs the usual `if __name__ == "__main__"`, as each imports it.

    Raises:
        UserError: anything a person can mend: settings, folders, permissions, a full disk, a second run.
    """
    check(recipe)
    if torch.cuda.device_count() > 1:
        raise UserError(
            f"{torch.cuda.device_count()} GPUs are visible, and a stage trains on one; "
            "choose it, e.g. CUDA_VISIBLE_DEVICES=0"
        )
    folder = RunFolder(root)
    with _Mending(folder):
        with mending(root):
            root.mkdir(parents=True, exist_ok=True)
        with folder.locked():
            return _run_stages(recipe, folder, listener, workers)


def _run_stages(recipe: Recipe, folder: RunFolder, listener: Listener, workers: int) -> RunResult:
    set_up(recipe.threads, folder.log)
    folder.write_recipe(recipe, environment())
    inputs = stage_inputs(recipe)
    failures: list[Failure] = []
    seconds: dict[str, float] = {}
    others: dict[str, BaseProcess] = {}
    try:
        for name, stage in recipe.stages.items():
            early = name in others
            if early:
                # No other ready stage is begun here meanwhile: it would have one process to the end, where
                # in its turn it shares its adapters among all. `controls` on two would take longer.
                listener.started(name, resumed=True)
                ahead.wait([others[name]])
            done = folder.done(name)
            if done is not None and done.inputs == inputs[name]:
                log.info("stage %s is finished already; kept", name)
                listener.finished(name, done.seconds, skipped=not early)
            else:
                ready = [later for later in _ready(recipe, folder, inputs, name) if later not in others]
                for later in ready[: workers - 1 - _busy(others)]:
                    others[later] = ahead.start(_run_ahead, Context(recipe, folder, later), inputs[later])
                context = Context(recipe, folder, name, listener.progressed, workers - _busy(others))
                done = _run_stage(context, stage, inputs[name], listener)
            failures += folder.failures(name)
            seconds[name] = done.seconds
    finally:
        ahead.end(others.values())
    return RunResult(folder, failures, seconds)


def _ready(recipe: Recipe, folder: RunFolder, inputs: dict[str, str], name: str) -> list[str]:
    """Stages after `name` that are to be run, and all of whose parents are finished."""

    def finished(stage: str) -> bool:
        done = folder.done(stage)
        return done is not None and done.inputs == inputs[stage]

    names = list(recipe.stages)
    return [
        later
        for later in names[names.index(name) + 1 :]
        if not finished(later) and all(map(finished, needs(recipe.stages[later], recipe.stages)))
    ]


def _busy(others: dict[str, BaseProcess]) -> int:
    return sum(process.is_alive() for process in others.values())


def _run_ahead(context: Context, inputs: str) -> None:
    set_up(context.recipe.threads, context.folder.log)
    _run_stage(context, context.recipe.stages[context.name], inputs, Silent())


def stage_inputs(recipe: Recipe) -> dict[str, str]:
    """Hash per stage over its settings and everything it is made from: a change redoes what depends on it."""
    hashes: dict[str, str] = {}
    common = digest(STAGE_VERSION, recipe.seed, recipe.threads, recipe.prompt)
    for name, stage in recipe.stages.items():
        parents = [hashes[parent] for parent in needs(stage, recipe.stages)]
        files = listing(Path(stage.folder)) if isinstance(stage, Data) and stage.folder else []
        masks = [fingerprint(recipe.segmenter)] if _compares_masks(stage) else []
        hashes[name] = digest(common, name, stage, parents, files, *masks)
    return hashes


def _compares_masks(stage: Stage) -> bool:
    return isinstance(stage, Reinforce | Experts | Evaluate) and TaskKind.SEGMENTATION in stage.tasks


def _run_stage(context: Context, stage: object, inputs: str, listener: Listener) -> Done:
    name, folder = context.name, context.folder
    work = folder.begin(name, inputs)
    resumed = len(list(work.iterdir())) > 1  # more than the note of its inputs
    log.info("stage %s %s", name, "goes on" if resumed else "begins")
    listener.started(name, resumed=resumed)
    start = time.monotonic()
    try:
        result = RUNNERS[type(stage)](context, stage, work)
    finally:
        spent = folder.spent(name, time.monotonic() - start) if work.is_dir() else 0.0
    done = Done(inputs=inputs, seconds=spent, failures=len(result.failures), notes=result.notes)
    folder.finish(name, done, result.failures)
    log.info("stage %s is finished after %.1f s, %d failed items", name, spent, len(result.failures))
    listener.finished(name, spent, skipped=False)
    return done


def environment() -> dict[str, str]:
    """What the run ran on: versions, machine and, in a checkout, the commit."""
    packages = ("torch", "transformers", "trl", "peft", "timm", "numpy")
    return {
        "malpighi": malpighi.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        **{name: version(name) for name in packages},
    }


def _commit() -> str:
    here = Path(__file__).parent
    try:
        answer = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            check=True,
            timeout=5,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return answer.stdout.strip()


class _Mending:
    """Turn failures of the disk into words that say what to do; whatever library they surfaced in."""

    def __init__(self, folder: RunFolder) -> None:
        self.root = folder.root

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, UserError) or not isinstance(error, Exception):
            return
        number = error.errno if isinstance(error, OSError) else None
        if number in _FULL or self._full():
            raise UserError(
                f"the disk of {self.root} is full; free space, or give --work a folder on another disk. "
                "What is finished is kept: the same command goes on from there"
            ) from error
        if number in _FORBIDDEN:
            raise UserError(
                f"{self.root} cannot be written ({error}); give --work a folder that you may write to"
            ) from error

    def _full(self) -> bool:
        """Libraries hide a full disk in errors of their own (safetensors, torch's zip writer)."""
        try:
            return shutil.disk_usage(self.root).free < _LOW_DISK_BYTES
        except OSError:
            return False
