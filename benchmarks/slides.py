"""How fast slides are read: tiles, cells and whole views, in CPU time, beside the limit and other readers.

The limit is simplejpeg on 256-px tiles of the same place that are already in memory; a patch of another size
or place counts as one, as if it were a tile. Slides: generated ones (20480 px, JPEG 4:2:0 of quality 70 from
real or drawn tissue, tables shared; tiles of 256 px and of 240 px, with coarse levels and without), and the
real ones of MALPIGHI_TEST_DATA. Readers that are not installed are left out, and named.
Usage: python benchmarks/slides.py [--quick]
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, product
from pathlib import Path

import numpy as np
import openslide
import simplejpeg
import tifffile
from PIL import Image

from malpighi.phantom.slides import SlideSettings, render_slide
from malpighi.slides.opening import open_slide
from malpighi.slides.openslide_slide import OpenSlideSlide
from malpighi.slides.tiff_check import difference

try:
    import tiffslide
except ImportError:
    tiffslide = None
try:
    from tiatoolbox.wsicore.wsireader import WSIReader
except ImportError:
    WSIReader = None
try:
    import wsidata
except ImportError:
    wsidata = None

DATA = Path(os.environ.get("MALPIGHI_TEST_DATA", Path(__file__).parents[2] / "shared/data")) / "slides"
GIARDIA = DATA / "giardia_HE_40x_crop.tif"
REAL = ("cmu-1-small-region.svs", "tcga-cr-7395-01a-01-ts1.svs", GIARDIA.name)
DISC = 0.38  # of the side: 45% of the slide is tissue
WARM = 3  # rows
MEMORY_SIDES = (1024, 5120, 20480, 40960)


def texture():
    """A picture of tissue to cut tiles from, 4096 px wide or so."""
    if GIARDIA.exists():
        with open_slide(GIARDIA, check=False) as slide:
            return slide.read_level(0, (3000, 5000), (5120, 2560))
    return render_slide(1, SlideSettings(width=4096, height=2048, mpp=0.5)).rgb


def split_tables(jpeg):
    """(shared tables, the rest) of a JPEG, as TIFF stores them."""
    tables, rest, place = [], [], 2
    while jpeg[place + 1] != 0xDA:
        end = place + 2 + int.from_bytes(jpeg[place + 2 : place + 4], "big")
        kind = jpeg[place + 1]
        (tables if kind in (0xC4, 0xDB) else rest if kind < 0xE0 else []).append(jpeg[place:end])
        place = end
    start, end = b"\xff\xd8", b"\xff\xd9"
    return start + b"".join(tables) + end, start + b"".join(rest) + jpeg[place:]


class Slides:
    """Generated slides: a mosaic of real tissue, the same on all levels."""

    def __init__(self, folder, picture, quality=70):
        self.folder, self.picture, self.quality = folder, picture, quality

    def write(self, name, side, tile, factors=(1, 4, 16)):
        """A slide of `side` px with square tiles; its path."""
        path = self.folder / name
        with tifffile.TiffWriter(path, bigtiff=True) as writer:
            for factor in factors:
                tables, tiles = self._tiles(side, tile, factor)
                writer.write(
                    tiles,
                    shape=(side // factor, side // factor, 3),
                    dtype=np.uint8,
                    tile=(tile, tile),
                    photometric="ycbcr",
                    compression="jpeg",
                    subsampling=(2, 2),
                    subfiletype=0 if factor == 1 else 1,
                    resolution=(20_000 / factor, 20_000 / factor),
                    resolutionunit="CENTIMETER",
                    extratags=[(347, 7, len(tables), tables, True)],
                    metadata=None,
                )
        return path

    def _tiles(self, side, tile, factor):
        """(shared tables, the rest of every tile): the picture in random order in a disc, glass around it."""
        rgb = np.asarray(Image.fromarray(self.picture).reduce(factor)) if factor > 1 else self.picture
        while min(rgb.shape[:2]) < tile:
            rgb = np.tile(rgb, (2, 2, 1))
        places = product(range(0, rgb.shape[0] - tile + 1, tile), range(0, rgb.shape[1] - tile + 1, tile))
        coded = [self._coded(rgb[y : y + tile, x : x + tile]) for y, x in places]
        glass = np.random.default_rng(0).normal(242, 1.5, (tile, tile, 3)).clip(0, 255).astype(np.uint8)
        _, empty = self._coded(glass)
        across, rng = -(-(side // factor) // tile), np.random.default_rng(1)

        def every():
            for row, column in product(range(across), repeat=2):
                apart = ((row + 0.5) / across - 0.5) ** 2 + ((column + 0.5) / across - 0.5) ** 2
                yield coded[rng.integers(len(coded))][1] if apart < DISC**2 else empty

        return coded[0][0], every()

    def _coded(self, rgb):
        return split_tables(simplejpeg.encode_jpeg(np.ascontiguousarray(rgb), self.quality, "RGB", "420"))


def seconds(work, items):
    start = time.process_time()
    work(items)
    return time.process_time() - start


def in_turns(ways, rounds):
    """CPU seconds per item of each way, over all rounds; in each, all ways see the same items in turn."""
    spent = dict.fromkeys(ways, 0.0)
    for items in rounds:
        for name, work in ways.items():
            spent[name] += seconds(work, items)
    return {name: value / sum(map(len, rounds)) for name, value in spent.items()}


def each(read):
    def work(items):
        for item in items:
            read(item)

    return work


def other_readers(path, size):
    """{name: read((x, y)) -> H x W x 3} of level 0 by every other reader that is installed."""
    ours, theirs = open_slide(path, check=False), openslide.OpenSlide(str(path))
    page = tifffile.TiffFile(path).pages[0]
    columns, side = -(-page.imagewidth // page.tilewidth), page.tilewidth

    def segment(corner):
        index = corner[1] // side * columns + corner[0] // side
        file = page.parent.filehandle
        file.seek(page.dataoffsets[index])
        data = file.read(page.databytecounts[index])
        return page.decode(data, index, jpegtables=page.jpegtables, _fullsize=True)[0]

    found = {
        "openslide": lambda corner: np.asarray(theirs.read_region(corner, 0, size).convert("RGB")),
        "malpighi": lambda corner: ours.read_level(0, corner, size),
    }
    if size == (side, side):
        found["tifffile page.decode"] = segment
    if tiffslide is not None:
        tiff = tiffslide.TiffSlide(path)
        found["tiffslide"] = lambda corner: tiff.read_region(corner, 0, size, as_array=True)
    if WSIReader is not None:
        box = WSIReader.open(path)
        found["tiatoolbox"] = lambda corner: box.read_bounds(
            (*corner, corner[0] + size[0], corner[1] + size[1]), 0, "level"
        )
    if wsidata is not None:
        data = wsidata.open_wsi(path, store=None)
        found["wsidata"] = lambda corner: data.read_region(*corner, *size, level=0)
    return found


def tile_rounds(path, size, rounds):
    """Corners of a grid of `size` in the middle of level 0: some rows to warm up, then `rounds` rows."""
    with open_slide(path, check=False) as slide:
        (left, right), (top, lower) = ((side // 4, side * 3 // 4) for side in slide.size)
    across = range(-(-left // size) * size, right, size)
    rows = [[(x, y) for x in across] for y in range(-(-top // size) * size, lower - size, size)]
    return [list(chain(*rows[:WARM])), *rows[WARM : WARM + rounds]]


def limit_of(path):
    """Decode, from memory, the 256-px tile of a slide that holds each item's corner."""
    with open_slide(path, check=False) as slide:
        wide, high = slide.size
        held = {
            (column, row): slide.tile_jpeg(0, column, row)
            for column, row in product(range(wide // 256), range(high // 256))
        }

    def decode(corner):
        column, row = min(corner[0] // 256, wide // 256 - 1), min(corner[1] // 256, high // 256 - 1)
        simplejpeg.decode_jpeg(held[column, row], "RGB")

    return each(decode)


def tiles(name, path, size, rounds, limit=None):
    """CPU seconds for a patch of a grid of `size`, by reader; `limit` is a slide of 256-px tiles."""
    readers = other_readers(path, (size, size))
    ways = {"limit": limit_of(limit or path), **{way: each(read) for way, read in readers.items()}}
    bands = tile_rounds(path, size, rounds)
    for work in ways.values():
        work(bands[0])
    return shown(name, in_turns(ways, bands[1:]))


def shown(name, costs):
    """Print a table of CPU time by reader; the costs again."""
    print(f"\n{name:46s} {'CPU-ms each':>12s} {'of limit':>9s} {'x openslide':>12s}")
    for way, cost in costs.items():
        of_limit = f"{costs['limit'] / cost:.2f}" if "limit" in costs else ""
        print(f"{way:46s} {1e3 * cost:12.3f} {of_limit:>9s} {costs['openslide'] / cost:12.1f}")
    return costs


def threads(path, rounds):
    """How much faster two threads are than one, by the clock, on aligned tiles."""
    found = []
    with open_slide(path, check=False) as slide, ThreadPoolExecutor(2) as pool:
        rows = tile_rounds(path, 256, rounds)
        for items in (list(chain(*rows[k : k + 4])) for k in range(1, len(rows) - 3, 4)):
            clocks = []
            for go in (map, pool.map):
                start = time.perf_counter()
                list(go(lambda corner: slide.read_level(0, corner, (256, 256)), items))
                clocks.append(time.perf_counter() - start)
            found.append(clocks[0] / clocks[1])
    middle, best = statistics.median(found), max(found)
    print(f"\ntwo threads over one, by the clock: median {middle:.2f}, best {best:.2f}")
    print(f"(load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores)")
    return middle, best


def cells(path, count, rounds):
    """Random 80-px crops, about two on a tile."""
    ours, theirs = open_slide(path, check=False), openslide.OpenSlide(str(path))
    rng = np.random.default_rng(1)
    side = min(int(256 * (count / 2) ** 0.5), ours.size[0] // 2)
    start = ours.size[0] // 2 - side // 2
    sets = [rng.integers(start, start + side - 80, (count, 2)) for _ in range(rounds)]

    def crop(corner):
        return np.asarray(theirs.read_region(tuple(corner), 0, (80, 80)).convert("RGB"))

    def by_tile(corners):
        order = np.lexsort((corners[:, 0] // 256, corners[:, 1] // 256))
        each(crop)(corners[order].tolist())

    ways = {
        "openslide": by_tile,
        "openslide, random": lambda corners: each(crop)(corners.tolist()),
        "malpighi": lambda corners: sum(1 for _ in ours.read_many(corners, (80, 80))),
    }
    costs = in_turns(ways, sets)
    return shown(f"{count} random 80-px cells, sorted by tile", costs)


def openslide_bands(path):
    """What a thumbnail costs without coarse levels, within bounded memory: level 0 in bands."""
    with openslide.OpenSlide(str(path)) as slide:
        wide, high = slide.dimensions
        out, step = np.empty((1024, 1024, 3), np.uint8), high / 1024
        for first in range(0, 1024, 32):
            top, lower = int(first * step), int((first + 32) * step)
            band = slide.read_region((0, top), 0, (wide, lower - top)).convert("RGB")
            out[first : first + 32] = np.asarray(band.resize((1024, 32), Image.Resampling.BOX))
    return out


def view(path, *, check=True):
    with open_slide(path, check=check) as slide:
        return slide.read(slide.whole, (1024, 1024))


def thumbnail(path):
    with openslide.OpenSlide(str(path)) as slide:
        return np.asarray(slide.get_thumbnail((1024, 1024)))


def views(pyramid, flat, rounds):
    """A view of 1024 px, file opened and closed: the CPU seconds of each way."""
    found = {}
    for name, path, theirs, times in (
        ("with coarse levels", pyramid, thumbnail, rounds), ("without", flat, openslide_bands, 1)
    ):  # fmt: skip
        ways = {
            "openslide": lambda items, read=theirs: each(read)(items),
            "malpighi": lambda items: each(view)(items),
            "malpighi, unchecked": lambda items: each(lambda p: view(p, check=False))(items),
        }
        found[name] = shown(f"view of 1024 x 1024 px, {name}", in_turns(ways, [[path]] * times))
    return found


def peak(path):
    """MB by which reading grows a fresh process (Linux): a view of everything, and unaligned bands."""
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from malpighi.slides.opening import open_slide\n"
        "peak = lambda: int(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0]) // 1024\n"
        "before = peak()\n"
        "with open_slide(sys.argv[1]) as slide:\n"
        "    slide.read(slide.whole, (1024, 1024))\n"
        "    view = peak()\n"
        "    for y in range(0, min(slide.size[1], 4000) - 256, 256):\n"
        "        for x in range(0, slide.size[0] - 256, 256):\n"
        "            slide.read_level(0, (x + 9, y + 9), (256, 256))\n"
        "    print(view - before, peak() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True)
    return [int(value) for value in done.stdout.split()]


def memory(slides, sides):
    """Peak growth in MB by side of the slide, with coarse levels and without."""
    print(f"\n{'peak growth of memory, MB':34s} {'view':>8s} {'and bands':>10s}")
    found = {}
    for side, factors in product(sides, ((1, 4, 16), (1,))):
        path = slides.write(f"m{side}.tif", side, 256, factors)
        kind = "with levels" if len(factors) > 1 else "level 0 only"
        found[f"{side} px, {kind}"] = peak(path)
        grown = found[f"{side} px, {kind}"]
        print(f"{side:>8d} px, {kind:22s} {grown[0]:8d} {grown[1]:10d}")
        path.unlink()
    return found


def exactness():
    """The largest difference from OpenSlide over all tiles of the real slides, by level."""
    print("\ndifference from OpenSlide by level: the largest of all tiles, of 255")
    print(
        "(the largest mean of a tile where the downsample is no whole number: OpenSlide reads between pixels)"
    )
    found = {}
    for name in REAL:
        if not (DATA / name).exists():
            print(f"{name}: not at hand")
            continue
        with open_slide(DATA / name) as ours, OpenSlideSlide(DATA / name) as theirs:
            for index, level in enumerate(theirs.levels):
                across, down = (-(-side // tile) for side, tile in zip(level.size, level.tile, strict=True))
                every = product([index], range(across), range(down))
                values = [pair[0] for pair in (difference(ours, theirs, place) for place in every) if pair]
                found[f"{name} {index}"] = max(values)
            print(f"{name:34s} " + "  ".join(
                f"{i}: {found[f'{name} {i}']:.2f}" for i in range(len(theirs.levels))
            ) + f"  ({ours.facts.reader})")  # fmt: skip
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="a slide of 6144 px and fewer rounds; about a minute"
    )
    quick = parser.parse_args().quick
    side, rounds = (6144, 8) if quick else (20480, 34)
    peers = {"tiffslide": tiffslide, "tiatoolbox": WSIReader, "wsidata": wsidata}
    absent = [name for name, module in peers.items() if module is None]
    print("not installed, left out: " + (", ".join(absent) or "none"))
    ratios = {}

    def note(name, costs):
        ratios[f"{name}, of limit"] = costs["limit"] / costs["malpighi"]
        ratios[f"{name}, over openslide"] = costs["openslide"] / costs["malpighi"]

    with tempfile.TemporaryDirectory() as folder:
        slides = Slides(Path(folder), texture())
        start = time.perf_counter()
        pyramid = slides.write("a.tif", side, 256)
        narrow = slides.write("b.tif", side // 240 * 240, 240)
        flat = slides.write("c.tif", side, 256, (1,))
        print(f"three slides of {side} px written in {time.perf_counter() - start:.0f} s, "
              f"{pyramid.stat().st_size >> 20} MB with levels")  # fmt: skip
        note("aligned 256", tiles("generated, 256 px on 256-px tiles", pyramid, 256, rounds))
        note("unaligned", tiles("generated, 256 px on 240-px tiles", narrow, 256, rounds, pyramid))
        if GIARDIA.exists():
            note("giardia aligned", tiles("giardia, 256 px on 256-px tiles", GIARDIA, 256, rounds))
            note("giardia unaligned", tiles("giardia, 240 px on 256-px tiles", GIARDIA, 240, rounds))
        ratios["two threads, median"], ratios["two threads, best"] = threads(pyramid, rounds)
        costs = cells(pyramid, 1000 if quick else 6000, 3)
        ratios["cells over openslide sorted"] = costs["openslide"] / costs["malpighi"]
        for name, costs in views(pyramid, flat, 3 if quick else 9).items():
            ratios[f"view {name}, over openslide"] = costs["openslide"] / costs["malpighi"]
        for path in (pyramid, narrow, flat):
            path.unlink()
        figures = memory(
            Slides(Path(folder), slides.picture, 20), MEMORY_SIDES[:2] if quick else MEMORY_SIDES
        )
        ratios |= {f"memory MB, {name}": most for name, (_, most) in figures.items()}
        ratios |= {f"difference, {name}": value for name, value in (exactness() if not quick else {}).items()}
    print(f"\npeak of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MB")
    print(json.dumps({name: round(float(value), 3) for name, value in ratios.items()}))


if __name__ == "__main__":
    main()
