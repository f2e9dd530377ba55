"""The panoptic head, which has no parameters: combines semantic logits and instance masks to one logit per segment.

A class of stuff has its semantic logit. An instance has, inside its box, the semantic logit of its class plus its mask
logit, enlarged to the box, and zero (not minus infinity) everywhere else. "Unknown" has the largest logit of a thing
class minus the largest semantic logit of an instance: it wins where pixels show a thing that no instance covers.

Source: Xiong et al., "UPSNet: A Unified Panoptic Segmentation Network", CVPR 2019, sections 3.1 and 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int32, Int64
from torch import Tensor

from pixelwise.ops.panoptic import stuff_segment_ids, thing_segment_ids
from pixelwise.ops.paste import enlarged_part
from pixelwise.ops.precision import at_least_float32
from pixelwise.ops.resize import enlarge_rows, first_zero
from pixelwise.types import Masks, Panoptic

IGNORED = -1
"""Target of pixels that are ignored."""

LARGEST_COVERAGE = 0.3
"""An instance is skipped if a larger fraction of it is covered by higher-scoring ones of its class (section 3.2)."""

STUFF_MAJORITY = 0.5
"""Fraction of an instance's pixels in one class of stuff from which it becomes stuff, if no other class has more."""

SLAB_BYTES = 8 * 2**20
"""Bytes of the enlarged logits that are held at once."""


class Places(NamedTuple):
    """Boxes of the instances' terms in cells; x1 y1 x2 y2, x2 y2 exclusive.

    Attributes:
        semantic: of the semantic logits, inside the map.
        mask: integer corners between which the masks are enlarged; may exceed the map.
    """

    semantic: Int64[Tensor, "N 4"]
    mask: Int64[Tensor, "N 4"]


def places_of(boxes: Float[Tensor, "N 4"], size: tuple[int, int], *, stride: float = 1.0) -> Places:
    """The cells of boxes as in the public code: from the cell of the first pixel to that of the last, which is rounded
    for semantic logits and rounded down for masks.

    Args:
        boxes: in pixels, x2 y2 exclusive.
        size: height and width of the map.
        stride: pixels for each cell.
    """
    first, last = boxes[:, :2] / stride, (boxes[:, 2:] - 1) / stride
    low = first.trunc()
    limits = low.new_tensor([size[1], size[0]])
    semantic = torch.cat([low, torch.maximum(last.round() + 1, low + 1)], dim=1)
    semantic = semantic.clamp(min=0).minimum(torch.cat([limits, limits]))
    mask = torch.cat([low, torch.maximum(last.trunc() + 1, low + 1)], dim=1)
    return Places(semantic.long(), mask.long())


