"""Damage small TIFFs at random and read them: an error or a marked tile is right, anything else is a defect.

Run by test_slide_faults.py in a process of its own, so that a native crash is seen. The last line it writes
is one JSON object of outcomes. Usage: python fuzz_tiff.py [--seconds 600] [--seed 0] [--checked]
"""

import argparse
import collections
import json
import resource
import struct
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from malpighi.errors import DataError
from malpighi.slides.opening import open_slide
from malpighi.slides.tiff_slide import TiffSlide

LIMIT = 6 << 30  # of address space: what asks for more fails, and shows as a defect
ODD = (0, 1, 2, 3, 7, 8, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1)


def seeds(folder):
    """Small files of the structures that are met: tables shared or not, both byte orders, BigTIFF, levels."""
    coarse = np.random.default_rng(0).integers(60, 240, (6, 8, 3), dtype=np.uint8)
    rgb = np.asarray(Image.fromarray(coarse).resize((200, 150), Image.Resampling.BICUBIC))
    kinds = {
        "jpeg": {"compression": "jpeg", "photometric": "ycbcr"},
        "rgb": {"compression": "jpeg", "compressionargs": {"outcolorspace": "rgb"}},
        "lzw": {"compression": "lzw", "predictor": True, "byteorder": ">"},
        "deflate": {"compression": "adobe_deflate", "bigtiff": True},
        "plain": {"compression": None, "resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"},
        "jpeg2000": {"compression": 33005, "description": "Aperio Image|MPP = 0.5|AppMag = 20"},
        "ome": {"compression": "jpeg", "description": "<OME><Pixels PhysicalSizeX='1'/></OME>"},
    }
    found = []
    for name, options in kinds.items():
        path = folder / f"{name}.tif"
        shared = {k: options.pop(k) for k in ("byteorder", "bigtiff") if k in options}
        with tifffile.TiffWriter(path, **shared) as writer:
            for factor in (1, 2, 4):
                given = {"photometric": "rgb", "tile": (32, 32), "metadata": None, **options}
                small = np.asarray(Image.fromarray(rgb).reduce(factor))
                writer.write(small, subfiletype=int(factor > 1), **given)
        found.append((path.read_bytes(), index_bytes(path)))
    return found


def index_bytes(path):
    """Every byte of header, directories and the arrays they point to."""
    places = list(range(16))
    with tifffile.TiffFile(path) as file:
        for page in file.pages:
            start = page.offset
            places += range(start, start + 2 + len(page.tags) * (20 if file.is_bigtiff else 12) + 8)
            for tag in page.tags:
                size = min(tag.count * struct.calcsize(tifffile.TIFF.DATA_FORMATS[tag.dtype][-1]), 400)
                places += range(tag.valueoffset, tag.valueoffset + size)
    return np.unique(places)


def mutated(data, index, rng):
    """The file with one to eight wounds, most of them in its index."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 9))):
        if not out:
            break
        place = int(rng.choice(index)) if rng.random() < 0.8 else int(rng.integers(len(out)))
        place = min(place, len(out) - 1)
        kind = rng.integers(6)
        if kind == 0:
            out[place] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            out[place] = int(rng.integers(256))
        elif kind in (2, 3):
            size = int(rng.choice([2, 4, 8]))
            value = int(rng.choice(ODD)) if kind == 2 else int(rng.integers(len(data)))
            number = (value % (1 << 8 * size)).to_bytes(size, str(rng.choice(["little", "big"])))
            out[place : place + size] = number
        elif kind == 4:
            source = int(rng.integers(len(out)))
            length = int(rng.integers(1, 40))
            out[place : place + length] = out[source : source + length]
        elif rng.random() < 0.2:
            del out[place:]
    return bytes(out)


def read(path, rng, *, checked):
    """What comes of a file: `refused`, `read`, or `marked` where a tile was damaged."""
    try:
        slide = open_slide(path) if checked else TiffSlide(path)
    except DataError:
        return "refused"
    with slide:
        for level, facts in enumerate(slide.levels[:4]):
            corner = [int(rng.integers(-10, side + 10)) for side in facts.size]
            assert slide.read_level(level, tuple(corner), (50, 40)).shape == (40, 50, 3)
            slide.tile_jpeg(level, 0, 0)
        if max(slide.size) < 4000:
            for size in ((20, 15), (7, 40), (260, 170)):
                assert slide.read(slide.whole, size).shape == (size[1], size[0], 3)
        return "marked" if len(slide.damage) else "read"


def peak():
    """MB this program held at most; not what its parent held, which `getrusage` counts on Linux."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return int(status.read_text().split("VmHWM:")[1].split()[0]) // 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checked", action="store_true", help="with the check against OpenSlide")
    given = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))
    warnings.simplefilter("ignore")
    rng, found, slowest = np.random.default_rng(given.seed), collections.Counter(), 0.0
    with tempfile.TemporaryDirectory() as folder:
        files, path = seeds(Path(folder)), Path(folder) / "wounded.tif"
        for data, _ in files:
            path.write_bytes(data)
            assert read(path, rng, checked=True) == "read"
        before, end = peak(), time.monotonic() + given.seconds
        while time.monotonic() < end:
            path.write_bytes(mutated(*files[int(rng.integers(len(files)))], rng))
            start = time.monotonic()
            try:
                found[read(path, rng, checked=given.checked)] += 1
            except BaseException:
                kept = Path(tempfile.gettempdir()) / "malpighi-fuzz-defect.tif"
                kept.write_bytes(path.read_bytes())
                sys.stderr.write(f"after {sum(found.values())} mutations; kept as {kept}\n")
                raise
            slowest = max(slowest, time.monotonic() - start)
    grown = peak() - before
    counts = {"mutations": sum(found.values()), **found}
    sys.stdout.write(json.dumps({**counts, "slowest_s": round(slowest, 2), "grown_mb": grown}) + "\n")


if __name__ == "__main__":
    main()
