"""Cityscapes-VPS: panoptic_gt_SPLIT_city_vps.json, SPLIT/panoptic_video/ with PNGs, SPLIT/img_all/ with images.

The JSON lists the labelled frames, every fifth of those in img_all/ (or img/), and the segments of each; in a PNG
id = R + 256·G + 65536·B is the segment of a pixel, 0 = void, the same in the whole clip. What stands before the first
`_` in the id of an image is its clip. Frames without truth are passed over.

Kim et al., "Video Panoptic Segmentation", CVPR 2020.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pixelwise.data.kinds.clips import ClipFrames, FramesToRepair, folders_in
from pixelwise.data.kinds.coco_json import Entry, read_json
from pixelwise.data.kinds.faults import SplitReport
from pixelwise.data.kinds.folders import in_reading_order, is_there, require_split
from pixelwise.data.kinds.listed_frames import (
    FramePlaces,
    ListedFrames,
    check_listed,
    listed_frames,
    listed_to_repair,
    open_listed,
)
from pixelwise.data.kinds.panoptic_json import panoptic_categories
from pixelwise.data.kinds.segment_clips_writer import _sides, _stem_with_clip, _write_listed, _write_places
from pixelwise.data.kinds.track_clips_writer import by_clip
from pixelwise.data.kinds.writing import Original, Writer, Written, contiguous
from pixelwise.errors import DataError
from pixelwise.files.parallel import Progress
from pixelwise.labels import LabelSet

OPTIONS: Mapping[str, str] = {}

_BEFORE, _AFTER = "panoptic_gt_", "_city_vps.json"
"""What stands around the split in the name of a JSON."""

_IMAGES = ("img_all", "img")

Listed = TypeVar("Listed")


def splits(path: Path, options: Mapping[str, str]) -> tuple[str, ...]:  # noqa: ARG001
    """What stands in the names of the JSON files."""
    found = [file.name.removeprefix(_BEFORE).removesuffix(_AFTER) for file in path.glob(f"{_BEFORE}*{_AFTER}")]
    if not found:
        folders_in(path)  # which says so of a folder that must not be looked into
        raise DataError(f"{path}: not a Cityscapes-VPS folder: no {_BEFORE}SPLIT{_AFTER} in it")
    return in_reading_order(found)


def open_split(path: Path, split: str, options: Mapping[str, str], *, name: str) -> ClipFrames:
    """The labelled frames of one split. Raises DataError for an unusable JSON, or a missing image or PNG."""
    listed = _listed(path, split, options)
    return open_listed(listed, source=json_file(path, split), name=name, format="cityscapes-vps")


def check_split(path: Path, split: str, options: Mapping[str, str], *, workers: int, progress: Progress) -> SplitReport:
    """Look at every entry of the JSON, read every image and every PNG; report every fault."""
    listed = _listed(path, split, options)
    return check_listed(listed, split=split, source=json_file(path, split), workers=workers, progress=progress)


def frames_to_repair(path: Path, split: str, options: Mapping[str, str]) -> FramesToRepair:
    """The labelled frames of one split, with or without faults. Raises DataError for an unusable JSON."""
    return _of_json(path, split, options, listed_to_repair)


def writer(options: Mapping[str, str], source: LabelSet) -> VpsWriter:
    """Writes a set of this format, with the classes of the source as categories."""
    if options:
        raise DataError(f"cityscapes-vps: a new set takes no option {next(iter(options))}")
    return VpsWriter(labels=source if min(source.dataset_ids) >= 0 else contiguous(source))


def json_file(path: Path, split: str) -> Path:
    """The JSON of a split."""
    return path / f"{_BEFORE}{split}{_AFTER}"


def _listed(path: Path, split: str, options: Mapping[str, str]) -> ListedFrames:
    return _of_json(path, split, options, listed_frames)


def _of_json(path: Path, split: str, options: Mapping[str, str], sort_out: Callable[..., Listed]) -> Listed:
    """What `listed_frames` or `listed_to_repair` makes of the JSON of a split."""
    require_split(split, splits(path, options), source=path)
    file = json_file(path, split)
    content, folder = read_json(file), path / split

    def clip_of(image: Entry) -> tuple[str, str]:
        name = str(image["id"])
        return name.partition("_")[0], name

    def image_of(_clip: str, image: Entry) -> Path:
        places = [folder / name / image["file_name"] for name in _IMAGES]
        return next((place for place in places if is_there(place)), places[0])

    def map_of(_clip: str, annotation: Entry) -> Path:
        return folder / "panoptic_video" / annotation["file_name"]

    places = FramePlaces(clip_of, image_of, map_of)
    return sort_out(
        content.images, content.annotations, content.categories, places, source=file, stored=content.label_set
    )


@dataclass(frozen=True)
class VpsWriter(Writer):
    """The format cityscapes-vps. See Writer for the attributes."""

    format: str = "cityscapes-vps"

    def write(self, root: Path, original: Original) -> Written:
        """Write one frame and its map of places, which `finish` makes a PNG of ids. See Writer."""
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
