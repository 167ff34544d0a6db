"""From slides on disk to what models are shown of them: the view behind `Pictures` and behind `<zoom>`."""

from collections.abc import Callable
from pathlib import Path

import msgspec
from PIL import Image

from malpighi.geometry import Frame, Region
from malpighi.models.families import FAMILIES
from malpighi.models.pictures import Shown, SlideShow
from malpighi.records import ImageRef
from malpighi.slides.opening import open_slide
from malpighi.slides.pyramid_view import PyramidView
from malpighi.slides.slide import Slide
from malpighi.slides.view import SlideView, Tissue, ViewSettings, view

ViewOf = Callable[[Slide, ViewSettings], SlideView | PyramidView]
"""What is made of a slide, all its pictures together within the settings' tokens."""


class SlideViews:
    """Makes the pictures of slides.

        pictures = Pictures(corpus.image_bytes, style, show=views.show)

    Each call opens the slide and closes it again, so any number of slides can be asked about.

    Args:
        root: folder that the paths in records are relative to; paths from the root of the disk stay.
        settings: how slides are shown; tokens, px per token and frame come from the prompt's style.
        tissue: finds the tissue that the view is cut to; None shows the whole slide.
        view_of: makes the pictures in place of the one view of the whole, e.g. `pyramid_view`.
        frame: that the model speaks; None takes that of the trained family with as many px per token.
    """

    def __init__(
        self,
        root: str | Path = ".",
        settings: ViewSettings | None = None,
        tissue: Tissue | None = None,
        view_of: ViewOf | None = None,
        frame: Frame | None = None,
    ) -> None:
        self._frame = frame
        self._root = Path(root)
        self._settings = settings or ViewSettings()
        self._tissue = tissue
        self._view_of = view_of or self._alone

    def show(self, ref: ImageRef, tokens: int, pixels_per_token: int) -> SlideShow:
        """What is shown of a slide, or of the region that its reference names; see `models.pictures.Show`.

        Raises:
            DataError: the slide cannot be read.
        """
        if ref.region is not None:
            region = msgspec.structs.replace(ref.region, mpp=ref.region.mpp or ref.mpp)
            return self.look(ref.slide, region, tokens, pixels_per_token)
        with open_slide(self._root / ref.slide, mpp=ref.mpp) as slide:
            return _shown(self._view_of(slide, self._fitted(tokens, pixels_per_token)))

    def look(self, slide: str, region: Region, tokens: int, pixels_per_token: int) -> SlideShow:
        """One picture of a region of a slide, at the finest scale that the tokens allow; raises as `show`."""
        with open_slide(self._root / slide, mpp=region.mpp) as opened:
            return _shown(view(opened, self._fitted(tokens, pixels_per_token), region=region))

    def _alone(self, slide: Slide, settings: ViewSettings) -> SlideView:
        return view(slide, settings, tissue=self._tissue)

    def _fitted(self, tokens: int, pixels_per_token: int) -> ViewSettings:
        trained = (f.frame for f in FAMILIES.values() if f.pixels_per_token == pixels_per_token)
        frame = self._frame or next(trained)
        return msgspec.structs.replace(
            self._settings, tokens=tokens, pixels_per_token=pixels_per_token, frame=frame
        )


def _shown(made: SlideView | PyramidView) -> SlideShow:
    views = made.images if isinstance(made, PyramidView) else (made,)
    return SlideShow(tuple(_picture(each) for each in views), made.prompt_line)


def _picture(made: SlideView) -> Shown:
    pieces = made.map.pieces
    return Shown(Image.fromarray(made.rgb), made.map, pieces[0].region if len(pieces) == 1 else None)
