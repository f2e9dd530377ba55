"""Number of pixels that masks of one image share, counted where their boxes overlap."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from pixelwise.types import Masks


def shared_pixels(some: Masks, others: Masks, evaluated: Bool[Tensor, "N M"] | None = None) -> Int64[Tensor, "N M"]:
    """Shared pixels of each pair, or with `evaluated` of those pairs and 0 for the others."""
    boxes, other_boxes = some.boxes.numpy(), others.boxes.numpy()
    low = np.maximum(boxes[:, None, :2], other_boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], other_boxes[None, :, 2:])
    meet = (low < high).all(axis=2)
    rows, columns = np.nonzero(meet if evaluated is None else meet & evaluated.numpy())
    # the common part of two boxes in the crop of each: x1 y1 x2 y2
    common = np.concatenate([low[rows, columns], high[rows, columns]], axis=1)
    first, second = common - boxes[rows][:, [0, 1, 0, 1]], common - other_boxes[columns][:, [0, 1, 0, 1]]
    crops, other_crops = _crops(some), _crops(others)
    pairs = zip(rows.tolist(), columns.tolist(), first.tolist(), second.tolist(), strict=True)
    shared = torch.zeros(len(some), len(others), dtype=torch.int64)
    shared.numpy()[rows, columns] = [
        np.count_nonzero(crops[row][y1:y2, x1:x2] & other_crops[column][top:bottom, left:right])
        for row, column, (x1, y1, x2, y2), (left, top, right, bottom) in pairs
    ]
    return shared


def _crops(masks: Masks) -> list[np.ndarray]:
    """The masks inside their boxes, bool[h, w], views."""
    flat = masks.crops.numpy().view(np.bool_)
    boxes = masks.boxes.tolist()
    return [
        flat[start : start + (y2 - y1) * (x2 - x1)].reshape(y2 - y1, x2 - x1)
        for start, (x1, y1, x2, y2) in zip(masks.offsets.tolist(), boxes, strict=True)
    ]
