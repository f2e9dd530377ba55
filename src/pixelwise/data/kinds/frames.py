"""Frames of clips: their order in time, and where some are missing.

What the formats differ in is how the ground truth of one frame is read; see `segment_frames` and `track_frames`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from pixelwise.data.kinds.folders import by_stem
from pixelwise.data.kinds.repairing import ReadRepaired, WriterRepairer
from pixelwise.data.kinds.writing import MakeWriter
from pixelwise.data.listing import Fault, InspectTruth, Item, Listing, ReadTruth, Repair, Size
from pixelwise.errors import DataError
from pixelwise.labels import LabelSet

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


def clip_listing(
    items: Sequence[Item],
    labels: LabelSet,
    *,
    read: ReadTruth,
    inspect: InspectTruth,
    source: Path,
    repair: Callable[[], Repair],
    parts: tuple[str, str] = ("object", "objects"),
    faults: Sequence[Fault] = (),
    notes: Sequence[str] = (),
    numbered_by: int | None = None,
    one_file: bool = False,
    halves: bool = False,
) -> Listing:
    """The listing of a split of clips. See Listing for the arguments."""
    return Listing(
        tuple(items),
        labels,
        read=read,
        inspect=inspect,
        source=source,
        faults=tuple(faults),
        notes=tuple(notes),
        halves=halves,
        noun="truth",
        parts=parts,
        truths=f"in {source}",
        title=str(source),
        one_file=one_file,
        numbered_by=numbered_by,
        repair=repair,
    )


def clip_repair(
    items: Sequence[Item],
    labels: LabelSet,
    read: ReadRepaired,
    writer: MakeWriter,
    *,
    numbered_by: int | None = None,
    options: Mapping[str, str] | None = None,
    done: Mapping[str, int] | None = None,
) -> Repair:
    """How the copy of a split of clips is made.

    Args:
        items: its frames, also those at fault.
        labels: what the ids on disk mean.
        read: reads the ground truth of one as far as it can be used.
        writer: of the format.
        numbered_by: see Listing.
        options: with which the copy is written, and opens.
        done: what was done to lists.
    """
    made = replace(writer(options or {}, labels), numbered_by=numbered_by, suffixes=())
    repairer = WriterRepairer(read, labels, made)
    return Repair(items, repairer, done or {}, options or {}, measure=repairer.measure)


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
