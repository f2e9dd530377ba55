"""The panoptic segments of an annotation that has classes or instances alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from pixelwise.data.truth.object_ids import painted_ids
from pixelwise.data.truth.segments import panoptic_of, with_ids
from pixelwise.errors import DataError
from pixelwise.labels import LARGEST_ID, LabelSet
from pixelwise.ops.panoptic import stuff_segment_ids, thing_segment_ids
from pixelwise.types import Annotation, Panoptic


def segments_of(truth: Annotation, labels: LabelSet, *, source: Path) -> tuple[Panoptic, dict[str, int]]:
    """The segments of any ground truth, and what they cannot hold, by the keys of `conversion.LOSSES`.

    Raises DataError, beginning with `source`, where the ground truth has neither segments nor the class of each pixel.
    """
    if truth.panoptic is not None:
        return truth.panoptic, {"empty_segments": int((truth.panoptic.areas() == 0).sum())}
    if truth.semantic is None:
        raise DataError(f"{source}: its ground truth has no class for each pixel")
    semantic = truth.semantic.numpy().astype(np.int32)
    ids = np.zeros(semantic.shape, dtype=np.int32)
    objects, losses = truth.instances, Counter[str]()
    found: list[tuple[int, int, bool]] = []  # id, class, crowd
    count = 0
    if objects is not None and objects.masks is not None and len(objects):
        count = len(objects)
        numbers = [*range(1, count + 1)]
        ids, lost = painted_ids(objects, numbers, ids, crowds=True)
        crowd = objects.crowds.tolist()
        things = torch.tensor(labels.is_thing)[objects.labels].numpy()
        class_of = np.array([-1, *objects.labels.tolist()], dtype=np.int32)
        # classes go before objects: an object keeps the pixels of its class, a crowd those of no class too
        fits = class_of[ids] == semantic
        fits |= (semantic == labels.ignore_id) & np.array([False, *crowd])[ids]
        ids[~fits | ~np.array([False, *things])[ids]] = 0
        left = set(np.unique(ids).tolist())
        segment_ids = thing_segment_ids(torch.arange(count), len(labels)).tolist()
        for number in numbers:
            if number in left:
                found.append((segment_ids[number - 1], int(objects.labels[number - 1]), crowd[number - 1]))
        losses["overlapping_pixels"] = lost.get("overlapping_pixels", 0)
        losses["hidden_objects"] = int(things.sum()) - len(found)
        losses["flattened_objects"] = count - int(things.sum())
        ids = np.array([0, *segment_ids], dtype=np.int32)[ids]
    free = (ids == 0) & (semantic != labels.ignore_id)
    for class_id in np.unique(semantic[free]).tolist():
        if labels.is_thing[class_id]:
            segment_id, count = int(thing_segment_ids(torch.tensor([count]), len(labels))[0]), count + 1
            losses["crowds_of_classes"] += 1
        else:
            segment_id = int(stuff_segment_ids(torch.tensor([class_id]))[0])
        ids[free & (semantic == class_id)] = segment_id
        found.append((segment_id, class_id, labels.is_thing[class_id]))
    found.sort()
    panoptic = panoptic_of(ids, *zip(*found, strict=True)) if found else panoptic_of(ids, (), (), ())
    return panoptic, dict(losses)


def within_24_bits(panoptic: Panoptic) -> tuple[Panoptic, int]:
    """The segments with ids that a PNG holds, and how many got another one: those whose id is too large."""
    too_large = panoptic.segment_ids >= LARGEST_ID
    wrong = int(too_large.sum())
    if not wrong:
        return panoptic, 0
    taken = set(panoptic.segment_ids[~too_large].tolist())
    free = (id for id in range(1, LARGEST_ID) if id not in taken)
    segment_ids = panoptic.segment_ids.clone()
    for place in too_large.nonzero().flatten().tolist():
        segment_ids[place] = next(free)
    return replace(panoptic, ids=with_ids(panoptic, segment_ids), segment_ids=segment_ids), wrong