def panoptic_logits(
    semantic: Float[Tensor, "K h w"],
    boxes: Float[Tensor, "N 4"],
    labels: Int64[Tensor, " N"],
    masks: Float[Tensor, "N M M"],
    *,
    things: Sequence[int],
    stride: float = 1.0,
    has_unknown: bool = True,
) -> Float[Tensor, "S h w"]:
    """The logits of all segments of one image, for training: N×h×w of them, too many for prediction.

    Args:
        semantic: logits of the classes, in the order of their ids.
        boxes: of the instances, in pixels.
        labels: their classes, things.
        masks: logits, of their classes.
        things: class ids of things; the others are stuff.
        stride: pixels for each cell of `semantic`.
        has_unknown: whether there is a channel for unknown pixels.

    Returns:
        the classes of stuff in the order of their ids, then the instances, then "unknown".
    """
    semantic, masks = at_least_float32(semantic), at_least_float32(masks)
    height, width = semantic.shape[1:]
    places = places_of(boxes, (height, width), stride=stride)
    stuff = [number for number in range(len(semantic)) if number not in things]
    terms: list[Tensor] = []
    objects: list[Tensor] = []
    rows = zip(labels.tolist(), masks, places.semantic.tolist(), places.mask.tolist(), strict=True)
    for label, mask, (x1, y1, x2, y2), (left, top, right, bottom) in rows:
        term = F.pad(semantic[label, y1:y2, x1:x2], (x1, width - x2, y1, height - y2))
        size = (bottom - top, right - left)
        enlarged = F.interpolate(mask[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]
        x2, y2 = min(right, width), min(bottom, height)
        x1, y1 = max(left, 0), max(top, 0)
        shown = enlarged[y1 - top : y2 - top, x1 - left : x2 - left]
        terms.append(term)
        objects.append(term + F.pad(shown, (x1, width - x2, y1, height - y2)))
    parts = [semantic[stuff], *(one[None] for one in objects)]
    if has_unknown:
        most = torch.stack(terms).amax(dim=0) if terms else torch.zeros_like(semantic[0])
        parts.append((semantic[list(things)].amax(dim=0) - most)[None])
    return torch.cat(parts)


def panoptic_targets(
    semantic: Int64[Tensor, "H W"],
    masks: Masks,
    *,
    num_classes: int,
    things: Sequence[int],
    stride: int,
    size: tuple[int, int],
    has_unknown: bool = True,
) -> Int64[Tensor, "h w"]:
    """The channel of each cell's segment in `panoptic_logits`, taken at the cell's first pixel as in the public code.

    Pixels of things without a mask (skipped instances, crowds) are unknown, or IGNORED without that channel.

    Args:
        semantic: ground truth class of each pixel; other values than class ids are IGNORED.
        masks: of the instances.
        num_classes: of the label set.
        things: class ids of things.
        stride: pixels for each cell.
        size: height and width of the logits; cells beyond the ground truth are IGNORED.
        has_unknown: see `panoptic_logits`.
    """
    stuff = [number for number in range(num_classes) if number not in things]
    unknown = len(stuff) + len(masks) if has_unknown else IGNORED
    # by class id; the last is ignored
    places = torch.full((num_classes + 1,), unknown, device=semantic.device)
    places[stuff] = torch.arange(len(stuff), device=semantic.device)
    places[-1] = IGNORED
    cells = semantic[::stride, ::stride]
    targets = torch.full(size, IGNORED, device=semantic.device)
    seen = targets[: cells.shape[0], : cells.shape[1]]
    seen.copy_(places[torch.where((cells >= 0) & (cells < num_classes), cells, num_classes)])
    for number, (x1, y1, *_) in enumerate(masks.boxes.tolist()):
        row, column = -(-y1 // stride), -(-x1 // stride)  # the first cells whose first pixel lies in the box
        shown = masks.crop(number)[row * stride - y1 :: stride, column * stride - x1 :: stride].bool()
        if shown.numel():
            inside = seen[row : row + shown.shape[0], column : column + shown.shape[1]]
            inside[shown] = len(stuff) + number
    return targets


def uncovered(
    boxes: Float[Tensor, "N 4"],
    labels: Int64[Tensor, " N"],
    masks: Float[Tensor, "N M M"],
    size: tuple[int, int],
    *,
    largest_coverage: float = LARGEST_COVERAGE,
) -> Int64[Tensor, " R"]:
    """The indices of the instances that the panoptic head takes: those with pixels of which higher-scoring ones of the
    same class cover at most a fraction (section 3.2).

    Args:
        boxes: highest score first, in pixels of the image.
        labels: their classes.
        masks: logits; the pixels above zero are the instance's.
        size: height and width of the image.
        largest_coverage: fraction of an instance's pixels.
    """
    corners = places_of(boxes, size).mask.tolist()
    kept: list[int] = []
    taken: dict[int, list[tuple[tuple[int, int, int, int], Bool[Tensor, "_ _"]]]] = {}
    for number, (label, mask, corner) in enumerate(zip(labels.tolist(), masks, corners, strict=True)):
        box = _inside(corner, (0, 0, size[1], size[0]))
        x1, y1, x2, y2 = box
        if x2 <= x1 or y2 <= y1:
            continue
        crop = torch.empty(y2 - y1, x2 - x1, dtype=torch.bool, device=mask.device)
        step = max(1, SLAB_BYTES // (4 * (x2 - x1)))
        for y in range(y1, y2, step):
            end = min(y + step, y2)
            torch.gt(enlarged_part(mask, corner, (x1, y, x2, end)), 0, out=crop[y - y1 : end - y1])
        area = int(crop.sum())
        if not area:
            continue
        others = taken.setdefault(label, [])
        hidden = torch.zeros_like(crop) if others else crop[:0, :0]
        for other, other_crop in others:
            left, top, right, bottom = _inside(other, box)
            if left < right and top < bottom:
                part = other_crop[top - other[1] : bottom - other[1], left - other[0] : right - other[0]]
                hidden[top - y1 : bottom - y1, left - x1 : right - x1] |= part
        if others and int((hidden & crop).sum()) / area > largest_coverage:
            continue
        kept.append(number)
        others.append((box, crop))
    return torch.tensor(kept, dtype=torch.int64, device=boxes.device)


def panoptic_segments(
    semantic: Float[Tensor, "K h w"],
    boxes: Float[Tensor, "N 4"],
    labels: Int64[Tensor, " N"],
    masks: Float[Tensor, "N M M"],
    scores: Float[Tensor, " N"],
    size: tuple[int, int],
    *,
    things: Sequence[int],
    covered: tuple[float, float],
    smallest_stuff: int,
    has_unknown: bool = True,
    numbers: Int64[Tensor, " N"] | None = None,
) -> Panoptic:
    """The segments of one image: the argmax of `panoptic_logits` at the image's size, computed by slabs of rows.

    Afterwards an instance whose pixels are mostly predicted as one class of stuff becomes that stuff. Stuff with too
    few pixels and unknown pixels become void.

    Args:
        semantic: logits of the classes.
        boxes: of the instances that `uncovered` returned, highest score first, in pixels of the image.
        labels: their classes.
        masks: logits.
        scores: in [0, 1].
        size: height and width of the image.
        things: class ids of things.
        covered: pixels of the image that the logits cover, see `ops.resize.enlarge_rows`.
        smallest_stuff: smallest area of a class of stuff, in pixels.
        has_unknown: see `panoptic_logits`.
        numbers: of the instances' tracks, which give their segment ids; else they are counted, highest score first.

    Returns:
        segments with pixels alone. The score of stuff is the mean probability of its class among all classes.
    """
    classes, count = len(semantic), len(boxes)
    slabs = _Slabs(at_least_float32(semantic), boxes, labels, at_least_float32(masks), size, tuple(things), covered)
    codes = torch.empty(size, dtype=torch.int32, device=semantic.device)
    # pixels of stuff, and of each instance, by their predicted class
    areas = torch.zeros(count + 1, classes, dtype=torch.int64, device=semantic.device)
    sums = torch.zeros(count + 1, classes, dtype=torch.float64, device=semantic.device)
    rows = max(1, SLAB_BYTES // (4 * classes * size[1]))
    for start in range(0, size[0], rows):
        stop = min(start + rows, size[0])
        codes[start:stop], owner, label, probability = slabs.rows(start, stop, has_unknown=has_unknown)
        place = owner.mul_(classes).add_(label)
        areas += place.bincount(minlength=areas.numel()).view_as(areas)
        sums += place.bincount(probability.double(), minlength=areas.numel()).view_as(sums)
    names = _names(areas, labels, tuple(things), smallest_stuff)
    stuff, objects = names.stuff, names.objects
    counted = torch.arange(len(objects), device=boxes.device) if numbers is None else numbers[objects]
    stuff_ids, thing_ids = stuff_segment_ids(stuff), thing_segment_ids(counted, classes)
    table = torch.zeros(classes + 1 + count, dtype=torch.int32, device=semantic.device)
    table[1 + stuff] = stuff_ids
    table[classes + 1 + objects] = thing_ids
    turned = names.stuff_of[names.stuff_of >= 0]
    table[classes + 1 + (names.stuff_of >= 0).nonzero().flatten()] = table[1 + turned]
    for start in range(0, size[0], rows):
        codes[start : start + rows] = table[codes[start : start + rows].long()]
    # pixels of the stuff, its own and those of instances that became it
    own_area, own_sum = areas[0, stuff], sums[0, stuff]
    for number in (names.stuff_of >= 0).nonzero().flatten().tolist():
        same = stuff == names.stuff_of[number]
        own_area = own_area + same * areas[1 + number, names.stuff_of[number]]
        own_sum = own_sum + same * sums[1 + number, names.stuff_of[number]]
    return Panoptic(
        ids=codes,
        segment_ids=torch.cat([stuff_ids, thing_ids]),
        labels=torch.cat([stuff, labels[objects]]),
        crowd=torch.zeros(len(stuff) + len(objects), dtype=torch.bool, device=semantic.device),
        scores=torch.cat([(own_sum / own_area).float(), scores[objects].float()]),
    )


class _Slabs:
    """The panoptic head of one image, some rows at a time; codes are 0 for void, 1 + class of stuff, then instances."""

    def __init__(
        self,
        semantic: Float[Tensor, "K h w"],
        boxes: Float[Tensor, "N 4"],
        labels: Int64[Tensor, " N"],
        masks: Float[Tensor, "N M M"],
        size: tuple[int, int],
        things: tuple[int, ...],
        covered: tuple[float, float],
    ) -> None:
        self.semantic, self.labels, self.masks = semantic.contiguous(), labels.tolist(), masks
        self.size, self.things, self.covered = size, list(things), covered
        self.stuff = torch.tensor([number for number in range(len(semantic)) if number not in things])
        self.stuff = self.stuff.to(semantic.device)
        places = places_of(boxes, size)
        self.boxes, self.corners = places.semantic.tolist(), places.mask.tolist()

    def rows(
        self, start: int, stop: int, *, has_unknown: bool
    ) -> tuple[Int32[Tensor, "h W"], Int64[Tensor, " P"], Int64[Tensor, " P"], Float[Tensor, " P"]]:
        """The codes of rows start…stop-1. For the pixels that are not void also 0 for stuff or 1 + index of the
        instance, the class (of instances the most probable one) and its probability.
        """
        slab = enlarge_rows(self.semantic, start, stop, self.size, covered=self.covered)
        value, codes = self._stuff(slab)
        most = self._objects(slab, start, stop, value, codes)
        if has_unknown:
            codes.masked_fill_(slab[self.things].amax(dim=0).sub_(most) > value, 0)
        top = slab.amax(dim=0)
        slab.sub_(top)
        likeliest = first_zero(slab).long()
        probability = slab.exp_().sum(dim=0).reciprocal_()
        owner = (codes - len(self.semantic)).clamp_(min=0).long()
        is_stuff = (codes > 0) & (owner == 0)
        label = torch.where(is_stuff, codes - 1, likeliest)
        own = (
            slab.gather(0, label[None].clamp(min=0))[0] * probability
        )  # the exponential of the most probable class is 1
        seen = codes > 0
        return codes, owner[seen], label[seen], own[seen]

    def _stuff(self, slab: Float[Tensor, "K h W"]) -> tuple[Float[Tensor, "h W"], Int32[Tensor, "h W"]]:
        """The largest logit of stuff and its code; without stuff minus infinity and void."""
        if not len(self.stuff):
            return torch.full_like(slab[0], -torch.inf), torch.zeros_like(slab[0], dtype=torch.int32)
        scores = slab.index_select(0, self.stuff)
        value = scores.amax(dim=0)
        return value, self.stuff[first_zero(scores.sub_(value)).long()].int() + 1

    def _objects(
        self,
        slab: Float[Tensor, "K h W"],
        start: int,
        stop: int,
        value: Float[Tensor, "h W"],
        codes: Int32[Tensor, "h W"],
    ) -> Float[Tensor, "h W"]:
        """Write the instances into the pixels where their logits are larger; return their largest semantic term."""
        if not self.labels:
            return torch.zeros_like(value)
        most = torch.full_like(value, -torch.inf)
        outside = torch.full_like(codes, len(self.labels))  # number of instances outside whose box a pixel lies
        first = len(self.semantic) + 1
        slab_box = (0, start, self.size[1], stop)
        for number, (label, box, corners) in enumerate(zip(self.labels, self.boxes, self.corners, strict=True)):
            x1, y1, x2, y2 = _inside(box, slab_box)
            if x1 >= x2 or y1 >= y2:
                continue
            region = (slice(y1 - start, y2 - start), slice(x1, x2))
            term = slab[label][region]
            most[region] = torch.maximum(most[region], term)
            left, top, right, bottom = _inside(corners, (x1, y1, x2, y2))
            total = term.clone()
            if left < right and top < bottom:
                shown = enlarged_part(self.masks[number], corners, (left, top, right, bottom))
                total[top - y1 : bottom - y1, left - x1 : right - x1] += shown
            wins = total > value[region]
            value[region] = torch.where(wins, total, value[region])
            codes[region].masked_fill_(wins, first + number)
            outside[region] -= 1
        # the zero that an instance has outside its box exceeds negative logits
        is_outside = outside > 0
        most = torch.where(is_outside, most.clamp(min=0), most)
        pending = is_outside & (value < 0)
        value.masked_fill_(pending, 0)
        for number, box in enumerate(self.boxes):
            if not pending.any():
                break
            x1, y1, x2, y2 = _inside(box, slab_box)
            rest = torch.zeros_like(pending)
            if x1 < x2 and y1 < y2:
                region = (slice(y1 - start, y2 - start), slice(x1, x2))
                rest[region] = pending[region]
            codes.masked_fill_(pending & ~rest, first + number)
            pending = rest
        return most


class _Names(NamedTuple):
    """The segments that remain after the majority and the smallest area.

    Attributes:
        stuff: classes with a segment, ascending.
        objects: indices of the instances with a segment, highest score first.
        stuff_of: for each instance the class of stuff that it became, or -1.
    """

    stuff: Int64[Tensor, " S"]
    objects: Int64[Tensor, " M"]
    stuff_of: Int64[Tensor, " N"]


def _names(
    areas: Int64[Tensor, "N1 K"], labels: Int64[Tensor, " N"], things: tuple[int, ...], smallest_stuff: int
) -> _Names:
    of_objects = areas[1:]
    totals = of_objects.sum(dim=1)
    largest, majority = of_objects.max(dim=1)
    is_thing = torch.zeros(areas.shape[1], dtype=torch.bool, device=areas.device)
    is_thing[list(things)] = True
    becomes = (totals > 0) & (majority != labels) & ~is_thing[majority] & (largest >= STUFF_MAJORITY * totals)
    stuff_of = torch.where(becomes, majority, -1)
    stuff_areas = areas[0].clone().index_add_(0, majority[becomes], totals[becomes])
    stuff = ((stuff_areas >= max(smallest_stuff, 1)) & ~is_thing).nonzero().flatten()
    return _Names(stuff, ((totals > 0) & ~becomes).nonzero().flatten(), stuff_of)


def _inside(box: Sequence[int], limits: Sequence[int]) -> tuple[int, int, int, int]:
    """The common part of two boxes; empty where x2 <= x1 or y2 <= y1."""
    return max(box[0], limits[0]), max(box[1], limits[1]), min(box[2], limits[2]), min(box[3], limits[3])
