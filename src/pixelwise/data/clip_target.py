"""Writing labelled clips whose frames have a list of objects: DAVIS, YouTube-VIS and MOTS.

Frames are written one by one, perhaps by several processes; the numbers that an object keeps in its whole clip are
given when all are there, in `finish`. What stands before the last `/` in the id of a frame is its clip.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pixelwise.data.folders import labels_toml
from pixelwise.data.frames import number_of
from pixelwise.data.images import read_ids
from pixelwise.data.object_ids import object_colours, painted_ids
from pixelwise.data.pair_target import Original, Written, write_ids
from pixelwise.data.track_numbers import Track, former_numbers, kept_numbers, tracks_of
from pixelwise.errors import DataError
from pixelwise.labels import LabelSet
from pixelwise.types import Annotation, Instances, Masks

_IGNORED = 10_000
"""MOTS's id of regions that nobody judges; class 10."""

MOTS_DIVISOR = 1000
"""Numbers of objects in MOTS are below it; an id is class · 1000 + number."""

_DAVIS_VOID = 255
"""What a mask of DAVIS holds where nobody judges; numbers of objects are below it."""

_LARGEST_ID = 2**31 - 1
"""Largest id of an annotation that other tools take."""


@dataclass(frozen=True)
class DavisTarget:
    """The format davis, with lists as in 2017. See Target for the attributes; `labels` are those of the source.

    Attributes:
        resolution: the folder in JPEGImages/ and Annotations/.
        suffixes: that images may have; the first is that of images encoded anew. Empty: any.
        numbered_by: the divisor in the ids of the truth; see `data.track_numbers`.
    """

    labels: LabelSet
    resolution: str = "480p"
    suffixes: tuple[str, ...] = (".jpg",)
    numbered_by: int | None = None
    format: str = "davis"
    shares_images: bool = True

    def write(self, root: Path, original: Original) -> Written:
        """Write one frame and its mask of places, which `finish` makes one of numbers. See Target.

        Pixels of crowds, and those that nobody judges, are void.
        """
        clip, frame = clip_and_frame(original.id, source=original.image)
        clip, renamed = free_clip(root / "ImageSets" / "2017", clip, original.split)
        place = f"JPEGImages/{self.resolution}/{clip}/{frame}"
        file, losses = original.write_image(root, place, suffixes=self.suffixes)
        instances, masks, tracks = _tracked(original.truth, source=original.image)
        places = [*range(1, len(instances) + 1)]
        ids, lost = painted_ids(instances, places, np.zeros(masks.size, dtype=np.int32), crowds=False)
        void = _crowds(instances, masks)
        if original.truth.semantic is not None:
            void |= original.truth.semantic.numpy() == self.labels.ignore_id
        ids[void & (ids == 0)] = len(instances) + 1
        path = root / "Annotations" / self.resolution / clip / f"{frame}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_ids(path, ids, None)
        whole = instances.crowd is None or ~instances.crowd
        found = [place for place in places if isinstance(whole, bool) or whole[place - 1]]
        classes = sum(is_thing for is_thing in self.labels.is_thing)
        lost = Counter(lost) + Counter(classless_objects=len(found) if classes > 1 else 0)
        lost += Counter(stuff_pixels=_stuff_pixels(original.truth, self.labels), renamed_images=renamed)
        entry = {"clip": clip, "map": path.name, "tracks": [(place, tracks[place - 1]) for place in found]}
        entry["void"] = len(instances) + 1
        return Written(original.name, file, Counter(losses) + lost, entry)

    def finish(self, root: Path, *, split: str, written: Sequence[Written]) -> Mapping[str, int]:
        """Number the objects of each clip, write its masks anew, and the list.

        Raises DataError for more than 254 objects in a clip.
        """
        names: list[str] = []
        renumbered = 0
        for clip, entries in by_clip(written):
            names.append(clip)
            tracks = tracks_of([(id, 0) for _, id in entry["tracks"]] for entry in entries)
            former = former_numbers(tracks, divisor=self.numbered_by)
            numbers, others = kept_numbers(former, largest=_DAVIS_VOID - 1, clip=clip, format=self.format)
            renumbered += others
            for entry in entries:
                path = root / "Annotations" / self.resolution / clip / entry["map"]
                table = np.zeros(entry["void"] + 1, dtype=np.uint8)
                table[-1] = _DAVIS_VOID
                for place, id in entry["tracks"]:
                    table[place] = numbers[id, 0]
                write_ids(path, table[read_ids(path)], object_colours())
        path = root / "ImageSets" / "2017" / f"{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
        return {"renumbered_objects": renumbered}

    def finish_set(self, root: Path) -> None:
        """Take away the list of a set without splits, whose clips all folders tell."""
        lists = sorted((root / "ImageSets" / "2017").glob("*.txt"))
        if [file.stem for file in lists] == ["all"]:
            lists[0].unlink()


