"""From objects to the class of each pixel."""

from __future__ import annotations

import numpy as np

from pixelwise.labels import LabelSet
from pixelwise.types import Masks


def painted(masks: Masks, class_ids: np.ndarray, crowd: np.ndarray, labels: LabelSet) -> np.ndarray:
    """Class ids [H, W] of objects painted over each other: crowds first, as void, then objects from large to small.

    What nothing covers is `background`, or void where the set has no such class.
    """
    ground = labels.ignore_id if labels.background_id is None else labels.background_id
    semantic = np.full(masks.size, ground, dtype=np.uint8 if len(labels) <= 255 else np.int32)
    crops = [masks.crop(number).numpy().view(np.bool_) for number in range(len(masks))]
    areas = [np.count_nonzero(crop) for crop in crops]
    for number in sorted(range(len(masks)), key=lambda number: (not crowd[number], -areas[number])):
        x1, y1, x2, y2 = masks.boxes[number].tolist()
        semantic[y1:y2, x1:x2][crops[number]] = labels.ignore_id if crowd[number] else class_ids[number]
    return semantic
