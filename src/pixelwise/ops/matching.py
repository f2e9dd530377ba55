"""Which true object an anchor or a proposal stands for, and which of them a detector learns from."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from pixelwise.ops.boxes import pairwise_coverage, pairwise_iou

BACKGROUND = -1
"""Stands for no object."""
NEUTRAL = -2
"""Neither object nor background: nothing is trained on it."""


def match_boxes(
    overlaps: Float[Tensor, "T N"], *, positive: float, negative: float, best_for_each: bool = False
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
    is_best = ((overlaps == best) & (overlaps > 0)).any(dim=0)
    return torch.where(is_best, matches, thresholded)


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


def match_anchors(
    anchors: Float[Tensor, "P 4"],
    boxes: Float[Tensor, "T 4"],
    *,
    crowd: Bool[Tensor, " T"],
    skipped: Bool[Tensor, " T"],
    positive: float = 0.5,
    negative: float = 0.4,
    crowd_coverage: float = 0.7,
) -> Int64[Tensor, " P"]:
    """The object that each anchor stands for: the one that it overlaps most, each object having an anchor of its own.

    Source: SSD (Liu et al., 2016), section 2.2, with the thresholds and the crowds of YOLACT (`layers/box_utils.py`).

    Args:
        anchors: in pixels.
        boxes: of the objects.
        crowd: which of them are crowds, no anchor's objects; the background that they cover is neutral.
        skipped: which of them no anchor stands for.
        positive: smallest IoU.
        negative: IoU below which an anchor is background; between the two it is neutral.
        crowd_coverage: part of an anchor that lies in a crowd, from which on it is no background.

    Returns:
        the number of the object in `boxes`, BACKGROUND or NEUTRAL.
    """
    wanted = (~crowd & ~skipped).nonzero().flatten()
    overlaps = pairwise_iou(boxes[wanted].to(anchors), anchors)
    matches = match_boxes(overlaps, positive=positive, negative=negative)
    forced = match_best_for_each(overlaps)
    matches = torch.where(forced >= 0, forced, matches)
    coverage = pairwise_coverage(boxes[crowd].to(anchors), anchors)
    matches = without_crowds(matches, coverage, threshold=crowd_coverage)
    if len(wanted):
        matches = torch.where(matches >= 0, wanted[matches.clamp(min=0)], matches)
    return matches


def hard_negatives(logits: Float[Tensor, "P K"], objects: Int64[Tensor, " P"], *, ratio: int = 3) -> Bool[Tensor, " P"]:
    """Hard negative mining (OHEM): the background anchors of the largest loss, `ratio` times as many as have objects.

    Source: SSD (Liu et al., 2016), section 2.2.

    Args:
        logits: channel 0 is background.
        objects: that the anchors stand for, or BACKGROUND or NEUTRAL.
        ratio: negatives for each positive, at most.
    """
    background = objects == BACKGROUND
    count = min(ratio * int((objects >= 0).sum()), int(background.sum()))
    # the cross-entropy of background
    losses = (logits.logsumexp(dim=1) - logits[:, 0]).masked_fill(~background, -1)
    chosen = torch.zeros_like(background)
    chosen[losses.topk(count).indices] = True
    return chosen


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
    positives = draw_at_most(positives, int(count * positive_fraction))
    return positives, draw_at_most(negatives, count - len(positives))


def draw_at_most(places: Int64[Tensor, " N"], count: int) -> Int64[Tensor, " M"]:
    """At most `count` of the places, in their order, drawn with torch's generator."""
    if len(places) <= count:
        return places
    return places[torch.randperm(len(places), device=places.device)[:count]].sort().values
