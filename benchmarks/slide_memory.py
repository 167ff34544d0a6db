"""How much memory the commands over slides take as the slide grows: each in a process of its own.

Slides are generated (a mosaic of tissue on glass, levels 1, 4 and 16, 0.5 um/px). A figure is the peak of the
command, MB; one that grows with the slide is a fault. Cells are not searched on the largest: that takes half
an hour.
Usage: python benchmarks/slide_memory.py [--quick]
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from slides import Slides, texture

COMMANDS = {
    "info": [],
    "read": ["--size", "1024x1024"],
    "tissue": [],
    "tiles": ["--at", "0.5"],
    "view": ["--regions", "4"],
    "cells": [],
}

CELLS_TO = 20_000

MEASURED = (
    "import resource, subprocess, sys\n"
    "code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode\n"
    "assert code == 0, code\n"
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10)\n"
)


def peak(command, slide, out):
    """Peak of one command, MB."""
    where = [] if command == "info" else ["--out", str(out), "--workers", "1"]
    malpighi = [sys.executable, "-c", "from malpighi.cli import main; main()", "slide", command, str(slide)]
    asked = [sys.executable, "-c", MEASURED, *malpighi, *where, *COMMANDS[command]]
    return int(subprocess.run(asked, capture_output=True, text=True, check=True).stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="no slide above 4096 px")
    sides = (1024, 4096) if parser.parse_args().quick else (1024, 10240, 40960)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        slides = Slides(Path(folder), texture(), 20)
        for side in sides:
            path = slides.write(f"{side}.tif", side, 256)
            for command in COMMANDS if side < CELLS_TO else [name for name in COMMANDS if name != "cells"]:
                found.setdefault(command, []).append(peak(command, path, Path(folder) / f"{side}-{command}"))
                print(f"{side:>6d} px  {command:8s} {found[command][-1]:5d} MB", flush=True)
            path.unlink()
    print(json.dumps({command: round(peaks[-1] / peaks[0], 3) for command, peaks in found.items()}))


if __name__ == "__main__":
    main()
