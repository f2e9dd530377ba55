"""The panoptic head, which has no parameters: semantic scores and masks of objects become one score for each segment.

A class of stuff has its semantic score. An object has, inside its box, the semantic score of its class plus its mask,
enlarged to the box, and zero (not minus infinity) everywhere else. What is unknown has the largest score of a thing
class minus the largest semantic score of an object: it wins where the pixels show a thing that no object stands for.

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
"""Stands in the targets where nobody evaluates."""

LARGEST_COVERAGE = 0.3
"""An object of which a larger part is hidden by better ones of its class is skipped (section 3.2)."""

STUFF_MAJORITY = 0.5
"""An object becomes stuff where so many of its pixels are of one class of stuff, more than of any other class."""

SLAB_BYTES = 8 * 2**20
"""How much of the enlarged scores is held at once."""


class Places(NamedTuple):
    """Where objects have their terms, in cells; x1 y1 x2 y2, x2 y2 exclusive. The second lie within the first.

    Attributes:
        semantic: of the semantic scores, inside the map.
        mask: whole corners between which the masks are enlarged; may leave the map.
    """

    semantic: Int64[Tensor, "N 4"]
    mask: Int64[Tensor, "N 4"]


def places_of(boxes: Float[Tensor, "N 4"], size: tuple[int, int], *, stride: float = 1.0) -> Places:
    """The cells of boxes as the public code takes them: from the cell of the first pixel to that of the last; semantic
    scores to where the last one is rounded to, masks to where its fraction is cut off.

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
    """The scores of all segments of one image, to learn from: N×h×w of them, which is why answers are found otherwise.

    Args:
        semantic: scores of the classes, in the order of their ids.
        boxes: of the objects, in pixels.
        labels: their classes, things.
        masks: of their classes, before the sigmoid.
        things: class ids of things; the others are stuff.
        stride: pixels for each cell of `semantic`.
        has_unknown: whether there is a score for what is unknown.

    Returns:
        the classes of stuff in the order of their ids, then the objects, then what is unknown.
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
    """The place of each cell's segment among `panoptic_logits`, read at the cell's first pixel as the public code does.

    Pixels of things without a mask (objects that were skipped, crowds) are unknown, or IGNORED if nothing is.

    Args:
        semantic: true class of each pixel; what is no class id is IGNORED.
        masks: of the objects.
        num_classes: of the label set.
        things: class ids of things.
        stride: pixels for each cell.
        size: height and width of the scores; what lies beyond the ground truth is IGNORED.
        has_unknown: see `panoptic_logits`.
    """
    stuff = [number for number in range(num_classes) if number not in things]
    unknown = len(stuff) + len(masks) if has_unknown else IGNORED
    # by class id, and last what is none
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
    """The numbers of the objects that the panoptic head takes: those with pixels, of which better ones of the same
    class cover no more than a part (section 3.2).

    Args:
        boxes: best first, in pixels of the image.
        labels: their classes.
        masks: before the sigmoid; the pixels above zero are the object's.
        size: height and width of the image.
        largest_coverage: of an object's pixels.
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
    """The segments of one image: the top of `panoptic_logits` at the image's size, slab of rows by slab of rows.

    After it an object whose pixels' likeliest classes are mostly one class of stuff becomes that stuff, and stuff with
    too few pixels becomes void, as what is unknown.

    Args:
        semantic: scores of the classes.
        boxes: of the objects that `uncovered` gave, best first, in pixels of the image.
        labels: their classes.
        masks: before the sigmoid.
        scores: in [0, 1].
        size: height and width of the image.
        things: class ids of things.
        covered: pixels of the image that the scores cover, see `ops.resize.enlarge_rows`.
        smallest_stuff: pixels.
        has_unknown: see `panoptic_logits`.
        numbers: of the objects' tracks, by which their segments are called; else they are counted, best first.

    Returns:
        only segments that have pixels. The score of stuff is the mean probability of its class among all classes.
    """
    classes, count = len(semantic), len(boxes)
    slabs = _Slabs(at_least_float32(semantic), boxes, labels, at_least_float32(masks), size, tuple(things), covered)
    codes = torch.empty(size, dtype=torch.int32, device=semantic.device)
    # of the pixels of stuff, and of each object by their likeliest class
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
    # of the stuff, the pixels of its own and those of objects that became it
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
    """The panoptic head of one image, some rows at a time; codes are 0 for void, 1 + class of stuff, then objects."""

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
        """The codes of rows start…stop-1, and of the pixels that are not void: 0 for stuff or 1 + number of the object,
        then of stuff its class and probability, of objects the likeliest class and its probability."""
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
        own = slab.gather(0, label[None].clamp(min=0))[0] * probability  # of the likeliest class its exponential is 1
        seen = codes > 0
        return codes, owner[seen], label[seen], own[seen]

    def _stuff(self, slab: Float[Tensor, "K h W"]) -> tuple[Float[Tensor, "h W"], Int32[Tensor, "h W"]]:
        """The largest score of stuff, and its code; without stuff minus infinity, and void."""
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
        """Let the objects win the pixels where their scores are larger; gives their largest semantic term."""
        if not self.labels:
            return torch.zeros_like(value)
        most = torch.full_like(value, -torch.inf)
        outside = torch.full_like(codes, len(self.labels))  # of so many objects a pixel lies outside
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
        # the zero that an object has outside its box beats what is negative
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
    """What is left after the majority and the smallest area.

    Attributes:
        stuff: classes with a segment, ascending.
        objects: numbers of those with a segment, best first.
        stuff_of: for each object the class of stuff that it became, or -1.
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
