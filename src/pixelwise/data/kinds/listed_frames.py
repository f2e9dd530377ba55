"""Frames whose segments a JSON of COCO's panoptic family lists, each with a PNG of segment ids."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from pixelwise.data.kinds.coco_json import Entry, image_problems, is_integer
from pixelwise.data.kinds.frames import FramePart, clip_listing, clip_repair, frame_item, in_time
from pixelwise.data.kinds.panoptic_json import FAULTS_OF_SEGMENTS, panoptic_labels_of, panoptic_problems
from pixelwise.data.kinds.segment_frames import inspect_map, listed_map, repaired_listed_map, truth_of_map
from pixelwise.data.kinds.writing import MakeWriter
from pixelwise.data.listing import Fault, Item, Listing, Repair
from pixelwise.errors import DataError
from pixelwise.files.images import image_size
from pixelwise.labels import LabelSet


class FramePlaces(NamedTuple):
    """Where the files of a set are.

    Attributes:
        clip_of: the clip and the name of a frame, from its entry.
        image_of: the file of an image, from its clip and its entry.
        map_of: the file of a PNG, from its clip and its annotation.
    """

    clip_of: Callable[[Entry], tuple[str, str]]
    image_of: Callable[[str, Entry], Path]
    map_of: Callable[[str, Entry], Path]


class FrameEntries(NamedTuple):
    """What a JSON of frames holds.

    Attributes:
        images: with `id`, `file_name`, `height` and `width`.
        annotations: with `image_id`, `file_name` and `segments_info`.
        categories: with `id`, `name` and `isthing`.
        places: where the files are.
        source: the JSON.
        stored: the label set that the JSON holds, or None.
    """

    images: Sequence[Entry]
    annotations: Sequence[Entry]
    categories: Sequence[Entry]
    places: FramePlaces
    source: Path
    stored: Mapping[str, Any] | None = None


class ListedFrames(NamedTuple):
    """What a JSON lists: the sound frames in the order of time, their classes, and what is wrong with its entries."""

    frames: tuple[Item, ...]
    labels: LabelSet
    faults: tuple[Fault, ...]


def listed_frames(entries: FrameEntries) -> ListedFrames:
    """Sort out which entries of a JSON are sound. Raises DataError for unusable categories."""
    images, annotations, categories, places, source, stored = entries
    labels, class_of = panoptic_labels_of(categories, source=source, stored=stored)
    image_of = {image["id"]: image for image in images if isinstance(image.get("id"), int | str)}
    faults = [*image_problems(images), *panoptic_problems(annotations, image_of, class_of, segments=True)]
    broken = {id(fault.entry) for fault in faults if fault.fatal}
    frames: list[Item] = []
    for annotation in annotations:
        if id(annotation) in broken:
            continue
        image = image_of[annotation["image_id"]]
        if id(image) in broken:
            continue
        clip, name = places.clip_of(image)
        frames.append(
            frame_item(
                clip,
                name,
                places.image_of(clip, image),
                places.map_of(clip, annotation),
                size_hw=(image["height"], image["width"]),
                extra=tuple(_part(info) for info in annotation["segments_info"] if id(info) not in broken),
            )
        )
    frames.sort(key=lambda frame: (frame.clip, in_time(frame.name)))
    return ListedFrames(tuple(frames), labels, tuple(faults))


def listing_of(entries: FrameEntries, writer: MakeWriter) -> Listing:
    """The listing of the frames of a JSON. Raises DataError for unusable categories."""
    listed = listed_frames(entries)
    return clip_listing(
        listed.frames,
        listed.labels,
        read=partial(truth_of_map, read=listed_map),
        inspect=partial(inspect_map, read=listed_map),
        parts=("segment", "segments"),
        source=entries.source,
        faults=listed.faults,
        one_file=True,
        repair=partial(_repair, entries, writer),
    )


def _repair(entries: FrameEntries, writer: MakeWriter) -> Repair:
    """What of a JSON can be used."""
    images, places = entries.images, entries.places
    sized = [_with_sides(image, places) for image in images]
    listed = listed_frames(entries._replace(images=sized))
    kinds = Counter(fault.kind for fault in listed.faults)
    done = {
        "images": kinds["image entry"] + kinds["repeated id"],
        "images_without_annotation": kinds["missing annotation"],
        "entries": kinds["unknown image"] + kinds["repeated annotation"] + kinds["annotation entry"],
        "segments": sum(kinds[kind] for kind in FAULTS_OF_SEGMENTS),
        "sizes": sum(one is not image for one, image in zip(sized, images, strict=True)),
    }
    categories_of: defaultdict[str, defaultdict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
    for frame in listed.frames:
        for one in frame.extra:
            categories_of[str(frame.clip)][one.id].add(-1 if one.crowd else one.dataset_id)
    dataset_ids = {
        clip: {id: next(iter(found)) for id, found in of_clip.items() if len(found) == 1 and -1 not in found}
        for clip, of_clip in categories_of.items()
    }
    read = partial(repaired_listed_map, dataset_ids=dataset_ids)
    return clip_repair(listed.frames, listed.labels, read, writer, done=done)


def _with_sides(image: Entry, places: FramePlaces) -> Entry:
    """The entry of an image with the sides of its file, where it states none that can be."""
    if all(is_integer(image.get(side)) and image[side] > 0 for side in ("height", "width")):
        return image
    try:
        clip, _ = places.clip_of(image)
        height, width = image_size(places.image_of(clip, image))
    except (DataError, KeyError, TypeError):  # an entry without id and file_name, or without a file, which is named
        return image
    return {**image, "height": height, "width": width}


def _part(info: Entry) -> FramePart:
    return FramePart(info["id"], info["category_id"], bool(info.get("iscrowd", 0)), info.get("area"))
