"""Cityscapes-VPS: panoptic_gt_SPLIT_city_vps.json, SPLIT/panoptic_video/ with PNGs, SPLIT/img_all/ with images.

    PATH/
    ├── panoptic_gt_train_city_vps.json
    └── train/
        ├── img_all/0001_0005_frankfurt_000000_001736_newImg8bit.png
        └── panoptic_video/0001_0005_frankfurt_000000_001736_final_mask.png

The JSON lists the labelled frames, every fifth of those in img_all/ (or img/), and the segments of each; in a PNG
id = R + 256·G + 65536·B is the segment of a pixel, 0 = void, the same in the whole clip. What stands before the first
`_` in the id of an image is its clip. Frames without ground truth are skipped.

Kim et al., "Video Panoptic Segmentation", CVPR 2020.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pixelwise.data.kinds.coco_json import Entry, read_json
from pixelwise.data.kinds.folders import in_reading_order, require_split
from pixelwise.data.kinds.frames import folders_in
from pixelwise.data.kinds.listed_frames import FrameEntries, FramePlaces, listing_of
from pixelwise.data.kinds.panoptic_json import panoptic_categories
from pixelwise.data.kinds.segment_clips_writer import Places, SegmentClipsWriter, stem_with_clip, write_listed
from pixelwise.data.kinds.track_clips_writer import by_clip
from pixelwise.data.kinds.writing import Original, Written, contiguous
from pixelwise.data.listing import Listing
from pixelwise.data.spec import Format
from pixelwise.errors import DataError
from pixelwise.files.lookup import find_file, posix_name
from pixelwise.labels import LabelSet

OPTIONS: Mapping[str, str] = {}

_BEFORE, _AFTER = "panoptic_gt_", "_city_vps.json"
"""What stands around the split in the name of a JSON."""

_IMAGES = ("img_all", "img")


def splits(path: Path, options: Mapping[str, str]) -> tuple[str, ...]:  # noqa: ARG001
    """What stands in the names of the JSON files."""
    found = [file.name.removeprefix(_BEFORE).removesuffix(_AFTER) for file in path.glob(f"{_BEFORE}*{_AFTER}")]
    if not found:
        folders_in(path)  # which says so of a folder that must not be looked into
        raise DataError(f"{path}: not a Cityscapes-VPS folder: no {_BEFORE}SPLIT{_AFTER} in it")
    return in_reading_order(found)


def list_split(path: Path, split: str, options: Mapping[str, str]) -> Listing:
    """The labelled frames of one split. Raises DataError for an unusable JSON."""
    require_split(split, splits(path, options), source=path)
    file = path / f"{_BEFORE}{split}{_AFTER}"
    content, folder = read_json(file), path / split
    places = FramePlaces(_clip_of, partial(_image_of, folder), partial(_map_of, folder))
    entries = FrameEntries(
        content.images, content.annotations, content.categories, places, source=file, stored=content.label_set
    )
    return listing_of(entries, writer)


def _clip_of(image: Entry) -> tuple[str, str]:
    name = str(image["id"])
    return name.partition("_")[0], name


def _image_of(folder: Path, _clip: str, image: Entry) -> Path:
    name = image["file_name"]
    return find_file(name, [folder / inner for inner in _IMAGES]) or folder / _IMAGES[0] / posix_name(name)


def _map_of(folder: Path, _clip: str, annotation: Entry) -> Path:
    name, maps = annotation["file_name"], folder / "panoptic_video"
    return find_file(name, [maps]) or maps / posix_name(name)


def writer(options: Mapping[str, str], source: LabelSet) -> VpsWriter:  # noqa: ARG001
    """Writes a set of this format, with the classes of the source as categories."""
    return VpsWriter(labels=source if min(source.dataset_ids) >= 0 else contiguous(source))


@dataclass(frozen=True)
class VpsWriter(SegmentClipsWriter):
    """The format cityscapes-vps. See Writer for the attributes."""

    format: str = "cityscapes-vps"

    def places(self, root: Path, original: Original) -> Places:  # noqa: ARG002
        """See SegmentClipsWriter."""
        clip, id = stem_with_clip(original.id, source=original.image)
        split = original.split
        return Places(clip, id, f"{split}/img_all/{id}_newImg8bit", f"{split}/panoptic_video/{id}_final_mask.png")

    def finish(self, root: Path, *, split: str, written: Sequence[Written]) -> Mapping[str, int]:
        """Write the maps anew, and the JSON of the split."""
        annotations: list[dict[str, Any]] = []
        renumbered = 0
        for clip, entries in by_clip(written):
            found, others = write_listed(root, entries, self.labels, self.numbered_by, clip=clip, format=self.format)
            renumbered += others
            annotations += found
        content = {
            "info": {"label_set": self.labels.to_json()},
            "categories": panoptic_categories(self.labels),
            "images": [entry["image"] for _, entries in by_clip(written) for entry in entries],
            "annotations": annotations,
        }
        path = root / f"panoptic_gt_{split}_city_vps.json"
        path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        return {"renumbered_objects": renumbered}


FORMAT = Format(OPTIONS, splits, list_split, writer)
