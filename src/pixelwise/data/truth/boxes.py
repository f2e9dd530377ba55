"""The boxes of COCO annotations, compared with the image and with the pixels they should enclose.

Boxes are x1 y1 x2 y2 in pixels, x2 y2 exclusive. Annotators draw them a few pixels off; those of COCO 2017 differ from
their masks by up to 10 pixels, at large objects.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def tight_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """The box of what is true in a mask [H, W] that is not empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def leaves_image(box: Sequence[float], size: tuple[int, int]) -> bool:
    """Whether a box ends more than a pixel outside of an image of that height and width."""
    x1, y1, x2, y2 = box
    return min(x1, y1) < -1 or x2 > size[1] + 1 or y2 > size[0] + 1


def is_elsewhere(box: Sequence[float], other: Sequence[float]) -> bool:
    """Whether a box is another than the tight one of a mask: more than 2 pixels off, and with an IoU below one half.

    So are boxes that were stored as x1 y1 x2 y2, where x y width height are expected.
    """
    if max(abs(one - two) for one, two in zip(box, other, strict=True)) <= 2:
        return False
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    common = max(width, 0) * max(height, 0)
    return common < 0.5 * (_area(box) + _area(other) - common)


def _area(box: Sequence[float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
