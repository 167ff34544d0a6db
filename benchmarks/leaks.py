"""The leak check: planted copies found, distinct pictures taken for copies, and the cost of the search.

Copies of real tiles (where MALPIGHI_TEST_DATA is set) and of phantom regions are made in the ways that copies
come about, and looked for among all originals. What is found beside the original is a false positive, unless
the two files are known to come from one (augmented files of one original, by their names).

Prints tables and, as last line, one JSON object of ratios. Usage: python benchmarks/leaks.py [--quick]
"""

import argparse
import io
import itertools
import json
import os
import re
import resource
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from skimage.color import hed2rgb, rgb2hed

from malpighi.corpus import Corpus, blob_of
from malpighi.evaluation.leaks import LeakSettings, find_leaks
from malpighi.likeness.fingerprints import fingerprint
from malpighi.likeness.hamming import every_pair, neighbours
from malpighi.likeness.same_pictures import PictureSearch
from malpighi.phantom.generate import region_items
from malpighi.pixels import decode_image
from malpighi.records import ImageRef, Item, Provenance, Sample, Scale, TaskKind, Text, Turn

TILES = {
    "crc_val_he_7k": ("crc_val_he_7k/*/*.jpg", 1),
    "lc25000": ("lc25000/*/*.jp*g", 1),
    "ebhi_seg": ("ebhi_seg/images/*", 1),
    "dsb2018": ("dsb2018_he/images/*", 1),
    "herlev": ("herlev/*/*/*.jpg", 1),
    "lbc": ("lbc_cytology/*/*.jpg", 1),
}


LARGEST = 320  # px; larger tiles are reduced, for the time that the planting takes


def as_jpeg(quality):
    def change(image, _):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=quality)
        return np.asarray(Image.open(buffer).convert("RGB"))

    return change


def resized(scale):
    def change(image, _):
        size = [max(8, round(side * scale)) for side in image.shape[1::-1]]
        return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))

    return change


def restained(strength):
    """Haematoxylin, eosin and residual scaled and shifted, each on its own (HED jitter)."""

    def change(image, rng):
        dyes = rgb2hed(image) * rng.uniform(1 - strength, 1 + strength, 3)
        dyes += rng.uniform(-strength, strength, 3) * 0.1
        return np.clip(hed2rgb(dyes) * 255 + 0.5, 0, 255).astype(np.uint8)

    return change


