"""From objects to the class of each pixel."""

from __future__ import annotations

import numpy as np

from pixelwise.labels import LabelSet
from pixelwise.types import Masks

HOLE = -1
"""In place of a class: the region marks no object, and what lies under it is none either."""


def painted(
    masks: Masks, class_ids: np.ndarray, crowd: np.ndarray, labels: LabelSet, *, in_order: bool = False
) -> np.ndarray:
    """Class ids [H, W] of objects painted over each other: crowds first, as void, then objects from large to small.

    What nothing covers is `background`, or void where the set has no such class.

    Args:
        masks: of the objects.
        class_ids: of each, or HOLE.
        crowd: whether each is void.
        labels: the classes.
        in_order: paint them in their order instead.
    """
    ground = labels.ignore_id if labels.background_id is None else labels.background_id
    semantic = np.full(masks.size, ground, dtype=np.uint8 if len(labels) <= 255 else np.int32)
    crops = [masks.crop(number).numpy().view(np.bool_) for number in range(len(masks))]
    areas = [np.count_nonzero(crop) for crop in crops]
    numbers = [*range(len(masks))]
    for number in numbers if in_order else sorted(numbers, key=lambda number: (not crowd[number], -areas[number])):
        x1, y1, x2, y2 = masks.boxes[number].tolist()
        class_id = ground if class_ids[number] == HOLE else class_ids[number]
        semantic[y1:y2, x1:x2][crops[number]] = labels.ignore_id if crowd[number] else class_id
    return semantic
