"""Segmentation and tracking quality of clips: STQ = √(AQ · SQ).

SQ is the mean IoU of the classes, one confusion matrix over all frames. AQ, the association quality, is the mean over
the ground truth tubes g of things of (1 / |g|) Σ TPA(p, g) · IoU(p, g) over the predicted tubes p, where TPA are their
shared pixels. AQ ignores the class: a tube that is tracked as another class of things lowers SQ alone. Pixels of ground
truth crowds do not count in AQ; those in void belong to the predicted tubes.

Source: Weber et al., "STEP: Segmenting and Tracking Every Pixel", 2021, section 4, and the NumPy version of deeplab2.
As there, an id that changes its class is another tube. deeplab2 counts predicted void as one more class, with an IoU of
0; here, as in the paper, it is an error of the ground truth class.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from pixelwise.labels import LabelSet
from pixelwise.metrics.panoptic_quality import SegmentOverlaps
from pixelwise.metrics.per_image import mean


class TrackingQuality(NamedTuple):
    """The result of clips.

    Attributes:
        stq: √(AQ · SQ); None without either.
        sq: mean IoU of the classes that ground truth or predictions have; None without any.
        aq: association quality; None without a ground truth tube of a thing.
        ious: of each class.
    """

    stq: float | None
    sq: float | None
    aq: float | None
    ious: tuple[float | None, ...]


def segmentation_tracking_quality(clips: Iterable[Sequence[SegmentOverlaps]], labels: LabelSet) -> TrackingQuality:
    """STQ of clips, each the overlaps of its frames."""
    classes = len(labels)
    confusion = np.zeros((classes, classes + 1), dtype=np.int64)
    shares: list[float] = []
    tubes = 0
    for frames in clips:
        pixels = np.concatenate([_classified(frame) for frame in frames])
        evaluated = pixels[pixels[:, 1] >= 0]
        found = np.where(evaluated[:, 4] < 0, classes, evaluated[:, 4])
        np.add.at(confusion, (evaluated[:, 1], found), evaluated[:, 5])
        mine, count = _association(pixels, np.array(labels.is_thing))
        shares += mine
        tubes += count
    right = confusion.diagonal()
    union = confusion.sum(axis=1) + confusion[:, :-1].sum(axis=0) - right
    ious = [int(one) / int(whole) if whole else None for one, whole in zip(right, union, strict=True)]
    sq = mean(ious)
    # correctly rounded, so that the sum does not depend on the order of clips
    aq = math.fsum(shares) / tubes if tubes else None
    return TrackingQuality(None if sq is None or aq is None else math.sqrt(aq * sq), sq, aq, tuple(ious))


def _classified(frame: SegmentOverlaps) -> Int64[np.ndarray, "R 6"]:
    """The pairs of a frame as ground truth id, class, crowd, predicted id, class, pixels; class -1 is void."""
    rows = np.concatenate([[[0, -1, 0]], frame.truth])[np.searchsorted(frame.truth[:, 0], frame.pairs[:, 0], "right")]
    columns = np.concatenate([[[0, -1]], frame.found])[np.searchsorted(frame.found[:, 0], frame.pairs[:, 1], "right")]
    return np.concatenate([rows, columns, frame.pairs[:, 2:]], axis=1)


def _association(pixels: Int64[np.ndarray, "R 6"], is_thing: np.ndarray) -> tuple[list[float], int]:
    """The summands of AQ over the tubes of one clip, and the number of ground truth tubes."""
    true_thing, found_thing = (is_thing[side] & (side >= 0) for side in (pixels[:, 1], pixels[:, 4]))
    crowd = true_thing & (pixels[:, 2] > 0)
    in_truth, in_prediction = true_thing & ~crowd, found_thing & ~crowd
    tube, area = _tubes(pixels[:, 0:2], pixels[:, 5], in_truth)
    found_tube, found_area = _tubes(pixels[:, 3:5], pixels[:, 5], in_prediction)
    both = in_truth & in_prediction
    keys, place = np.unique(tube[both] * (len(found_area) + 1) + found_tube[both], return_inverse=True)
    shared = np.bincount(place, weights=pixels[both, 5], minlength=len(keys))
    row, column = keys // (len(found_area) + 1), keys % (len(found_area) + 1)
    share = shared / area[row] * (shared / (area[row] + found_area[column] - shared))
    return share.tolist(), len(area)


def _tubes(
    names: Int64[np.ndarray, "R 2"], pixels: Int64[np.ndarray, " R"], chosen: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The index of the tube of each row, 0 where it is not selected, and the area of each tube."""
    unique, place = np.unique(names[chosen], axis=0, return_inverse=True)
    number = np.zeros(len(names), dtype=np.int64)
    number[chosen] = place.reshape(-1)
    return number, np.bincount(place.reshape(-1), weights=pixels[chosen], minlength=len(unique))
