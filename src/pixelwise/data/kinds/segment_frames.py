"""Frames whose ground truth is a map of segments, with or without a list of what the segments are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pixelwise.data.kinds.frames import FramePart
from pixelwise.data.kinds.repairing import RepairedTruth, turned_to_fit
from pixelwise.data.kinds.segment_maps import Listed, listing_faults, read_segment_ids
from pixelwise.data.listing import Fault, Findings, Item, Size, without_path
from pixelwise.data.truth.segments import annotation_of, panoptic_of, regions_of_ids
from pixelwise.errors import DataError
from pixelwise.labels import LabelSet
from pixelwise.types import Annotation, Panoptic


class SegmentMap(NamedTuple):
    """What a file says of each pixel of a frame.

    Attributes:
        ids: i32 [H, W], the segment of each pixel, 0 = void.
        segments: those that are sound, with pixels or without.
        faults: what is wrong; see `HARMLESS`. What else `ids` and `segments` say is what a repair makes of it.
        numbers: number that should keep its class in the whole clip → dataset id of the class, or None where the frame
            has it in several classes; None where the ids of things should.
    """

    ids: np.ndarray
    segments: tuple[FramePart, ...]
    faults: tuple[Fault, ...] = ()
    numbers: dict[int, int | None] | None = None


HARMLESS = ("segment without pixels", "wrong area", "thing without instance")
"""Kinds of fault with which a map can still be used."""

ReadMap = Callable[[Item, LabelSet], SegmentMap]
"""Reads the map of a frame; a function of a module, or a partial of one. Raises DataError for an unusable file."""


def truth_of_map(frame: Item, labels: LabelSet, size: Size, *, read: ReadMap) -> Annotation:
    """The segments of a frame, the class of each pixel, and the objects with their track ids.

    Raises DataError for the first fault that is not harmless, or for a map of another size than the image.
    """
    found = read(frame, labels)
    if found.ids.shape != size:
        height, width = found.ids.shape
        raise DataError(f"{frame.truth}: the map is {height}×{width}, its image {size[0]}×{size[1]}")
    fatal = next((fault for fault in found.faults if fault.kind not in HARMLESS), None)
    if fatal is not None:
        raise DataError(f"{fatal.where}: {fatal.text}; pixelwise data check lists all such faults")
    return annotation_of(segments_in(found, labels), labels, clip=True)


def segments_in(found: SegmentMap, labels: LabelSet) -> Panoptic:
    """The segments of a map that have pixels, in the order of their ids."""
    class_of = {dataset_id: index for index, dataset_id in enumerate(labels.dataset_ids)}
    present = set(regions_of_ids(found.ids).ids.tolist())
    segments = sorted((one for one in found.segments if one.id in present), key=lambda one: one.id)
    class_ids = [class_of[one.dataset_id] for one in segments]
    return panoptic_of(found.ids, [one.id for one in segments], class_ids, [one.crowd for one in segments])


def inspect_map(
    frame: Item,
    labels: LabelSet,
    size: Size | None,  # noqa: ARG001
    *,
    read: ReadMap,
) -> Findings:
    """What is in the map of a frame, and everything that is wrong with it."""
    assert frame.truth is not None
    try:
        found = read(frame, labels)
    except DataError as error:
        return Findings((Fault("unreadable ground truth", str(frame.truth), without_path(error, frame.truth)),))
    class_of = {dataset_id: index for index, dataset_id in enumerate(labels.dataset_ids)}
    things = {
        one.id: one.dataset_id for one in found.segments if labels.is_thing[class_of[one.dataset_id]] and not one.crowd
    }
    kept: Mapping[int, int | None] = things if found.numbers is None else found.numbers
    return Findings(
        faults=found.faults,
        size_hw=(found.ids.shape[0], found.ids.shape[1]),
        by=f"map {frame.truth.name}",
        parts=len(found.segments),
        classes={id: None if dataset_id is None else class_of[dataset_id] for id, dataset_id in kept.items()},
        tracks=frozenset(things),
        class_ids=frozenset(class_of[one.dataset_id] for one in found.segments),
        crowds=sum(one.crowd for one in found.segments),
    )


def numbered_map(
    dataset_ids: np.ndarray, numbers: np.ndarray, labels: LabelSet, *, divisor: int, path: Path, by_number: bool = False
) -> SegmentMap:
    """The map of a file that holds for each pixel the class and the number of the object within it.

    The segment id is (class + 1) · divisor + number. Number 0 of a thing is a crowd; stuff has no numbers.

    Args:
        dataset_ids: [H, W], ids on disk of the classes.
        numbers: [H, W], below `divisor`.
        labels: what the classes mean.
        divisor: at most 65536.
        path: the file, for faults.
        by_number: whether numbers of different classes are those of different objects of the clip.
    """
    ids = (dataset_ids.astype(np.int32) + 1) * divisor + numbers.astype(np.int32)
    class_of = {dataset_id: index for index, dataset_id in enumerate(labels.dataset_ids)}
    segments: list[FramePart] = []
    faults: list[Fault] = []
    void: list[int] = []
    stuff: list[int] = []
    regions = regions_of_ids(ids)
    for id, area in zip(regions.ids.tolist(), regions.areas.tolist(), strict=True):
        dataset_id, number = id // divisor - 1, id % divisor
        if dataset_id in labels.void_ids:
            void.append(id)
        elif dataset_id not in class_of:
            text = f"class {dataset_id} ({area:,} pixels) is not in '{labels.name}' ({labels.describe_ids()})"
            faults.append(Fault("unknown class", f"{path}: class {dataset_id}, number {number}", text))
            void.append(id)
        elif number and not labels.is_thing[class_of[dataset_id]]:
            name = labels.names[class_of[dataset_id]]
            text = f"{area:,} pixels of {name}, a class without instances, have a number; expected 0"
            faults.append(Fault("number of stuff", f"{path}: class {dataset_id}, number {number}", text))
            stuff.append(id)
        else:
            crowd = number == 0 and labels.is_thing[class_of[dataset_id]]
            segments.append(FramePart(id, dataset_id, crowd, area))
    if void:
        ids = np.where(np.isin(ids, void), 0, ids)
    if stuff:
        ids = np.where(np.isin(ids, stuff), ids - ids % divisor, ids)
        listed = {one.id for one in segments}
        segments += (FramePart(id, id // divisor - 1) for id in {one - one % divisor for one in stuff} - listed)
    kept: dict[int, int | None] | None = None
    if by_number:
        kept = {}
        for one in segments:
            if number := one.id % divisor:
                kept[number] = None if number in kept else one.dataset_id
    return SegmentMap(ids, tuple(segments), tuple(faults), kept)


def repaired_map(frame: Item, labels: LabelSet, size: Size, orientation: int, *, read: ReadMap) -> RepairedTruth:
    """The ground truth of a map that tells classes itself; see `repairing.ReadRepaired`."""
    found = read(frame, labels)
    ids = turned_to_fit(found.ids, size, orientation, source=frame.truth)
    kinds = Counter(fault.kind for fault in found.faults)
    done = {key: kinds[kind] for kind, key in _MENDED.items()} | {"turned_masks": int(ids is not found.ids)}
    return RepairedTruth(annotation_of(segments_in(found._replace(ids=ids), labels), labels, clip=True), done)


_MENDED = {
    "unknown class": "unknown_regions",
    "number of stuff": "numbers_of_stuff",
    "thing without instance": "things_without_number",
}
"""Kinds of fault of maps that tell classes themselves, and how a repair calls what becomes of them."""


def repaired_listed_map(
    frame: Item,
    labels: LabelSet,
    size: Size,
    orientation: int,
    *,
    dataset_ids: Mapping[str, Mapping[int, int]],
) -> RepairedTruth:
    """The ground truth of a map whose segments are listed; see `repairing.ReadRepaired`.

    Args:
        dataset_ids: clip → id of a segment → its category, where all lists of the clip agree.
    """
    stated = {one.id: one.area for one in reversed(frame.extra)}
    others = [
        FramePart(id, dataset_id) for id, dataset_id in dataset_ids.get(str(frame.clip), {}).items() if id not in stated
    ]
    found = listed_map(frame._replace(extra=(*frame.extra, *others)), labels)
    regions = regions_of_ids(found.ids)
    areas = dict(zip(regions.ids.tolist(), regions.areas.tolist(), strict=True))
    ids = turned_to_fit(found.ids, size, orientation, source=frame.truth)
    done = {
        "unlisted_regions": sum(fault.kind == "id without segment" for fault in found.faults),
        "given_segments": sum(one.id in areas for one in others),
        "segments_without_pixels": sum(id not in areas for id in stated),
        "areas": sum(id in areas and area not in (None, areas[id]) for id, area in stated.items()),
        "turned_masks": int(ids is not found.ids),
        "sizes": int(frame.size_hw not in (None, size)),
    }
    return RepairedTruth(annotation_of(segments_in(found._replace(ids=ids), labels), labels, clip=True), done)


def listed_map(frame: Item, labels: LabelSet) -> SegmentMap:
    """The map of a PNG in which id = R + 256·G + 65536·B, whose segments are listed in `frame.extra`."""
    assert frame.truth is not None
    ids = read_segment_ids(frame.truth)
    regions = regions_of_ids(ids)
    segments: dict[int, FramePart] = {}
    faults: list[Fault] = []
    source = f"{frame.truth} (frame '{frame.id}')"
    for one in frame.extra:
        where = f"{source}: segment {one.id}"
        if one.id in segments:
            faults.append(Fault("repeated segment", where, "another segment of the frame has the same id"))
        elif one.dataset_id not in labels.dataset_ids:
            faults.append(Fault("unknown class", where, f"category {one.dataset_id} is not in categories"))
        elif one.id <= 0:
            faults.append(Fault("segment id", where, "ids of segments are above 0, which is void"))
        else:
            segments[one.id] = one
    stated = [Listed(one.id, one.area) for one in segments.values()]
    faults += listing_faults(regions, stated, source=source, named={one.id for one in frame.extra})
    known = {0, *segments}
    if not set(regions.ids.tolist()) <= known:
        ids = np.where(np.isin(ids, list(known)), ids, 0)
    return SegmentMap(ids, tuple(segments.values()), tuple(faults))
