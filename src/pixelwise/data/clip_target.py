"""Writing labelled clips: KITTI-STEP, Cityscapes-VPS, DAVIS, YouTube-VIS and MOTS.

Frames are written one by one, perhaps by several processes; the numbers that an object keeps in its whole clip are
given when all are there, in `finish`. What stands before the last `/` in the id of a frame is its clip.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from pixelwise.data.folders import labels_toml
from pixelwise.data.frames import number_of
from pixelwise.data.object_ids import object_colours, painted_ids
from pixelwise.data.pair_target import Written, write_ids, write_image
from pixelwise.data.panoptic_json import panoptic_categories
from pixelwise.data.panoptic_maps import read_segment_ids, write_segment_ids
from pixelwise.data.panoptic_target import segments_of, within_24_bits
from pixelwise.data.segments import regions_of_ids
from pixelwise.errors import DataError
from pixelwise.labels import LabelSet
from pixelwise.types import Annotation, Instances, Masks

_IGNORED = 10_000
"""MOTS's id of regions that nobody judges; class 10."""


@dataclass(frozen=True)
class StepTarget:
    """The format kitti-step. See Target for the attributes.

    Attributes:
        default: the label set that needs no label file.
    """

    labels: LabelSet
    default: LabelSet
    format: str = "kitti-step"
    shares_images: bool = False

    def write(
        self,
        root: Path,
        *,
        split: str,
        name: str,
        id: str,
        image: Path,
        pixels: UInt8[np.ndarray, "H W 3"],
        truth: Annotation,
        upright: bool = False,
    ) -> Written:
        """Write one frame and its map of segment ids, which `finish` makes one of classes and numbers. See Target."""
        clip, frame = clip_and_frame(id, source=image)
        file, losses = write_image(root, f"images/{split}/{clip}/{frame}", image, pixels, upright=upright)
        path = root / "panoptic_maps" / split / clip / f"{frame}.png"
        segments, lost = _write_map(path, truth, self.labels, source=image)
        joined = Counter((class_id, crowd) for _, class_id, crowd in segments if self._is_region(class_id, crowd=crowd))
        lost = Counter(lost) + Counter(joined_segments=sum(joined.values()) - len(joined))
        return Written(name, file, Counter(losses) + lost, {"clip": clip, "map": path.name, "segments": segments})

    def finish(self, root: Path, *, split: str, written: Sequence[Written]) -> None:
        """Number the objects of each clip, and write its maps anew. Raises DataError for more than 65535 in a clip."""
        for clip, entries in _by_clip(written):
            numbers: dict[int, int] = {}
            for entry in entries:
                for id, class_id, crowd in entry["segments"]:
                    if not self._is_region(class_id, crowd=crowd):
                        numbers.setdefault(id, len(numbers) + 1)
            if len(numbers) > 65535:
                raise DataError(f"clip '{clip}': {len(numbers):,} objects; kitti-step holds 65,535 in a clip")
            for entry in entries:
                path = root / "panoptic_maps" / split / clip / entry["map"]
                values = {
                    id: (self.labels.native_ids[class_id], *divmod(numbers.get(id, 0), 256))
                    for id, class_id, _ in entry["segments"]
                }
                Image.fromarray(_translated(read_segment_ids(path), values, void=(self._void(), 0, 0))).save(path)

    def finish_set(self, root: Path) -> None:
        """Write labels.toml, if the classes are not those of the format."""
        if self.labels != self.default:
            (root / "labels.toml").write_text(labels_toml(self.labels), encoding="utf-8")

    def _is_region(self, class_id: int, *, crowd: bool) -> bool:
        return crowd or not self.labels.is_thing[class_id]

    def _void(self) -> int:
        return next((id for id in self.labels.void_ids if 0 <= id <= 255), 255)


@dataclass(frozen=True)
class VpsTarget:
    """The format cityscapes-vps. See Target for the attributes."""

    labels: LabelSet
    format: str = "cityscapes-vps"
    shares_images: bool = False

    def write(
        self,
        root: Path,
        *,
        split: str,
        name: str,
        id: str,
        image: Path,
        pixels: UInt8[np.ndarray, "H W 3"],
        truth: Annotation,
        upright: bool = False,
    ) -> Written:
        """Write one frame and its PNG; its segments go into the entry, for `finish`. See Target."""
        clip, frame = clip_and_frame(id, source=image)
        clip = clip.replace("_", "-")
        image_id = frame if frame.startswith(f"{clip}_") else f"{clip}_{frame}"
        file, losses = write_image(root, f"{split}/img_all/{image_id}_newImg8bit", image, pixels, upright=upright)
        path = root / split / "panoptic_video" / f"{image_id}_final_mask.png"
        segments, lost = _write_map(path, truth, self.labels, source=image)
        regions = regions_of_ids(read_segment_ids(path))
        area = dict(zip(regions.ids.tolist(), regions.areas.tolist(), strict=True))
        entry = {
            "image": {
                "id": image_id,
                "width": pixels.shape[1],
                "height": pixels.shape[0],
                "file_name": Path(file).name,
            },
            "annotation": {
                "image_id": image_id,
                "file_name": path.name,
                "segments_info": [
                    {"id": id, "category_id": self.labels.native_ids[one], "iscrowd": int(crowd), "area": area[id]}
                    for id, one, crowd in segments
                ],
            },
        }
        return Written(name, file, Counter(losses) + Counter(lost), entry)

    def finish(self, root: Path, *, split: str, written: Sequence[Written]) -> None:
        """Write the JSON of the split."""
        content = {
            "info": {"label_set": self.labels.to_json()},
            "categories": panoptic_categories(self.labels),
            "images": [one.entry["image"] for one in written],
            "annotations": [one.entry["annotation"] for one in written],
        }
        path = root / f"panoptic_gt_{split}_city_vps.json"
        path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")

    def finish_set(self, root: Path) -> None:
        """Nothing: the classes stand in every JSON file."""


