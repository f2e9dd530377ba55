"""A split of a data set as folders and lists have it, before a pixel is read: the one contract of all formats.

A format lists a split; what opens, checks and repairs it (`data.spec`, `data.tools`) is written once, over its listing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from pixelwise.errors import DataError
from pixelwise.labels import LabelSet
from pixelwise.types import Annotation

Size = tuple[int, int]
"""Height and width in pixels, of an image that is upright."""


NO_TRUTH = "no ground truth"
"""The kind of fault of a split in which nothing, or almost nothing, has ground truth."""


class Item(NamedTuple):
    """One image and its ground truth.

    Attributes:
        id: names the image within its set; CLIP/FRAME of a frame. May stand more than once in a faulty list.
        image: its file, or None where none has its name. A list may name a file that is not there.
        truth: the file of its ground truth, or None.
        clip: the clip that a frame belongs to, or None.
        size_hw: as a list states it, or None.
        extra: further data of the format, such as its entry in a list.
        rivals: further files of the same name, so that it is not clear which is meant.
    """

    id: str
    image: Path | None
    truth: Path | None
    clip: str | None = None
    size_hw: Size | None = None
    extra: Any = None
    rivals: tuple[Path, ...] = ()

    @property
    def name(self) -> str:
        """The id of an image, the name of a frame within its clip."""
        return self.id if self.clip is None else self.id.removeprefix(f"{self.clip}/")


@dataclass(frozen=True)
class Fault:
    """Something to be repaired.

    Attributes:
        kind: a few words, the same for all faults of the kind.
        where: the file, the id or the annotation.
        text: the fault, and its repair where it is not obvious.
        fatal: of a list: whether a set with it cannot be opened.
        entry: what in a list is at fault, or None.
    """

    kind: str
    where: str
    text: str
    fatal: bool = field(default=True, compare=False)
    entry: Any = field(default=None, compare=False, repr=False)


class Findings(NamedTuple):
    """What was found in the ground truth of one image.

    Attributes:
        faults: of it.
        size_hw: by the ground truth, or None where it cannot be read or does not tell.
        by: what states that size, such as `mask a.png`.
        class_ids: the classes that occur.
        parts: how many objects or segments there are; 0 where pixels have classes alone.
        has_void: whether pixels are void.
        palette: class id → its colour in the file, where that has a palette.
        classes: of a frame: id that should keep its class in the clip → class id, or None where the frame has it in
            several classes, so that ids are counted class by class.
        tracks: of a frame: the ids of the objects.
        crowds: regions of many objects.
        zeros: faults of things with the number 0, should numbers begin with 1 in others.
        from_one: a class and its numbers that do not begin with 0, as text, or None.
    """

    faults: tuple[Fault, ...] = ()
    size_hw: Size | None = None
    by: str = ""
    class_ids: frozenset[int] = frozenset()
    parts: int = 0
    has_void: bool = False
    palette: Mapping[int, tuple[int, int, int]] = {}
    classes: Mapping[int, int | None] = {}
    tracks: frozenset[int] = frozenset()
    crowds: int = 0
    zeros: tuple[Fault, ...] = ()
    from_one: str | None = None


@dataclass(frozen=True)
class Written:
    """One image with its ground truth in a new set.

    Attributes:
        name: of its files, without suffix.
        file: of the image, relative to the folder of the set.
        losses: key of `tools.convert.LOSSES` → how much the format could not hold.
        entry: what the writer's `finish` wants to know of the image.
    """

    name: str
    file: str
    losses: Mapping[str, int] = field(default_factory=dict)
    entry: Mapping[str, Any] = field(default_factory=dict)


class UnusableError(DataError):
    """An image or its ground truth cannot be repaired; `key` of `tools.repair.REPAIRS` tells why."""

    def __init__(self, key: str, text: str = "") -> None:
        super().__init__(text or key)
        self.key = key


class Repaired(NamedTuple):
    """One image of a repaired copy: what was written, and what was done by the keys of `tools.repair.REPAIRS`."""

    written: Written
    done: Mapping[str, int]


class Repairer(Protocol):
    """Writes the images of a split into a copy. Can be pickled, so that other processes may write.

    A repairer inherits what it has nothing to do in.
    """

    def repair(self, item: Item, *, root: Path, split: str, id: str) -> Repaired:
        """Read an image and its ground truth, and write them under an id.

        Raises:
            UnusableError: they cannot be made to fit.
            OSError: the disk refuses.
        """
        ...

    def finish(self, root: Path, *, split: str, written: Sequence[Written]) -> Mapping[str, int] | None:
        """Write what tells of a whole split; gives what else was done."""

    def finish_set(self, root: Path) -> None:
        """Write what tells of all splits."""


class Repair(NamedTuple):
    """How the copy of a split is made.

    Attributes:
        items: its images, also those at fault.
        repairer: writes one after the other.
        done: what was done to lists, by the keys of `tools.repair.REPAIRS`.
        options: with which the copy opens.
        measure: gives the size of a frame that can be used, and raises UnusableError for others; None of stills.
        lists: where the images stay in their place and the copy is a list of them: file → the specification under which
            it opens, as text; else None. `Repairer.finish` writes the list, `root / (name + split + ".json")`.
        list_name: what stands before the split in the name of such a list.
    """

    items: Sequence[Item]
    repairer: Repairer
    done: Mapping[str, int] = {}
    options: Mapping[str, str] = {}
    measure: Callable[[Item], Size] | None = None
    lists: Callable[[Path], str] | None = None
    list_name: str = ""


ReadTruth = Callable[[Item, LabelSet, Size], Annotation]
"""Reads the ground truth of an image of that size. Raises DataError, also for ground truth of another size."""

InspectTruth = Callable[[Item, LabelSet, "Size | None"], Findings]
"""What is in the ground truth of an image, given its size, or None where that cannot be read."""


@dataclass(frozen=True, eq=False)
class Listing:
    """A split. Can be pickled: functions are those of modules, or partials of them.

    Attributes:
        items: clip by clip in the order of time where they are frames.
        labels: what the ids on disk mean.
        read: reads the ground truth of one.
        inspect: looks for faults in the ground truth of one.
        source: the file or the folder that lists it.
        faults: of lists, each naming its file.
        notes: for the user.
        skipped: what is skipped when the set is opened, since a check has a fault for each.
        halves: whether images without ground truth, and of stills the reverse, are skipped when it is opened.
        truths: where ground truth was looked for, as text, of sets in which an image may have none; else None.
        may_lack: whether an image without the file of its ground truth has no objects.
        turns: whether a repair turns ground truth as EXIF turns its image.
        noun: what ground truth is called, such as `mask`.
        parts: what objects or segments are called, one and many; None of sets that have classes alone.
        title: how its faults are headed; its name where that is empty.
        one_file: whether one file lists all images, so that faults name images by their id too.
        numbered_by: what divides the id of an object with its number in the clip as remainder; None where the id is the
            number. See `data.truth.track_ids`.
        counts: what a list holds, such as `3 annotations`; None for what the images hold.
        repair: how a repaired copy is made; None where it cannot be.
        tags: reads which classes each image is said to contain: the id of the image → their names; None where the
            format has no such lists.
        make: makes the data set from that of the images that are listed, and its name, of a set that is synthetic.
    """

    items: tuple[Item, ...]
    labels: LabelSet
    read: ReadTruth
    inspect: InspectTruth
    source: Path | str
    faults: tuple[Fault, ...] = ()
    notes: tuple[str, ...] = ()
    skipped: str | None = None
    halves: bool = False
    truths: str | None = None
    may_lack: bool = False
    turns: bool = True
    noun: str = "mask"
    parts: tuple[str, str] | None = None
    title: str = ""
    one_file: bool = False
    numbered_by: int | None = None
    counts: tuple[str, ...] | None = None
    repair: Callable[[], Repair] | None = None
    tags: Callable[[], Mapping[str, frozenset[str]]] | None = None
    make: Callable[[Any, str], Any] | None = None

    def where(self, item: Item, path: Path | None) -> str:
        """How faults name a file of an image."""
        if path is None:
            return f"id '{item.id}'"
        named = item.clip is not None or not self.one_file
        return str(path) if named else f"{path} (image {item.id})"


def sides(size: Size) -> str:
    """Height×width."""
    return f"{size[0]}×{size[1]}"


def without_path(error: DataError, path: Path | str) -> str:
    """The error's text without the file it begins with."""
    return str(error).removeprefix(f"{path}: ")
