"""Which pages of a TIFF are the levels of a slide, and what the file says about itself."""

from typing import NamedTuple

from malpighi.errors import DataError
from malpighi.slides.tiff_index import Page, TiffIndex, grid_of

_MOST_LEVELS = 32
_SKEW = 0.02
_SHOWN = 4000


class Pyramid(NamedTuple):
    """The levels of a slide and who made it.

    Attributes:
        vendor: `aperio`, `ome` or `generic-tiff`.
        pages: the levels, finest first.
        properties: what the first page says, as text.
        description: the first page's description, in full.
        notes: what a user should know.
    """

    vendor: str
    pages: tuple[Page, ...]
    properties: dict[str, str]
    description: str
    notes: tuple[str, ...]


def pyramid_of(index: TiffIndex) -> Pyramid:
    """The levels of a slide.

    An Aperio file has its levels among other pictures, which are not tiled; an OME-TIFF as children of its
    first page; any other TIFF as pages that say of themselves that they are reduced copies.

    Raises:
        DataError: the file keeps its levels in a way that is known not to be this one.
    """
    first = index.pages[0]
    description = first.texts.get("ImageDescription", "")
    vendor = _vendor(first, description)
    others = index.children or index.pages[1:]
    if vendor == "generic-tiff" and not index.children:
        others = tuple(page for page in others if page.reduced)
    levels, left = [first], list[Page]()
    for page in others:
        if page.tile is None:
            continue
        (levels if _follows(levels[-1], page, first) else left).append(page)
    notes = (f"{len(left)} tiled pictures of the file are no levels of it",) if left else ()
    pages = tuple(levels[:_MOST_LEVELS])
    return Pyramid(vendor, pages, _properties(first, vendor, description), description, notes)


def empty_note(level: int, page: Page, empty: int) -> tuple[str, ...]:
    """What to tell of the tiles of a level that were never written."""
    columns, rows = grid_of(page)
    return (f"{empty} of {columns * rows} tiles of level {level} were never written",) if empty else ()


def _vendor(first: Page, description: str) -> str:
    if first.scanned or "<scn" in description or "<DataObject" in description:
        raise DataError("its scanner keeps tiles in a way of its own (Ventana, Leica or Philips)")
    if description.startswith("Aperio"):
        return "aperio"
    return "ome" if "<OME" in description else "generic-tiff"


def _follows(finer: Page, page: Page, first: Page) -> bool:
    """Whether a page is a smaller copy with the same sides as the first, as far as its size tells."""
    if min(page.size) < 1 or page.size[0] > finer.size[0] or page.size[1] > finer.size[1]:
        return False
    across, down = first.size[0] / page.size[0], first.size[1] / page.size[1]
    rounding = 1 / min(page.size)
    return page.size != finer.size and abs(across - down) <= (_SKEW + rounding) * max(across, down)


def _properties(first: Page, vendor: str, description: str) -> dict[str, str]:
    found = {f"tiff.{name}": text[:_SHOWN] for name, text in first.texts.items()}
    if first.resolution:
        across, down, unit = first.resolution
        names = {2: "inch", 3: "centimeter"}
        found |= {"tiff.XResolution": f"{across:.10g}", "tiff.YResolution": f"{down:.10g}"}
        found["tiff.ResolutionUnit"] = names.get(unit, "unknown")
    for part in description.split("|")[1:] if vendor == "aperio" else ():
        name, stated, value = part.partition("=")
        if stated:
            found[f"aperio.{name.strip()}"] = value.strip()
    return found
