"""What is asked about an image and a class: where it is, by boxes and by mask, or that it is not there.

A sample is an image and a class. Per data set there is one exam over all its classes, as the paper reports:

    <data set>/detection              boxes, asked only for classes that the image shows, as the paper does
    <data set>/segmentation           a mask, likewise
    <data set>/segmentation-of-boxes  the paper's segmentation where the source has no masks: filled boxes
    <data set>/absent                 detection of classes that the image does not show: no box is right

The score with negatives is that over the samples of `detection` and `absent` together. Ids end with the exam
and the class, e.g. `conic2022/consep_1-0000:detection:plasma_cells`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from malpighi.datasets.adapter import Asked
from malpighi.datasets.masks import boxes_of, label_areas, labels_blob, mask_blob, pieces_of
from malpighi.datasets.windows import ABSENT, DETECTION, FILLED_BOXES, PARTLY_MARKED, SEGMENTATION
from malpighi.geometry import Box, Size
from malpighi.grading.masks import filled
from malpighi.records import Blob, Boxes, MaskRef, TaskKind

MIN_AREA = 64
"""Smaller pieces of drawn or painted regions are specks, px."""


@dataclass(frozen=True)
class Theme:
    """What an image is asked for.

    Attributes:
        name: the class in words, e.g. `plasma cells`.
        where: the tissue in words, e.g. `colon`.
    """

    name: str
    where: str

    @property
    def key(self) -> str:
        """The class as the end of an id.

        Example:
            >>> Theme("Plasma cells", "colon").key
            'plasma_cells'
        """
        return self.name.lower().replace(" ", "_")

    def detection(self, boxes: tuple[Box, ...], blobs: tuple[Blob, ...] = ()) -> Asked:
        """Where it is, by boxes; without boxes a question of the exam `absent`.

        Args:
            boxes: in image px.
            blobs: the label map that the boxes come from, so that windows find the pieces anew.
        """
        what = DETECTION if boxes else ABSENT
        text = f"Detect {self.name} in pathology {self.where}."
        suffix = f":{what}:{self.key}"
        return Asked(what, TaskKind.DETECTION, text, Boxes(boxes), suffix=suffix, blobs=blobs)

    def segmentation(self, mask: Blob, boxes: tuple[Box, ...], what: str = SEGMENTATION) -> Asked:
        """Where it is, by mask or label map."""
        text = f"Segment {self.name} in pathology {self.where}."
        suffix = f":{what}:{self.key}"
        answer = MaskRef(mask.key, boxes)
        return Asked(what, TaskKind.SEGMENTATION, text, answer, suffix=suffix, blobs=(mask,))

    def by_labels(self, labels_hw: np.ndarray) -> Iterator[Asked]:
        """Detection and segmentation of the things that a label map numbers."""
        boxes = boxes_of(labels_hw)
        blob = labels_blob(labels_hw) if boxes else None
        yield self.detection(boxes, (blob,) if blob else ())
        if blob:
            yield self.segmentation(blob, boxes)

    def by_mask(self, mask_hw: np.ndarray, min_area: int = MIN_AREA) -> Iterator[Asked]:
        """Detection and segmentation of a mask's pieces; nothing is asked where all of it are specks."""
        labels_hw = pieces_of(mask_hw, min_area)
        if labels_hw.any() or not mask_hw.any():
            yield from self.by_labels(labels_hw)

    def by_boxes(self, boxes: tuple[Box, ...], size: Size, *, partly_marked: bool = False) -> Iterator[Asked]:
        """Detection, and segmentation against the filled boxes, for sources without masks.

        Args:
            boxes: in image px.
            size: (width, height) of the image, px.
            partly_marked: whether the source leaves some of the class unmarked.
        """
        facts = {PARTLY_MARKED: True} if partly_marked else {}
        yield replace(self.detection(boxes), facts=facts)
        if boxes:
            mask = mask_blob(filled(boxes, size))
            yield replace(self.segmentation(mask, boxes, FILLED_BOXES), facts=facts)


def by_classes(
    classes: Mapping[int, str], where: str, codes_hw: np.ndarray, min_area: int = MIN_AREA
) -> Iterator[Asked]:
    """Questions about all classes of an image whose pixels are class codes.

    Args:
        classes: code to name; other codes are never asked for.
        where: the tissue in words.
        codes_hw: class code per pixel, 0 or more.
        min_area: smaller pieces are specks, px.
    """
    areas = label_areas(codes_hw, max(int(codes_hw.max(initial=0)), *classes))
    for code, name in classes.items():
        if areas[code]:
            yield from Theme(name, where).by_mask(codes_hw == code, min_area)
        else:
            yield Theme(name, where).detection(())
