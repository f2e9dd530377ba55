"""The search for faults in one split: its lists, every image, and the ground truth of every image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from pixelwise.data.dataset import is_there
from pixelwise.data.kinds.frames import gaps_in
from pixelwise.data.listing import NO_TRUTH, Fault, Findings, Item, Listing, Size, sides, without_path
from pixelwise.data.passed_over import passed_over_notes
from pixelwise.errors import DataError, count
from pixelwise.files.images import IMAGE_SUFFIXES, exif_rotation, read_image
from pixelwise.files.parallel import Progress, apply
from pixelwise.labels import LabelSet

ALMOST_NONE = 50
"""Where less than one image of so many has ground truth, almost nothing has."""


@dataclass(frozen=True)
class SplitReport:
    """What was found in one split.

    Attributes:
        split: its name.
        title: how its faults are headed: its name, or the file that lists it.
        counts: what it holds, such as `367 images`, `11 classes`.
        ids: of every image, with those whose file is missing.
        images: the file of each, or None.
        faults: in the order in which they were found.
        notes: notes that are no faults.
        of_clips: whether the images are frames, and their ids CLIP/FRAME.
    """

    split: str
    title: str
    counts: tuple[str, ...]
    ids: tuple[str, ...] = field(repr=False)
    images: tuple[Path | None, ...] = field(repr=False)
    faults: tuple[Fault, ...] = ()
    notes: tuple[str, ...] = ()
    of_clips: bool = False


class Inspected(NamedTuple):
    """What was found in one image and its ground truth; its size, and whether EXIF turns it."""

    faults: tuple[Fault, ...]
    size: Size | None
    turned: bool
    found: Findings


def check_split(listing: Listing, *, split: str, workers: int, progress: Progress) -> SplitReport:
    """Read every image of a split and its ground truth, compare the frames of each clip, and report every fault.

    Args:
        listing: the split.
        split: its name.
        workers: processes that read; 0 reads in this one.
        progress: called for each image.
    """
    items, labels = listing.items, listing.labels
    slim = replace(listing, items=(), faults=(), repair=None)  # what other processes need
    read = apply(partial(inspect_item, listing=slim), items, workers=workers)
    inspected = list(progress(read, total=len(items), what=split))
    found = [one.found for one in inspected]
    faults = [*listing.faults, *_list_faults(listing)]
    counts_from_one = next((one.from_one for one in found if one.from_one), None)
    for one in inspected:
        faults += one.faults
        if counts_from_one is not None:
            faults += (replace(fault, text=f"{fault.text}; {counts_from_one}") for fault in one.found.zeros)
    clips = _by_clip(items, inspected)
    for clip, of_clip in clips:
        faults += [*_gaps(clip, [item for item, _ in of_clip], listing.source), *_changes(of_clip, labels)]
    faults += [*_truth_of_nothing(listing, found), *_void_for_class(listing, found)]
    return SplitReport(
        split=split,
        title=listing.title or split,
        counts=_counts(listing, found, clips),
        ids=tuple(item.id for item in items),
        images=tuple(item.image for item in items),
        faults=tuple(faults),
        notes=(
            *listing.notes,
            *_notes(listing, inspected),
            *passed_over_notes(items, listing.source, may_move=IMAGE_SUFFIXES),
        ),
        of_clips=bool(clips),
    )


def inspect_item(item: Item, *, listing: Listing) -> Inspected:
    """Read one image and its ground truth, and compare them."""
    faults: list[Fault] = []
    size, degrees = None, 0
    noun, frame = listing.noun, "frame " if item.clip is not None else ""
    if item.image is None or not is_there(item.image):
        where = listing.where(item, item.image or item.truth)
        text = f"no image of {frame}'{item.id}'" if item.image is None else "no such file"
        take = f"its entry out of {Path(listing.source).name}" if listing.one_file else f"its {noun} away"
        faults.append(Fault("missing image", where, f"{text}; add it, or take {take}"))
    else:
        try:
            _, height, width = read_image(item.image).shape
            size, degrees = (height, width), exif_rotation(item.image)
        except DataError as error:
            faults.append(Fault("unreadable image", listing.where(item, item.image), without_path(error, item.image)))
    if item.truth is None or (not listing.may_lack and not is_there(item.truth)):
        text = f"no {noun} of {frame}'{item.id}'; add it, or take its image away"
        faults.append(Fault(f"missing {noun}", listing.where(item, item.truth or item.image), text))
        return Inspected(tuple(faults), size, degrees != 0, Findings())
    found = listing.inspect(item, listing.labels, size)
    stating = Path(listing.source if listing.one_file or item.truth is None else item.truth).name
    for stated, by in ((item.size_hw, stating), (found.size_hw, found.by)):
        if size is not None and stated not in (None, size):
            where, turns = listing.where(item, item.image), listing.turns or by != found.by
            faults.append(_size_fault(where, size, degrees, stated=stated, by=by, turns=turns))
    return Inspected((*faults, *found.faults), size, degrees != 0, found._replace(faults=()))


def _size_fault(where: str, size: Size, degrees: int, *, stated: Size, by: str, turns: bool) -> Fault:
    """An upright image, which EXIF turns, and its ground truth differ in size; `turns`: whether a repair turns that."""
    if degrees in (90, 270) and stated == size[::-1]:
        repair = " (pixelwise data check --fix does)" if turns else ""
        text = (
            f"EXIF rotation {degrees}°, stored {sides(stated)}, upright {sides(size)} (height×width); the {by} has the "
            f"size of the stored image: turn it{repair}, or strip the EXIF tag"
        )
        return Fault("rotated image", where, text)
    return Fault("size mismatch", where, f"the image is {sides(size)} (height×width), the {by} {sides(stated)}")


def _list_faults(listing: Listing) -> Iterator[Fault]:
    source = str(listing.source)
    if not listing.items and not any(fault.fatal for fault in listing.faults):
        yield Fault("empty split", source, "no images in this split")
    for id, times in Counter(item.id for item in listing.items).items():
        if times > 1:
            yield Fault("repeated id", source, f"'{id}' stands {times} times in it")
    for item in listing.items:
        for rival in item.rivals:
            text = f"another file has the name '{item.id}' too; take away one of them"
            yield Fault("two files of one name", str(rival), text)


def _truth_of_nothing(listing: Listing, found: Sequence[Findings]) -> Iterator[Fault]:
    """A split in which hardly an image has an object: most often ground truth was looked for in the wrong place."""
    labelled = sum(one.parts > 0 for one in found)
    if any(fault.kind == NO_TRUTH for fault in listing.faults):
        return
    if listing.truths is None or listing.parts is None or not found or labelled * ALMOST_NONE >= len(found):
        return
    noun = listing.parts[0]
    have = (
        "no image has"
        if not labelled
        else f"{labelled:,} of {len(found):,} images {'has' if labelled == 1 else 'have'}"
    )
    yield Fault(
        NO_TRUTH,
        str(listing.source),
        f"{have} {'an' if noun[0] in 'aeiou' else 'a'} {noun}; looked for {listing.truths}",
    )


def _void_for_class(listing: Listing, found: Sequence[Findings]) -> Iterator[Fault]:
    """Masks of 0 and 255 where the set has two classes, or more: what should be a class is void everywhere."""
    labels = listing.labels
    seen = frozenset[int]().union(*(one.class_ids for one in found))
    void = sum(one.has_void for one in found)
    if len(labels) < 2 or len(seen) != 1 or not void or (len(labels) > 2 and 2 * void < len(found)):
        return
    only = labels.names[next(iter(seen))]
    absent = [name for index, name in enumerate(labels.names) if index not in seen]
    lost = f"'{absent[0]}' never occurs" if len(absent) == 1 else f"{len(absent)} classes never occur"
    ids = " or ".join(str(id) for id in labels.void_ids[:3])
    text = (
        f"{void:,} of {len(found):,} masks hold void ({ids}), the only class is '{only}', and {lost}: {ids} stands "
        f"where a class should be; write its id in its place ({labels.describe_ids()})"
    )
    yield Fault("void in place of a class", str(listing.source), text)


def _counts(
    listing: Listing, found: Sequence[Findings], clips: Sequence[tuple[str, Sequence[tuple[Item, Inspected]]]]
) -> tuple[str, ...]:
    if listing.counts is not None:
        return listing.counts
    classes = count(len(listing.labels), "class", "classes")
    if clips:
        tracks = sum(len(frozenset[int]().union(*(one.found.tracks for _, one in of_clip))) for _, of_clip in clips)
        return (
            count(len({clip for clip, _ in clips}), "clip"),
            count(len(found), "frame"),
            count(tracks, "track"),
            classes,
        )
    parts = () if listing.parts is None else (count(sum(one.parts for one in found), *listing.parts),)
    return (count(len(found), "image"), *parts, classes)


def _notes(listing: Listing, inspected: Sequence[Inspected]) -> Iterator[str]:
    """What is no fault: classes that never occur, palettes that differ, rotated images, and images without objects."""
    labels = listing.labels
    seen = frozenset[int]().union(*(one.found.class_ids for one in inspected))
    absent = [name for index, name in enumerate(labels.names) if index not in seen]
    if absent and inspected:
        shown = ", ".join(absent[:12]) + (f", … {len(absent) - 12} more" if len(absent) > 12 else "")
        yield f"{count(len(absent), 'class never occurs', 'classes never occur')}: {shown}"
    yield from _palettes(listing.items, inspected, labels)
    turned = sum(one.turned for one in inspected)
    if turned:
        yield f"{count(turned, 'image')} with an EXIF rotation, which is applied"
    empty = sum(one.found.parts == 0 and one.found.size_hw is not None for one in inspected)
    if listing.parts is not None and empty:
        yield f"{count(empty, 'image has', 'images have')} no {listing.parts[0]}"
    crowds = sum(one.found.crowds for one in inspected)
    if crowds:
        yield f"{count(crowds, 'region')} of many objects"


def _palettes(items: Sequence[Item], inspected: Sequence[Inspected], labels: LabelSet) -> Iterator[str]:
    """Files whose palettes give a class another colour than a file before: programs that reorder palettes do this."""
    first: dict[int, tuple[tuple[int, int, int], Item]] = {}
    others: dict[Path | None, str] = {}
    for item, one in zip(items, inspected, strict=True):
        for class_id, colour in one.found.palette.items():
            before, of = first.setdefault(class_id, (colour, item))
            if before != colour:
                name = of.truth.name if of.truth else of.id
                others.setdefault(item.truth, f"'{labels.names[class_id]}' is {before} in {name}, {colour} in")
    if others:
        (file, text), *_ = others.items()
        yield (
            f"palettes differ from file to file, in {count(len(others), 'mask')}: {text} {file.name if file else ''}; "
            "the ids in the files count, not the colours: see them by pixelwise data show"
        )


def _by_clip(items: Sequence[Item], inspected: Sequence[Inspected]) -> list[tuple[str, list[tuple[Item, Inspected]]]]:
    """The frames of each clip, with what was found; nothing of stills."""
    pairs = [(item, one) for item, one in zip(items, inspected, strict=True) if item.clip is not None]
    return [(str(clip), list(group)) for clip, group in groupby(pairs, key=lambda pair: pair[0].clip)]


def _gaps(clip: str, frames: Sequence[Item], source: Path | str) -> Iterator[Fault]:
    """Frames that are missing between others, by their numbers."""
    for gap in gaps_in([frame.name for frame in frames]):
        text = (
            f"{count(gap.lacking, 'frame is', 'frames are')} missing between '{frames[gap.before].name}' and "
            f"'{frames[gap.after].name}'; others are {gap.usual} apart; add them, or cut the clip there (pixelwise "
            "data check --fix does)"
        )
        yield Fault("missing frames", f"{source}: clip '{clip}'", text)


def _changes(frames: Sequence[tuple[Item, Inspected]], labels: LabelSet) -> Iterator[Fault]:
    """Sizes, and classes of ids, that are others than before in the clip; each change once."""
    before: tuple[Item, Size] | None = None
    class_of: dict[int, tuple[int, Item]] = {}
    shared = {id for _, one in frames for id, class_id in one.found.classes.items() if class_id is None}
    for frame, one in frames:
        if one.size is not None:
            if before is not None and one.size != before[1]:
                text = f"{sides(one.size)}, the frame before, '{before[0].name}', {sides(before[1])} (height×width)"
                yield Fault("size changes", f"{frame.image} (frame '{frame.id}')", text)
            before = (frame, one.size)
        for id, class_id in one.found.classes.items():
            if class_id is None or id in shared:
                continue
            first = class_of.setdefault(id, (class_id, frame))
            if first[0] != class_id:
                text = (
                    f"a {labels.names[class_id]}; a {labels.names[first[0]]} in frame '{first[1].name}': correct the "
                    "class, or give one of them another id (pixelwise data check --fix does)"
                )
                yield Fault("id changes class", f"{frame.truth} (frame '{frame.id}'): id {id}", text)
                class_of[id] = (class_id, frame)
