"""How many pixels masks of one image share, counted where their boxes meet."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from pixelwise.types import Masks


def shared_pixels(some: Masks, others: Masks, judged: Bool[Tensor, "N M"] | None = None) -> Int64[Tensor, "N M"]:
    """Of each pair, or with `judged` of those pairs and 0 for the others."""
    one, other = some.boxes[:, None].long(), others.boxes[None].long()
    low, high = torch.maximum(one[..., :2], other[..., :2]), torch.minimum(one[..., 2:], other[..., 2:])
    meet = (low < high).all(dim=2)
    common = torch.zeros(len(some), len(others), dtype=torch.int64)
    crops = [[masks.crop(index).numpy() for index in range(len(masks))] for masks in (some, others)]
    corners = [masks.boxes[:, :2].tolist() for masks in (some, others)]
    for row, column in (meet if judged is None else meet & judged).nonzero().tolist():
        parts: list[np.ndarray] = []
        for side, index in ((0, row), (1, column)):
            left, top = corners[side][index]
            (x1, y1), (x2, y2) = low[row, column].tolist(), high[row, column].tolist()
            parts.append(crops[side][index][y1 - top : y2 - top, x1 - left : x2 - left])
        common[row, column] = int(np.count_nonzero(parts[0] & parts[1]))
    return common
