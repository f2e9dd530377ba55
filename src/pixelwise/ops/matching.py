"""Match anchors and proposals to ground truth instances, and sample them for training."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from pixelwise.ops.boxes import pairwise_coverage, pairwise_iou

BACKGROUND = -1
"""Match of a box without instance."""
NEUTRAL = -2
"""Match of a box that is neither positive nor background, and is ignored in training."""


def match_boxes(
    overlaps: Float[Tensor, "T N"],
    *,
    positive: float,
    negative: float,
    best_for_each: bool = False,
    min_pos_iou: float | None = None,
) -> Int64[Tensor, " N"]:
    """Match each box to an instance.

    Source: Ren et al., Faster R-CNN (2015), section 3.1.2.

    Args:
        overlaps: IoU of each ground truth instance with each box; without instances all boxes are background.
        positive: smallest IoU at which a box is matched to the instance that it overlaps most.
        negative: a box whose largest IoU is smaller is background; between the two it is neutral.
        best_for_each: for each instance, also match the boxes of largest IoU with it, ties included, to the instance
            that these boxes overlap most, whatever the IoU; as torchvision and Detectron do. Boxes without any overlap
            are not matched.
        min_pos_iou: makes `best_for_each` that of mmdetection's `MaxIoUAssigner`: the boxes of largest IoU with an
            instance, ties included, are matched to that instance, if the IoU is at least this; to the last of several.

    Returns:
        the index of the instance, BACKGROUND or NEUTRAL.
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
    """Match each instance to a box of its own.

    The pair with the largest IoU is matched, then the next among the others, until every instance (or every box) is
    matched: the global greedy order of SSD and YOLACT (`layers/box_utils.py`, `match`).

    Returns:
        the index of the instance, or NEUTRAL for the other boxes.
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
    """The same matches, with background inside a crowd made neutral, since it may show one of the crowd's instances.

    Args:
        matches: of `match_boxes`, with the instances that are no crowds.
        coverage: fraction of each box that each crowd covers, see `ops.boxes.pairwise_coverage`; may have no rows.
        threshold: of that fraction; 0.7 in Detectron and YOLACT.
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
    """Match each anchor to the instance that it overlaps most, and each instance to an anchor of its own.

    Source: SSD (Liu et al., 2016), section 2.2, with the thresholds and the crowds of YOLACT (`layers/box_utils.py`).

    Args:
        anchors: in pixels.
        boxes: of the instances.
        crowd: which of them are crowds; no anchor is matched to them, and the background that they cover is neutral.
        skipped: which of them no anchor is matched to.
        positive: smallest IoU.
        negative: IoU below which an anchor is background; between the two it is neutral.
        crowd_coverage: fraction of an anchor inside a crowd from which on it is neutral.

    Returns:
        the index of the instance in `boxes`, BACKGROUND or NEUTRAL.
    """
    matchable = (~crowd & ~skipped).nonzero().flatten()
    overlaps = pairwise_iou(boxes[matchable].to(anchors), anchors)
    matches = match_boxes(overlaps, positive=positive, negative=negative)
    forced = match_best_for_each(overlaps)
    matches = torch.where(forced >= 0, forced, matches)
    coverage = pairwise_coverage(boxes[crowd].to(anchors), anchors)
    matches = without_crowds(matches, coverage, threshold=crowd_coverage)
    if len(matchable):
        matches = torch.where(matches >= 0, matchable[matches.clamp(min=0)], matches)
    return matches


def hard_negatives(logits: Float[Tensor, "P K"], objects: Int64[Tensor, " P"], *, ratio: int = 3) -> Bool[Tensor, " P"]:
    """Hard negative mining (OHEM): the background anchors with the largest loss, `ratio` times as many as positives.

    Source: SSD (Liu et al., 2016), section 2.2.

    Args:
        logits: channel 0 is background.
        objects: matches of the anchors.
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
    """Sample `count` boxes for training, with torch's generator: at most a fraction positive, the rest background.

    Background fills the places of missing positives.

    Args:
        matches: of `match_boxes`.
        count: number of positives and background.
        positive_fraction: largest fraction of positives.

    Returns:
        the indices of the positives and of the background, both ascending.
    """
    positives, negatives = (matches >= 0).nonzero().flatten(), (matches == BACKGROUND).nonzero().flatten()
    positives = draw_at_most(positives, int(count * positive_fraction))
    return positives, draw_at_most(negatives, count - len(positives))


def draw_at_most(places: Int64[Tensor, " N"], count: int) -> Int64[Tensor, " M"]:
    """At most `count` of the places, in their order, sampled with torch's generator."""
    if len(places) <= count:
        return places
    return places[torch.randperm(len(places), device=places.device)[:count]].sort().values
