"""Tissue and artefacts on phantom slides with exact truth, per stain.

Slides carry ink, a part out of focus, folds and bubbles of air, on white, grey and yellowish glass, in one or
two pieces. Constants were chosen on seeds 100 to 106; figures are those of others. Tiles of 128 micrometres:
one counts as an artefact's where that covers more than a share of it (below), as free of it where it covers
none; those between are not judged. CPU time, one thread. Prints tables and, as last
line, one JSON object of the figures.
Usage: python benchmarks/tissue.py [--quick]
"""

import argparse
import json
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np

from malpighi.phantom.slides import SlideSettings, render_slide, write_slide
from malpighi.slides.foreground import METHODS
from malpighi.slides.opening import open_slide
from malpighi.slides.quality import tile_quality
from malpighi.slides.tissue import TissueSettings, find_tissue

STAINS = ("he", "ihc", "pap")
GLASS = (None, None, (205, 204, 200), (238, 230, 200))
TILE = 128  # px of 1 micrometre
# Share of a tile above which it is one of the artefact; half of that, found, makes it a found one.
POSITIVE = {"pen": 0.25, "blur": 0.5, "folds": 0.15, "bubbles": 0.4}


def settings_of(seed, stain, spoilt):
    return SlideSettings(
        width=1536, height=1024, mpp=1.0, stain=stain, pieces=1 + seed % 2, glass=GLASS[seed % len(GLASS)],
        pen=spoilt, blur=spoilt, folds=spoilt, bubbles=spoilt,
    )  # fmt: skip


def share_per_tile(mask):
    """Share of each tile, row by row, that a mask of level 0 covers."""
    rows, columns = mask.shape[0] // TILE, mask.shape[1] // TILE
    cut = mask[: rows * TILE, : columns * TILE].astype(np.float32)
    return cv2.resize(cut, (columns, rows), interpolation=cv2.INTER_AREA).ravel()


def boxes_of(shape):
    rows, columns = shape[0] // TILE, shape[1] // TILE
    y, x = np.divmod(np.arange(rows * columns), columns)
    return np.stack([x, y, x + 1, y + 1], axis=1) * TILE


def truth_per_tile(slide):
    """Artefact -> (share of the tile, whether the tile can be judged)."""
    tissue = share_per_tile(slide.tissue)
    covered = share_per_tile(slide.pen | slide.bubbles)
    blur = share_per_tile(slide.blurred & slide.tissue) / np.maximum(tissue, 1e-6)
    return {
        "pen": (share_per_tile(slide.pen), np.ones(len(tissue), dtype=bool)),
        "blur": (np.where(tissue > 0, blur, 0), (tissue > 0.25) & (covered == 0)),
        "folds": (share_per_tile(slide.folds & ~slide.pen), tissue > 0),
        "bubbles": (share_per_tile(slide.bubbles), share_per_tile(slide.pen) == 0),
    }


def iou(tissue, slide):
    size = tissue.mask.shape[::-1]
    truth = (
        cv2.resize((slide.tissue & ~slide.pen).astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0.5
    )
    return (tissue.mask & truth).sum() / max((tissue.mask | truth).sum(), 1)


def count(counts, name, found, truth):
    """Add the tiles of one slide to [found rightly, found, there]."""
    share, judged = truth
    there, absent = judged & (share > POSITIVE[name]), judged & (share == 0)
    counts += np.array([(found & there).sum(), (found & (there | absent)).sum(), there.sum()])


def by_tile(tiles):
    """What `tile_quality` says of each tile alone: ink, blur."""
    scores = [tile_quality(tile, 1.0) for tile in tiles]
    return {
        "pen": np.array([score.pen > POSITIVE["pen"] / 2 for score in scores]),
        "blur": np.array([score.focus < 0.5 and score.empty < 0.95 for score in scores]),
    }


def measure(seeds, folder):
    overlaps = defaultdict(list)
    counts = defaultdict(lambda: np.zeros(3))
    spent = defaultdict(list)
    for seed in seeds:
        for stain in STAINS:
            rendered = render_slide(seed, settings_of(seed, stain, spoilt=True))
            path = folder / f"{stain}-{seed}.tiff"
            write_slide(rendered, path)
            with open_slide(path) as slide:
                for method in METHODS:
                    start = time.process_time()
                    tissue = find_tissue(slide, TissueSettings(method=method))
                    spent[method].append(time.process_time() - start)
                    overlaps[stain, method].append(iou(tissue, rendered))
                tissue = find_tissue(slide)
                boxes, truth = boxes_of(rendered.tissue.shape), truth_per_tile(rendered)
                tiles = [slide.read_level(0, (int(x), int(y)), (TILE, TILE)) for x, y, _, _ in boxes]
            for name in POSITIVE:
                found = tissue.fractions(boxes, name) > POSITIVE[name] / 2
                count(counts[stain, name], name, found, truth[name])
            start = time.process_time()
            alone = by_tile(tiles)
            spent["tile_quality"].append((time.process_time() - start) / len(boxes))
            for name, found in alone.items():
                count(counts[stain, f"{name}, tile alone"], name, found, truth[name])
            path.unlink()
    return overlaps, counts, spent


def clean(seeds, folder):
    """Largest share that any artefact is said to have on slides that have none."""
    most = defaultdict(float)
    for seed in seeds:
        for stain in STAINS:
            path = folder / "clean.tiff"
            write_slide(render_slide(seed, settings_of(seed, stain, spoilt=False)), path)
            with open_slide(path) as slide:
                shares = find_tissue(slide).shares()
            for name in POSITIVE:
                most[stain, name] = max(most[stain, name], shares[name])
    return most


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two seeds instead of twenty")
    quick = parser.parse_args().quick
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        overlaps, counts, spent = measure(range(2 if quick else 20), Path(folder))
        most = clean(range(1 if quick else 3), Path(folder))
    figures = {}
    print("IoU with the truth without ink    median    least")
    for (stain, method), values in overlaps.items():
        print(f"{stain:4} {method:26} {np.median(values):9.3f} {min(values):8.3f}")
        figures[f"iou {stain} {method}"] = float(np.median(values))
    print("tiles                          precision   recall   tiles there")
    for (stain, name), (right, found, there) in counts.items():
        precision, recall = right / found if found else float("nan"), right / there if there else float("nan")
        print(f"{stain:4} {name:24} {precision:11.3f} {recall:8.3f} {int(there):10}")
        if there:
            figures[f"{name} recall {stain}"] = recall
        if found:
            figures[f"{name} precision {stain}"] = precision
    print("largest share on slides without the artefact")
    for (stain, name), share in most.items():
        print(f"{stain:4} {name:24} {share:11.4f}")
    for name, values in spent.items():
        print(f"{name}: {1e3 * np.median(values):.2f} ms of CPU (median)")
    print(json.dumps({name: round(float(value), 3) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
