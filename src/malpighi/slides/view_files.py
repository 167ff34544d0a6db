"""A view as files: the pictures, and beside them what leads back to the slide."""

import hashlib
import io
from pathlib import Path

import msgspec
from PIL import Image

from malpighi.config import digest
from malpighi.durable import mending, replacing
from malpighi.errors import ConfigError, DataError, FormatVersionError
from malpighi.slides.fingerprint import fingerprint
from malpighi.slides.pyramid_view import PyramidSettings, pyramid_view
from malpighi.slides.selectors import Selector, by_density
from malpighi.slides.slide import Slide
from malpighi.slides.view import Pixels, Tissue
from malpighi.slides.view_map import ViewMap

FORMAT = 1
"""Raise when the sidecar changes."""

_PNG_EFFORT = 1


class ViewFileSettings(PyramidSettings, frozen=True):
    """What `view_slide` writes, beside what `PyramidSettings` says.

    Attributes:
        regions: 0 for one picture of the whole.
        quality: 0 for PNG, else the quality of JPEG, 50 to 100.
    """

    regions: int = 0
    quality: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be written."""
        super().__post_init__()
        if self.quality and not 50 <= self.quality <= 100:
            raise ConfigError(f"view: quality={self.quality}; give 0 for PNG or 50 to 100 for JPEG")


class PictureFile(msgspec.Struct, frozen=True):
    """One picture of a view.

    Attributes:
        file: name beside the sidecar.
        sha256: of the file.
        map: the way to the slide and back.
        affines: per piece (a, b, c, d, e, f): x_slide = a x + b y + c, y_slide = d x + e y + f.
        score: what the selector gave a region; None for an overview.
    """

    file: str
    sha256: str
    map: ViewMap
    affines: tuple[tuple[float, float, float, float, float, float], ...]
    score: float | None = None


class Sidecar(msgspec.Struct, frozen=True, kw_only=True):
    """`view.json`: everything known of the pictures beside it.

    Attributes:
        format: version of this file.
        slide: path of the slide.
        fingerprint: see `fingerprint`.
        slide_mpp: micrometres per level-0 px; None where unknown.
        mpp_source: where that comes from.
        settings: hash of the settings.
        tokens: what all pictures cost together.
        prompt_line: what a prompt says about them, in order.
        pictures: overview first.
    """

    format: int = FORMAT
    slide: str
    fingerprint: str
    slide_mpp: float | None
    mpp_source: str
    settings: str
    tokens: int
    prompt_line: str
    pictures: tuple[PictureFile, ...]


def view_slide(
    slide: Slide,
    out: Path,
    settings: ViewFileSettings | None = None,
    *,
    tissue: Tissue | None = None,
    selector: Selector = by_density,
) -> dict[str, object]:
    """Write a slide as a model sees it: `view.png`, `region-1.png`..., and last `view.json`.

    Args:
        slide: open.
        out: folder, made where it is missing.
        settings: the defaults where None.
        tissue: where tissue lies; the whole slide is shown where None.
        selector: chooses the regions.

    Returns:
        A row of figures for a table of slides.

    Raises:
        UserError: the folder cannot be written.
    """
    settings = settings or ViewFileSettings()
    shown = pyramid_view(slide, settings, tissue=tissue, selector=selector)
    with mending(out):
        out.mkdir(parents=True, exist_ok=True)
        names = ["view", *(f"region-{number + 1}" for number in range(len(shown.regions)))]
        scores = (None, *shown.scores)
        written = [
            PictureFile(
                *_write(out, name, image.rgb, settings.quality), image.map, _affines(image.map), score
            )
            for name, image, score in zip(names, shown.images, scores, strict=True)
        ]
        sidecar = Sidecar(
            slide=str(slide.path),
            fingerprint=fingerprint(slide.path),
            slide_mpp=slide.mpp,
            mpp_source=slide.facts.mpp_source,
            settings=digest(settings),
            tokens=shown.tokens,
            prompt_line=shown.prompt_line,
            pictures=tuple(written),
        )
        with replacing(out / "view.json") as file:
            file.write(msgspec.json.format(msgspec.json.encode(sidecar), indent=1))
    overview = shown.overview.map
    return {
        "width": overview.size[0],
        "height": overview.size[1],
        "tokens": shown.tokens,
        "mpp": overview.mpp,
        "step": round(overview.step, 3),
        "pieces": len(overview.pieces),
        "regions": len(shown.regions),
        "damaged_tiles": len(slide.damage),
    }


def read_sidecar(path: Path) -> Sidecar:
    """A sidecar back from its file; its maps work without the slide.

    Raises:
        DataError: not such a file.
        FormatVersionError: of a version that this release does not read.
    """
    try:
        found = msgspec.json.decode(path.read_bytes())
        version = found.get("format") if isinstance(found, dict) else None
        if version != FORMAT and isinstance(version, int):
            raise FormatVersionError(f"{path} has format {version}; this release reads {FORMAT}")
        return msgspec.convert(found, Sidecar)
    except (OSError, msgspec.DecodeError, msgspec.ValidationError) as error:
        raise DataError(f"{path} is not the sidecar of a view: {error}") from error


def _write(out: Path, name: str, rgb: Pixels, quality: int) -> tuple[str, str]:
    """(name, SHA-256) of the file written."""
    buffer = io.BytesIO()
    if quality:
        Image.fromarray(rgb).save(buffer, "JPEG", quality=quality, subsampling=0)
    else:
        Image.fromarray(rgb).save(buffer, "PNG", compress_level=_PNG_EFFORT)
    file_name = f"{name}.{'jpg' if quality else 'png'}"
    with replacing(out / file_name) as file:
        file.write(buffer.getvalue())
    return file_name, hashlib.sha256(buffer.getvalue()).hexdigest()


def _affines(where: ViewMap) -> tuple[tuple[float, float, float, float, float, float], ...]:
    return tuple(piece.affine for piece in where.pieces)
