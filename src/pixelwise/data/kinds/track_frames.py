"""Frames whose ground truth is a list of objects, each with its mask and with a number that holds in the whole clip."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch

from pixelwise.data.kinds.frames import FramePart
from pixelwise.data.kinds.repairing import RepairedTruth, turned_to_fit
from pixelwise.data.listing import Fault, Findings, Item, Size, UnusableError, without_path
from pixelwise.data.truth.painting import painted
from pixelwise.data.truth.segments import ids_in, instances_of_ids
from pixelwise.errors import DataError
from pixelwise.files.images import turned_upright
from pixelwise.labels import LabelSet
from pixelwise.ops import rle
from pixelwise.types import Annotation, Instances, Masks

_Crops = list[tuple[np.ndarray, rle.Box]]


def truth_of_parts(frame: Item, labels: LabelSet, size: Size) -> Annotation:
    """The objects of `frame.extra` that cover a pixel, and the classes painted from them.

    Raises DataError for a class that is not in the label set, or a segmentation that cannot be rasterised.
    """
    crops: _Crops = []
    shapes: list[FramePart] = []
    for one in frame.extra:
        if one.dataset_id not in labels.dataset_ids:
            raise DataError(f"{_where(frame, one)}: class {one.dataset_id} is not in '{labels.name}'")
        crop, box = _cropped(one.segmentation, size, source=_where(frame, one))
        if crop.any():
            crops.append((crop, box))
            shapes.append(one)
    masks = Masks.from_crops([torch.from_numpy(crop) for crop, _ in crops], [box for _, box in crops], size)
    class_ids = [labels.dataset_ids.index(one.dataset_id) for one in shapes]
    instances = Instances(
        boxes=masks.boxes.float(),
        labels=torch.tensor(class_ids, dtype=torch.int64),
        masks=masks,
        track_ids=torch.tensor([one.id for one in shapes], dtype=torch.int64),
        crowd=torch.tensor([one.crowd for one in shapes], dtype=torch.bool),
    )
    crowd = np.array([one.crowd for one in shapes], dtype=np.bool_)
    semantic = painted(masks, np.array(class_ids, dtype=np.int64), crowd, labels)
    return Annotation(semantic=torch.from_numpy(semantic), instances=instances)


def inspect_parts(frame: Item, labels: LabelSet, size: Size | None) -> Findings:
    """What is in the list of a frame, and everything that is wrong with it."""
    faults: list[Fault] = []
    classes: dict[int, int | None] = {}
    tracks: set[int] = set()
    size = frame.size_hw or size
    for one in frame.extra:
        where = _where(frame, one)
        if one.dataset_id not in labels.dataset_ids:
            faults.append(Fault("unknown class", where, f"class {one.dataset_id} is not in '{labels.name}'"))
            continue
        if not one.crowd and one.id in tracks:
            faults.append(Fault("track twice", where, "another object of the frame has the same id"))
        if not one.crowd:
            tracks.add(one.id)
            classes[one.id] = labels.dataset_ids.index(one.dataset_id)
        if size is None:
            continue
        try:
            crop, _ = _cropped(one.segmentation, size, source="object")
        except DataError as error:
            faults.append(Fault("segmentation", where, without_path(error, "object")))
            continue
        if not crop.any():
            faults.append(Fault("object without pixels", where, "its segmentation covers no pixel of the frame"))
        elif one.area is not None and isinstance(one.segmentation, Mapping) and one.area != int(crop.sum()):
            text = f"{one.area:,.0f} by the list, {int(crop.sum()):,} pixels by its segmentation"
            faults.append(Fault("wrong area", where, text))
    ground = labels.background_id
    class_ids = frozenset(one for one in classes.values() if one is not None)
    return Findings(
        tuple(faults),
        class_ids=class_ids | ({ground} if ground is not None else set()),
        parts=len(frame.extra),
        classes=classes,
        tracks=frozenset(tracks),
        crowds=sum(one.crowd for one in frame.extra),
    )


def repaired_parts(frame: Item, labels: LabelSet, size: Size, orientation: int) -> RepairedTruth:
    """The ground truth of the list of a frame; see `repairing.ReadRepaired`.

    Where the list and the image agree on the size, or another RLE has that of the image, an RLE of another size whose
    runs fill the image is given its size.
    """
    done: Counter[str] = Counter()
    masks: dict[tuple[int, int, bool], np.ndarray] = {}
    fits = frame.size_hw in (None, size) or not frame.extra or any(_is_of(one, size) for one in frame.extra)
    turns = orientation >= 5 and not fits
    for one in frame.extra:
        key = (one.id, one.dataset_id, one.crowd)
        mask = _repaired_mask(one, size, orientation if turns else 1, done) if fits or turns else None
        if one.dataset_id not in labels.dataset_ids or mask is None or not mask.any():
            done["shapes"] += 1
            continue
        is_stated = one.area is not None and not isinstance(one.segmentation, list)
        done["areas"] += is_stated and one.area != int(mask.sum())
        done["joined_masks"] += key in masks
        masks[key] = mask | masks.get(key, False)
    if frame.extra and not masks and not fits:
        raise UnusableError(
            "size_mismatches", f"{frame.truth}: frame '{frame.id}': its objects are of another size than {frame.image}"
        )
    done["turned_annotations"] += len(masks) if turns else 0
    done["sizes"] += frame.size_hw not in (None, size)
    shapes = tuple(FramePart(*key, segmentation=rle.encode(mask)) for key, mask in masks.items())
    return RepairedTruth(truth_of_parts(frame._replace(extra=shapes, size_hw=size), labels, size), done)


def _is_of(shape: FramePart, size: Size) -> bool:
    """Whether a segmentation may be of an image of that size."""
    segmentation = shape.segmentation
    if isinstance(segmentation, Mapping):
        return segmentation.get("size") == [*size]
    try:
        points = [value for polygon in segmentation or () for value in polygon]
        return all(-1 <= x <= size[1] + 1 for x in points[::2]) and all(-1 <= y <= size[0] + 1 for y in points[1::2])
    except TypeError:
        return False


def _repaired_mask(shape: FramePart, size: Size, orientation: int, done: Counter[str]) -> np.ndarray | None:
    """The pixels of an object, bool [H, W], or None where its segmentation is malformed."""
    stored = size if orientation < 5 else (size[1], size[0])
    segmentation = shape.segmentation
    try:
        if isinstance(segmentation, list):
            whole = [polygon for polygon in segmentation if isinstance(polygon, list) and len(polygon) >= 6]
            mask = rle.from_polygons(whole, stored)
        else:
            runs = segmentation if isinstance(segmentation, dict) else {}
            is_other = runs.get("size") != [*stored]
            mask = rle.decode({**runs, "size": [*stored]}, size=stored)
            done["runs"] += is_other
    except (DataError, KeyError):
        return None
    return (turned_upright(mask, orientation) if orientation != 1 else mask) != 0


class ObjectMap(NamedTuple):
    """What a file of object numbers says: [H, W] of numbers, 0 for none, and those that mean "ignored"."""

    numbers: np.ndarray
    void: tuple[int, ...] = ()


ReadNumbers = Callable[[Item], ObjectMap]
"""Reads the numbers of a frame; a function of a module. Raises DataError for an unusable file."""


def truth_of_numbers(frame: Item, labels: LabelSet, size: Size, *, read: ReadNumbers) -> Annotation:
    """The objects of a file of numbers, all of the one class that is a thing, and the class of each pixel.

    Raises DataError for an unusable file, or one of another size than the image.
    """
    numbers, void = read(frame)
    if numbers.shape != size:
        height, width = numbers.shape
        raise DataError(f"{frame.truth}: the mask is {height}×{width}, its image {size[0]}×{size[1]}")
    found = ids_in(numbers, but=(0, *void))
    thing = labels.is_thing.index(True)
    instances = instances_of_ids(numbers, found, [thing] * len(found))
    ground = labels.ignore_id if labels.background_id is None else labels.background_id
    semantic = np.where(numbers == 0, ground, thing)
    semantic = np.where(np.isin(numbers, void), labels.ignore_id, semantic).astype(np.uint8)
    instances = replace(instances, track_ids=torch.tensor(found, dtype=torch.int64))
    return Annotation(semantic=torch.from_numpy(semantic), instances=instances)


def repaired_numbers(
    frame: Item, labels: LabelSet, size: Size, orientation: int, *, read: ReadNumbers
) -> RepairedTruth:
    """The ground truth of a file of numbers; see `repairing.ReadRepaired`."""
    found = read(frame)
    numbers = turned_to_fit(found.numbers, size, orientation, source=frame.truth)
    truth = truth_of_numbers(frame, labels, size, read=lambda _: found._replace(numbers=numbers))
    return RepairedTruth(truth, {"turned_masks": int(numbers is not found.numbers)})


def inspect_numbers(
    frame: Item,
    labels: LabelSet,
    size: Size | None,  # noqa: ARG001
    *,
    read: ReadNumbers,
) -> Findings:
    """What is in the file of numbers of a frame."""
    assert frame.truth is not None
    try:
        numbers, void = read(frame)
    except DataError as error:
        return Findings((Fault("unreadable ground truth", str(frame.truth), without_path(error, frame.truth)),))
    found, thing = ids_in(numbers, but=(0, *void)), labels.is_thing.index(True)
    class_ids = {thing} if found else set[int]()
    if labels.background_id is not None and (numbers == 0).any():
        class_ids.add(labels.background_id)
    return Findings(
        size_hw=(numbers.shape[0], numbers.shape[1]),
        by=f"mask {frame.truth.name}",
        parts=len(found),
        has_void=bool(np.isin(numbers, void).any()),
        classes=dict.fromkeys(found, thing),
        tracks=frozenset(found),
        class_ids=frozenset(class_ids),
    )


def _where(frame: Item, shape: FramePart) -> str:
    return f"{frame.truth}: object {shape.id} (frame '{frame.id}')"


def _cropped(segmentation: Any, size: Size, *, source: str) -> tuple[np.ndarray, rle.Box]:
    if isinstance(segmentation, Sequence) and not isinstance(segmentation, str):
        if not all(isinstance(polygon, Sequence) and not isinstance(polygon, str) for polygon in segmentation):
            raise DataError(f"{source}: polygons are lists of numbers x, y, x, y …")
        whole = [polygon for polygon in segmentation if len(polygon) >= 6]
        return rle.crop_polygons(whole, size, source=source)
    if not isinstance(segmentation, dict):
        raise DataError(f"{source}: its segmentation is {segmentation!r}; expected polygons or an RLE")
    return rle.crop(segmentation, size=size, source=source)
