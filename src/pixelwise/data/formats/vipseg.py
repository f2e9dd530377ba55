"""VIPSeg: images/CLIP/*.jpg (or imgs/), with panomasksRGB/ and a JSON for each split, or with panomasks/ and lists.

    PATH/
    ├── panoptic_gt_VIPSeg_train.json    with panomasksRGB/; or train.txt with panomasks/
    ├── panoVIPSeg_categories.json
    ├── images/0_wHkcNd_EXI/00000333.jpg
    ├── panomasksRGB/0_wHkcNd_EXI/00000333.png
    └── panomasks/0_wHkcNd_EXI/00000333.png

- `panoptic_gt_VIPSeg_SPLIT.json` lists clips, frames, segments and categories; in the PNGs of panomasksRGB/CLIP/ id = R
  + 256·G + 65536·B is the segment of a pixel, 0 = void, the same in the whole clip.
- Without such a file `SPLIT.txt` lists clips, and in a PNG of panomasks/CLIP/ 0 is void, a number up to 124 the class
  of stuff, and a larger one that of an object: class · 100 + number. Classes count from 1 there, and from 0 in
  `panoVIPSeg_categories.json`, which tells their names and which are things. A thing without number is one object.

Miao et al., "Large-scale Video Panoptic Segmentation in the Wild: A Benchmark", CVPR 2022.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pixelwise.data.dataset import is_there
from pixelwise.data.kinds.coco_json import Entry
from pixelwise.data.kinds.folders import in_reading_order, require_split
from pixelwise.data.kinds.frames import FramePart, clip_listing, clip_repair, folders_in, pair_clip
from pixelwise.data.kinds.listed_frames import FrameEntries, FramePlaces, listing_of
from pixelwise.data.kinds.panoptic_json import panoptic_categories, panoptic_labels_of
from pixelwise.data.kinds.segment_clips_writer import Places, SegmentClipsWriter, write_listed
from pixelwise.data.kinds.segment_frames import SegmentMap, inspect_map, repaired_map, truth_of_map
from pixelwise.data.kinds.track_clips_writer import by_clip, clip_and_frame, free_clip
from pixelwise.data.kinds.writing import Original, Written, contiguous
from pixelwise.data.listing import Fault, Item, Listing
from pixelwise.data.spec import Format
from pixelwise.data.truth.segments import regions_of_ids
from pixelwise.errors import DataError
from pixelwise.files.images import read_ids
from pixelwise.files.lookup import find_file, posix_name
from pixelwise.files.text import read_json, read_lines
from pixelwise.labels import LabelSet

OPTIONS: Mapping[str, str] = {"masks": "panomasks reads these and the lists, though there are JSON files"}

DIVISOR = 100

_BEFORE = "panoptic_gt_VIPSeg_"
_CATEGORIES = "panoVIPSeg_categories.json"
_IMAGES = ("images", "imgs")


def splits(path: Path, options: Mapping[str, str]) -> tuple[str, ...]:
    """What stands in the names of the JSON files, or the names of the lists."""
    if _has_json(path, options):
        return in_reading_order(file.stem.removeprefix(_BEFORE) for file in path.glob(f"{_BEFORE}*.json"))
    lists = [file.stem for file in path.glob("*.txt") if file.stem in ("train", "val", "test")]
    if not lists or "panomasks" not in folders_in(path):
        raise DataError(
            f"{path}: not a VIPSeg folder: no {_BEFORE}SPLIT.json, and no panomasks/ with train.txt or val.txt in it"
        )
    return in_reading_order(lists)


def list_split(path: Path, split: str, options: Mapping[str, str]) -> Listing:
    """The labelled frames of one split. Raises DataError for an unusable JSON or list."""
    if _has_json(path, options):
        return listing_of(_entries(path, split, options), writer)
    there, labels = set(folders_in(path / "panomasks")), labels_of(path)
    missing = [clip for clip in _clips(path, split, options) if clip not in there]
    items = _paired(path, split, options)
    kept = [item for item in items if item.clip in there]
    read, done = partial(repaired_map, read=read_map), {"missing_clips": len(missing)}
    return clip_listing(
        items,
        labels,
        read=partial(truth_of_map, read=read_map),
        inspect=partial(inspect_map, read=read_map),
        parts=("segment", "segments"),
        source=path / f"{split}.txt",
        faults=[Fault("missing clip", f"clip '{clip}'", "no folder of masks", fatal=False) for clip in missing],
        one_file=True,
        halves=True,
        repair=partial(clip_repair, kept, labels, read, writer, done=done),
    )


def labels_of(path: Path) -> LabelSet:
    """The classes of panoVIPSeg_categories.json, counted from 1 on disk. Raises DataError where it is not usable."""
    file = path / _CATEGORIES
    categories = read_json(file)
    if not isinstance(categories, list) or not all(isinstance(entry, dict) for entry in categories):
        raise DataError(f"{file}: expected a list of categories with id, name and isthing")
    labels, _ = panoptic_labels_of(categories, source=file)
    return replace(labels, name="vipseg", dataset_ids=tuple(id + 1 for id in labels.dataset_ids), void_ids=(0,))


def writer(options: Mapping[str, str], source: LabelSet) -> VipsegWriter:  # noqa: ARG001
    """Writes a set of this format with JSON files, and the classes of the source as categories."""
    return VipsegWriter(labels=source if min(source.dataset_ids) >= 0 else contiguous(source))


def read_map(frame: Item, labels: LabelSet) -> SegmentMap:
    """A map of panomasks/. Raises DataError for an unreadable file."""
    assert frame.truth is not None
    ids = read_ids(frame.truth).astype(np.int32)
    largest = max(labels.dataset_ids)
    class_of = {dataset_id: index for index, dataset_id in enumerate(labels.dataset_ids)}
    regions = regions_of_ids(ids)
    segments: list[FramePart] = []
    faults: list[Fault] = []
    stuff: dict[int, int] = {}
    for id, area in zip(regions.ids.tolist(), regions.areas.tolist(), strict=True):
        dataset_id = id if id <= largest else id // DIVISOR
        where = f"{frame.truth} (frame '{frame.id}'): value {id}"
        if id == 0:
            continue
        if dataset_id not in class_of:
            faults.append(
                Fault("unknown class", where, f"class {dataset_id} ({area:,} pixels) is not in {_CATEGORIES}")
            )
            continue
        name, is_thing = labels.names[class_of[dataset_id]], labels.is_thing[class_of[dataset_id]]
        if is_thing and id <= largest:
            text = f"{area:,} pixels of {name}, a class with instances, have no instance id"
            faults.append(Fault("thing without instance", where, text))
        elif not is_thing and id > largest:
            text = f"{area:,} pixels of {name}, a class without instances, have a number; expected {dataset_id}"
            faults.append(Fault("number of stuff", where, text))
            stuff[id] = dataset_id
            continue
        segments.append(FramePart(id, dataset_id, area=area))
    known = {one.id for one in segments}
    for id, dataset_id in stuff.items():
        ids = np.where(ids == id, dataset_id, ids)
        segments += [FramePart(dataset_id, dataset_id)] if dataset_id not in known else []
        known.add(dataset_id)
    ids = np.where(np.isin(ids, list(known)), ids, 0)
    return SegmentMap(ids, tuple(segments), tuple(faults))


def _has_json(path: Path, options: Mapping[str, str]) -> bool:
    masks = options.get("masks")
    if masks not in (None, "panomasks", "panomasksRGB"):
        raise DataError(f"vipseg: masks={masks}; expected panomasks or panomasksRGB")
    return masks != "panomasks" and any(path.glob(f"{_BEFORE}*.json"))


def _images(path: Path) -> Path:
    found = next((path / name for name in _IMAGES if (path / name).is_dir()), None)
    if found is None:
        raise DataError(f"{path}: not a VIPSeg folder: images/ is missing")
    return found


def _clips(path: Path, split: str, options: Mapping[str, str]) -> tuple[str, ...]:
    require_split(split, splits(path, options), source=path)
    file = path / f"{split}.txt"
    return tuple(line.strip() for line in read_lines(file, expected="one clip a line") if line.strip())


def _paired(path: Path, split: str, options: Mapping[str, str]) -> tuple[Item, ...]:
    images, maps = _images(path), path / "panomasks"
    clips = _clips(path, split, options)
    return tuple(frame for clip in clips for frame in pair_clip(clip, images / clip, maps / clip))


def _entries(path: Path, split: str, options: Mapping[str, str]) -> FrameEntries:
    """The entries of the JSON of a split."""
    require_split(split, splits(path, options), source=path)
    file, folder = path / f"{_BEFORE}{split}.json", _images(path)
    content = read_json(file)
    if not isinstance(content, dict) or not isinstance(content.get("categories"), list):
        raise DataError(f"{file}: expected an object with videos, annotations and categories")
    info = content.get("info")
    return FrameEntries(
        [*_flat(content, "videos", "images", "id", file)],
        [*_flat(content, "annotations", "annotations", "image_id", file)],
        content["categories"],
        FramePlaces(_clip_of, partial(_image_of, folder), partial(_map_of, path / "panomasksRGB")),
        source=file,
        stored=info.get("label_set") if isinstance(info, dict) else None,
    )


def _clip_of(image: Entry) -> tuple[str, str]:
    return image["clip"], image["name"]


def _image_of(folder: Path, clip: str, image: Entry) -> Path:
    name = Path(posix_name(image["file_name"])).name
    place = find_file(name, [folder / clip]) or folder / clip / name
    others = (place.with_suffix(suffix) for suffix in (".jpg", ".png", ".jpeg"))
    return next((other for other in (place, *others) if is_there(other)), place)


def _map_of(folder: Path, clip: str, annotation: Entry) -> Path:
    name = Path(posix_name(annotation["file_name"])).with_suffix(".png").name
    return find_file(name, [folder / clip]) or folder / clip / name


def _flat(content: Mapping[str, Any], clips: str, entries: str, key: str, file: Path) -> Iterator[dict[str, Any]]:
    """The entries of all clips, whose ids and files begin with their clip. Raises DataError for another layout."""
    groups = content.get(clips)
    for group in groups if isinstance(groups, Sequence) else ():
        found = group.get(entries) if isinstance(group, dict) else None
        if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
            raise DataError(f"{file}: {clips} are objects with video_id and a list {entries} of objects")
        clip = str(group.get("video_id"))
        for entry in found:
            name = entry.get("file_name")
            yield {
                **entry,
                key: f"{clip}/{entry.get(key)}",
                "file_name": f"{clip}/{name}" if isinstance(name, str) and name else name,
                "clip": clip,
                "name": str(entry.get(key)),
            }


@dataclass(frozen=True)
class VipsegWriter(SegmentClipsWriter):
    """The format vipseg, with panomasksRGB/, JSON files and lists. See Writer for the attributes."""

    format: str = "vipseg"
    shares_images: bool = True

    def places(self, root: Path, original: Original) -> Places:
        """See SegmentClipsWriter."""
        clip, frame = clip_and_frame(original.id, source=original.image)
        clip, renamed = free_clip(root, clip, original.split)
        return Places(clip, frame, f"images/{clip}/{frame}", f"panomasksRGB/{clip}/{frame}.png", renamed)

    def finish(self, root: Path, *, split: str, written: Sequence[Written]) -> Mapping[str, int]:
        """Write the maps anew, the JSON of the split, and the list of its clips."""
        videos: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        renumbered = 0
        for clip, entries in by_clip(written):
            found, others = write_listed(root, entries, self.labels, self.numbered_by, clip=clip, format=self.format)
            renumbered += others
            videos.append({"video_id": clip, "images": [entry["image"] for entry in entries]})
            annotations.append({"video_id": clip, "annotations": found})
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


FORMAT = Format(OPTIONS, splits, list_split, writer)
