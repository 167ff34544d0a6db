"""A picture of a slide with the annotations on it: what COCO and YOLO describe."""

from collections.abc import Sequence

import msgspec
import numpy as np
import shapely

from malpighi.geometry import Frame, View
from malpighi.slides.annotations import Annotation, Geometries, Tally, geometries, moved
from malpighi.slides.slide import Slide

_LEAST_CHANGE = 1e-6  # share of its area or length that a clipped geometry loses


class Page(msgspec.Struct, frozen=True):
    """One picture.

    Attributes:
        name: file name of the picture.
        view: its size, px, and the region of the slide that it shows, level-0 px.
        annotations: what to write; may reach over the edge.
    """

    name: str
    view: View
    annotations: Sequence[Annotation] = ()


def whole_slide(slide: Slide) -> View:
    """The view in which a picture's px are the slide's level-0 px."""
    return View(slide.size, region=slide.whole)


def on_page(page: Page, tally: Tally) -> tuple[list[Annotation], Geometries]:
    """The annotations that touch the picture, and their geometries in its px, cut off at its edge."""
    width, height = page.view.image_size
    shapes = moved(geometries(page.annotations), page.view.affine(Frame.SLIDE, Frame.IMAGE))
    cut = np.asarray(shapely.intersection(shapes, shapely.box(0, 0, width, height)), dtype=object)
    for index in np.flatnonzero(shapely.get_dimensions(cut) < shapely.get_dimensions(shapes)):
        cut[index] = shapely.GeometryCollection()  # only its edge touches
    kept = ~shapely.is_empty(cut)
    extent, left = (shapely.area(array) + shapely.length(array) for array in (shapes, cut))
    changed = kept & (left < extent * (1 - _LEAST_CHANGE))
    tally.add("annotation outside of the picture left out", int((~kept).sum()))
    tally.add("annotation cut off at the edge of the picture", int(changed.sum()))
    shown = np.where(changed, cut, shapes)
    return [page.annotations[int(index)] for index in np.flatnonzero(kept)], shown[kept]