@dataclass(frozen=True)
class TrackTarget:
    """The format youtube-vis. See Target for the attributes.

    Attributes:
        numbered_by: the divisor in the ids of the truth; see `data.track_numbers`.
    """

    labels: LabelSet
    numbered_by: int | None = None
    format: str = "youtube-vis"
    shares_images: bool = False

    def write(self, root: Path, original: Original) -> Written:
        """Write one frame; its objects go into the entry, for `finish`. See Target."""
        clip, frame = clip_and_frame(original.id, source=original.image)
        file, losses = original.write_image(root, f"{original.split}/JPEGImages/{clip}/{frame}")
        entry = {
            "clip": clip,
            "file_name": f"{clip}/{Path(file).name}",
            "size": (original.pixels.shape[0], original.pixels.shape[1]),
            "objects": [*_objects(original.truth, source=original.image)],
        }
        lost = Counter(stuff_pixels=_stuff_pixels(original.truth, self.labels))
        lost += Counter(void_pixels_as_class=_void_pixels(original.truth, self.labels))
        return Written(original.name, file, Counter(losses) + lost, entry)

    def finish(self, root: Path, *, split: str, written: Sequence[Written]) -> Mapping[str, int]:
        """Write the JSON of the split. An object has its number as id, unless another clip has it already."""
        clips = dict(by_clip(written))
        videos: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        former: dict[tuple[str, Track], int] = {}
        for clip, entries in clips.items():
            found = tracks_of(_whole_tracks(entry) for entry in entries)
            numbers = former_numbers(found, divisor=self.numbered_by)
            former |= {(clip, track): number for track, number in numbers.items()}
        ids, renumbered = kept_numbers(former, largest=_LARGEST_ID, clip=", ".join(clips), format=self.format)
        free = count(max(ids.values(), default=0) + 1)
        for clip, entries in clips.items():
            height, width = entries[0]["size"]
            names = [entry["file_name"] for entry in entries]
            if any(tuple(entry["size"]) != (height, width) for entry in entries):
                raise DataError(f"clip '{clip}': its frames differ in size; a video of youtube-vis has one")
            videos.append(
                {"id": len(videos) + 1, "height": height, "width": width, "length": len(names), "file_names": names}
            )
            tracks: dict[tuple[int, int, bool], dict[str, Any]] = {}
            for place, entry in enumerate(entries):
                for one in entry["objects"]:
                    track = (one["track"], one["class_id"])
                    key = (*track, one["crowd"])
                    if key not in tracks:
                        tracks[key] = {
                            "id": next(free) if one["crowd"] else ids[clip, track],
                            "video_id": len(videos),
                            "category_id": self.labels.native_ids[one["class_id"]],
                            "iscrowd": int(one["crowd"]),
                            "height": height,
                            "width": width,
                            **{name: [None] * len(names) for name in ("segmentations", "bboxes", "areas")},
                        }
                    for name in ("segmentations", "bboxes", "areas"):
                        tracks[key][name][place] = one[name]
            annotations += tracks.values()
        categories = [
            {"id": id, "name": name, "supercategory": "thing"}
            for index, (id, name) in enumerate(zip(self.labels.native_ids, self.labels.names, strict=True))
            if index != self.labels.background_id
        ]
        content = {
            "info": {"label_set": self.labels.to_json()},
            "videos": videos,
            "categories": categories,
            "annotations": annotations,
        }
        (root / f"{split}.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        return {"renumbered_objects": renumbered}

    def finish_set(self, root: Path) -> None:
        """Nothing: the classes stand in every JSON file."""


@dataclass(frozen=True)
class MotsTarget:
    """The format mots. See Target for the attributes.

    Attributes:
        default: the label set that needs no label file.
        numbered_by: the divisor in the ids of the truth; see `data.track_numbers`.
    """

    labels: LabelSet
    default: LabelSet
    numbered_by: int | None = None
    format: str = "mots"
    shares_images: bool = False

    def write(self, root: Path, original: Original) -> Written:
        """Write one frame; its objects go into the entry, for `finish`. See Target."""
        clip, frame = clip_and_frame(original.id, source=original.image)
        file, losses = original.write_image(root, f"{original.split}/images/{clip}/{frame}")
        number = number_of(frame)
        if number is None:
            raise DataError(f"{original.image}: frame '{original.id}' has no number in its name; mots wants one")
        entry = {
            "clip": clip,
            "number": number,
            "size": (original.pixels.shape[0], original.pixels.shape[1]),
            "objects": [*_objects(original.truth, source=original.image)],
        }
        lost = Counter(stuff_pixels=_stuff_pixels(original.truth, self.labels))
        lost += Counter(void_pixels_as_class=_void_pixels(original.truth, self.labels))
        return Written(original.name, file, Counter(losses) + lost, entry)

    def finish(self, root: Path, *, split: str, written: Sequence[Written]) -> Mapping[str, int]:
        """Write the text of each clip; an id is class · 1000 + number.

        Raises DataError for two frames of one number, or more than 999 objects of a class in a clip.
        """
        renumbered = 0
        for clip, entries in by_clip(written):
            tracks = tracks_of(_whole_tracks(entry) for entry in entries)
            former = former_numbers(tracks, divisor=self.numbered_by, own=self._own)
            groups = {track: track[1] for track in tracks}
            ids, others = kept_numbers(
                former, smallest=0, largest=MOTS_DIVISOR - 1, groups=groups, clip=clip, format=self.format
            )
            renumbered += others
            lines: list[str] = []
            numbers = Counter(entry["number"] for entry in entries)
            if max(numbers.values()) > 1:
                raise DataError(
                    f"clip '{clip}': two frames have the number {numbers.most_common(1)[0][0]}, by which mots tells "
                    "them apart; rename one of them"
                )
            for entry in sorted(entries, key=lambda entry: entry["number"]):
                sides = " ".join(str(side) for side in entry["size"])
                crowds: set[str] = set()
                for one in entry["objects"]:
                    native, runs = self.labels.native_ids[one["class_id"]], one["segmentations"]["counts"]
                    if one["crowd"]:
                        crowds.add(runs)
                        continue
                    id = native * MOTS_DIVISOR + ids[one["track"], one["class_id"]]
                    lines.append(f"{entry['number']} {id} {native} {sides} {runs}\n")
                lines += (
                    f"{entry['number']} {_IGNORED} {_IGNORED // MOTS_DIVISOR} {sides} {runs}\n"
                    for runs in sorted(crowds)
                )
            path = root / split / "instances_txt" / f"{clip}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(lines), encoding="utf-8")
        return {"renumbered_objects": renumbered}

    def _own(self, id: int, class_id: int) -> int | None:
        """The number in an id that this format makes, None in another."""
        native, number = divmod(id, MOTS_DIVISOR)
        return number if native == self.labels.native_ids[class_id] else None

    def finish_set(self, root: Path) -> None:
        """Write labels.toml, if the classes are not those of the format."""
        if self.labels != self.default:
            (root / "labels.toml").write_text(labels_toml(self.labels), encoding="utf-8")


def clip_and_frame(id: str, *, source: Path) -> tuple[str, str]:
    """The clip and the name of a frame, without `/`, and without the clip with which some formats begin it.

    Raises DataError, beginning with `source`, for a frame of no clip.
    """
    clip, _, frame = id.rpartition("/")
    if not clip:
        raise DataError(f"{source}: '{id}' belongs to no clip; a format of clips holds frames of clips alone")
    frame = frame.removeprefix(f"{clip}_") or frame
    clip = clip.replace("/", "_")
    return clip.replace(".", "_") if not clip.strip(".") else clip, frame  # `..` is the folder around


def by_clip(written: Sequence[Written]) -> Iterator[tuple[str, list[Mapping[str, Any]]]]:
    """The clips in the order in which they come, with the entries of their frames."""
    clips: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for one in written:
        clips[one.entry["clip"]].append(one.entry)
    yield from clips.items()


def free_clip(lists: Path, clip: str, split: str) -> tuple[str, bool]:
    """The name of a clip where all splits lie in one place, and whether it is another since an earlier split has it.

    Args:
        lists: the folder of the lists that were written so far, SPLIT.txt.
        clip: its name in the source.
        split: that is being written.
    """
    taken: set[str] = set()
    for file in lists.glob("*.txt"):
        if file.stem != split:
            taken.update(file.read_text(encoding="utf-8").split("\n"))
    return (clip, False) if clip not in taken else (f"{clip}-{split}", True)


def _tracked(truth: Annotation, *, source: Path) -> tuple[Instances, Masks, list[int]]:
    instances = truth.instances
    if instances is None or instances.masks is None or instances.track_ids is None:
        raise DataError(f"{source}: its truth has no objects with masks and track ids")
    return instances, instances.masks, instances.track_ids.tolist()


def _objects(truth: Annotation, *, source: Path) -> Iterator[dict[str, Any]]:
    """The objects as entries of a JSON."""
    instances, masks, tracks = _tracked(truth, source=source)
    crowd = [False] * len(instances) if instances.crowd is None else instances.crowd.tolist()
    runs, areas = masks.to_coco(), masks.areas().tolist()
    for number, (x1, y1, x2, y2) in enumerate(masks.boxes.tolist()):
        if areas[number]:
            yield {
                "track": tracks[number],
                "class_id": int(instances.labels[number]),
                "crowd": crowd[number],
                "segmentations": runs[number],
                "bboxes": [x1, y1, x2 - x1, y2 - y1],
                "areas": areas[number],
            }


def _whole_tracks(entry: Mapping[str, Any]) -> Iterator[Track]:
    """The objects of a frame that are no crowds."""
    return ((one["track"], one["class_id"]) for one in entry["objects"] if not one["crowd"])


def _crowds(instances: Instances, masks: Masks) -> np.ndarray:
    """The pixels of crowds, bool [H, W]."""
    covered = np.zeros(masks.size, dtype=np.bool_)
    for number in [] if instances.crowd is None else instances.crowd.nonzero().flatten().tolist():
        x1, y1, x2, y2 = masks.boxes[number].tolist()
        covered[y1:y2, x1:x2] |= masks.crop(number).numpy() != 0
    return covered


def _covered(truth: Annotation) -> torch.Tensor:
    """The pixels of any object or crowd, bool [H, W]."""
    assert truth.instances is not None
    assert truth.instances.masks is not None
    masks = truth.instances.masks
    covered = torch.zeros(masks.size, dtype=torch.bool)
    for number, (x1, y1, x2, y2) in enumerate(masks.boxes.tolist()):
        covered[y1:y2, x1:x2] |= masks.crop(number).bool()
    return covered


def _stuff_pixels(truth: Annotation, labels: LabelSet) -> int:
    """Pixels of a class that is neither background nor an object's."""
    if truth.semantic is None:
        return 0
    semantic = truth.semantic
    none = semantic == labels.ignore_id
    if labels.background_id is not None:
        none |= semantic == labels.background_id
    return int((~none & ~_covered(truth)).sum())


def _void_pixels(truth: Annotation, labels: LabelSet) -> int:
    """Pixels that nobody judges, and that no crowd covers."""
    return 0 if truth.semantic is None else int(((truth.semantic == labels.ignore_id) & ~_covered(truth)).sum())
