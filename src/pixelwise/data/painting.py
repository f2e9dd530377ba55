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
    areas = masks.areas().numpy()
    for number in sorted(range(len(masks)), key=lambda number: (not crowd[number], -areas[number])):
        x1, y1, x2, y2 = masks.boxes[number].tolist()
        inside = masks.crop(number).numpy().astype(bool)
        semantic[y1:y2, x1:x2][inside] = labels.ignore_id if crowd[number] else class_ids[number]
    return semantic
