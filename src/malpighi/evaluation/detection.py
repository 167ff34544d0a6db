"""Average precision of a whole exam, every box counted alike, from prediction rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from malpighi.grading.match import THRESHOLDS, Floats
from malpighi.grading.match_many import detection_parts_many
from malpighi.records import Prediction, Status, TaskKind


def pooled_precisions(
    rows: Sequence[Prediction], thresholds: Sequence[float] = THRESHOLDS
) -> dict[str, float]:
    """AP over all boxes of an exam, e.g. `ap_pooled50`: what detection benchmarks print.

    It weighs an image by its boxes, where the mean of the images' own APs weighs all images alike. All boxes
    have one confidence; images are ranked in the order of the rows, boxes in the order listed. An answer that
    could not be read lists no boxes.

    Args:
        rows: of one exam and model; rows that are no detection are passed over.
        thresholds: of IoU.

    Returns:
        Figures by name; empty where the rows hold no true box.
    """
    asked = [row for row in rows if row.task is TaskKind.DETECTION and isinstance(row.truth, list)]
    truth = [_corners(row.truth) for row in asked]
    if not sum(map(len, truth)):
        return {}
    listed = [_corners(row.grade.parsed if row.grade.status is Status.OK else []) for row in asked]
    pooled = detection_parts_many(listed, truth, thresholds).pooled
    return {f"ap_pooled{100 * threshold:g}": found.coco for threshold, found in pooled.items()}


def _corners(boxes: Any) -> Floats:
    return np.array(boxes if isinstance(boxes, list) else [], dtype=np.float64).reshape(-1, 4)
