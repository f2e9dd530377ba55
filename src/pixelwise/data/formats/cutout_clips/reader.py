"""Reading; see the package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from pixelwise.data.dataset import FileDataset
from pixelwise.data.formats.cutout_clips.synthesis import CutoutClips, require_objects
from pixelwise.data.listing import Listing
from pixelwise.data.spec import DataSpec, format_of, splits_of
from pixelwise.errors import DataError

OPTIONS: Mapping[str, str] = {
    "source": "the format of the stills; coco",
    "frames": "in each clip; 6",
    "clips": "how many; as many as there are stills",
    "objects": "the most that are pasted into a clip; 4",
    "height": "of the frames, pixels; 256",
    "width": "of the frames, pixels; 320",
    "seed": "of everything that is drawn; 0",
}


_NUMBERS: Mapping[str, int] = {"frames": 6, "objects": 4, "height": 256, "width": 320, "seed": 0}
"""What the options are without them; there are as many clips as stills."""


def splits(path: Path, options: Mapping[str, str]) -> tuple[str, ...]:
    """Those of the source."""
    return splits_of(_source(path, None, options))


def list_split(path: Path, split: str, options: Mapping[str, str]) -> Listing:
    """The stills of one split, of which the clips are made. Raises DataError where the source cannot be listed."""
    spec = _source(path, split, options)
    stills = format_of(spec).list_split(path, split, {})
    given = {name: _number(name, text) for name, text in options.items() if name in (*_NUMBERS, "clips")}
    numbers = {**_NUMBERS, **given}
    note = f"the stills of {spec} were read"
    return replace(stills, notes=(note, *stills.notes), repair=None, make=partial(_made, spec=spec, numbers=numbers))


def _made(stills: FileDataset, name: str, *, spec: DataSpec, numbers: Mapping[str, int]) -> CutoutClips:
    """The clips. Raises DataError where the stills have no objects with masks."""
    require_objects(stills[0], source=str(spec))
    return CutoutClips(
        replace(stills, name=str(spec), format=spec.format),
        frames=numbers["frames"],
        count=numbers.get("clips", len(stills)),
        size_hw=(numbers["height"], numbers["width"]),
        objects=numbers["objects"],
        seed=numbers["seed"],
        name=name,
    )


def _source(path: Path, split: str | None, options: Mapping[str, str]) -> DataSpec:
    format = options.get("source", "coco")
    if format == "cutout-clips":
        raise DataError("cutout-clips: source=cutout-clips; expected a format of stills, such as coco")
    return DataSpec(format, str(path), split)


def _number(option: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise DataError(f"cutout-clips: {option}={text}; expected a whole number")
    return int(text)
