"""Mask voting: after NMS the masks of overlapping boxes are averaged.

Dai, He, Sun, "Instance-aware Semantic Segmentation via Multi-task Network Cascades", CVPR 2016, section 3.5, with the
numbers of the authors' code (mask_transform.py).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torchvision.ops import batched_nms, box_iou


class Voted(NamedTuple):
    """The voted masks, highest score first.

    Attributes:
        boxes: x1 y1 x2 y2 of each mask's pixels, x2 y2 exclusive.
        channels: of their classes, from 1 on.
        scores: of the box that survived.
        crops: the masks in their boxes.
    """

    boxes: Int64[Tensor, "N 4"]
    channels: Int64[Tensor, " N"]
    scores: Float[Tensor, " N"]
    crops: list[Bool[Tensor, "_h _w"]]


def vote_masks(
    boxes: Float[Tensor, "R 4"],
    masks: Float[Tensor, "R m m"],
    scores: Float[Tensor, "R K"],
    size: tuple[int, int],
    *,
    score_threshold: float = 0.0,
    max_detections: int = 100,
    nms_threshold: float = 0.3,
    voter_iou: float = 0.5,
    mask_threshold: float = 0.4,
    binarize: bool = True,
) -> Voted:
    """Run NMS class by class, then average the masks of the boxes that overlap each survivor.

    The voters are all boxes that overlap the survivor, itself included, whatever their class; each counts by its score
    for the survivor's class, divided by the sum of these. A pixel is in the mask where the weighted sum of the votes
    reaches `mask_threshold`. Survivors whose mask is empty are skipped.

    Args:
        boxes: x1 y1 x2 y2 in pixels of the result, inside the image.
        masks: probabilities in each box.
        scores: of each box; channel 0 is background.
        size: height and width of the image.
        score_threshold: lowest score of a survivor.
        max_detections: largest number of survivors over all classes.
        nms_threshold: largest IoU between survivors of one class.
        voter_iou: smallest IoU of a voter with the survivor.
        mask_threshold: of a mask's probabilities, and of the sum of votes.
        binarize: votes are 0 or 1, as in the authors' CPU code; else probabilities, as in their GPU code.
    """
    classes = scores.shape[1] - 1
    flat = scores[:, 1:].t().flatten()  # class by class
    channels = torch.arange(1, classes + 1, device=scores.device).repeat_interleave(len(boxes))
    owners = torch.arange(len(boxes), device=scores.device).repeat(classes)
    candidates = (flat > score_threshold).nonzero().flatten()
    kept = batched_nms(boxes[owners[candidates]].to(flat.dtype), flat[candidates], channels[candidates], nms_threshold)
    survivors = candidates[kept[:max_detections]]
    # the boxes in whole pixels, at least one each
    height, width = size
    limits = torch.tensor([width, height], device=boxes.device)
    rounded = (boxes + 0.5).floor().long()
    corners = torch.minimum(rounded[:, :2].clamp(min=0), limits - 1)
    ends = torch.maximum(torch.minimum(rounded[:, 2:], limits), corners + 1)
    pixels = torch.cat([corners, ends], dim=1).tolist()
    overlaps = box_iou(boxes[owners[survivors]], boxes)
    found: list[list[int]] = []
    crops: list[Tensor] = []
    chosen: list[int] = []
    for survivor, overlap in zip(survivors.tolist(), overlaps, strict=True):
        voters = (overlap >= voter_iou).nonzero().flatten()
        if not len(voters):  # a box without area does not overlap itself
            voters = owners[survivor][None]
        weights = scores[voters, channels[survivor]]
        weights = weights / weights.sum()
        voting = [pixels[voter] for voter in voters.tolist()]
        left, top = min(box[0] for box in voting), min(box[1] for box in voting)
        right, bottom = max(box[2] for box in voting), max(box[3] for box in voting)
        votes = torch.zeros(bottom - top, right - left, dtype=masks.dtype, device=masks.device)
        for voter, weight, (x1, y1, x2, y2) in zip(voters, weights, voting, strict=True):
            vote = F.interpolate(masks[voter][None, None], (y2 - y1, x2 - x1), mode="bilinear")[0, 0]
            vote = (vote >= mask_threshold).to(masks.dtype) if binarize else vote
            votes[y1 - top : y2 - top, x1 - left : x2 - left] += vote * weight
        mask = votes >= mask_threshold
        rows, columns = mask.any(dim=1).nonzero().flatten(), mask.any(dim=0).nonzero().flatten()
        if len(rows):
            (y1, y2), (x1, x2) = ((int(line[0]), int(line[-1]) + 1) for line in (rows, columns))
            found.append([left + x1, top + y1, left + x2, top + y2])
            crops.append(mask[y1:y2, x1:x2])
            chosen.append(survivor)
    which = torch.tensor(chosen, dtype=torch.int64, device=scores.device)
    return Voted(
        boxes=torch.tensor(found, dtype=torch.int64, device=boxes.device).reshape(-1, 4),
        channels=channels[which],
        scores=flat[which],
        crops=crops,
    )
