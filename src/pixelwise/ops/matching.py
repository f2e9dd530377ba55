"""Which true object an anchor or a proposal stands for, and which of them a detector learns from."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

BACKGROUND = -1
"""Stands for no object."""
NEUTRAL = -2
"""Neither object nor background: nothing is trained on it."""


def match_boxes(
    overlaps: Float[Tensor, "T N"],
    *,
    positive: float,
    negative: float,
    best_for_each: bool = False,
    min_pos_iou: float | None = None,
) -> Int64[Tensor, " N"]:
    """The object that each box stands for.

    Source: Ren et al., Faster R-CNN (2015), section 3.1.2.

    Args:
        overlaps: IoU of each true object with each box; without objects all boxes are background.
        positive: smallest IoU with which a box stands for the object that it overlaps most.
        negative: a box whose largest IoU is smaller is background; between the two it is neutral.
        best_for_each: let every box that no other overlaps an object more than, ties included, stand for the object
            that it (the box) overlaps most, however little; as torchvision and Detectron do. Without overlap it does
            not: there all boxes would tie.
        min_pos_iou: makes `best_for_each` mmdetection's (`MaxIoUAssigner`): every box that no other overlaps an object
            more than, ties included, stands for that object, whatever else it overlaps, if their IoU is at least this;
            of several objects for the last.

    Returns:
        the number of the object, BACKGROUND or NEUTRAL.
    """
    if not len(overlaps):
        return torch.full((overlaps.shape[1],), BACKGROUND, device=overlaps.device)
    largest, matches = overlaps.max(dim=0)
    thresholded = matches.masked_fill(largest < positive, NEUTRAL).masked_fill(largest < negative, BACKGROUND)
    if not best_for_each or not overlaps.shape[1]:
        return thresholded
    best = overlaps.max(dim=1, keepdim=True).values
    is_best = (overlaps == best) & (overlaps > 0)
    if min_pos_iou is not None:
        is_best &= best >= min_pos_iou
        matches = len(overlaps) - 1 - is_best.flip(0).int().argmax(dim=0)
    return torch.where(is_best.any(dim=0), matches, thresholded)


def match_best_for_each(overlaps: Float[Tensor, "T N"]) -> Int64[Tensor, " N"]:
    """The object that each box is forced to stand for, so that every object has a box of its own.

    The pair that overlaps most is taken, then the one among the others, until every object (or every box) is used:
    the global greedy order of SSD and YOLACT (`layers/box_utils.py`, `match`).

    Returns:
        the number of the object, or NEUTRAL for the boxes that are free.
    """
    forced = torch.full((overlaps.shape[1],), NEUTRAL, device=overlaps.device)
    remaining = overlaps.clone()
    for _ in range(min(overlaps.shape)):
        truth, box = divmod(int(remaining.argmax()), overlaps.shape[1])
        forced[box] = truth
        remaining[truth, :] = -1
        remaining[:, box] = -1
    return forced


def without_crowds(
    matches: Int64[Tensor, " N"], coverage: Float[Tensor, "R N"], *, threshold: float = 0.7
) -> Int64[Tensor, " N"]:
    """The same matches, with what would be background inside a crowd made neutral: it may show one of its objects.

    Args:
        matches: of `match_boxes`, with the objects that are no crowds.
        coverage: which part of each box each crowd covers, see `ops.boxes.pairwise_coverage`; may be of no crowds.
        threshold: of that part; 0.7 in Detectron and YOLACT.
    """
    if not len(coverage):
        return matches
    inside = coverage.max(dim=0).values >= threshold
    return matches.masked_fill(inside & (matches == BACKGROUND), NEUTRAL)


def sample_balanced(
    matches: Int64[Tensor, " N"], *, count: int, positive_fraction: float
) -> tuple[Int64[Tensor, " P"], Int64[Tensor, " M"]]:
    """Draw so many boxes to learn from, with torch's own generator: at most a fraction positive, the rest background.

    Where there are too few positives, background takes their place.

    Args:
        matches: of `match_boxes`.
        count: positives and background together.
        positive_fraction: of the count.

    Returns:
        the numbers of the positives and of the background, both in ascending order.
    """
    positives, negatives = (matches >= 0).nonzero().flatten(), (matches == BACKGROUND).nonzero().flatten()
    positives = _drawn(positives, int(count * positive_fraction))
    return positives, _drawn(negatives, count - len(positives))


def _drawn(places: Int64[Tensor, " N"], count: int) -> Int64[Tensor, " M"]:
    """At most `count` of the places, in their order."""
    if len(places) <= count:
        return places
    return places[torch.randperm(len(places), device=places.device)[:count]].sort().values
