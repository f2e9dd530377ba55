"""Writing clips whose frames have a map of segments: KITTI-STEP, Cityscapes-DVPS, Cityscapes-VPS and VIPSeg.

Frames are written one by one, perhaps by several processes, their maps with places in a list of the frame's segments;
the numbers that objects keep in their whole clip are given when all are there, in `finish`, which writes the maps anew.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from pixelwise.data.clip_target import by_clip, clip_and_frame, free_clip
from pixelwise.data.folders import labels_toml
from pixelwise.data.images import read_ids
from pixelwise.data.pair_target import Original, Written, write_ids
from pixelwise.data.panoptic_json import panoptic_categories
from pixelwise.data.panoptic_maps import write_segment_ids
from pixelwise.data.panoptic_target import segments_of
from pixelwise.data.segments import with_ids
from pixelwise.data.track_numbers import (
    Track,
    composed_by,
    former_numbers,
    kept_numbers,
    seen_together,
    tracks_of,
)
from pixelwise.errors import DataError
from pixelwise.labels import LARGEST_ID, LabelSet
from pixelwise.types import Annotation

STEP_DIVISOR = 65_536
"""Numbers of objects in KITTI-STEP are below it."""

DVPS_DIVISOR = 1000
"""Numbers of objects in Cityscapes-DVPS are below it."""

DVPS_CLASSES = 65
"""Ids of classes in Cityscapes-DVPS, whose maps have 16 bits, are below it."""


class Region(NamedTuple):
    """A segment of a frame: its value in the map of places, id, class id, and pixels."""

    place: int
    id: int
    class_id: int
    crowd: bool
    area: int


@dataclass(frozen=True)
class StepTarget:
    """The format kitti-step. See Target for the attributes.

    Attributes:
        default: the label set that needs no label file.
        numbered_by: the divisor in the ids of the truth; see `data.track_numbers`.
    """

    labels: LabelSet
    default: LabelSet
    numbered_by: int | None = None
    format: str = "kitti-step"
    shares_images: bool = False

    def write(self, root: Path, original: Original) -> Written:
        """Write one frame and its map of places, which `finish` makes one of classes and numbers. See Target."""
        clip, frame = clip_and_frame(original.id, source=original.image)
        file, losses = original.write_image(root, f"images/{original.split}/{clip}/{frame}")
        path = root / "panoptic_maps" / original.split / clip / f"{frame}.png"
        regions, lost = _write_places(path, original.truth, self.labels, source=original.image)
        joined = _joined(regions, self.labels)
        return Written(
            original.name, file, Counter(losses) + lost + joined, {"clip": clip, "map": path.name, "of": regions}
        )

    def finish(self, root: Path, *, split: str, written: Sequence[Written]) -> Mapping[str, int]:
        """Number the objects of each clip, and write its maps anew. Raises DataError for too many in a clip."""
        renumbered = 0
        for clip, entries in by_clip(written):
            frames = [[*_tracks(entry, self.labels)] for entry in entries]
            former = former_numbers(tracks_of(frames), divisor=self.numbered_by, own=composed_by(STEP_DIVISOR))
            together = seen_together(frames, former)
            groups = {track: track[1] if number in together else None for track, number in former.items()}
            numbers, others = kept_numbers(
                former, largest=STEP_DIVISOR - 1, groups=groups, clip=clip, format=self.format
            )
            renumbered += others
            for entry in entries:
                path = root / "panoptic_maps" / split / clip / entry["map"]

                def value(one: Region, numbers: Mapping[Track, int] = numbers) -> tuple[int, int, int]:
                    return self.labels.native_ids[one.class_id], *divmod(_number(one, numbers, self.labels), 256)

                _write_rgb(path, _translated(path, entry["of"], value, void=(_void(self.labels, below=256), 0, 0)))
        return {"renumbered_objects": renumbered}

    def finish_set(self, root: Path) -> None:
        """Write labels.toml, if the classes are not those of the format."""
        if self.labels != self.default:
            (root / "labels.toml").write_text(labels_toml(self.labels), encoding="utf-8")


@dataclass(frozen=True)
class DvpsTarget:
    """The format cityscapes-dvps, without depth maps. See Target for the attributes.

    Attributes:
        default: the label set that needs no label file.
        numbered_by: the divisor in the ids of the truth; see `data.track_numbers`.
    """

    labels: LabelSet
    default: LabelSet
    numbered_by: int | None = None
    format: str = "cityscapes-dvps"
    shares_images: bool = False

    def write(self, root: Path, original: Original) -> Written:
        """Write one frame and its map of places, which `finish` makes one of class · 1000 + number. See Target."""
        clip, stem = _stem_with_clip(original.id, source=original.image)
        place = f"video_sequence/{original.split}/{stem}"
        file, losses = original.write_image(root, f"{place}_leftImg8bit")
        path = root / f"{place}_gtFine_instanceTrainIds.png"
        regions, lost = _write_places(path, original.truth, self.labels, source=original.image)
        joined = _joined(regions, self.labels)
        return Written(
            original.name, file, Counter(losses) + lost + joined, {"clip": clip, "map": path.name, "of": regions}
        )

    def finish(self, root: Path, *, split: str, written: Sequence[Written]) -> Mapping[str, int]:
        """Number the objects of each clip class by class, and write its maps anew.

        Raises DataError for too many objects of a class in a clip.
        """
        renumbered = 0
        void = _void(self.labels, below=DVPS_CLASSES) * DVPS_DIVISOR
        for clip, entries in by_clip(written):
            tracks = tracks_of(_tracks(entry, self.labels) for entry in entries)
            former = former_numbers(tracks, divisor=self.numbered_by, own=composed_by(DVPS_DIVISOR))
            numbers, others = kept_numbers(
                former,
                largest=DVPS_DIVISOR - 1,
                groups={track: track[1] for track in tracks},
                clip=clip,
                format=self.format,
            )
            renumbered += others
            for entry in entries:
                path = root / "video_sequence" / split / entry["map"]

                def value(one: Region, numbers: Mapping[Track, int] = numbers) -> tuple[int]:
                    number = _number(one, numbers, self.labels)
                    return (self.labels.native_ids[one.class_id] * DVPS_DIVISOR + number,)

                write_ids(path, _translated(path, entry["of"], value, void=(void,))[..., 0], None)
        return {"renumbered_objects": renumbered}

    def finish_set(self, root: Path) -> None:
        """Write labels.toml, if the classes are not those of the format."""
        if self.labels != self.default:
            (root / "video_sequence" / "labels.toml").write_text(labels_toml(self.labels), encoding="utf-8")


@dataclass(frozen=True)
class VpsTarget:
    """The format cityscapes-vps. See Target for the attributes.

    Attributes:
        numbered_by: the divisor in the ids of the truth; see `data.track_numbers`.
    """

    labels: LabelSet
    numbered_by: int | None = None
    format: str = "cityscapes-vps"
    shares_images: bool = False

    def write(self, root: Path, original: Original) -> Written:
        """Write one frame and its map of places, which `finish` makes a PNG of ids. See Target."""
        clip, image_id = _stem_with_clip(original.id, source=original.image)
        file, losses = original.write_image(root, f"{original.split}/img_all/{image_id}_newImg8bit")
        path = root / original.split / "panoptic_video" / f"{image_id}_final_mask.png"
        regions, lost = _write_places(path, original.truth, self.labels, source=original.image)
        entry = {
            "clip": clip,
            "map": path.name,
            "of": regions,
            "image": {"id": image_id, **_sides(original.pixels), "file_name": Path(file).name},
        }
        return Written(original.name, file, Counter(losses) + lost, entry)

    def finish(self, root: Path, *, split: str, written: Sequence[Written]) -> Mapping[str, int]:
        """Write the maps anew, and the JSON of the split."""
        annotations: list[dict[str, Any]] = []
        renumbered = 0
        for clip, entries in by_clip(written):
            maps = [root / split / "panoptic_video" / entry["map"] for entry in entries]
            infos, others = _write_listed(maps, entries, self.labels, self.numbered_by, clip=clip, format=self.format)
            renumbered += others
            annotations += (
                {"image_id": entry["image"]["id"], "file_name": entry["map"], "segments_info": of_frame}
                for entry, of_frame in zip(entries, infos, strict=True)
            )
        content = {
            "info": {"label_set": self.labels.to_json()},
            "categories": panoptic_categories(self.labels),
            "images": [entry["image"] for _, entries in by_clip(written) for entry in entries],
            "annotations": annotations,
        }
        path = root / f"panoptic_gt_{split}_city_vps.json"
        path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        return {"renumbered_objects": renumbered}

    def finish_set(self, root: Path) -> None:
        """Nothing: the classes stand in every JSON file."""


@dataclass(frozen=True)
class VipsegTarget:
    """The format vipseg, with panomasksRGB/, JSON files and lists. See Target for the attributes.

    Attributes:
        numbered_by: the divisor in the ids of the truth; see `data.track_numbers`.
    """

    labels: LabelSet
    numbered_by: int | None = None
    format: str = "vipseg"
    shares_images: bool = True

    def write(self, root: Path, original: Original) -> Written:
        """Write one frame and its map of places, which `finish` makes a PNG of ids. See Target."""
        clip, frame = clip_and_frame(original.id, source=original.image)
        clip, renamed = free_clip(root, clip, original.split)
        file, losses = original.write_image(root, f"images/{clip}/{frame}")
        path = root / "panomasksRGB" / clip / f"{frame}.png"
        regions, lost = _write_places(path, original.truth, self.labels, source=original.image)
        entry = {
            "clip": clip,
            "map": path.name,
            "of": regions,
            "image": {"id": frame, **_sides(original.pixels), "file_name": Path(file).name},
        }
        return Written(original.name, file, Counter(losses) + lost + Counter(renamed_images=renamed), entry)

    def finish(self, root: Path, *, split: str, written: Sequence[Written]) -> Mapping[str, int]:
        """Write the maps anew, the JSON of the split, and the list of its clips."""
        videos: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        renumbered = 0
        for clip, entries in by_clip(written):
            maps = [root / "panomasksRGB" / clip / entry["map"] for entry in entries]
            infos, others = _write_listed(maps, entries, self.labels, self.numbered_by, clip=clip, format=self.format)
            renumbered += others
            videos.append({"video_id": clip, "images": [entry["image"] for entry in entries]})
            listed = [
                {"image_id": entry["image"]["id"], "file_name": entry["map"], "segments_info": of_frame}
                for entry, of_frame in zip(entries, infos, strict=True)
            ]
            annotations.append({"video_id": clip, "annotations": listed})
        content = {
            "info": {"label_set": self.labels.to_json()},
            "categories": panoptic_categories(self.labels),
            "videos": videos,
            "annotations": annotations,
        }
        path = root / f"panoptic_gt_VIPSeg_{split}.json"
        path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        (root / f"{split}.txt").write_text("".join(f"{one['video_id']}\n" for one in videos), encoding="utf-8")
        return {"renumbered_objects": renumbered}

    def finish_set(self, root: Path) -> None:
        """Nothing: the classes stand in every JSON file."""


def _stem_with_clip(id: str, *, source: Path) -> tuple[str, str]:
    """The clip, without `_`, and a name of the frame that begins with it and `_`."""
    clip, frame = clip_and_frame(id, source=source)
    clip = clip.replace("_", "-")
    return clip, f"{clip}_{frame}"


def _sides(pixels: np.ndarray) -> dict[str, int]:
    return {"width": pixels.shape[1], "height": pixels.shape[0]}


def _write_places(
    path: Path, truth: Annotation, labels: LabelSet, *, source: Path
) -> tuple[list[Region], Counter[str]]:
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
    return [Region(place, *one) for place, one in enumerate(columns, start=1) if one[-1]], +counted


def _track_id(id: int, truth: Annotation, labels: LabelSet) -> int:
    """The track id of an object from which `segments_of` made a segment; of other segments the id they have."""
    instances, index = truth.instances, id - len(labels) - 1
    if instances is None or instances.track_ids is None or not 0 <= index < len(instances):
        return id
    return int(instances.track_ids[index])


def _is_object(one: Region, labels: LabelSet) -> bool:
    return labels.is_thing[one.class_id] and not one.crowd


def _tracks(entry: Mapping[str, Any], labels: LabelSet) -> Iterator[Track]:
    """The objects of a frame."""
    return ((one.id, one.class_id) for one in entry["of"] if _is_object(one, labels))


def _number(one: Region, numbers: Mapping[Track, int], labels: LabelSet) -> int:
    """The number of a segment; 0 of a region that is no object."""
    return numbers[one.id, one.class_id] if _is_object(one, labels) else 0


def _joined(regions: Sequence[Region], labels: LabelSet) -> Counter[str]:
    """How many regions become one with another of their class, where regions that are no objects have no number."""
    classes = Counter((one.class_id, one.crowd) for one in regions if not _is_object(one, labels))
    return Counter(joined_segments=sum(classes.values()) - len(classes))


def _void(labels: LabelSet, *, below: int) -> int:
    """The id on disk of pixels that nobody judges. Raises DataError where there is none so small."""
    return next(id for id in (*labels.void_ids, *range(below)) if 0 <= id < below and id not in labels.native_ids)


def with_ids_below(labels: LabelSet, below: int, *, format: str) -> LabelSet:
    """The same classes with ids on disk below some number, and one for void; those that they have, if so small.

    Raises DataError for more classes than there are ids.
    """
    if len(labels) >= below:
        raise DataError(f"label set '{labels.name}' has {len(labels)} classes; {format} holds {below - 1} and void")
    if not all(0 <= id < below for id in labels.native_ids):
        labels = replace(labels, native_ids=tuple(range(len(labels))), void_ids=())
    if not any(0 <= id < below for id in labels.void_ids):
        void = next(id for id in reversed(range(below)) if id not in labels.native_ids)
        labels = replace(labels, void_ids=(void,))
    return labels


def _translated(
    path: Path, regions: Sequence[Region], value: Callable[[Region], Sequence[int]], *, void: Sequence[int]
) -> np.ndarray:
    """i32 [H, W, C], the values of the segments whose places a map holds; `void` where there is none."""
    places = read_ids(path)
    table = np.empty((int(places.max()) + 1, len(void)), dtype=np.int32)
    table[:] = void
    for one in regions:
        table[one.place] = value(one)
    return table[places]


def _write_rgb(path: Path, channels: np.ndarray) -> None:
    Image.fromarray(channels.astype(np.uint8)).save(path)


def _write_listed(
    maps: Sequence[Path],
    entries: Sequence[Mapping[str, Any]],
    labels: LabelSet,
    numbered_by: int | None,
    *,
    clip: str,
    format: str,
) -> tuple[list[list[dict[str, Any]]], int]:
    """Write the PNGs of a clip; gives the segments of each frame, and how many objects have another number."""
    tracks = tracks_of(_tracks(entry, labels) for entry in entries)
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
    infos: list[list[dict[str, Any]]] = []
    for path, entry in zip(maps, entries, strict=True):

        def id_of(one: Region) -> int:
            return numbers[one.id, one.class_id] if _is_object(one, labels) else plain[one.id, one.class_id, one.crowd]

        write_segment_ids(path, _translated(path, entry["of"], lambda one: (id_of(one),), void=(0,))[..., 0])
        areas: Counter[tuple[int, int, bool]] = Counter()  # a track that a list has twice in a frame is one segment
        for one in entry["of"]:
            areas[id_of(one), labels.native_ids[one.class_id], one.crowd] += one.area
        infos.append(
            [
                {"id": id, "category_id": category, "iscrowd": int(crowd), "area": area}
                for (id, category, crowd), area in areas.items()
            ]
        )
    return infos, renumbered
