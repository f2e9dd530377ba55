"""YouTube-VIS: SPLIT.json, SPLIT/instances.json or annotations/…SPLIT.json, and SPLIT/JPEGImages/CLIP/*.jpg.

    PATH/
    ├── train.json                            or train/instances.json
    └── train/JPEGImages/0043f083b5/00000.jpg

The JSON has `videos` (id, width, height, file_names), `categories` as COCO's, and `annotations`, one for each object of
a video: `segmentations` has an RLE or polygons for each frame, null where the object is not seen. The id of an
annotation is the number of its object in the whole clip. `valid` is called `val` here, too.

The ground truth is the objects and, painted from them, the class of each pixel; what no object covers is `background`.

Yang et al., "Video Instance Segmentation", ICCV 2019.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from pixelwise.data.formats.coco.json import labels_of as labels_of_categories
from pixelwise.data.formats.coco.writer import coco_labels
from pixelwise.data.kinds.coco_json import Entry, is_integer
from pixelwise.data.kinds.folders import in_reading_order, require_split
from pixelwise.data.kinds.frames import (
    LARGEST_TRACK_ID,
    FramePart,
    clip_listing,
    clip_repair,
    folders_in,
    frame_item,
)
from pixelwise.data.kinds.track_clips_writer import ObjectClipsWriter, by_clip, whole_tracks
from pixelwise.data.kinds.track_frames import inspect_parts, repaired_parts, truth_of_parts
from pixelwise.data.kinds.writing import Original, Written
from pixelwise.data.listing import Fault, Item, Listing, Repair
from pixelwise.data.spec import Format
from pixelwise.data.truth.track_ids import Track, former_numbers, kept_numbers, tracks_of
from pixelwise.errors import DataError
from pixelwise.files.lookup import find_file, posix_name
from pixelwise.files.text import read_json
from pixelwise.labels import LabelSet

OPTIONS: Mapping[str, str] = {
    "annotations": "a JSON file in the folder",
    "images": "the folder of the clips, instead of SPLIT/JPEGImages/",
}

_PREFIXES = ("instances_", "youtube_vis_2019_", "youtube_vis_2021_", "ytvis_")
"""What may stand before the split in names in annotations/."""


def splits(path: Path, options: Mapping[str, str]) -> tuple[str, ...]:
    """The splits that have a JSON; `all` where one is named."""
    if "annotations" in options:
        return ("all",)
    found = _files(path)
    if not found:
        folders_in(path)  # which says so of a folder that must not be looked into
        raise DataError(
            f"{path}: not a YouTube-VIS folder: no SPLIT.json, such as train.json, and no SPLIT/instances.json"
        )
    return in_reading_order(found)


def list_split(path: Path, split: str, options: Mapping[str, str]) -> Listing:
    """The frames of one JSON. Raises DataError for an unusable JSON."""
    file = _file(path, split, options)
    content = _read(file)
    labels, class_of = _labels(content, file)
    faults: list[Fault] = []
    videos: dict[Any, Entry] = {}
    for video in content["videos"]:
        fault = _video_fault(video)
        if fault is None and video["id"] in videos:
            fault = Fault("repeated id", f"video {video['id']}", "another video has the same id", True, video)
        if fault is not None:
            faults.append(fault)
        else:
            videos[video["id"]] = video
    seen: set[int] = set()
    annotations: list[Entry] = []
    for annotation in content["annotations"]:
        found = [*_annotation_faults(annotation, videos, class_of, seen)]
        faults += found
        if not any(fault.fatal for fault in found):
            seen.add(annotation["id"])
            annotations.append(annotation)
    folder = _image_folder(path, split, options, videos.values())
    return clip_listing(
        _frames_of(videos, annotations, folder, file),
        labels,
        read=truth_of_parts,
        inspect=inspect_parts,
        source=file,
        faults=faults,
        one_file=True,
        repair=partial(_repair, path, split, dict(options)),
    )


def writer(options: Mapping[str, str], source: LabelSet) -> TrackWriter:  # noqa: ARG001
    """Writes a set of this format: SPLIT.json and SPLIT/JPEGImages/CLIP/."""
    return TrackWriter(labels=coco_labels(source))


def _repair(path: Path, split: str, options: Mapping[str, str]) -> Repair:
    """What of the JSON of a split can be used."""
    file = _file(path, split, options)
    content = _read(file)
    labels, class_of = _labels(content, file)
    done: Counter[str] = Counter()
    videos: dict[Any, Entry] = {}
    for video in content["videos"]:
        names = video.get("file_names")
        if isinstance(names, list) and video.get("length", len(names)) != len(names):
            done["lengths"] += 1
            video = {**video, "length": len(names)}
        if _video_fault(video) is None and video["id"] not in videos:
            videos[video["id"]] = video
        else:
            done["videos"] += 1
    whole = [one["id"] for one in content["annotations"] if _is_track_id(one.get("id"))]
    free, seen = count(min(max(whole, default=0), 2**31) + 1), set[int]()
    annotations: list[Entry] = []
    for annotation in content["annotations"]:
        id = annotation.get("id")
        repaired = annotation
        if not _is_track_id(id) or id in seen:
            repaired = {**annotation, "id": next(number for number in free if number not in whole)}
        if any(fault.fatal for fault in _annotation_faults(repaired, videos, class_of, seen)):
            done["tracks"] += 1
            continue
        done["ids"] += repaired is not annotation
        seen.add(repaired["id"])
        annotations.append(repaired)
    folder = _image_folder(path, split, options, videos.values())
    return clip_repair(_frames_of(videos, annotations, folder, file), labels, repaired_parts, writer, done=done)


def _labels(content: Mapping[str, Any], file: Path) -> tuple[LabelSet, dict[int, int]]:
    stored = content["info"].get("label_set") if isinstance(content.get("info"), dict) else None
    return labels_of_categories(content["categories"], source=file, stored=stored)


def _frames_of(videos: Mapping[Any, Entry], annotations: Iterable[Entry], folder: Path, file: Path) -> tuple[Item, ...]:
    """The frames of sound videos, clip by clip, with the objects of sound annotations."""
    shapes: dict[Any, list[list[FramePart]]] = {id: [[] for _ in video["file_names"]] for id, video in videos.items()}
    for annotation in annotations:
        areas = annotation.get("areas")
        for place, segmentation in enumerate(annotation["segmentations"]):
            if segmentation:
                area = areas[place] if isinstance(areas, list) and place < len(areas) else None
                one = FramePart(
                    annotation["id"],
                    annotation["category_id"],
                    bool(annotation.get("iscrowd", 0)),
                    area=float(area) if isinstance(area, int | float) else None,
                    segmentation=segmentation,
                )
                shapes[annotation["video_id"]][place].append(one)
    return tuple(
        frame_item(
            _clip(video),
            Path(posix_name(name)).stem,
            find_file(name, [folder]) or folder / posix_name(name),
            file,
            size_hw=(video["height"], video["width"]),
            extra=tuple(of_frame),
        )
        for video in sorted(videos.values(), key=_clip)
        for name, of_frame in zip(video["file_names"], shapes[video["id"]], strict=True)
    )


def _is_track_id(id: Any) -> bool:
    return is_integer(id) and 0 <= id <= LARGEST_TRACK_ID


def _clip(video: Entry) -> str:
    first = posix_name(video["file_names"][0])
    return first.rpartition("/")[0] if "/" in first else str(video["id"])


def _video_fault(video: Entry) -> Fault | None:
    id, names = video.get("id"), video.get("file_names")
    where = f"video {id}"
    if not isinstance(id, int | str):
        return Fault("video entry", where, "expected an id", True, video)
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        return Fault("video entry", where, "expected a list file_names of its frames", True, video)
    if not all(is_integer(video.get(side)) and video[side] > 0 for side in ("height", "width")):
        text = f"height {video.get('height')}, width {video.get('width')}; expected whole numbers of pixels"
        return Fault("video entry", where, text, True, video)
    if video.get("length", len(names)) != len(names):
        text = f"its length is {video['length']}, it has {len(names)} file_names"
        return Fault("length", where, text, True, video)
    return None


def _annotation_faults(
    annotation: Entry, videos: Mapping[Any, Entry], class_of: Mapping[int, int], seen: set[int]
) -> Iterator[Fault]:
    id, video_id, category_id = (annotation.get(name) for name in ("id", "video_id", "category_id"))
    where = f"annotation {id} (video {video_id})"
    segmentations = annotation.get("segmentations")
    if not _is_track_id(id):
        text = f"its id is {id!r}; expected a whole number from 0 to 2⁶³ - 1"
        yield Fault("annotation entry", where, text, True, annotation)
    elif id in seen:
        yield Fault("repeated id", where, "another annotation has the same id", True, annotation)
    if not isinstance(video_id, int | str) or video_id not in videos:
        yield Fault("unknown video", where, f"video {video_id} is not in videos", True, annotation)
    elif not isinstance(segmentations, list):
        yield Fault("annotation entry", where, "expected a list segmentations, one for each frame", True, annotation)
    elif len(segmentations) != len(videos[video_id]["file_names"]):
        text = f"{len(segmentations)} segmentations, the video has {len(videos[video_id]['file_names'])} frames"
        yield Fault("length", where, text, True, annotation)
    elif not any(segmentations):
        yield Fault("object without pixels", where, "it has no segmentation in any frame", False, annotation)
    if annotation.get("iscrowd", 0) not in (0, 1):
        text = f"iscrowd is {annotation['iscrowd']!r}; expected 0 or 1"
        yield Fault("annotation entry", where, text, True, annotation)
    if not is_integer(category_id) or category_id not in class_of:
        yield Fault("unknown category", where, f"category {category_id} is not in categories", True, annotation)


def _read(file: Path) -> Mapping[str, Any]:
    """The content. Raises DataError when it has no lists of videos, annotations and categories."""
    content = read_json(file)
    for name in ("videos", "annotations", "categories"):
        values = content.get(name) if isinstance(content, dict) else None
        if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
            raise DataError(f"{file}: no list '{name}' of objects; expected videos, annotations and categories")
    return content


def _files(path: Path) -> dict[str, Path]:
    """The JSON of each split."""
    found = {file.stem: file for file in path.glob("*.json")}
    found |= {file.parent.name: file for file in path.glob("*/instances.json")}
    for file in path.glob("annotations/*.json"):
        prefix = next((prefix for prefix in _PREFIXES if file.stem.startswith(prefix)), "")
        found.setdefault(file.stem.removeprefix(prefix), file)
    if "val" not in found and "valid" in found:
        found["val"] = found.pop("valid")
    return found


def _file(path: Path, split: str, options: Mapping[str, str]) -> Path:
    if "annotations" in options:
        return path / options["annotations"]
    found = _files(path)
    if split == "valid" and "val" in found:
        return found["val"]
    require_split(split, splits(path, options), source=path)
    return found[split]


def _image_folder(path: Path, split: str, options: Mapping[str, str], videos: Any) -> Path:
    if "images" in options:
        return path / options["images"]
    names = (split, "valid") if split == "val" else (split,)
    roots = [path / name for name in names] + [path]
    places = [place for root in roots for place in (root / "JPEGImages", root)]
    first: Sequence[str] = next((video["file_names"] for video in videos), ())
    return next((place for place in places if first and find_file(first[0], [place])), places[0])


_LARGEST_ID = 2**31 - 1
"""Largest id of an annotation that other tools take."""


@dataclass(frozen=True)
class TrackWriter(ObjectClipsWriter):
    """The format youtube-vis. See Writer for the attributes."""

    format: str = "youtube-vis"

    def place(self, original: Original, clip: str, frame: str) -> str:
        """See ObjectClipsWriter."""
        return f"{original.split}/JPEGImages/{clip}/{frame}"

    def finish(self, root: Path, *, split: str, written: Sequence[Written]) -> Mapping[str, int]:
        """Write the JSON of the split. An object has its number as id, unless another clip has it already."""
        clips = dict(by_clip(written))
        videos: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        former: dict[tuple[str, Track], int] = {}
        for clip, entries in clips.items():
            found = tracks_of(whole_tracks(entry) for entry in entries)
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
                            "category_id": self.labels.dataset_ids[one["class_id"]],
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
            for index, (id, name) in enumerate(zip(self.labels.dataset_ids, self.labels.names, strict=True))
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


FORMAT = Format(OPTIONS, splits, list_split, writer)
