"""Writing clips whose frames have a map of segments: KITTI-STEP, Cityscapes-DVPS, Cityscapes-VPS and VIPSeg.

Frames are written one by one, perhaps by several processes, their maps with places in a list of the frame's segments;
the numbers that objects keep in their whole clip are given when all are there, in `finish`, which writes the maps anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from pixelwise.data.kinds.segment_maps import write_segment_ids
from pixelwise.data.kinds.track_clips_writer import by_clip, clip_and_frame
from pixelwise.data.kinds.writing import Original, Writer, Written, write_ids
from pixelwise.data.truth.segments import with_ids
from pixelwise.data.truth.segments_of import segments_of
from pixelwise.data.truth.track_ids import Track, composed_by, former_numbers, kept_numbers, seen_together, tracks_of
from pixelwise.errors import DataError
from pixelwise.files.images import read_ids
from pixelwise.labels import LARGEST_ID, LabelSet
from pixelwise.types import Annotation


class PlacedSegment(NamedTuple):
    """A segment of a frame: its value in the map of places, id, class id, and pixels."""

    place: int
    id: int
    class_id: int
    crowd: bool
    area: int


class Places(NamedTuple):
    """Where a frame goes: its clip, its id in lists, its image (without suffix) and its map; whether it is renamed."""

    clip: str
    id: str
    image: str
    map: str
    renamed: bool = False


@dataclass(frozen=True)
class SegmentClipsWriter(Writer):
    """A format whose frames have a map of segments. See Writer for the attributes."""

    def places(self, root: Path, original: Original) -> Places:
        """Where a frame goes in the folder of the new set."""
        raise NotImplementedError

    def write(self, root: Path, original: Original) -> Written:
        """Write one frame and its map of places, which `finish` makes one of the format. See Writer."""
        place = self.places(root, original)
        file, losses = original.write_image(root, place.image)
        regions, lost = write_places(root / place.map, original.truth, self.labels, source=original.image)
        height, width, _ = original.pixels.shape
        image = {"id": place.id, "width": width, "height": height, "file_name": Path(file).name}
        entry = {"clip": place.clip, "map": place.map, "of": regions, "image": image}
        return Written(original.name, file, Counter(losses) + lost + Counter(renamed_images=place.renamed), entry)


@dataclass(frozen=True)
class NumberedMapsWriter(SegmentClipsWriter):
    """A format whose maps hold a class and, within it, the number of an object. See Writer for the attributes.

    Attributes:
        divisor: numbers are below it.
        classes: ids of classes on disk are below it.
        by_number: whether objects of different classes have different numbers, if their source does not repeat them.
    """

    divisor: int = 0
    classes: int = 0
    by_number: bool = False

    def value(self, dataset_id: int, number: int) -> tuple[int, ...]:
        """What the channels of a map hold."""
        raise NotImplementedError

    def save(self, path: Path, values: np.ndarray) -> None:
        """Write a map [H, W, C]."""
        raise NotImplementedError

    def write(self, root: Path, original: Original) -> Written:
        """Write one frame and its map of places; regions that are no objects have no number. See Writer."""
        written = super().write(root, original)
        joined = joined_regions(written.entry["of"], self.labels)
        return replace(written, losses=Counter(written.losses) + joined)

    def finish(self, root: Path, *, split: str, written: Sequence[Written]) -> Mapping[str, int]:  # noqa: ARG002
        """Number the objects of each clip, and write its maps anew. Raises DataError for too many in a clip."""
        renumbered = 0
        void = self.value(void_id(self.labels, below=self.classes), 0)
        for clip, entries in by_clip(written):
            frames = [[*tracks_in(entry, self.labels)] for entry in entries]
            former = former_numbers(tracks_of(frames), divisor=self.numbered_by, own=composed_by(self.divisor))
            apart = seen_together(frames, former) if self.by_number else {*former.values()}
            groups = {track: track[1] if number in apart else None for track, number in former.items()}
            numbers, others = kept_numbers(
                former, largest=self.divisor - 1, groups=groups, clip=clip, format=self.format
            )
            renumbered += others
            value = partial(self._value, numbers)
            for entry in entries:
                path = root / entry["map"]
                self.save(path, translated(path, entry["of"], value, void=void))
        return {"renumbered_objects": renumbered}

    def _value(self, numbers: Mapping[Track, int], one: PlacedSegment) -> tuple[int, ...]:
        number = numbers[one.id, one.class_id] if _is_object(one, self.labels) else 0
        return self.value(self.labels.dataset_ids[one.class_id], number)


def stem_with_clip(id: str, *, source: Path) -> tuple[str, str]:
    """The clip, without `_`, and a name of the frame that begins with it and `_`."""
    clip, frame = clip_and_frame(id, source=source)
    clip = clip.replace("_", "-")
    return clip, f"{clip}_{frame}"


def write_places(
    path: Path, truth: Annotation, labels: LabelSet, *, source: Path
) -> tuple[list[PlacedSegment], Counter[str]]:
    """Write a map of places from 1, 0 where nothing is; the segments that have pixels, and what is lost."""
    panoptic, lost = segments_of(truth, labels, source=source)
    areas = panoptic.areas().tolist()
    write_map = with_ids(panoptic, torch.arange(1, len(panoptic) + 1, dtype=torch.int32)).numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_ids(path, write_map, None)
    ids, crowd = panoptic.segment_ids.tolist(), panoptic.crowd.tolist()
    counted = Counter(lost)
    if truth.panoptic is None:
        ids = [_track_id(id, truth, labels) for id in ids]
    elif truth.instances is not None and truth.instances.track_ids is not None:
        objects = set(truth.instances.track_ids.tolist())
        is_thing = [labels.is_thing[class_id] for class_id in panoptic.labels.tolist()]
        for place, id in enumerate(ids):  # a class may have objects in one of the two formats alone
            is_object = id in objects and not crowd[place]
            counted["flattened_objects"] += bool(areas[place] and is_object and not is_thing[place])
            counted["crowds_of_classes"] += bool(areas[place] and id not in objects and is_thing[place])
            crowd[place] |= is_thing[place] and id not in objects
    columns = zip(ids, panoptic.labels.tolist(), crowd, areas, strict=True)
    return [PlacedSegment(place, *one) for place, one in enumerate(columns, start=1) if one[-1]], +counted


def _track_id(id: int, truth: Annotation, labels: LabelSet) -> int:
    """The track id of an object from which `segments_of` made a segment; of other segments the id they have."""
    instances, index = truth.instances, id - len(labels) - 1
    if instances is None or instances.track_ids is None or not 0 <= index < len(instances):
        return id
    return int(instances.track_ids[index])


def _is_object(one: PlacedSegment, labels: LabelSet) -> bool:
    return labels.is_thing[one.class_id] and not one.crowd


def tracks_in(entry: Mapping[str, Any], labels: LabelSet) -> Iterator[Track]:
    """The objects of a frame."""
    return ((one.id, one.class_id) for one in entry["of"] if _is_object(one, labels))


def joined_regions(regions: Sequence[PlacedSegment], labels: LabelSet) -> Counter[str]:
    """Number of regions that are merged with another of their class, since regions without instances have no number."""
    classes = Counter((one.class_id, one.crowd) for one in regions if not _is_object(one, labels))
    return Counter(joined_segments=sum(classes.values()) - len(classes))


def void_id(labels: LabelSet, *, below: int) -> int:
    """The id on disk of pixels that are ignored. Raises DataError where there is none so small."""
    return next(id for id in (*labels.void_ids, *range(below)) if 0 <= id < below and id not in labels.dataset_ids)


def with_ids_below(labels: LabelSet, below: int, *, format: str) -> LabelSet:
    """The same classes with ids on disk below some number, and one for void; those that they have, if so small.

    Raises DataError for more classes than there are ids.
    """
    if len(labels) >= below:
        raise DataError(f"label set '{labels.name}' has {len(labels)} classes; {format} holds {below - 1} and void")
    if not all(0 <= id < below for id in labels.dataset_ids):
        labels = replace(labels, dataset_ids=tuple(range(len(labels))), void_ids=())
    if not any(0 <= id < below for id in labels.void_ids):
        void = next(id for id in reversed(range(below)) if id not in labels.dataset_ids)
        labels = replace(labels, void_ids=(void,))
    return labels


def translated(
    path: Path,
    regions: Sequence[PlacedSegment],
    value: Callable[[PlacedSegment], Sequence[int]],
    *,
    void: Sequence[int],
) -> np.ndarray:
    """i32 [H, W, C], the values of the segments whose places a map holds; `void` where there is none."""
    places = read_ids(path)
    table = np.empty((int(places.max()) + 1, len(void)), dtype=np.int32)
    table[:] = void
    for one in regions:
        table[one.place] = value(one)
    return table[places]


def write_listed(
    root: Path,
    entries: Sequence[Mapping[str, Any]],
    labels: LabelSet,
    numbered_by: int | None,
    *,
    clip: str,
    format: str,
) -> tuple[list[dict[str, Any]], int]:
    """Write the PNGs of a clip; gives the annotation of each frame, and how many objects have another number."""
    tracks = tracks_of(tracks_in(entry, labels) for entry in entries)
    ids = {track: track[0] for track in tracks}
    former = former_numbers(tracks, divisor=numbered_by)
    repeated = len(set(former.values())) < len(former)
    if repeated and len(set(ids.values())) == len(ids) and max(ids.values()) < LARGEST_ID:
        former = ids  # objects are numbered class by class, and the ids hold both
    numbers, renumbered = kept_numbers(former, largest=LARGEST_ID - 1, clip=clip, format=format)
    regions = {
        (one.id, one.class_id, one.crowd) for entry in entries for one in entry["of"] if not _is_object(one, labels)
    }
    plain, _ = kept_numbers(
        {key: key[0] for key in sorted(regions)},
        largest=LARGEST_ID - 1,
        taken=frozenset(numbers.values()),
        clip=clip,
        format=format,
    )
    annotations: list[dict[str, Any]] = []
    for entry in entries:
        path = root / entry["map"]

        def id_of(one: PlacedSegment) -> int:
            return numbers[one.id, one.class_id] if _is_object(one, labels) else plain[one.id, one.class_id, one.crowd]

        write_segment_ids(path, translated(path, entry["of"], lambda one: (id_of(one),), void=(0,))[..., 0])
        areas: Counter[tuple[int, int, bool]] = Counter()  # a track that a list has twice in a frame is one segment
        for one in entry["of"]:
            areas[id_of(one), labels.dataset_ids[one.class_id], one.crowd] += one.area
        infos = [
            {"id": id, "category_id": category, "iscrowd": int(crowd), "area": area}
            for (id, category, crowd), area in areas.items()
        ]
        annotations.append({"image_id": entry["image"]["id"], "file_name": path.name, "segments_info": infos})
    return annotations, renumbered
