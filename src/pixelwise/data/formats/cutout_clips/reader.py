"""Clips that are made of labelled stills: objects cut out by their masks move over photographs; see `synthesis`.

    PATH/                          a set of another format, such as coco
    ├── annotations/instances_train2017.json
    └── train2017/000000000009.jpg

PATH is a set of another format, `?source=coco` unless another is named, whose truth has objects with masks; its split
is the split here, so that clips of `train` and `val` have nothing in common. Nothing is written to the disk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pixelwise.data.formats.cutout_clips.synthesis import CutoutClips, require_objects
from pixelwise.data.kinds.faults import SplitReport
from pixelwise.data.spec import DataSpec, format_of, open_dataset, splits_of
from pixelwise.errors import DataError
from pixelwise.files.parallel import Progress

OPTIONS: Mapping[str, str] = {
    "source": "the format of the stills; coco",
    "frames": "in each clip; 6",
    "clips": "how many; as many as there are stills",
    "objects": "the most that are pasted into a clip; 4",
    "height": "of the frames, pixels; 256",
    "width": "of the frames, pixels; 320",
    "seed": "of everything that is drawn; 0",
}


def splits(path: Path, options: Mapping[str, str]) -> tuple[str, ...]:
    """Those of the source."""
    return splits_of(_source(path, None, options))


def open_split(path: Path, split: str, options: Mapping[str, str], *, name: str) -> CutoutClips:
    """The clips of one split. Raises DataError where the source cannot be opened or has no objects with masks."""
    stills = open_dataset(_source(path, split, options), default_split=split)
    require_objects(stills[0], source=stills.name)
    return CutoutClips(
        stills,
        frames=_number(options, "frames", 6),
        count=_number(options, "clips", len(stills)),
        size_hw=(_number(options, "height", 256), _number(options, "width", 320)),
        objects=_number(options, "objects", 4),
        seed=_number(options, "seed", 0),
        name=name,
    )


def check_split(path: Path, split: str, options: Mapping[str, str], *, workers: int, progress: Progress) -> SplitReport:
    """Every fault of the stills; the clips are made of them."""
    spec = _source(path, split, options)
    report = format_of(spec).old.check_split(path, split, {}, workers=workers, progress=progress)
    return replace(report, notes=(f"the stills of {spec} were looked at", *report.notes))


def _source(path: Path, split: str | None, options: Mapping[str, str]) -> DataSpec:
    format = options.get("source", "coco")
    if format == "cutout-clips":
        raise DataError("cutout-clips: source=cutout-clips; a format of stills is wanted, such as coco")
    return DataSpec(format, str(path), split)


def _number(options: Mapping[str, str], option: str, default: int) -> int:
    text = options.get(option, str(default))
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise DataError(f"cutout-clips: {option}={text}; a whole number is wanted")
    return int(text)
