"""The heuristic that merges independent semantic and instance predictions to one panoptic map.

Instances are pasted in order of descending score, each on free pixels alone, and skipped if too much of them is
covered. The remaining pixels take their class of stuff if enough of that class is left.

Source: Kirillov et al., "Panoptic Segmentation", CVPR 2019, section 4.1, and "Panoptic Feature Pyramid Networks", CVPR
2019, section 3, whose thresholds are the defaults (as in detectron2).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int32, UInt8
from torch import Tensor

from pixelwise.errors import DataError
from pixelwise.ops.panoptic import stuff_segment_ids, thing_segment_ids
from pixelwise.types import Instances, Panoptic

SCORE_THRESHOLD = 0.5
LARGEST_OVERLAP = 0.5
SMALLEST_STUFF = 64 * 64

SLAB_PIXELS = 2**20
"""Pixels that are counted at once."""


def merge_segments(
    semantic: UInt8[Tensor, "H W"] | Int32[Tensor, "H W"],
    instances: Instances,
    *,
    num_classes: int,
    things: Sequence[int],
    confidence: Float[Tensor, "H W"] | None = None,
    score_threshold: float = SCORE_THRESHOLD,
    largest_overlap: float = LARGEST_OVERLAP,
    smallest_stuff: int = SMALLEST_STUFF,
) -> Panoptic:
    """The panoptic map of an image.

    Args:
        semantic: class of each pixel; classes of things and values that are no class ids become void.
        instances: of things, with masks and scores; crowds are skipped.
        num_classes: of the label set.
        things: class ids of things.
        confidence: probability of the class of each pixel; the score of stuff is its mean, or 1 without it.
        score_threshold: lowest score of an instance.
        largest_overlap: an instance is skipped if a larger fraction of its area is covered by higher-scoring ones.
        smallest_stuff: smallest area of a class of stuff, in pixels; less becomes void.

    Returns:
        stuff, then instances by descending score; segments with pixels alone.

    Raises:
        DataError: the instances have no masks or no scores, or another size.
    """
    masks, scores = instances.masks, instances.scores
    if masks is None or scores is None:
        raise DataError("instances to merge need masks and scores; these have none")
    size = (semantic.shape[0], semantic.shape[1])
    if masks.size != size:
        raise DataError(f"a semantic map of {size[0]}×{size[1]}, instances of {masks.size[0]}×{masks.size[1]}")
    is_thing = torch.zeros(num_classes, dtype=torch.bool, device=semantic.device)
    is_thing[list(things)] = True
    # 0 for void, 1 + class of stuff, then the pasted instances
    codes = torch.zeros(size, dtype=torch.int32, device=semantic.device)
    laid: list[int] = []
    for number in scores.argsort(descending=True, stable=True).tolist():
        is_crowd = instances.crowd is not None and bool(instances.crowd[number])
        if is_crowd or scores[number] < score_threshold or not is_thing[instances.labels[number]]:
            continue
        x1, y1, x2, y2 = masks.boxes[number].tolist()
        shown, below = masks.crop(number).bool(), codes[y1:y2, x1:x2]
        area, free = int(shown.sum()), shown & (below == 0)
        left = int(free.sum())
        if not left or (area - left) / area > largest_overlap:
            continue
        laid.append(number)
        below.masked_fill_(free, num_classes + len(laid))
    areas, sums = _lay_stuff(semantic, codes, is_thing, confidence)
    stuff = (areas >= max(smallest_stuff, 1)).nonzero().flatten()
    objects = torch.tensor(laid, dtype=torch.int64, device=semantic.device)
    stuff_ids = stuff_segment_ids(stuff)
    thing_ids = thing_segment_ids(torch.arange(len(laid), device=semantic.device), num_classes)
    table = torch.zeros(num_classes + 1 + len(laid), dtype=torch.int32, device=semantic.device)
    table[1 + stuff], table[num_classes + 1 :] = stuff_ids, thing_ids
    for rows in _slabs(size):
        codes[rows] = table[codes[rows].long()]
    stuff_scores = torch.ones(len(stuff), device=semantic.device) if sums is None else sums[stuff] / areas[stuff]
    return Panoptic(
        ids=codes,
        segment_ids=torch.cat([stuff_ids, thing_ids]),
        labels=torch.cat([stuff, instances.labels[objects]]),
        crowd=torch.zeros(len(stuff) + len(laid), dtype=torch.bool, device=semantic.device),
        scores=torch.cat([stuff_scores.float(), scores[objects].float()]),
    )


def _lay_stuff(
    semantic: Tensor, codes: Int32[Tensor, "H W"], is_thing: Tensor, confidence: Float[Tensor, "H W"] | None
) -> tuple[Tensor, Tensor | None]:
    """Write 1 + class where `codes` is 0 and the class is stuff; return each class's pixels and sum of confidence."""
    classes = len(is_thing)
    areas = torch.zeros(classes, dtype=torch.int64, device=codes.device)
    sums = None if confidence is None else torch.zeros(classes, dtype=torch.float64, device=codes.device)
    is_stuff = torch.cat([~is_thing, is_thing.new_zeros(1)])  # the last is no class
    for rows in _slabs((codes.shape[0], codes.shape[1])):
        labels = semantic[rows].long()
        labels = torch.where((labels >= 0) & (labels < classes), labels, classes)
        free = (codes[rows] == 0) & is_stuff[labels]
        codes[rows] = torch.where(free, (labels + 1).int(), codes[rows])
        areas += labels[free].bincount(minlength=classes)
        if sums is not None and confidence is not None:
            sums += labels[free].bincount(confidence[rows][free].double(), minlength=classes)
    return areas, sums


def _slabs(size: tuple[int, int]) -> list[slice]:
    step = max(1, SLAB_PIXELS // max(1, size[1]))
    return [slice(start, start + step) for start in range(0, size[0], step)]