@dataclass(frozen=True)
class DavisTarget:
    """The format davis, with lists as in 2017. See Target for the attributes; `labels` are those of the source."""

    labels: LabelSet
    format: str = "davis"
    shares_images: bool = True

    def write(
        self,
        root: Path,
        *,
        split: str,  # noqa: ARG002
        name: str,
        id: str,
        image: Path,
        pixels: UInt8[np.ndarray, "H W 3"],
        truth: Annotation,
        upright: bool = False,
    ) -> Written:
        """Write one frame and its mask of track ids, which `finish` counts from 1. See Target."""
        clip, frame = clip_and_frame(id, source=image)
        place = f"JPEGImages/480p/{clip}/{frame}"
        file, losses = write_image(root, place, image, pixels, suffixes=(".jpg",), upright=upright)
        instances, masks, tracks = _tracked(truth, source=image)
        numbers = [*range(1, len(instances) + 1)]
        ids, lost = painted_ids(instances, numbers, np.zeros(masks.size, dtype=np.int32), crowds=False)
        path = root / "Annotations" / "480p" / clip / f"{frame}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_segment_ids(path, ids)
        whole = instances.crowd is None or ~instances.crowd
        found = [number for number in numbers if isinstance(whole, bool) or whole[number - 1]]
        classes = sum(is_thing for is_thing in self.labels.is_thing)
        lost = Counter(lost) + Counter(classless_objects=len(found) if classes > 1 else 0)
        lost += Counter(stuff_pixels=_stuff_pixels(truth, self.labels))
        entry = {"clip": clip, "map": path.name, "tracks": [(number, tracks[number - 1]) for number in found]}
        return Written(name, file, Counter(losses) + lost, entry)

    def finish(self, root: Path, *, split: str, written: Sequence[Written]) -> None:
        """Number the objects of each clip, write its masks anew, and the list.

        Raises DataError for more than 254 objects in a clip.
        """
        names: list[str] = []
        for clip, entries in _by_clip(written):
            names.append(clip)
            numbers: dict[int, int] = {}
            for entry in entries:
                for _, track in entry["tracks"]:
                    numbers.setdefault(track, len(numbers) + 1)
            if len(numbers) > 254:
                raise DataError(f"clip '{clip}': {len(numbers):,} objects; a mask of DAVIS holds 254")
            for entry in entries:
                path = root / "Annotations" / "480p" / clip / entry["map"]
                values = {number: (numbers[track],) for number, track in entry["tracks"]}
                write_ids(path, _translated(read_segment_ids(path), values, void=(0,))[..., 0], object_colours())
        path = root / "ImageSets" / "2017" / f"{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")

    def finish_set(self, root: Path) -> None:
        """Nothing: there is one class."""


