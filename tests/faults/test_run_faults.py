"""A run whose disk fills up, or whose process is killed, goes on and ends as one that was not."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from malpighi.corpus import Corpus
from malpighi.errors import UserError
from malpighi.pipeline.folder import RunFolder
from malpighi.pipeline.recipe import with_settings
from malpighi.pipeline.run import run
from malpighi.recipes.mini import mini

pytestmark = pytest.mark.usefixtures("untouched_process")


class Silent:
    def started(self, stage, *, resumed): ...
    def progressed(self, done, total, text): ...
    def finished(self, stage, seconds, *, skipped): ...


def first_stages(cells, regions=0):
    """The stages that render pictures and build a miniature, small."""
    whole = with_settings(
        mini("smoke"), [f"data.phantom.cells={cells}", f"data.phantom.regions={regions}", "threads=1"]
    )
    stages = {name: whole.stages[name] for name in ("data", "build")}
    return msgspec.structs.replace(whole, stages=stages, sources={})


@contextmanager
def small_disk(folder, size):
    """A file system in memory of that many KiB; skipped where this process may not mount one."""
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine mounts no tmpfs")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs")
@pytest.mark.parametrize(("cells", "size", "stage"), [(36, 300, "data"), (12, 4096, "build")])
def test_a_full_disk_is_mended_and_the_run_goes_on(tmp_path, cells, size, stage):
    disk, recipe = tmp_path / "disk", first_stages(cells)
    with small_disk(disk, size):
        with pytest.raises(UserError, match="is full; free space, or give --work a folder on another disk"):
            run(recipe, disk / "run", Silent())
        folder = RunFolder(disk / "run")
        assert folder.done(stage) is None
        subprocess.run(["mount", "-o", "remount,size=256m", str(disk)], check=True)
        run(recipe, disk / "run", Silent())
        straight = run(recipe, tmp_path / "straight", Silent()).folder
        assert_alike(folder, straight)


def assert_alike(one, other):
    fingerprints = [Corpus.open(folder.stage("data") / "corpus").fingerprint() for folder in (one, other)]
    assert fingerprints[0] == fingerprints[1]
    models = [(folder.stage("build") / "model" / "model.safetensors").read_bytes() for folder in (one, other)]
    assert models[0] == models[1]


KILLED = """
import sys
from pathlib import Path
import msgspec
from malpighi.pipeline.recipe import Recipe
from malpighi.pipeline.run import run

class Told:
    def started(self, stage, *, resumed): print(stage, flush=True)
    def progressed(self, done, total, text): print(done, flush=True)
    def finished(self, stage, seconds, *, skipped): print("finished", stage, flush=True)

run(msgspec.json.decode(sys.stdin.read(), type=Recipe), Path(sys.argv[1]), Told())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9")
def test_a_run_killed_while_it_fills_the_corpus_starts_that_stage_over(tmp_path):
    recipe = first_stages(24)
    root = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        process.stdin.write(msgspec.json.encode(recipe).decode())
        process.stdin.close()
        assert process.stdout.readline() == "data\n"
        time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
    folder = RunFolder(root)
    assert process.returncode == -signal.SIGKILL
    assert folder.state("data")["state"] == "half done"
    run(recipe, root, Silent())
    assert_alike(folder, run(recipe, tmp_path / "straight", Silent()).folder)


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root ignores permissions")
def test_a_folder_that_may_not_be_written_is_named(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(UserError, match="permission denied; give a folder that you may write to"):
            run(first_stages(2), tmp_path / "run", Silent())
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_a_folder_that_no_one_may_write_is_named():
    with pytest.raises(UserError, match="cannot write in /proc/malpighi"):
        run(first_stages(2), Path("/proc/malpighi"), Silent())