def labelled(image, _):
    """A white label with a letter, and a scale bar: about 4% of the picture."""
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    width, height = picture.size
    side = max(10, height // 8)
    draw.rectangle([4, 4, 4 + 2 * side, 4 + side], fill="white")
    draw.text((6, 4), "A)", fill="black", font_size=0.8 * side)
    draw.rectangle([width - 4 - 2 * side, height - 10, width - 4, height - 6], fill="black")
    return np.asarray(picture)


def cropped(share):
    """So much of the width and height is lost, to either side at random."""

    def change(image, rng):
        cuts = [round(side * share) for side in image.shape[:2]]
        top, left = (int(rng.integers(0, cut + 1)) for cut in cuts)
        return image[top : top + image.shape[0] - cuts[0], left : left + image.shape[1] - cuts[1]]

    return change


def flipped(image, _):
    return np.ascontiguousarray(image[:, ::-1])


def rotated(quarter):
    return lambda image, _: np.ascontiguousarray(np.rot90(image, quarter))


def everything(image, rng):
    for change in (rotated(1), cropped(0.02), restained(0.1), resized(0.5), as_jpeg(60)):
        image = change(image, rng)
    return image


WAYS = {
    "JPEG quality 90": as_jpeg(90),
    "JPEG quality 60": as_jpeg(60),
    "JPEG quality 30": as_jpeg(30),
    "size x 0.25": resized(0.25),
    "size x 0.5": resized(0.5),
    "size x 2": resized(2),
    "HED jitter 0.1": restained(0.1),
    "HED jitter 0.2": restained(0.2),
    "flipped": flipped,
    "rotated 90": rotated(1),
    "rotated 180": rotated(2),
    "rotated 270": rotated(3),
    "label burnt in": labelled,
    "2% crop": cropped(0.02),
    "4% crop": cropped(0.04),
    "five at once": everything,
}


def originals(quick):
    """Name -> pixels; names begin with the data set."""
    found = {}
    root = os.environ.get("MALPIGHI_TEST_DATA")
    for name, (pattern, step) in TILES.items() if root else ():
        paths = [path for path in sorted(Path(root).glob(pattern)) if path.is_file()]
        for path in paths[:: step * (8 if quick else 1)]:
            found[f"{name}/{path.parent.name}/{path.name}"] = decode(path.read_bytes())
    for number, item in enumerate(region_items(seed=11, count=8 if quick else 60)):
        key = item.sample.images[0].key
        found[f"phantom/{number}"] = decode(next(b.data for b in item.blobs if b.key == key))
    return found


def decode(data):
    picture = decode_image(data)
    picture.thumbnail((LARGEST, LARGEST))
    return np.asarray(picture)


def origin(name):
    """What a file was made from, by its name: augmented copies of one cell or tile share it."""
    parts = name.split("/")
    stem = re.sub(r"^(rotated_\d+|flipped|mirrored)_", "", parts[-1])
    return f"{parts[0]}/{stem}"


def store(folder, pictures):
    """A corpus of one sample per picture, losslessly stored."""
    with Corpus.create(folder) as corpus:
        for name, pixels in pictures:
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
            blob = blob_of(buffer.getvalue(), ".png")
            ref = ImageRef(blob.key, (pixels.shape[1], pixels.shape[0]))
            sample = Sample(
                id=name,
                dataset="planted",
                exam="planted/" + name.split("|")[-1],
                task=TaskKind.CAPTION,
                scale=Scale.ROI,
                images=(ref,),
                turns=(Turn("user", "Describe."),),
                answer=Text(""),
                group=name,
                licence="",
                provenance=Provenance("benchmark"),
            )
            corpus.add(Item(sample, (blob,)))
    return Corpus.open(folder)


def planted(folder, quick):
    """Recall per way, and pairs of distinct pictures taken for the same."""
    known = originals(quick)
    rng = np.random.default_rng(5)
    chosen = list(known)[:: 2 if quick else 6]
    train = store(folder / "train", known.items())
    copies = (
        (f"{name}|{way}", np.ascontiguousarray(change(known[name], rng)))
        for way, change in WAYS.items()
        for name in chosen
    )
    test = store(folder / "test", copies)
    started = time.perf_counter()
    prints = [fingerprint(corpus, corpus.samples()) for corpus in (train, test)]
    hashing = time.perf_counter() - started
    started = time.perf_counter()
    found = find_leaks(*prints, LeakSettings(pictures=PictureSearch(most=50, tries=200)))
    searching = time.perf_counter() - started
    again = time.perf_counter()
    fingerprint(test, test.samples())
    again = time.perf_counter() - again
    return known, chosen, found, (hashing, searching, again)


def tell(known, chosen, found):
    hits, wrong = defaultdict(set), defaultdict(set)
    for leak in found.leaks:
        name, way = leak.test.split("|")
        other = leak.train
        if origin(other) == origin(name):
            hits[way].add(name)
        else:
            wrong[way].add((name, other))
    pairs = len(chosen) * (len(known) - 1)
    print(f"{'way':18s} recall   false positives of {pairs} pairs (per million)")
    for way in WAYS:
        print(
            f"{way:18s} {len(hits[way]) / len(chosen):.4f}   "
            f"{len(wrong[way])} ({1e6 * len(wrong[way]) / pairs:.2f})"
        )
    print(found.counts)
    missed = {way: sorted(set(chosen) - hits[way])[:3] for way in WAYS if len(hits[way]) < len(chosen)}
    print("missed, e.g.", missed)
    twins = sorted({tuple(sorted(pair)) for pair in itertools.chain(*wrong.values())})
    print(f"{len(twins)} distinct pairs taken for copies, e.g.", twins[:12])
    recall = np.mean([len(hits[way]) / len(chosen) for way in WAYS])
    return float(recall), sum(map(len, wrong.values())) / (pairs * len(WAYS))


def hashes(count, clustered, rng):
    if not clustered:
        return rng.integers(0, 2**64, (count, 4), dtype=np.uint64)
    centres = rng.integers(0, 2**64, (count // 20, 4), dtype=np.uint64)
    noise = np.bitwise_and.reduce(rng.integers(0, 2**64, (4, count, 4), dtype=np.uint64))
    return centres[rng.integers(0, len(centres), count)] ^ noise


def search(count, clustered, radius):
    """Seconds of a search of `count` hashes among as many, one in a hundred planted within 31 bits."""
    rng = np.random.default_rng(7)
    stored, queries = hashes(count, clustered, rng), hashes(count, clustered, rng)
    planted = count // 100
    flips = rng.integers(0, 32, planted)
    queries[:planted] = stored[:planted]
    for place, number in enumerate(flips):
        for bit in rng.choice(256, number, replace=False):
            queries[place, bit // 64] ^= np.uint64(1) << np.uint64(bit % 64)
    started = time.perf_counter()
    found = neighbours(queries, stored, radius)
    seconds = time.perf_counter() - started
    hit = np.isin(np.arange(planted), found.query[found.query == found.stored]).mean()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    kind = "clustered" if clustered else "random"
    print(
        f"{count} x {count} {kind} hashes, radius {radius}: {seconds:.1f} s, {len(found.query)} pairs, "
        f"planted found {hit:.4f}, peak {peak:.2f} GiB"
    )
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    size = 50_000 if quick else 1_000_000
    seconds = [search(size, clustered, 31) for clustered in (False, True)]
    rng = np.random.default_rng(3)
    few = [rng.integers(0, 2**64, (4096 if quick else 16_384, 4), dtype=np.uint64) for _ in range(2)]
    started = time.perf_counter()
    every_pair(*few, 31)
    each = (time.perf_counter() - started) / len(few[0]) ** 2
    with tempfile.TemporaryDirectory() as folder:
        known, chosen, found, (hashing, searching, again) = planted(Path(folder), quick)
    recall, wrong = tell(known, chosen, found)
    print(f"hashing {hashing:.1f} s, search {searching:.1f} s, second hashing {again:.2f} s")
    ratios = {
        "mean_recall": round(recall, 4),
        "false_positives_per_million": round(1e6 * wrong, 3),
        "every_pair_to_banded": round(each * size**2 / seconds[0], 1),
        "clustered_to_random": round(seconds[1] / seconds[0], 2),
        "hashing_to_second_hashing": round(hashing / again, 1),
    }
    print(json.dumps(ratios))


if __name__ == "__main__":
    main()