@dataclass(frozen=True)
class TrackTarget:
    """The format youtube-vis. See Target for the attributes."""

    labels: LabelSet
    format: str = "youtube-vis"
    shares_images: bool = False

    def write(
        self,
        root: Path,
        *,
        split: str,
        name: str,
        id: str,
        image: Path,
        pixels: UInt8[np.ndarray, "H W 3"],
        truth: Annotation,
        upright: bool = False,
    ) -> Written:
        """Write one frame; its objects go into the entry, for `finish`. See Target."""
        clip, frame = clip_and_frame(id, source=image)
        file, losses = write_image(root, f"{split}/JPEGImages/{clip}/{frame}", image, pixels, upright=upright)
        entry = {
            "clip": clip,
            "file_name": f"{clip}/{Path(file).name}",
            "size": (pixels.shape[0], pixels.shape[1]),
            "objects": [*_objects(truth, source=image)],
        }
        lost = Counter(stuff_pixels=_stuff_pixels(truth, self.labels))
        lost += Counter(void_pixels_as_class=_void_pixels(truth, self.labels))
        return Written(name, file, Counter(losses) + lost, entry)

    def finish(self, root: Path, *, split: str, written: Sequence[Written]) -> None:
        """Write the JSON of the split."""
        videos: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for clip, entries in _by_clip(written):
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
                    key = (one["track"], one["class_id"], one["crowd"])
                    if key not in tracks:
                        tracks[key] = {
                            "id": len(annotations) + len(tracks) + 1,
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

    def finish_set(self, root: Path) -> None:
        """Nothing: the classes stand in every JSON file."""


@dataclass(frozen=True)
class MotsTarget:
    """The format mots. See Target for the attributes.

    Attributes:
        default: the label set that needs no label file.
    """

    labels: LabelSet
    default: LabelSet
    format: str = "mots"
    shares_images: bool = False

    def write(
        self,
        root: Path,
        *,
        split: str,
        name: str,
        id: str,
        image: Path,
        pixels: UInt8[np.ndarray, "H W 3"],
        truth: Annotation,
        upright: bool = False,
    ) -> Written:
        """Write one frame; its objects go into the entry, for `finish`. See Target."""
        clip, frame = clip_and_frame(id, source=image)
        file, losses = write_image(root, f"{split}/images/{clip}/{frame}", image, pixels, upright=upright)
        number = number_of(frame)
        if number is None:
            raise DataError(f"{image}: frame '{id}' has no number in its name; mots wants one")
        entry = {
            "clip": clip,
            "number": number,
            "size": (pixels.shape[0], pixels.shape[1]),
            "objects": [*_objects(truth, source=image)],
        }
        lost = Counter(stuff_pixels=_stuff_pixels(truth, self.labels))
        lost += Counter(void_pixels_as_class=_void_pixels(truth, self.labels))
        return Written(name, file, Counter(losses) + lost, entry)

    def finish(self, root: Path, *, split: str, written: Sequence[Written]) -> None:
        """Write the text of each clip; an id is class · 1000 + number.

        Raises DataError for two frames of one number, or more than 999 objects of a class in a clip.
        """
        for clip, entries in _by_clip(written):
            ids: dict[tuple[int, int], int] = {}
            counted: Counter[int] = Counter()
            lines: list[str] = []
            numbers = Counter(entry["number"] for entry in entries)
            if max(numbers.values()) > 1:
                raise DataError(f"clip '{clip}': two frames have the number {numbers.most_common(1)[0][0]}")
            for entry in sorted(entries, key=lambda entry: entry["number"]):
                sides = " ".join(str(side) for side in entry["size"])
                crowds: set[str] = set()
                for one in entry["objects"]:
                    native, runs = self.labels.native_ids[one["class_id"]], one["segmentations"]["counts"]
                    key = (one["track"], native)
                    if one["crowd"]:
                        crowds.add(runs)
                        continue
                    if key not in ids:
                        counted[native] += 1
                        ids[key] = native * 1000 + counted[native]
                    lines.append(f"{entry['number']} {ids[key]} {native} {sides} {runs}\n")
                lines += (
                    f"{entry['number']} {_IGNORED} {_IGNORED // 1000} {sides} {runs}\n" for runs in sorted(crowds)
                )
            if max(counted.values(), default=0) > 999:
                raise DataError(f"clip '{clip}': more than 999 objects of a class; mots holds no more in a clip")
            path = root / split / "instances_txt" / f"{clip}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(lines), encoding="utf-8")

    def finish_set(self, root: Path) -> None:
        """Write labels.toml, if the classes are not those of the format."""
        if self.labels != self.default:
            (root / "labels.toml").write_text(labels_toml(self.labels), encoding="utf-8")


def clip_and_frame(id: str, *, source: Path) -> tuple[str, str]:
    """The clip and the name of a frame, without `/`. Raises DataError, beginning with `source`, for one of no clip."""
    clip, _, frame = id.rpartition("/")
    if not clip:
        raise DataError(f"{source}: '{id}' belongs to no clip; a format of clips holds frames of clips alone")
    return clip.replace("/", "_"), frame


def _by_clip(written: Sequence[Written]) -> Iterator[tuple[str, list[Mapping[str, Any]]]]:
    clips: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for one in written:
        clips[one.entry["clip"]].append(one.entry)
    yield from clips.items()


def _write_map(
    path: Path, truth: Annotation, labels: LabelSet, *, source: Path
) -> tuple[list[tuple[int, int, bool]], dict[str, int]]:
    """Write segment ids as a PNG of COCO's; the segments that have pixels (id, class, crowd), and what is lost."""
    panoptic, lost = segments_of(truth, labels, source=source)
    panoptic, renumbered = within_24_bits(panoptic)
    if renumbered:
        raise DataError(f"{source}: segment ids above {2**24 - 1:,}, which must hold in the whole clip")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_segment_ids(path, panoptic.ids.numpy())
    columns = (panoptic.segment_ids, panoptic.labels, panoptic.crowd, panoptic.areas())
    found = zip(*(column.tolist() for column in columns), strict=True)
    return [(id, class_id, crowd) for id, class_id, crowd, area in found if area], lost


def _translated(ids: np.ndarray, values: Mapping[int, Sequence[int]], *, void: Sequence[int]) -> np.ndarray:
    """u8 [H, W, C], the values of each id; `void` of an id without."""
    known, places = np.unique(ids, return_inverse=True)
    table = np.array([values.get(int(id), void) for id in known], dtype=np.uint8)
    return table[places.reshape(ids.shape)]


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
