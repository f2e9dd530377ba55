"""Tracker: which instances of a frame are those of the frames before.

Source: Yang, Fan, Xu, "Video Instance Segmentation", ICCV 2019, section 4.2 (MaskTrack R-CNN's tracking branch and
external memory); Kim et al., VPSNet, CVPR 2020, section 4.2 ("Track").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from pixelwise.ops.boxes import pairwise_iou
from pixelwise.ops.precision import at_least_float32
from pixelwise.types import Instances

MATCH_WEIGHTS = (1.0, 2.0, 10.0)
"""Weights of a detection's log score, its IoU with the last box of a track, and whether their classes agree."""

NEW = -1
"""No track so far."""

UNKNOWN = -1
"""Target, or track id, where the identity is not annotated."""


class Tracks(NamedTuple):
    """The tracks of one clip so far, those not detected for longest first.

    Attributes:
        vectors: of the last detection of each.
        boxes: last box of each, in pixels of the network's input.
        channels: the class of each, from 1 on.
        ids: the id of each.
        next_id: the id of the next new track.
    """

    vectors: Float[Tensor, "M D"]
    boxes: Float[Tensor, "M 4"]
    channels: Int64[Tensor, " M"]
    ids: Int64[Tensor, " M"]
    next_id: Int64[Tensor, ""]

    @classmethod
    def none(cls, vectors: Float[Tensor, "N D"]) -> Tracks:
        """Before the first frame, of which these are vectors."""
        empty = torch.zeros(0, dtype=torch.int64, device=vectors.device)
        return cls(vectors[:0], vectors.new_zeros(0, 4), empty, empty, empty.sum())


class TrackHead(nn.Module):
    """Embeds the features of a box as a vector; products of two vectors score whether they show the same instance
    (section 4.2, "Track"; Yang, Fan, Xu, "Video Instance Segmentation", ICCV 2019, section 4.2).

    Args:
        in_channels: of the features.
        size: their side in cells.
        width: of the vector.
    """

    def __init__(self, in_channels: int, *, size: int = 7, width: int = 1024) -> None:
        super().__init__()
        self.hidden = nn.Linear(in_channels * size**2, width)
        self.output = nn.Linear(width, width)
        for layer in (self.hidden, self.output):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Float[Tensor, "R C s s"]) -> Float[Tensor, "R D"]:
        """One vector for each box."""
        return at_least_float32(self.output(F.relu(self.hidden(x.flatten(1)))))


def match_logits(vectors: Float[Tensor, "N D"], known: Float[Tensor, "M D"]) -> Float[Tensor, "N M1"]:
    """For each box the logit of a new track, which is 0, then one for each known track."""
    return torch.cat([vectors.new_zeros(len(vectors), 1), vectors @ known.T], dim=1)


def match_scores(
    logits: Float[Tensor, "N M1"],
    scores: Float[Tensor, " N"],
    overlaps: Float[Tensor, "N M"],
    are_same_class: Bool[Tensor, "N M"],
    *,
    weights: Sequence[float] = MATCH_WEIGHTS,
) -> Float[Tensor, "N M1"]:
    """Score of each identity for each box: log-probability plus weighted log score, IoU and agreement of class.

    A new track counts as of the same class and without overlap.

    Args:
        logits: of `match_logits`.
        scores: of the detections.
        overlaps: IoU with the last box of each known track.
        are_same_class: whether the class is that of each known track.
        weights: of the last three.
    """
    new = overlaps.new_zeros(len(overlaps), 1)
    overlaps = torch.cat([new, overlaps], dim=1)
    same = torch.cat([new + 1, are_same_class.to(overlaps.dtype)], dim=1)
    of_score, of_overlap, of_class = weights
    return logits.log_softmax(dim=1) + of_score * scores.log()[:, None] + of_overlap * overlaps + of_class * same


def assign(scores: Float[Tensor, "N M1"]) -> Int64[Tensor, " N"]:
    """Assign each box its highest-scoring known track, or NEW; of boxes that claim the same track the highest-scoring
    gets it, the others are new.

    Args:
        scores: of `match_scores`.
    """
    best, choice = scores.max(dim=1)
    tracks = choice - 1
    rivals = (tracks[:, None] == tracks) & (best > best[:, None])
    # of equal scores the first
    earlier = torch.ones_like(rivals).tril(-1)
    rivals |= (tracks[:, None] == tracks) & (best == best[:, None]) & earlier
    return tracks.masked_fill(rivals.any(dim=1), NEW)


def track(
    known: Tracks,
    vectors: Float[Tensor, "N D"],
    boxes: Float[Tensor, "N 4"],
    channels: Int64[Tensor, " N"],
    scores: Float[Tensor, " N"],
    *,
    max_known: int,
    weights: Sequence[float] = MATCH_WEIGHTS,
) -> tuple[Int64[Tensor, " N"], Tracks]:
    """Track the detections of the next frame; return their track ids, and the tracks after it.

    Args:
        known: tracks of the frames before.
        vectors: of the detections, highest score first.
        boxes: in pixels of the network's input.
        channels: the class of each, from 1 on.
        scores: in [0, 1].
        max_known: largest number of tracks remembered; of those last detected in the same frame the lowest-scoring is
            forgotten first. With 0 all detections are new.
        weights: see `match_scores`.
    """
    are_same = channels[:, None] == known.channels
    overlaps = pairwise_iou(boxes, known.boxes)
    matches = assign(match_scores(match_logits(vectors, known.vectors), scores, overlaps, are_same, weights=weights))
    # NEW is column 0, before the known tracks
    is_known = torch.cat([are_same.new_zeros(len(boxes), 1), are_same], dim=1)
    is_new = ~is_known.gather(1, matches[:, None] + 1).flatten()
    before = len(known.ids)
    new_ids = known.next_id + torch.arange(len(boxes), device=boxes.device)
    ids = torch.cat([known.ids, new_ids])[torch.where(is_new, before + is_new.cumsum(dim=0) - 1, matches)]
    unseen = torch.ones(before, dtype=torch.bool, device=boxes.device)
    unseen[matches[~is_new]] = False
    forgotten = max(int(unseen.sum()) + len(boxes) - max_known, 0)

    def joined(old: Tensor, new: Tensor) -> Tensor:
        return torch.cat([old[unseen], new.flip(0)])[forgotten:].detach()

    return ids, Tracks(
        vectors=joined(known.vectors, vectors),
        boxes=joined(known.boxes, boxes),
        channels=joined(known.channels, channels),
        ids=joined(known.ids, ids),
        next_id=known.next_id + is_new.sum(),
    )


def match_targets(target: Instances, objects: Int64[Tensor, " P"], reference: Instances) -> Int64[Tensor, " P"]:
    """The right column of `match_logits` for each box: 0 where the reference does not show the instance, or UNKNOWN.

    Args:
        target: the instances of a frame.
        objects: index of the instance that each box is matched to.
        reference: the instances of the reference frame, the known tracks of `match_logits`.
    """
    if target.track_ids is None or reference.track_ids is None:
        return torch.full_like(objects, UNKNOWN)
    ids = target.track_ids[objects]
    are_same = ids[:, None] == reference.track_ids
    columns = torch.cat([~are_same.any(dim=1, keepdim=True), are_same], dim=1).int()
    return columns.argmax(dim=1).masked_fill(ids <= UNKNOWN, UNKNOWN)
