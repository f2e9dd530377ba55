"""SSD's expansion and crop: before it is scaled, an image becomes a part of a larger canvas, or a part of it remains.

Liu et al., "SSD: Single Shot MultiBox Detector", ECCV 2016, sections 2.2 and 3.6, as YOLACT's public code has it: there
a crop need not overlap an object by the drawn IoU, but show the centre of one.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pixelwise.contracts import Augmentation
from pixelwise.ops.superpixels import Regions
from pixelwise.types import Annotation, Instances, Masks, Sample

MEAN_RGB = (124, 116, 104)
"""ImageNet's mean colour, which fills what lies outside the image."""
LARGEST_CANVAS = 4.0
"""Sides of the canvas, in those of the image."""
SMALLEST_CROP = 0.3
"""Sides of a crop, in those of the canvas."""
LARGEST_RATIO = 2.0
"""Of the sides of a crop."""
TRIALS = 50
"""After so many crops that show no object's centre, the whole canvas stays."""

Box = tuple[int, int, int, int]


def drawn_window(
    sample: Sample, generator: np.random.Generator, augmentation: Augmentation, *, ignore_id: int
) -> Sample:
    """The sample in a canvas of the mean colour, cut, or both.

    Objects whose centre does not lie in a crop are gone from the ground truth, as in the source.

    Args:
        sample: with objects; without, crops lie anywhere.
        generator: what is drawn from.
        augmentation: its `expand` and `sample_crop`.
        ignore_id: of the classes outside of the image.
    """
    height, width = sample.image.shape[1:]
    canvas = (0, 0, width, height)
    if generator.random() < augmentation.expand:
        ratio = generator.uniform(1, LARGEST_CANVAS)
        left, top = (int(generator.uniform(0, side * (ratio - 1))) for side in (width, height))
        canvas = (-left, -top, int(width * ratio) - left, int(height * ratio) - top)
    instances = sample.truth.instances
    box = None
    if generator.random() < augmentation.sample_crop:
        box = _drawn_crop(generator, canvas, _centres(instances))
    if box is not None and instances is not None:
        x, y = instances.boxes[:, 0::2].mean(dim=1), instances.boxes[:, 1::2].mean(dim=1)
        inside = (box[0] < x) & (x < box[2]) & (box[1] < y) & (y < box[3])
        sample = replace(sample, truth=replace(sample.truth, instances=instances[inside.nonzero().flatten()]))
    return in_window(sample, box or canvas, ignore_id=ignore_id)


def in_window(sample: Sample, box: Box, *, ignore_id: int) -> Sample:
    """Crop the sample to a box x1 y1 x2 y2 of its own pixels, which may lie outside of the image.

    Args:
        sample: whose masks and boxes move along; objects of which nothing is left stay, with empty masks.
        box: in whole pixels.
        ignore_id: of the classes outside of the image.
    """
    height, width = sample.image.shape[1:]
    if box == (0, 0, width, height):
        return sample
    truth, regions = sample.truth, sample.proposals
    image = torch.stack([_cut(plane, box, mean) for plane, mean in zip(sample.image, MEAN_RGB, strict=True)])
    seen = Annotation(
        semantic=None if truth.semantic is None else _cut(truth.semantic, box, ignore_id),
        instances=None if truth.instances is None else _cut_instances(truth.instances, box),
        flow=None if truth.flow is None else torch.stack([_cut(along, box, float("nan")) for along in truth.flow]),
    )
    if regions is not None:
        outside = regions.members.shape[1]
        members = F.pad(regions.members, (0, 1))
        regions = Regions(_cut(regions.superpixels, box, outside), members)
    return replace(sample, image=image, truth=seen, proposals=regions)


def _centres(instances: Instances | None) -> np.ndarray | None:
    """x y of the centre of each object that is no crowd; None without instances."""
    if instances is None:
        return None
    single = instances if instances.crowd is None else instances[(~instances.crowd).nonzero().flatten()]
    return (single.boxes[:, :2] + single.boxes[:, 2:]).numpy() / 2


def _drawn_crop(generator: np.random.Generator, canvas: Box, centres: np.ndarray | None) -> Box | None:
    x1, y1, x2, y2 = canvas
    for _ in range(TRIALS):
        width, height = (generator.uniform(SMALLEST_CROP * side, side) for side in (x2 - x1, y2 - y1))
        if not 1 / LARGEST_RATIO <= height / width <= LARGEST_RATIO:
            continue
        left, top = generator.uniform(0, x2 - x1 - width), generator.uniform(0, y2 - y1 - height)
        box = (x1 + int(left), y1 + int(top), x1 + int(left + width), y1 + int(top + height))
        if box[0] >= box[2] or box[1] >= box[3]:
            continue
        if centres is None or ((box[:2] < centres) & (centres < box[2:])).all(axis=1).any():
            return box
    return None


def _cut(plane: Tensor, box: Box, fill: float) -> Tensor:
    """The box of a map [H, W], which may lie outside of it."""
    x1, y1, x2, y2 = box
    height, width = plane.shape
    cut = plane.new_full((y2 - y1, x2 - x1), fill)
    top, left, bottom, right = max(y1, 0), max(x1, 0), min(y2, height), min(x2, width)
    if top < bottom and left < right:
        cut[top - y1 : bottom - y1, left - x1 : right - x1] = plane[top:bottom, left:right]
    return cut


def _cut_instances(instances: Instances, box: Box) -> Instances:
    if instances.masks is None:
        return instances
    x1, y1, x2, y2 = box
    size = (y2 - y1, x2 - x1)
    crops: list[Tensor] = []
    boxes: list[Box] = []
    for index, (left, top, right, bottom) in enumerate(instances.masks.boxes.tolist()):
        shown = (max(left, x1), max(top, y1), min(right, x2), min(bottom, y2))
        if shown[0] >= shown[2] or shown[1] >= shown[3]:
            crops.append(torch.zeros(0, 0, dtype=torch.uint8))
            boxes.append((0, 0, 0, 0))
            continue
        crop = instances.masks.crop(index)
        crops.append(crop[shown[1] - top : shown[3] - top, shown[0] - left : shown[2] - left])
        boxes.append((shown[0] - x1, shown[1] - y1, shown[2] - x1, shown[3] - y1))
    masks = Masks.from_crops(crops, boxes, size)
    return replace(instances, boxes=masks.boxes.float(), masks=masks, areas=None)
