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

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import numpy as np

from pixelwise.data.kinds.folders import by_stem, in_reading_order, labels_for, require_split
from pixelwise.data.kinds.frames import clip_listing, clip_repair, folders_in, frame_item, in_time
from pixelwise.data.kinds.segment_clips_writer import (
    PlacedSegment,
    joined_regions,
    number_in,
    stem_with_clip,
    tracks_in,
    translated,
    void_id,
    with_ids_below,
    write_places,
)
from pixelwise.data.kinds.segment_frames import SegmentMap, inspect_map, numbered_map, repaired_map, truth_of_map
from pixelwise.data.kinds.track_clips_writer import by_clip
from pixelwise.data.kinds.writing import Original, Writer, Written, write_ids
from pixelwise.data.listing import Item, Listing
from pixelwise.data.spec import Format
from pixelwise.data.truth.track_ids import Track, composed_by, former_numbers, kept_numbers, tracks_of
from pixelwise.errors import DataError
from pixelwise.files.images import read_ids
from pixelwise.labels import LabelSet, published

OPTIONS: Mapping[str, str] = {"labels": "a published label set, or a .txt or .toml file in the folder"}

DVPS_DIVISOR = 1000
"""Numbers of objects in Cityscapes-DVPS are below it."""


DVPS_CLASSES = 65
"""Ids of classes in Cityscapes-DVPS, whose maps have 16 bits, are below it."""


@dataclass(frozen=True)
class DvpsWriter(Writer):
    """The format cityscapes-dvps, without depth maps. See Writer for the attributes."""

    format: str = "cityscapes-dvps"
    label_file: str | None = "video_sequence/labels.toml"

    def write(self, root: Path, original: Original) -> Written:
        """Write one frame and its map of places, which `finish` makes one of class · 1000 + number. See Writer."""
        clip, stem = stem_with_clip(original.id, source=original.image)
        place = f"video_sequence/{original.split}/{stem}"
        file, losses = original.write_image(root, f"{place}_leftImg8bit")
        path = root / f"{place}_gtFine_instanceTrainIds.png"
        regions, lost = write_places(path, original.truth, self.labels, source=original.image)
        joined = joined_regions(regions, self.labels)
        return Written(
            original.name, file, Counter(losses) + lost + joined, {"clip": clip, "map": path.name, "of": regions}
        )

    def finish(self, root: Path, *, split: str, written: Sequence[Written]) -> Mapping[str, int]:
        """Number the objects of each clip class by class, and write its maps anew.

        Raises DataError for too many objects of a class in a clip.
        """
        renumbered = 0
        void = void_id(self.labels, below=DVPS_CLASSES) * DVPS_DIVISOR
        for clip, entries in by_clip(written):
            tracks = tracks_of(tracks_in(entry, self.labels) for entry in entries)
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

                def value(one: PlacedSegment, numbers: Mapping[Track, int] = numbers) -> tuple[int]:
                    number = number_in(one, numbers, self.labels)
                    return (self.labels.dataset_ids[one.class_id] * DVPS_DIVISOR + number,)

                write_ids(path, translated(path, entry["of"], value, void=(void,))[..., 0], None)
        return {"renumbered_objects": renumbered}


_IMAGE = "_leftImg8bit"
_MAP = "_gtFine_instanceTrainIds"


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
