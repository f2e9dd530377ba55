"""Non-maximum suppression where each candidate has a score of every class, as in YOLACT (Bolya et al., 2019).

Where a box has one class, the suppression is torchvision's (`torchvision.ops.batched_nms`).
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torchvision.ops import batched_nms

from pixelwise.ops.boxes import pairwise_iou


def fast_nms(
    boxes: Float[Tensor, "N 4"], scores: Float[Tensor, "N T"], *, threshold: float, per_class: int
) -> tuple[Int64[Tensor, " M"], Int64[Tensor, " M"]]:
    """Fast NMS: a box is suppressed by any higher-scoring one of its class, even a suppressed one.

    Source: YOLACT, section 3.4.

    Args:
        boxes: candidates, each one of every class.
        scores: of every class.
        threshold: largest IoU of two boxes of a class.
        per_class: number of the highest-scoring boxes of each class that are considered.

    Returns:
        the indices of the boxes that remain and their classes from 0 on, highest score first.
    """
    scores, order = (part[:per_class].T for part in scores.sort(dim=0, descending=True, stable=True))
    chosen: list[Tensor] = []
    for places in order:
        overlaps = pairwise_iou(boxes[places], boxes[places]).triu(diagonal=1)
        chosen.append((overlaps <= threshold).all(dim=0))
    classes, ranks = torch.stack(chosen).nonzero(as_tuple=True)
    best = scores[classes, ranks].argsort(descending=True, stable=True)
    return order[classes, ranks][best], classes[best]


def traditional_nms(
    boxes: Float[Tensor, "N 4"],
    scores: Float[Tensor, "N T"],
    *,
    threshold: float,
    per_class: int,
    smallest_score: float,
) -> tuple[Int64[Tensor, " M"], Int64[Tensor, " M"]]:
    """Traditional NMS within each class, among its boxes above a score; as `fast_nms`."""
    scores, order = (part[:per_class].T for part in scores.sort(dim=0, descending=True, stable=True))
    classes, ranks = (scores > smallest_score).nonzero(as_tuple=True)
    places = order[classes, ranks]
    best = batched_nms(boxes[places], scores[classes, ranks], classes, threshold)
    return places[best], classes[best]
