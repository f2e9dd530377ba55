"""Boxes x1 y1 x2 y2 in pixels, x2 y2 exclusive: IoU, encoding relative to a reference, clipping.

Non-maximum suppression is torchvision's (`torchvision.ops.batched_nms`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torchvision.ops import box_iou

LARGEST_LOG_SCALE = math.log(1000 / 16)
"""Largest dw and dh in R-CNNs, so that sides stay finite (Detectron's BBOX_XFORM_CLIP)."""

RCNN_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
"""Factors on the deltas of x, y, width and height in the box heads of R-CNNs and, as the variances 0.1 and 0.2, in SSD.
"""


def box_areas(boxes: Float[Tensor, "*N 4"]) -> Float[Tensor, "*N"]:
    """Width times height, in pixels."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def pairwise_iou(boxes: Float[Tensor, "N 4"], others: Float[Tensor, "M 4"]) -> Float[Tensor, "N M"]:
    """Intersection over union of every pair, 0 where both are without area."""
    return box_iou(boxes, others).nan_to_num(0.0)


def pairwise_coverage(regions: Float[Tensor, "R 4"], boxes: Float[Tensor, "N 4"]) -> Float[Tensor, "R N"]:
    """Fraction of each box's area inside each region: COCO's overlap with a crowd; 0 for boxes without area."""
    corner = torch.maximum(regions[:, None, :2], boxes[None, :, :2])
    opposite = torch.minimum(regions[:, None, 2:], boxes[None, :, 2:])
    common = (opposite - corner).clamp(min=0).prod(dim=2)
    return (common / box_areas(boxes)).nan_to_num(0.0, posinf=0.0)


def encode_boxes(
    boxes: Float[Tensor, "*N 4"],
    references: Float[Tensor, "*N 4"],
    *,
    weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
) -> Float[Tensor, "*N 4"]:
    """Encode boxes as deltas relative to references: dx = (x - x_r) / w_r, dw = log(w / w_r), and so for y and height.

    Source: Girshick et al., R-CNN (2014), appendix C. SSD's encoding (Liu et al., 2016, with the variances 0.1 and 0.2
        of its release) is this with RCNN_WEIGHTS.

    Args:
        boxes: each with a width and a height above 0.
        references: anchors or proposals, likewise.
        weights: factors on dx, dy, dw and dh.
    """
    x, y, width, height = _centres_and_sides(boxes)
    x_r, y_r, width_r, height_r = _centres_and_sides(references)
    wx, wy, ww, wh = weights
    return torch.stack(
        [
            wx * (x - x_r) / width_r,
            wy * (y - y_r) / height_r,
            ww * torch.log(width / width_r),
            wh * torch.log(height / height_r),
        ],
        dim=-1,
    )


def decode_boxes(
    deltas: Float[Tensor, "*N 4"],
    references: Float[Tensor, "*#N 4"],
    *,
    weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
    largest_log_scale: float | None = LARGEST_LOG_SCALE,
) -> Float[Tensor, "*N 4"]:
    """Decode deltas of `encode_boxes`; leading dimensions are broadcast.

    Args:
        deltas: dx, dy, dw, dh.
        references: anchors or proposals.
        weights: as in encoding.
        largest_log_scale: limit of dw and dh; None for no limit, as in SSD.
    """
    x_r, y_r, width_r, height_r = _centres_and_sides(references.to(deltas.dtype))
    wx, wy, ww, wh = weights
    dw, dh = deltas[..., 2] / ww, deltas[..., 3] / wh
    if largest_log_scale is not None:
        dw, dh = dw.clamp(max=largest_log_scale), dh.clamp(max=largest_log_scale)
    x, y = deltas[..., 0] / wx * width_r + x_r, deltas[..., 1] / wy * height_r + y_r
    half_width, half_height = 0.5 * (torch.exp(dw) * width_r), 0.5 * (torch.exp(dh) * height_r)
    return torch.stack([x - half_width, y - half_height, x + half_width, y + half_height], dim=-1)


def clip_boxes(boxes: Float[Tensor, "*N 4"], size: Sequence[int], *, least: float = 0.0) -> Float[Tensor, "*N 4"]:
    """Clip boxes to an image.

    Args:
        boxes: anywhere.
        size: height and width of the image.
        least: smallest side in pixels, even of a box beyond the border: 1 where x2 and y2 are the last pixels, as in
            Detectron.
    """
    height, width = size[0], size[1]
    first_x, first_y = boxes[..., 0].clamp(0, width - least), boxes[..., 1].clamp(0, height - least)
    last_x, last_y = boxes[..., 2].clamp(least, width), boxes[..., 3].clamp(least, height)
    return torch.stack([first_x, first_y, last_x, last_y], dim=-1)


def scale_boxes(
    boxes: Float[Tensor, "*N 4"], from_size: Sequence[int], to_size: Sequence[int]
) -> Float[Tensor, "*N 4"]:
    """Scale boxes to another height and width of the image, each axis by its own factor."""
    factor_y, factor_x = to_size[0] / from_size[0], to_size[1] / from_size[1]
    return boxes * boxes.new_tensor([factor_x, factor_y, factor_x, factor_y])


def are_large_enough(boxes: Float[Tensor, "*N 4"], smallest_side: float) -> Bool[Tensor, "*N"]:
    """Whether both sides of each box have at least `smallest_side` pixels."""
    sides = boxes[..., 2:] - boxes[..., :2]
    return (sides >= smallest_side).all(dim=-1)


def inside_boxes(
    boxes: Float[Tensor, "N 4"], image_size: Sequence[int], grid: tuple[int, int]
) -> Bool[Tensor, "N h w"]:
    """Mask of the cells of a grid over the image whose corner lies in each box, with a margin of one cell (YOLACT).

    Args:
        boxes: in pixels of the image.
        image_size: height and width.
        grid: rows and columns.
    """
    x1, y1, x2, y2 = scale_boxes(boxes, image_size, grid)[:, :, None].unbind(dim=1)
    rows, columns = (torch.arange(side, dtype=boxes.dtype, device=boxes.device) for side in grid)
    beside = (columns >= x1.minimum(x2) - 1) & (columns < x1.maximum(x2) + 1)
    above = (rows >= y1.minimum(y2) - 1) & (rows < y1.maximum(y2) + 1)
    return above[:, :, None] & beside[:, None, :]


def _centres_and_sides(boxes: Float[Tensor, "*N 4"]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    width, height = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    return boxes[..., 0] + 0.5 * width, boxes[..., 1] + 0.5 * height, width, height
