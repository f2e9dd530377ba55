"""What can be wrong with a data set, and the search for it among images that have a mask file each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from pixelwise.data.kinds.folders import Entry
from pixelwise.data.truth.colours import describe_unknown, match_colours
from pixelwise.errors import DataError
from pixelwise.files.images import ColourMaskError, exif_rotation, read_colours, read_ids, read_image
from pixelwise.files.parallel import Progress, apply
from pixelwise.labels import LabelSet

InspectObjects = Callable[[Entry, np.ndarray, LabelSet], "Iterable[Fault]"]
"""What is wrong with the objects of an entry, whose class ids [H, W] are given."""


@dataclass(frozen=True)
class Fault:
    """Something to be repaired.

    Attributes:
        kind: a few words, the same for all faults of the kind.
        where: the file, the id or the annotation.
        text: what is wrong with it, and the repair where it is not plain.
    """

    kind: str
    where: str
    text: str


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
        notes: what is no fault, but good to know.
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


@dataclass(frozen=True)
class Findings:
    """What was found in one image and its truth.

    Attributes:
        faults: of the two.
        class_ids: the classes that occur.
        turned: whether the image has an EXIF rotation.
    """

    faults: tuple[Fault, ...]
    class_ids: frozenset[int] = frozenset()
    turned: bool = False


InspectNumbers = Callable[[Entry, np.ndarray], Findings]
"""What is wrong with the numbers in the mask of an entry, and the classes that occur."""


def check_pairs(
    entries: Sequence[Entry],
    labels: LabelSet,
    *,
    split: str,
    source: Path | str,
    workers: int,
    progress: Progress,
    colours: bool = False,
    inspect_objects: InspectObjects | None = None,
    inspect_numbers: InspectNumbers | None = None,
) -> SplitReport:
    """Read every image and every mask of a split and report every fault.

    Args:
        entries: the split's images and masks.
        labels: what the ids in the masks mean.
        split: its name.
        source: the file or the folder that lists it.
        workers: processes that read; 0 reads in this one.
        progress: is told of each image.
        colours: whether the masks hold the colours of the label set, instead of ids.
        inspect_objects: what is wrong with the file of object ids of an entry, where a set has such files.
        inspect_numbers: what is wrong with what a mask holds, where that is not the class of each pixel.
    """
    faults = [*_list_faults(entries, source), *_missing_objects(entries)]
    findings: list[Findings] = []
    inspect = partial(
        inspect_pair,
        labels=labels,
        colours=colours,
        inspect_objects=inspect_objects,
        inspect_numbers=inspect_numbers,
    )
    read = apply(inspect, entries, workers=workers)
    for found in progress(read, total=len(entries), what=split):
        findings.append(found)
        faults.extend(found.faults)
    return SplitReport(
        split=split,
        title=split,
        counts=(count(len(entries), "image"), count(len(labels), "class", "classes")),
        ids=tuple(entry.id for entry in entries),
        images=tuple(entry.image for entry in entries),
        faults=tuple(faults),
        notes=tuple(notes_on(findings, labels)),
    )


def inspect_pair(
    entry: Entry,
    *,
    labels: LabelSet,
    colours: bool = False,
    inspect_objects: InspectObjects | None = None,
    inspect_numbers: InspectNumbers | None = None,
) -> Findings:
    """Read one image and its mask, and compare them."""
    faults: list[Fault] = []
    size, degrees, ids = None, 0, None
    if entry.image is None:
        faults.append(Fault("missing image", _name(entry.mask, entry), f"no image '{entry.id}' for this mask"))
    else:
        size, degrees = _inspect_image(entry.image, faults)
    if entry.mask is None:
        faults.append(Fault("missing mask", _name(entry.image, entry), f"no mask '{entry.id}' for this image"))
    else:
        ids = _inspect_mask(entry.mask, faults, colours=colours)
    if ids is None or entry.mask is None:
        return Findings(tuple(faults), turned=degrees != 0)
    if size is not None and entry.image is not None and size != ids.shape[:2]:
        stated = (ids.shape[0], ids.shape[1])
        faults.append(size_fault(str(entry.image), size, degrees, stated=stated, by=f"mask {entry.mask.name}"))
    if colours:
        class_ids = _inspect_colours(entry.mask, ids, labels, faults)
    elif inspect_numbers is not None:
        found = inspect_numbers(entry, ids)
        faults.extend(found.faults)
        class_ids = found.class_ids
    else:
        class_ids, semantic = _inspect_ids(entry.mask, ids, labels, faults)
        if inspect_objects is not None and semantic is not None:
            faults.extend(inspect_objects(entry, semantic, labels))
    return Findings(tuple(faults), class_ids, turned=degrees != 0)


def size_fault(
    where: str, size: tuple[int, int], degrees: int, *, stated: tuple[int, int], by: str, is_repaired: bool = True
) -> Fault:
    """An image and its truth differ in size.

    Args:
        where: names the image.
        size: height and width of the upright image.
        degrees: by which EXIF turns it.
        stated: height and width by the truth.
        by: what states it.
        is_repaired: whether a repair turns it.
    """
    upright, truth = f"{size[0]}×{size[1]}", f"{stated[0]}×{stated[1]}"
    if degrees in (90, 270) and stated == size[::-1]:
        repair = " (pixelwise data check --fix does)" if is_repaired else ""
        text = (
            f"EXIF rotation {degrees}°, stored {truth}, upright {upright} (height×width); the {by} has the size of "
            f"the stored image: turn it{repair}, or strip the EXIF tag"
        )
        return Fault("rotated image", where, text)
    return Fault("size mismatch", where, f"the image is {upright} (height×width), the {by} {truth}")


def readable_image(path: Path, where: str) -> tuple[tuple[int, int] | None, int, Fault | None]:
    """Height and width (None if unreadable), degrees of EXIF rotation, and the fault."""
    try:
        _, height, width = read_image(path).shape
        return (height, width), exif_rotation(path), None
    except DataError as error:
        return None, 0, Fault("unreadable image", where, _without(error, path))


def notes_on(findings: Sequence[Findings], labels: LabelSet) -> Iterator[str]:
    """What is no fault: classes that never occur, and rotated images."""
    seen = frozenset[int]().union(*(found.class_ids for found in findings))
    absent = [name for index, name in enumerate(labels.names) if index not in seen]
    if absent and findings:
        shown = ", ".join(absent[:12]) + (f", … {len(absent) - 12} more" if len(absent) > 12 else "")
        yield f"{count(len(absent), 'class never occurs', 'classes never occur')}: {shown}"
    turned = sum(found.turned for found in findings)
    if turned:
        yield f"{count(turned, 'image')} with an EXIF rotation, which is applied"


def count(number: int, one: str, many: str | None = None) -> str:
    """A number with its noun: `1 image`, `1,204 images`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _list_faults(entries: Sequence[Entry], source: Path | str) -> Iterator[Fault]:
    if not entries:
        yield Fault("empty split", str(source), "no images in this split")
    for id, times in Counter(entry.id for entry in entries).items():
        if times > 1:
            yield Fault("repeated id", str(source), f"'{id}' stands {times} times in it")
    for entry in entries:
        for rival in entry.rivals:
            text = f"another file has the name '{entry.id}' too; take away one of them"
            yield Fault("two files of one name", str(rival), text)


