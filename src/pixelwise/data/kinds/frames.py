"""Frames of clips: their order in time, and where some are missing.

What the formats differ in is how the ground truth of one frame is read; see `segment_frames` and `track_frames`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from pixelwise.data.kinds.folders import by_stem
from pixelwise.data.listing import Item, Size
from pixelwise.errors import DataError

LARGEST_TRACK_ID = 2**63 - 1
"""Track ids are integers of 64 bits."""


class FramePart(NamedTuple):
    """One segment or object of a frame, as a list in a file has it; `Item.extra` is a tuple of them.

    Attributes:
        id: of the segment or the track, the same in all frames of a clip.
        dataset_id: id on disk of its class.
        crowd: whether it stands for many objects.
        area: pixels as stated, whatever that is, or None.
        segmentation: polygons or an RLE; None where a map of ids tells the pixels.
    """

    id: int
    dataset_id: int
    crowd: bool = False
    area: Any = None
    segmentation: Mapping[str, Any] | Sequence[Sequence[float]] | None = None


class Gap(NamedTuple):
    """Frames that are missing: the places of those around, how many, and how far the others are apart."""

    before: int
    after: int
    lacking: int
    usual: int


def folders_in(folder: Path) -> tuple[str, ...]:
    """The sub-folders by name. Raises DataError where there is no such folder."""
    try:
        return tuple(sorted(inner.name for inner in folder.iterdir() if inner.is_dir() and inner.name[0] != "."))
    except OSError as error:
        raise DataError(f"{folder}: {(error.strerror or str(error)).lower()}") from None


def frame_item(clip: str, name: str, image: Path | None, truth: Path | None, **more: Any) -> Item:
    """A frame. See Item for what else it may have."""
    return Item(f"{clip}/{name}", image, truth, clip, **more)


def pair_clip(clip: str, images: Path, masks: Path) -> Iterator[Item]:
    """Every image and every mask of two folders of one clip, paired by name, in order of the names."""
    image_of, mask_of = (by_stem(folder) if folder.is_dir() else {} for folder in (images, masks))
    for name in sorted(image_of.keys() | mask_of.keys(), key=in_time):
        image, mask = image_of.get(name), mask_of.get(name)
        yield frame_item(clip, name, image[0] if image else None, mask[0] if mask else None)


def in_time(name: str) -> tuple[str, int, str]:
    """A key by which names of frames stand in the order of time: `frame_2` before `frame_10`."""
    number = number_of(name)
    return (name, -1, "") if number is None else (re.split(r"\d+(?=\D*$)", name)[0], number, name)


def number_of(name: str) -> int | None:
    """The last number in the name of a frame, or None."""
    found = re.findall(r"\d+", name)
    return int(found[-1]) if found else None


def gaps_in(names: Sequence[str]) -> Iterator[Gap]:
    """Where frames are missing, by their numbers, most of which are at one distance."""
    numbers = [(number, place) for place, name in enumerate(names) if (number := number_of(name)) is not None]
    steps = Counter(after - before for (before, _), (after, _) in pairwise(numbers))
    usual = max((step for step in steps if step > 0), key=lambda step: (steps[step], -step), default=0)
    for (before, first), (after, second) in pairwise(numbers):
        if usual and after - before >= 2 * usual:
            yield Gap(first, second, (after - before) // usual - 1, usual)


def unbroken(frames: Sequence[tuple[Item, Size]]) -> Iterator[list[Item]]:
    """The frames of a clip in parts between which frames are missing, or the size of the images changes."""
    items = [item for item, _ in frames]
    breaks = {gap.after for gap in gaps_in([item.name for item in items])}
    breaks |= {place for place in range(1, len(frames)) if frames[place][1] != frames[place - 1][1]}
    if not breaks:
        yield items
        return
    for start, stop in pairwise([0, *sorted(breaks), len(frames)]):
        yield from unbroken(frames[start:stop])
