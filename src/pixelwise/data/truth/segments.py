"""Objects and segments cut out of maps in which each pixel holds the number of its region."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int32, Int64
from torch import Tensor

from pixelwise.labels import LARGEST_ID, LabelMap, LabelSet
from pixelwise.ops.panoptic import SLAB_PIXELS, VOID_ID, segment_places
from pixelwise.types import Annotation, Instances, Masks, Panoptic


class IdRegions(NamedTuple):
    """The ids of a map, ascending, each with what its pixels cover.

    Attributes:
        ids: i64 [N], that occur.
        boxes: i64 [N, 4], tight, x1 y1 x2 y2 in pixels, x2 y2 exclusive.
        areas: i64 [N], pixels.
    """

    ids: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray


def annotation_of(panoptic: Panoptic, labels: LabelSet, *, clip: bool = False) -> Annotation:
    """The ground truth of an image whose segments are known: the segments, the class of each pixel, and the objects.

    Args:
        panoptic: on the CPU.
        labels: tell which classes are things; their segments are the objects, in the order of the ids, but for those
            without pixels.
        clip: whether the image belongs to a clip: the objects then have their segment ids as track ids.
    """
    segment_ids, order = panoptic.segment_ids.sort()
    class_ids = panoptic.labels[order]
    selected = torch.tensor(labels.is_thing)[class_ids].nonzero().flatten()
    masks = masks_of_ids(panoptic.ids.numpy(), segment_ids[selected].tolist())
    seen = (masks.boxes[:, 2] > masks.boxes[:, 0]).nonzero().flatten()
    kept = selected[seen]
    if len(kept) < len(selected):
        masks = masks[seen]
    instances = Instances(
        boxes=masks.boxes.float(),
        labels=class_ids[kept],
        masks=masks,
        track_ids=segment_ids[kept].long() if clip else None,
        crowd=panoptic.crowd[order][kept],
    )
    return Annotation(panoptic=panoptic, semantic=panoptic.to_semantic(labels.ignore_id), instances=instances)


def regions_of_ids(ids: np.ndarray) -> IdRegions:
    """The ids that occur in a map [H, W] of integers, their boxes and their areas.

    What is sorted are runs of equal ids along the rows, many times fewer than pixels where regions are real.
    """
    height, width = ids.shape
    if not ids.size:
        return IdRegions(np.zeros(0, np.int64), np.zeros((0, 4), np.int64), np.zeros(0, np.int64))
    begins = np.ones((height, width), dtype=bool)
    np.not_equal(ids[:, 1:], ids[:, :-1], out=begins[:, 1:])
    starts = np.flatnonzero(begins)
    lengths = np.diff(starts, append=ids.size)
    values = ids.ravel()[starts]
    by_id = np.argsort(values, kind="stable")
    values, starts, lengths = values[by_id].astype(np.int64), starts[by_id], lengths[by_id]
    rows, columns = np.divmod(starts, width)
    firsts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
    boxes = [
        np.minimum.reduceat(columns, firsts),
        rows[firsts],  # sorting was stable: the first run of an id is its highest, the last its lowest
        np.maximum.reduceat(columns + lengths, firsts),
        rows[np.append(firsts[1:], len(rows)) - 1] + 1,
    ]
    return IdRegions(values[firsts], np.stack(boxes, axis=1), np.add.reduceat(lengths, firsts))


def masks_of_ids(ids: np.ndarray, selected: Sequence[int]) -> Masks:
    """The masks of the pixels that hold each of some ids; empty for one that does not occur.

    No more than their boxes is copied.
    """
    size = (ids.shape[0], ids.shape[1])
    if not len(selected):
        return Masks.from_crops([], [], size)
    regions = regions_of_ids(ids)
    boxes = np.zeros((len(selected), 4), dtype=np.int64)
    if len(regions.ids):
        place = np.searchsorted(regions.ids, selected).clip(max=len(regions.ids) - 1)
        occurs = regions.ids[place] == np.asarray(selected)
        boxes[occurs] = regions.boxes[place[occurs]]
    crops = [torch.from_numpy(ids[y1:y2, x1:x2] == id) for id, (x1, y1, x2, y2) in zip(selected, boxes, strict=True)]
    return Masks.from_crops(crops, boxes.tolist(), size)


def instances_of_ids(
    ids: np.ndarray, found: Sequence[int], class_ids: Sequence[int], crowd: Sequence[bool] | None = None
) -> Instances:
    """The objects of some ids, all of which occur, with their classes; their boxes are the tight ones."""
    masks = masks_of_ids(ids, found)
    return Instances(
        boxes=masks.boxes.float(),
        labels=torch.tensor(list(class_ids), dtype=torch.int64),
        masks=masks,
        crowd=torch.tensor(list(crowd) if crowd is not None else [False] * len(found), dtype=torch.bool),
    )


def ids_in(ids: np.ndarray, *, but: Sequence[int] = ()) -> list[int]:
    """The ids that occur, ascending, without some."""
    small = ids.dtype.kind == "u" and ids.dtype.itemsize <= 2
    found = np.flatnonzero(np.bincount(ids.ravel())) if small else np.unique(ids)
    return [int(id) for id in found if id not in but]


def mapped_segments(panoptic: Panoptic, label_map: LabelMap) -> Panoptic:
    """Segments with the classes of another label set; those of ignored classes become void.

    What becomes one stuff class is one segment, as for stuff; where several classes flow into it, or things, its id is
    2²⁴ + its class id, which no file holds and every frame of a clip agrees on. Stuff that becomes a thing is a crowd.
    """
    target, table = label_map.target, torch.tensor(label_map.table)
    source_things, target_things = torch.tensor(label_map.source.is_thing), torch.tensor(target.is_thing)
    class_ids = table[panoptic.labels]
    kept = class_ids != target.ignore_id
    is_thing = torch.zeros_like(kept)
    is_thing[kept] = target_things[class_ids[kept]]
    flowing = torch.bincount(table[table != target.ignore_id], minlength=len(target))
    flowing += torch.bincount(table[(table != target.ignore_id) & source_things], minlength=len(target))
    joined = torch.zeros_like(kept)
    joined[kept] = ~is_thing[kept] & (flowing[class_ids[kept]] > 1)
    segment_ids = torch.where(joined, LARGEST_ID + class_ids, panoptic.segment_ids.long()).int()
    crowd = is_thing & (panoptic.crowd | ~source_things[panoptic.labels])
    firsts = _firsts(segment_ids, kept)
    return Panoptic(
        ids=with_ids(panoptic, torch.where(kept, segment_ids, 0)),
        segment_ids=segment_ids[firsts],
        labels=class_ids[firsts],
        crowd=crowd[firsts],
        scores=None if panoptic.scores is None else panoptic.scores[firsts],
    )


def with_ids(panoptic: Panoptic, segment_ids: Int32[Tensor, " S"]) -> Int32[Tensor, "H W"]:
    """The map with other ids in place of those of its segments; 0 where it has no segment. On the CPU."""
    places = segment_places(panoptic.ids.numpy(), panoptic.segment_ids.numpy())
    new = np.append(segment_ids.numpy(), np.int32(VOID_ID))
    # -1, which is no segment, takes the last
    rows = max(1, SLAB_PIXELS // max(1, places.shape[1]))
    for start in range(0, len(places), rows):
        places[start : start + rows] = new.take(places[start : start + rows], mode="wrap")
    return torch.from_numpy(places)


def _firsts(segment_ids: Int32[Tensor, " S"], kept: Bool[Tensor, " S"]) -> Int64[Tensor, " M"]:
    """The places of the kept ids, each once."""
    seen: set[int] = set()
    places: list[int] = []
    for place, (id, is_kept) in enumerate(zip(segment_ids.tolist(), kept.tolist(), strict=True)):
        if is_kept and id not in seen:
            seen.add(id)
            places.append(place)
    return torch.tensor(places, dtype=torch.int64)


def panoptic_of(
    ids: Int32[np.ndarray, "H W"], segment_ids: Sequence[int], class_ids: Sequence[int], crowd: Sequence[bool]
) -> Panoptic:
    """The segments of a map of ids."""
    return Panoptic(
        ids=torch.from_numpy(np.ascontiguousarray(ids)),
        segment_ids=torch.tensor(list(segment_ids), dtype=torch.int32),
        labels=torch.tensor(list(class_ids), dtype=torch.int64),
        crowd=torch.tensor(list(crowd), dtype=torch.bool),
    )
