"""Maps of object ids: the class of each object, and ids numbered class by class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache

import numpy as np

from pixelwise.data.truth.segments import masks_of_ids
from pixelwise.errors import DataError
from pixelwise.labels import LabelSet
from pixelwise.types import Instances


def majority_classes(ids: np.ndarray, found: Sequence[int], semantic: np.ndarray, labels: LabelSet) -> dict[int, int]:
    """Object id → the class that most of its pixels have, void and background aside; without those of no class."""
    masks = masks_of_ids(ids, found)
    classes: dict[int, int] = {}
    for number, id in enumerate(found):
        x1, y1, x2, y2 = masks.boxes[number].tolist()
        inside = semantic[y1:y2, x1:x2][masks.crop(number).numpy() != 0]
        evaluated = inside[(inside != labels.ignore_id) & (inside != labels.background_id)]
        if evaluated.size:
            classes[id] = int(np.bincount(evaluated.astype(np.int64)).argmax())
    return classes


def painted_ids(
    instances: Instances, numbers: Sequence[int], ground: np.ndarray, *, crowds: bool
) -> tuple[np.ndarray, dict[str, int]]:
    """Object ids painted over each other in the order of `data.truth.painting`, and what is lost.

    Args:
        instances: the objects, with masks.
        numbers: the id of each.
        ground: i32 [H, W], what stays where no object is.
        crowds: whether crowds have an id; else they leave the ground as it is.
    """
    assert instances.masks is not None
    masks, ids = instances.masks, ground.astype(np.int32)
    covered = np.zeros(ids.shape, dtype=np.int32)
    crowd = instances.crowds.tolist()
    areas = masks.areas().tolist()
    drawn = [number for number in range(len(masks)) if crowds or not crowd[number]]
    for number in sorted(drawn, key=lambda number: (not crowd[number], -areas[number])):
        x1, y1, x2, y2 = masks.boxes[number].tolist()
        inside = masks.crop(number).numpy() != 0
        ids[y1:y2, x1:x2][inside] = numbers[number]
        covered[y1:y2, x1:x2] += inside & (not crowd[number])
    left = set(np.unique(ids).tolist())
    losses = {
        "overlapping_pixels": int((covered > 1).sum()),
        "hidden_objects": sum(numbers[number] not in left for number in drawn),
        "crowd_regions": len(masks) - len(drawn),
    }
    return ids, {key: value for key, value in losses.items() if value}


def numbered_by_class(instances: Instances, labels: LabelSet, divisor: int) -> list[int]:
    """Ids that contain the class: its id on disk · divisor + 0, 1, 2 … for each instance, and the id alone for crowds.

    So are regions of classes that are no things. Raises DataError for more objects of a class than the divisor.
    """
    numbers: list[int] = []
    taken: Counter[int] = Counter()
    for number, class_id in enumerate(instances.labels.tolist()):
        dataset_id = labels.dataset_ids[class_id]
        if instances.crowds[number] or not labels.is_thing[class_id]:
            numbers.append(dataset_id)
            continue
        if taken[dataset_id] == divisor:
            raise DataError(f"more than {divisor:,} objects of class '{labels.names[class_id]}' in one image")
        numbers.append(dataset_id * divisor + taken[dataset_id])
        taken[dataset_id] += 1
    return numbers


@cache
def object_colours() -> LabelSet:
    """The colours of PASCAL VOC's scheme for the ids 0 to 254."""
    return LabelSet.from_names("objects", [str(id) for id in range(255)])
