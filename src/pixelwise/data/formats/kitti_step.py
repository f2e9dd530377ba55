"""KITTI-STEP: images/SPLIT/CLIP/*.png (or .jpg) and panoptic_maps/SPLIT/CLIP/*.png.

    PATH/
    ├── images/train/0000/000000.png
    └── panoptic_maps/train/0000/000000.png    R is the class, G · 256 + B the object

In a map R is the train id of the class (the 19 of Cityscapes, 255 = void) and G · 256 + B the number of the object in
the clip. Persons and cars are the things; all other classes are stuff, and have number 0. Number 0 of a thing is a
crowd. The segment id is (train id + 1) · 65536 + number. `?labels=` names another label set, as MOTChallenge-STEP has.

Weber et al., "STEP: Segmenting and Tracking Every Pixel", NeurIPS Datasets and Benchmarks 2021.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import numpy as np
from PIL import Image

from pixelwise.data.kinds.folders import in_reading_order, labels_for, require_split
from pixelwise.data.kinds.frames import clip_listing, clip_repair, folders_in, pair_clip
from pixelwise.data.kinds.segment_clips_writer import NumberedMapsWriter, Places, with_ids_below
from pixelwise.data.kinds.segment_frames import SegmentMap, inspect_map, numbered_map, repaired_map, truth_of_map
from pixelwise.data.kinds.track_clips_writer import clip_and_frame
from pixelwise.data.kinds.writing import Original
from pixelwise.data.listing import Item, Listing
from pixelwise.data.spec import Format
from pixelwise.errors import DataError
from pixelwise.files.images import read_channels
from pixelwise.labels import LabelSet, published

OPTIONS: Mapping[str, str] = {"labels": "a published label set, or a .txt or .toml file in the folder"}

STEP_DIVISOR = 65_536
"""Numbers of objects in KITTI-STEP are below it."""

_IMAGES, _MAPS = "images", "panoptic_maps"


@dataclass(frozen=True)
class StepWriter(NumberedMapsWriter):
    """The format kitti-step. See NumberedMapsWriter for the attributes."""

    format: str = "kitti-step"
    label_file: str | None = "labels.toml"
    divisor: int = STEP_DIVISOR
    classes: int = 256
    by_number: bool = True

    def places(self, root: Path, original: Original) -> Places:  # noqa: ARG002
        """See SegmentClipsWriter."""
        clip, frame = clip_and_frame(original.id, source=original.image)
        image, map = (f"{folder}/{original.split}/{clip}/{frame}" for folder in (_IMAGES, _MAPS))
        return Places(clip, frame, image, f"{map}.png")

    def value(self, dataset_id: int, number: int) -> tuple[int, ...]:
        """The class in R, the number in G and B."""
        return dataset_id, *divmod(number, 256)

    def save(self, path: Path, values: np.ndarray) -> None:
        """Write a map of three channels."""
        Image.fromarray(values.astype(np.uint8)).save(path)


def splits(path: Path, options: Mapping[str, str]) -> tuple[str, ...]:  # noqa: ARG001
    """The folders that images/ and panoptic_maps/ have in common."""
    missing = [f"{name}/" for name in (_IMAGES, _MAPS) if not (path / name).is_dir()]
    if missing:
        raise DataError(f"{path}: not a KITTI-STEP folder: {', '.join(missing)} is missing")
    found = set(folders_in(path / _IMAGES)) & set(folders_in(path / _MAPS))
    if not found:
        raise DataError(f"{path}: {_IMAGES}/ and {_MAPS}/ have no split in common, such as train/ or val/")
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
        source=path / _MAPS / split,
        numbered_by=STEP_DIVISOR,
        repair=partial(
            clip_repair, items, labels, partial(repaired_map, read=read_map), writer, numbered_by=STEP_DIVISOR
        ),
    )


def list_frames(path: Path, split: str, options: Mapping[str, str]) -> tuple[Item, ...]:
    """The images and maps of all clips of a split, also those without partner."""
    require_split(split, splits(path, options), source=path)
    images, maps = path / _IMAGES / split, path / _MAPS / split
    clips = sorted({*folders_in(images), *folders_in(maps)})
    return tuple(frame for clip in clips for frame in pair_clip(clip, images / clip, maps / clip))


def labels_of(path: Path, options: Mapping[str, str]) -> LabelSet:
    """The 19 classes of Cityscapes by train id, of which persons and cars are things, unless others are named."""
    labels = labels_for(path, options, default="cityscapes")
    return step_labels() if labels == published("cityscapes") else labels


@cache
def step_labels() -> LabelSet:
    """The 19 classes of Cityscapes by train id; persons and cars are things."""
    labels = published("cityscapes")
    return replace(
        labels,
        name="kitti-step",
        is_thing=tuple(name in ("person", "car") for name in labels.names),
        dataset_ids=tuple(range(len(labels))),
        void_ids=(255,),
    )


def writer(options: Mapping[str, str], source: LabelSet) -> StepWriter:  # noqa: ARG001
    """Writes a set of this format; one whose classes are not those of Cityscapes gets a labels.toml."""
    own = step_labels()
    labels = own if source.names == own.names else with_ids_below(source, 256, format="kitti-step")
    return StepWriter(labels=labels, default=own)


def read_map(frame: Item, labels: LabelSet) -> SegmentMap:
    """The map of a frame. Raises DataError for an unreadable file."""
    assert frame.truth is not None
    colours = read_channels(frame.truth).astype(np.int32)
    numbers = colours[..., 1] * 256 + colours[..., 2]
    return numbered_map(colours[..., 0], numbers, labels, divisor=STEP_DIVISOR, path=frame.truth, by_number=True)


FORMAT = Format(OPTIONS, splits, list_split, writer)
