"""Cityscapes-DVPS: all files of a split in one folder, video_sequence/SPLIT/ or SPLIT/.

    PATH/
    └── video_sequence/train/
        ├── 000000_000000_munster_000168_000004_leftImg8bit.png
        └── 000000_000000_munster_000168_000004_gtFine_instanceTrainIds.png

`CLIP_FRAME_CITY_…_leftImg8bit.png` is an image and `…_gtFine_instanceTrainIds.png` its map of 16 bits, in which a
number is class · 1000 + object. The classes are the 19 of Cityscapes by train id; 32 and 255 are void. Objects are
numbered class by class, in the whole clip; number 0 of a thing is a crowd. The segment id is (class + 1) · 1000 +
number. Depth maps are skipped. `?labels=` names another label set.

Qiao et al., "ViP-DeepLab: Learning Visual Perception with Depth-aware Video Panoptic Segmentation", CVPR 2021.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import numpy as np

from pixelwise.data.kinds.folders import by_stem, in_reading_order, labels_for, require_split
from pixelwise.data.kinds.frames import clip_listing, clip_repair, folders_in, frame_item, in_time
from pixelwise.data.kinds.segment_clips_writer import NumberedMapsWriter, Places, stem_with_clip, with_ids_below
from pixelwise.data.kinds.segment_frames import SegmentMap, inspect_map, numbered_map, repaired_map, truth_of_map
from pixelwise.data.kinds.writing import Original, write_ids
from pixelwise.data.listing import Item, Listing
from pixelwise.data.spec import Format
from pixelwise.errors import DataError
from pixelwise.files.images import read_ids
from pixelwise.labels import LabelSet, published

OPTIONS: Mapping[str, str] = {"labels": "a published label set, or a .txt or .toml file in the folder"}

_IMAGE = "_leftImg8bit"
_MAP = "_gtFine_instanceTrainIds"

DVPS_DIVISOR = 1000
"""Numbers of objects in Cityscapes-DVPS are below it."""

DVPS_CLASSES = 65
"""Ids of classes in Cityscapes-DVPS, whose maps have 16 bits, are below it."""


@dataclass(frozen=True)
class DvpsWriter(NumberedMapsWriter):
    """The format cityscapes-dvps, without depth maps. See NumberedMapsWriter for the attributes."""

    format: str = "cityscapes-dvps"
    label_file: str | None = "video_sequence/labels.toml"
    divisor: int = DVPS_DIVISOR
    classes: int = DVPS_CLASSES

    def places(self, root: Path, original: Original) -> Places:  # noqa: ARG002
        """See SegmentClipsWriter."""
        clip, stem = stem_with_clip(original.id, source=original.image)
        place = f"video_sequence/{original.split}/{stem}"
        return Places(clip, stem, f"{place}{_IMAGE}", f"{place}{_MAP}.png")

    def value(self, dataset_id: int, number: int) -> tuple[int, ...]:
        """Class · 1000 + number."""
        return (dataset_id * DVPS_DIVISOR + number,)

    def save(self, path: Path, values: np.ndarray) -> None:
        """Write a map of 16 bits."""
        write_ids(path, values[..., 0], None)


def splits(path: Path, options: Mapping[str, str]) -> tuple[str, ...]:  # noqa: ARG001
    """The folders with images and maps in them."""
    root = _root(path)
    found = [name for name in folders_in(root) if by_stem(root / name, suffix=_IMAGE)]
    if not found:
        raise DataError(f"{root}: not a Cityscapes-DVPS folder: no SPLIT/ with files *{_IMAGE}.png in it")
    return in_reading_order(found)


def list_split(path: Path, split: str, options: Mapping[str, str]) -> Listing:
    """The images and maps of a split, also those without partner."""
    items, labels = list_frames(path, split, options), labels_of(path, options)
    return clip_listing(
        items,
        labels,
        read=partial(truth_of_map, read=read_map),
        inspect=partial(inspect_map, read=read_map),
        parts=("segment", "segments"),
        source=_root(path) / split,
        numbered_by=DVPS_DIVISOR,
        repair=partial(
            clip_repair, items, labels, partial(repaired_map, read=read_map), writer, numbered_by=DVPS_DIVISOR
        ),
    )


def list_frames(path: Path, split: str, options: Mapping[str, str]) -> tuple[Item, ...]:
    """The images and maps of a split, also those without partner; what stands before the first `_` is the clip."""
    require_split(split, splits(path, options), source=path)
    folder = _root(path) / split
    images, maps = by_stem(folder, suffix=_IMAGE), by_stem(folder, suffix=_MAP)
    names = sorted(images.keys() | maps.keys(), key=lambda name: (name.partition("_")[0], in_time(name)))
    return tuple(
        frame_item(
            name.partition("_")[0],
            name,
            image=images[name][0] if name in images else None,
            truth=maps[name][0] if name in maps else None,
        )
        for name in names
    )


def labels_of(path: Path, options: Mapping[str, str]) -> LabelSet:
    """The 19 classes of Cityscapes by train id, unless others are named."""
    labels = labels_for(_root(path), options, default="cityscapes")
    return dvps_labels() if labels == published("cityscapes") else labels


@cache
def dvps_labels() -> LabelSet:
    """The 19 classes of Cityscapes by train id."""
    labels = published("cityscapes")
    return replace(labels, name="cityscapes-dvps", dataset_ids=tuple(range(len(labels))), void_ids=(32, 255))


def writer(options: Mapping[str, str], source: LabelSet) -> DvpsWriter:  # noqa: ARG001
    """Writes a set of this format, without depth; one whose classes are not those of Cityscapes gets a labels.toml."""
    own = dvps_labels()
    labels = own if source.names == own.names else with_ids_below(source, DVPS_CLASSES, format="cityscapes-dvps")
    return DvpsWriter(labels=labels, default=own)


def read_map(frame: Item, labels: LabelSet) -> SegmentMap:
    """The map of a frame. Raises DataError for an unreadable file."""
    assert frame.truth is not None
    values = read_ids(frame.truth).astype(np.int32)
    return numbered_map(values // DVPS_DIVISOR, values % DVPS_DIVISOR, labels, divisor=DVPS_DIVISOR, path=frame.truth)


def _root(path: Path) -> Path:
    return path / "video_sequence" if (path / "video_sequence").is_dir() else path


FORMAT = Format(OPTIONS, splits, list_split, writer)
