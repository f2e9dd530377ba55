"""The record of a prediction in JSON lines: its segments with their areas, boxes, scores and RLE."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from pixelwise.labels import LabelSet
from pixelwise.ops import rle
from pixelwise.ops.panoptic import VOID_ID
from pixelwise.types import Annotation, Instances, Panoptic

SLAB_PIXELS = 4 * 2**20
"""Pixels that are counted at once."""


def segments_of(annotation: Annotation, labels: LabelSet, *, is_tracked: bool) -> list[dict[str, Any]]:
    """The segments of a prediction as JSON values: those of its panoptic map, else its instances, else its classes.

    Args:
        annotation: on the CPU.
        labels: the classes.
        is_tracked: whether the ids of things are those of a clip.
    """
    if annotation.panoptic is not None:
        return _panoptic_segments(annotation.panoptic, labels, is_tracked=is_tracked)
    if annotation.instances is not None:
        return _object_segments(annotation.instances, labels)
    return _semantic_segments(annotation, labels)


def _panoptic_segments(panoptic: Panoptic, labels: LabelSet, *, is_tracked: bool) -> list[dict[str, Any]]:
    places = {id: place for place, id in enumerate(panoptic.segment_ids.tolist())}
    classes = panoptic.labels.tolist()
    segments: list[dict[str, Any]] = []
    for region in _regions(panoptic.ids.numpy(), without=(VOID_ID,)):
        place = places.get(region.id)
        if place is None:  # without an entry it is void
            continue
        number = region.id - len(labels) - 1  # below 0 for stuff
        segments.append(
            {
                "id": region.id,
                "label": classes[place],
                "name": labels.names[classes[place]],
                "area": region.area,
                "box": region.box,
                "score": None if panoptic.scores is None else float(panoptic.scores[place]),
                "track_id": number if is_tracked and number >= 0 else None,
                "rle": region.rle,
            }
        )
    return segments


def _object_segments(instances: Instances, labels: LabelSet) -> list[dict[str, Any]]:
    instances = instances.by_score()
    masks = instances.masks
    runs = [None] * len(instances) if masks is None else masks.to_coco()
    areas = [None] * len(instances) if masks is None else masks.areas().tolist()
    numbers: list[int] = [] if instances.track_ids is None else instances.track_ids.tolist()
    return [
        {
            "id": index + 1,
            "label": label,
            "name": labels.names[label],
            "area": areas[index],
            "box": instances.boxes[index].tolist(),
            "score": None if instances.scores is None else float(instances.scores[index]),
            "track_id": None if instances.track_ids is None or numbers[index] < 0 else numbers[index],
            "rle": runs[index],
        }
        for index, label in enumerate(instances.labels.tolist())
    ]


def _semantic_segments(annotation: Annotation, labels: LabelSet) -> list[dict[str, Any]]:
    if annotation.semantic is None:
        return []
    semantic = annotation.semantic.numpy()
    scores = None if annotation.confidence is None else _score_sums(semantic, annotation.confidence.numpy())
    return [
        {
            "id": region.id,
            "label": region.id,
            "name": labels.names[region.id],
            "area": region.area,
            "box": region.box,
            "score": None if scores is None else float(scores[region.id]) / region.area,
            "track_id": None,
            "rle": region.rle,
        }
        for region in _regions(semantic, without=(labels.ignore_id, labels.background_id))
    ]


class _Region(NamedTuple):
    """The pixels of one id; the box is x1 y1 x2 y2."""

    id: int
    area: int
    box: list[int]
    rle: dict[str, Any]


def _regions(ids_of_pixels: np.ndarray, *, without: Sequence[int | None]) -> Iterator[_Region]:
    """The regions of a map of ids, in the order of the ids."""
    height, width = ids_of_pixels.shape
    starts, stops, ids = _runs(ids_of_pixels)
    order = np.argsort(ids, kind="stable")  # by id, then down the columns
    starts, stops, ids = starts[order], stops[order], ids[order]
    first = np.flatnonzero(np.append(True, ids[1:] != ids[:-1]))
    for begin_at, end_at in zip(first.tolist(), [*first[1:].tolist(), len(ids)], strict=True):
        id = int(ids[begin_at])
        if id in without:
            continue
        begin, end = starts[begin_at:end_at], stops[begin_at:end_at]
        top, left = begin % height, begin // height
        bottom, right = (end - 1) % height, (end - 1) // height
        if (left != right).any():  # a run that goes on at the top of the next column
            top, bottom = np.array([0]), np.array([height - 1])
        box = [int(left.min()), int(top.min()), int(right.max()) + 1, int(bottom.max()) + 1]
        yield _Region(id, int((end - begin).sum()), box, rle.from_runs(begin, end, (height, width)))


def _runs(semantic: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Runs of equal ids down the columns, as RLE counts them: where they begin and end, and their ids."""
    height, width = semantic.shape
    slab = max(1, SLAB_PIXELS // height)
    starts: list[np.ndarray] = [np.array([0])]
    ids: list[np.ndarray] = [semantic[:1, 0]]
    for left in range(0, width, slab):
        first = max(0, left - 1)  # the column before, to see whether its last run goes on
        column_by_column = semantic[:, first : left + slab].T.ravel()
        changes = np.flatnonzero(column_by_column[1:] != column_by_column[:-1]) + 1
        changes = changes[changes >= (left - first) * height]
        starts.append(changes + first * height)
        ids.append(column_by_column[changes])
    begin = np.concatenate(starts)
    return begin, np.append(begin[1:], height * width), np.concatenate(ids)


def _score_sums(semantic: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """The sum of the confidence over the pixels of each id; that of void is the last."""
    length = 256 if semantic.dtype == np.uint8 else max(0, int(semantic.max())) + 2
    sums = np.zeros(length)
    slab = max(1, SLAB_PIXELS // semantic.shape[1])
    for start in range(0, len(semantic), slab):
        ids = semantic[start : start + slab].ravel()
        ids = ids if ids.dtype == np.uint8 else ids % length
        sums += np.bincount(ids, weights=confidence[start : start + slab].ravel(), minlength=length)
    return sums
