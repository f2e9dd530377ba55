"""Frames whose segments a JSON of COCO's panoptic family lists, each with a PNG of segment ids."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from pixelwise.data.kinds.clips import ClipFrames, Frame, FramesToRepair, Shape, check_frames, in_time, open_frames
from pixelwise.data.kinds.coco_json import Entry, Problem, image_problems, is_integer
from pixelwise.data.kinds.faults import Fault, SplitReport
from pixelwise.data.kinds.panoptic_json import panoptic_labels_of, panoptic_problems
from pixelwise.data.kinds.segment_frames import inspect_map, listed_map, repaired_listed_map, truth_of_map
from pixelwise.errors import DataError
from pixelwise.files.images import image_size
from pixelwise.files.parallel import Progress
from pixelwise.labels import LabelSet


class ListedFrames(NamedTuple):
    """What a JSON lists: the sound frames in the order of time, their classes, and what is wrong with its entries."""

    frames: tuple[Frame, ...]
    labels: LabelSet
    problems: tuple[Problem, ...]


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


def listed_frames(
    images: Sequence[Entry],
    annotations: Sequence[Entry],
    categories: Sequence[Entry],
    places: FramePlaces,
    *,
    source: Path,
    stored: Mapping[str, Any] | None = None,
) -> ListedFrames:
    """Sort out which entries of a JSON are sound.

    Args:
        images: with `id`, `file_name`, `height` and `width`.
        annotations: with `image_id`, `file_name` and `segments_info`.
        categories: with `id`, `name` and `isthing`.
        places: where the files are.
        source: the JSON.
        stored: the label set that the JSON holds, or None.

    Raises:
        DataError: the categories are unusable.
    """
    labels, class_of = panoptic_labels_of(categories, source=source, stored=stored)
    image_of = {image["id"]: image for image in images if isinstance(image.get("id"), int | str)}
    problems = [*image_problems(images), *panoptic_problems(annotations, image_of, class_of, segments=True)]
    broken = {id(problem.entry) for problem in problems if problem.fatal}
    frames: list[Frame] = []
    for annotation in annotations:
        if id(annotation) in broken:
            continue
        image = image_of[annotation["image_id"]]
        if id(image) in broken:
            continue
        clip, name = places.clip_of(image)
        frames.append(
            Frame(
                clip=clip,
                name=name,
                image=places.image_of(clip, image),
                truth=places.map_of(clip, annotation),
                shapes=tuple(_shape(info) for info in annotation["segments_info"] if id(info) not in broken),
                size=(image["height"], image["width"]),
            )
        )
    frames.sort(key=lambda frame: (frame.clip, in_time(frame.name)))
    return ListedFrames(tuple(frames), labels, tuple(problems))


def listed_to_repair(
    images: Sequence[Entry],
    annotations: Sequence[Entry],
    categories: Sequence[Entry],
    places: FramePlaces,
    *,
    source: Path,
    stored: Mapping[str, Any] | None = None,
) -> FramesToRepair:
    """What of a JSON can be used; takes what `listed_frames` does. Raises DataError for unusable categories."""
    sized = [_with_sides(image, places) for image in images]
    listed = listed_frames(sized, annotations, categories, places, source=source, stored=stored)
    kinds = Counter(problem.kind for problem in listed.problems)
    done = {
        "images": kinds["image entry"] + kinds["repeated id"],
        "images_without_annotation": kinds["missing annotation"],
        "entries": kinds["unknown image"] + kinds["repeated annotation"] + kinds["annotation entry"],
        "segments": sum(kinds[kind] for kind in _OF_SEGMENTS),
        "sizes": sum(one is not image for one, image in zip(sized, images, strict=True)),
    }
    categories_of: defaultdict[str, defaultdict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
    for frame in listed.frames:
        for one in frame.shapes:
            categories_of[frame.clip][one.id].add(-1 if one.crowd else one.dataset_id)
    dataset_ids = {
        clip: {id: next(iter(found)) for id, found in of_clip.items() if len(found) == 1 and -1 not in found}
        for clip, of_clip in categories_of.items()
    }
    return FramesToRepair(listed.frames, listed.labels, partial(repaired_listed_map, dataset_ids=dataset_ids), done)


_OF_SEGMENTS = ("segment id", "repeated segment", "unknown category", "segment entry")
"""Kinds of problem of single segments."""


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


def open_listed(listed: ListedFrames, *, source: Path, name: str, format: str) -> ClipFrames:
    """The data set of a JSON. Raises DataError for the first unusable entry, or a missing file."""
    fatal = next((problem for problem in listed.problems if problem.fatal), None)
    if fatal is not None:
        raise DataError(f"{source}: {fatal.where}: {fatal.text}; pixelwise data check lists all such faults")
    read = partial(truth_of_map, read=listed_map)
    return open_frames(listed.frames, listed.labels, name=name, format=format, read=read)


def check_listed(listed: ListedFrames, *, split: str, source: Path, workers: int, progress: Progress) -> SplitReport:
    """Every fault of the entries, and of the files of the sound ones."""
    return check_frames(
        listed.frames,
        listed.labels,
        split=split,
        source=source,
        inspect=partial(inspect_map, read=listed_map),
        workers=workers,
        progress=progress,
        listed=[Fault(problem.kind, problem.where, problem.text) for problem in listed.problems],
    )


def _shape(info: Entry) -> Shape:
    return Shape(info["id"], info["category_id"], bool(info.get("iscrowd", 0)), info.get("area"))
