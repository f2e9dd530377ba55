"""Join detections of windows, scales and mirrored images to one prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pixelwise.types import Instances, Masks

SAME_OBJECT = 0.5
"""Overlap from which two detections of one class are the same instance."""


def join_detections(parts: Sequence[Instances], *, max_detections: int, cut_apart: bool) -> Instances:
    """The highest-scoring detection of each instance, highest score first.

    Of detections of one class that overlap by SAME_OBJECT the one with the higher score remains.

    Args:
        parts: of the same image, with scores.
        max_detections: largest number of detections.
        cut_apart: whether windows may have cut instances: then the overlap is the fraction of the smaller box, and the
            detection with the larger box remains; else it is the IoU.
    """
    every = Instances.concatenate(parts)
    assert every.scores is not None
    boxes = every.boxes.double()
    sizes = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    order = (sizes if cut_apart else every.scores).argsort(descending=True, stable=True)
    kept: list[int] = []
    hidden = torch.zeros(len(every), dtype=torch.bool)
    for index in order.tolist():
        if not hidden[index]:
            kept.append(index)
            hidden |= _same(index, boxes, sizes, cut_apart=cut_apart) & (every.labels == every.labels[index])
    best = sorted(kept, key=lambda index: -float(every.scores[index]))[:max_detections]  # pyright: ignore[reportOptionalSubscript]
    return every[best]


def _same(
    index: int, boxes: Float[Tensor, "N 4"], sizes: Float[Tensor, " N"], *, cut_apart: bool
) -> Bool[Tensor, " N"]:
    low = torch.maximum(boxes[:, :2], boxes[index, :2])
    high = torch.minimum(boxes[:, 2:], boxes[index, 2:])
    common = (high - low).clamp(min=0).prod(dim=1)
    whole = torch.minimum(sizes, sizes[index]) if cut_apart else sizes + sizes[index] - common
    return common >= SAME_OBJECT * whole.clamp(min=1e-9)


def mirrored_instances(instances: Instances, width: int) -> Instances:
    """Mirror the instances of an image of that width."""
    boxes = instances.boxes.clone()
    boxes[:, 0], boxes[:, 2] = width - instances.boxes[:, 2], width - instances.boxes[:, 0]
    masks = instances.masks
    if masks is not None:
        crops = [masks.crop(index).flip(1) for index in range(len(masks))]
        mirrored = [
            (width - x2, y1, width - x1, y2) if x2 > x1 else (0, 0, 0, 0) for x1, y1, x2, y2 in masks.boxes.tolist()
        ]
        masks = Masks.from_crops(crops, mirrored, masks.size)
    return replace(instances, boxes=boxes, masks=masks)


def moved_instances(instances: Instances, *, left: int, top: int, size: tuple[int, int]) -> Instances:
    """Move the instances of a window, which begins at `left` and `top`, into an image of that height and width."""
    offset = torch.tensor([left, top, left, top])
    masks = instances.masks
    if masks is not None:
        masks = replace(masks, boxes=masks.boxes + offset.to(masks.boxes), size=size)
    return replace(instances, boxes=instances.boxes + offset.to(instances.boxes), masks=masks)
