"""Tiles into the corpus: the stored JPEG bytes where a tile is one stored tile, freshly encoded otherwise.

Passing bytes on costs no quality and hardly any time. Whether a patch was passed on or encoded is said in its
provenance (`patch:stored`, `patch:png`, `patch:jpeg95`).
"""

import io
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import simplejpeg
from PIL import Image

from malpighi.config import Settings, digest
from malpighi.corpus import Corpus, blob_of
from malpighi.errors import ConfigError, DataError
from malpighi.geometry import Region
from malpighi.pixels import decode_image
from malpighi.records import (
    Blob,
    Failure,
    ImageRef,
    Item,
    Provenance,
    Sample,
    Scale,
    TaskKind,
    Text,
    Turn,
)
from malpighi.slides.grid import Tile
from malpighi.slides.slide import Pixels, Slide
from malpighi.slides.tile_table import read_tiles, tiles_in
from malpighi.slides.tiles import in_order, read_tile

_JPEG_QUALITY = 95


class PatchSettings(Settings, frozen=True):
    """What is noted with every patch, and how it is encoded.

    Attributes:
        licence: what the slides may be used for, in words or as an SPDX name; there is no default.
        dataset: name of the collection.
        organ: where the tissue is from; "" where unknown.
        stain: e.g. `H&E`; "" where unknown.
        encoding: of tiles that are no stored JPEG tile: `png` is exact, `jpeg` (quality 95, 4:4:4) smaller.
    """

    licence: str
    dataset: str = "patches"
    organ: str = ""
    stain: str = ""
    encoding: Literal["png", "jpeg"] = "png"

    def __post_init__(self) -> None:
        """Refuse patches that nobody may use."""
        if not self.licence.strip():
            raise ConfigError("patches need the licence of their slides; give --licence, e.g. 'CC-BY-4.0'")


def patch_items(
    slide: Slide,
    name: str,
    table: pa.Table,
    settings: PatchSettings,
    *,
    have: Container[str] = (),
    threads: int = 2,
) -> Iterator[Item]:
    """The tiles of a table as samples without an answer, in order: what curation starts from.

    Args:
        slide: open for reading.
        name: of the slide, unique among those of the corpus.
        table: tiles of this slide, as `tile_table` makes it.
        settings: what is noted with each.
        have: ids of samples that are not wanted again.
        threads: that decode and encode at once.
    """
    config = digest(settings)
    parts = zip(tiles_in(table), table["tissue"].to_pylist(), table["mpp"].to_pylist(), strict=True)
    named = ((f"{settings.dataset}/{name}/{part[0].x}-{part[0].y}-{part[0].width}", *part) for part in parts)
    wanted = (part for part in named if part[0] not in have)
    source = table["slide_hash"][0].as_py() if table.num_rows else ""
    made = in_order(lambda part: encoded(slide, part[1], settings), wanted, threads=threads)
    for (known, tile, tissue, mpp), (blob, how) in made:
        region = Region(tile.x, tile.y, tile.width, tile.height, slide.mpp)
        image = ImageRef(blob.key, (tile.size, tile.size), mpp, str(slide.path), region)
        sample = Sample(
            id=known,
            dataset=settings.dataset,
            exam=f"{settings.dataset}/unlabelled",
            task=TaskKind.CAPTION,
            scale=Scale.ROI,
            images=(image,),
            turns=(Turn("user", "What does this picture show?"),),
            answer=Text(""),
            group=slide.path.stem,
            organ=settings.organ,
            stain=settings.stain,
            licence=settings.licence,
            provenance=Provenance(f"patch:{how}", 1, (source,), config),
            facts={"tissue": round(float(tissue), 4)},
        )
        yield Item(sample, (blob,))


def add_patches(
    folder: Path,
    slides: Iterable[tuple[str, Path, Path]],
    settings: PatchSettings,
    opened: Callable[[Path], Slide],
    *,
    threads: int = 2,
) -> tuple[dict[str, int], list[Failure]]:
    """Put the tiles of slides into a corpus; what is there is not added again.

    Each slide is one commit, so that a killed run goes on with the slide it was at.

    Args:
        folder: the corpus; made where there is none.
        slides: (unique name, slide, its table of tiles).
        settings: what is noted with each patch.
        opened: opens a slide.
        threads: that decode and encode at once.

    Returns:
        How many patches were added, by how they were made (e.g. `stored`), and the slides that failed.
    """
    counts: Counter[str] = Counter()
    failures: list[Failure] = []
    fresh = not (folder / "corpus.json").exists()
    with Corpus.create(folder) if fresh else Corpus.extend(folder) as corpus:
        have = {sample.id for sample in corpus.samples(dataset=settings.dataset)}
        for name, path, table in slides:
            try:
                with opened(path) as slide:
                    made = patch_items(slide, name, read_tiles(table), settings, have=have, threads=threads)
                    for item in made:
                        corpus.add(item)
                        counts[item.sample.provenance.operation.removeprefix("patch:")] += 1
            except (DataError, OSError) as error:  # the slide's; the corpus turns its own into words
                failures.append(Failure(str(path), "patches", str(error)))
            corpus.commit()
    return dict(sorted(counts.items())), failures


def encoded(slide: Slide, tile: Tile, settings: PatchSettings) -> tuple[Blob, str]:
    """The bytes of a tile, and how they were made: `stored`, `png` or `jpeg95`."""
    data = stored_bytes(slide, tile)
    if data is not None:
        return blob_of(data, ".jpg"), "stored"
    rgb = np.ascontiguousarray(read_tile(slide, tile))
    if settings.encoding == "jpeg":
        return blob_of(_jpeg(rgb), ".jpg"), f"jpeg{_JPEG_QUALITY}"
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "PNG", compress_level=3)
    return blob_of(buffer.getvalue(), ".png"), "png"


def stored_bytes(slide: Slide, tile: Tile) -> bytes | None:
    """The slide's own JPEG of a tile that is exactly one stored tile; None where it is not, or is corrupt."""
    level = slide.levels[tile.level]
    x, y = tile.corner
    if tile.resampled or level.tile != (tile.size, tile.size) or x % tile.size or y % tile.size:
        return None
    if x + tile.size > level.size[0] or y + tile.size > level.size[1]:
        return None  # what lies outside would be the stored tile's padding, not background
    data = slide.tile_jpeg(tile.level, x // tile.size, y // tile.size)
    if data is None:
        return None
    try:
        whole = decode_image(data).size == (tile.size, tile.size)
    except DataError:
        return None
    return data if whole else None


def _jpeg(rgb: Pixels) -> bytes:
    made: bytes = simplejpeg.encode_jpeg(rgb, quality=_JPEG_QUALITY, colorspace="RGB", colorsubsampling="444")
    return made
