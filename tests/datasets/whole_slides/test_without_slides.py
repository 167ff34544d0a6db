"""Without the extra for slides the catalogue is whole; reading a slide says what to install."""

import subprocess
import sys

PROGRAM = """
import sys
sys.modules["openslide"] = None  # as if it were not installed
from malpighi.datasets.catalogue import ADAPTERS, adapter_named
from malpighi.errors import ConfigError
assert {"bracs", "camelyon", "bcnb"} <= set(ADAPTERS)
try:
    list(adapter_named("cptac_nsclc").read(sys.argv[1]))
except ConfigError as error:
    print(error)
"""


def test_the_catalogue_needs_no_slide_reader(tmp_path, slide):
    slide(tmp_path / "LUAD/C3L-00001-21.svs")
    (tmp_path / "LSCC").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert "pip install 'malpighi[slides]'" in done.stdout