def _missing_objects(entries: Sequence[Entry]) -> Iterator[Fault]:
    if any(entry.objects for entry in entries):
        for entry in entries:
            if entry.mask and not entry.objects:
                yield Fault("missing objects", str(entry.mask), "no file of object ids beside it, others have one")


def _inspect_image(path: Path, faults: list[Fault]) -> tuple[tuple[int, int] | None, int]:
    size, degrees, fault = readable_image(path, str(path))
    if fault is not None:
        faults.append(fault)
    return size, degrees


def _inspect_mask(path: Path, faults: list[Fault], *, colours: bool) -> np.ndarray | None:
    """What stands in the file: ids [H, W], or colours [H, W, 3]."""
    try:
        return read_colours(path) if colours else read_ids(path)
    except ColourMaskError as error:
        faults.append(Fault("colour mask", str(path), _without(error, path)))
    except DataError as error:
        faults.append(Fault("unreadable mask", str(path), _without(error, path)))
    return None


def _inspect_ids(
    path: Path, ids: np.ndarray, labels: LabelSet, faults: list[Fault]
) -> tuple[frozenset[int], np.ndarray | None]:
    """The classes in a mask, and the class of each pixel if all ids are known."""
    try:
        semantic = labels.class_ids(ids, source=str(path))
    except DataError as error:
        faults.append(Fault("unknown ids", str(path), _without(error, path)))
        return frozenset(
            index for index, dataset_id in enumerate(labels.dataset_ids) if (ids == dataset_id).any()
        ), None
    return _classes_in(path, np.unique(semantic), labels, faults), semantic


def _inspect_colours(path: Path, pixels: np.ndarray, labels: LabelSet, faults: list[Fault]) -> frozenset[int]:
    """The classes in a mask of colours."""
    class_ids, unknown = match_colours(pixels, labels)
    if unknown:
        faults.append(Fault("unknown colours", str(path), describe_unknown(unknown, labels)))
    return _classes_in(path, np.unique(class_ids), labels, [] if unknown else faults)


def _classes_in(path: Path, class_ids: np.ndarray, labels: LabelSet, faults: list[Fault]) -> frozenset[int]:
    if class_ids.tolist() == [labels.ignore_id]:
        faults.append(Fault("only void", str(path), "every pixel is void, nothing can be trained on it"))
    return frozenset(int(value) for value in class_ids if value != labels.ignore_id)


def _name(path: Path | None, entry: Entry) -> str:
    return str(path) if path is not None else f"id '{entry.id}'"


def _without(error: DataError, path: Path) -> str:
    """The error's text without the file it begins with."""
    return str(error).removeprefix(f"{path}: ")
