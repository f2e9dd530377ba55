"""Ground truth as a list of regions, each of one class: the objects, and one region for each class of what they leave
over.

It is what formats hold that know objects and no map of classes: coco, labelme, yolo.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from pixelwise.data.truth.boxes import tight_box
from pixelwise.data.truth.painting import painted
from pixelwise.errors import DataError
from pixelwise.labels import LabelSet
from pixelwise.types import Annotation, Masks


class Region(NamedTuple):
    """What becomes one annotation of the new set.

    Attributes:
        class_id: 0…K-1.
        place: x1 y1 x2 y2 of its pixels' box, exclusive.
        mask: bool [h, w], inside that box.
        crowd: whether it is a crowd region.
        box: x1 y1 x2 y2 in pixels, as annotated.
    """

    class_id: int
    place: tuple[int, int, int, int]
    mask: np.ndarray
    crowd: bool
    box: tuple[float, float, float, float]


def regions_of(truth: Annotation, labels: LabelSet, *, source: Path) -> tuple[list[Region], dict[str, int]]:
    """The objects of the ground truth, then what its classes leave over; and what is lost, by the keys of
    `conversion.LOSSES`.

    Objects that cover no pixel or are of the background are skipped. Raises DataError, beginning with `source`, where
    the ground truth has no classes.
    """
    if truth.semantic is None:
        raise DataError(f"{source}: its ground truth has no class for each pixel")
    semantic, objects = truth.semantic.numpy(), [*_objects(truth, labels)]
    rest = [*_rest(semantic, objects, labels)]
    lost = {
        "left_out_objects": (0 if truth.instances is None else len(truth.instances)) - len(objects),
        "joined_regions": sum(labels.is_thing[region.class_id] for region in rest),
        **_changes(semantic, [*objects, *rest], labels),
    }
    return [*objects, *rest], {key: number for key, number in lost.items() if number}


def loose_boxes(regions: Sequence[Region]) -> dict[str, int]:
    """Number of stated boxes that are more than a pixel off the tight ones, for formats without boxes."""
    loose = sum(
        max(abs(one - two) for one, two in zip(region.box, region.place, strict=True)) > 1 for region in regions
    )
    return {"loose_boxes": loose} if loose else {}


def _objects(truth: Annotation, labels: LabelSet) -> Iterator[Region]:
    """The objects of the ground truth that cover a pixel and are of a category."""
    instances = truth.instances
    if instances is None or instances.masks is None:
        return
    for number in range(len(instances)):
        class_id, mask = int(instances.labels[number]), instances.masks.crop(number).numpy() != 0
        if class_id != labels.background_id and mask.any():
            x1, y1, x2, y2 = instances.masks.boxes[number].tolist()
            left, top, right, bottom = (float(value) for value in instances.boxes[number])
            box = (left, top, right, bottom) if left < right and top < bottom else (x1, y1, x2, y2)
            yield Region(class_id, (x1, y1, x2, y2), mask, bool(instances.crowds[number]), box)


def _rest(semantic: np.ndarray, objects: Sequence[Region], labels: LabelSet) -> Iterator[Region]:
    """One region for each class, of the pixels that neither objects nor crowds of the class give it."""
    left = semantic != _painted(objects, semantic.shape, labels)
    for region in objects:
        if region.crowd:
            x1, y1, x2, y2 = region.place
            left[y1:y2, x1:x2] &= ~(region.mask & (semantic[y1:y2, x1:x2] == region.class_id))
    for class_id in np.unique(semantic[left]):
        if class_id not in (labels.ignore_id, labels.background_id):
            mask = left & (semantic == class_id)
            x1, y1, x2, y2 = tight_box(mask)
            yield Region(int(class_id), (x1, y1, x2, y2), mask[y1:y2, x1:x2].copy(), False, (x1, y1, x2, y2))


def _changes(semantic: np.ndarray, regions: Sequence[Region], labels: LabelSet) -> dict[str, int]:
    """Number of pixels that will be read as another class."""
    after = _painted(regions, semantic.shape, labels)
    changed = semantic != after
    void = int((changed & (semantic == labels.ignore_id)).sum())
    crowd = int((changed & (after == labels.ignore_id)).sum())
    return {"void_pixels_as_class": void, "crowd_pixels": crowd, "changed_pixels": int(changed.sum()) - void - crowd}


def _painted(regions: Sequence[Region], size: tuple[int, ...], labels: LabelSet) -> np.ndarray:
    crops = [torch.from_numpy(region.mask) for region in regions]
    masks = Masks.from_crops(crops, [region.place for region in regions], (size[0], size[1]))
    class_ids = np.array([region.class_id for region in regions], dtype=np.int64)
    crowd = np.array([region.crowd for region in regions], dtype=np.bool_)
    return painted(masks, class_ids, crowd, labels)
