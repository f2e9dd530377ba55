"""Frames of clips: what the formats of labelled video have in common, and the search for faults in them.

What the formats differ in is how the truth of one frame is read; see `segment_frames` and `track_frames`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pixelwise.data.dataset import require_unique
from pixelwise.data.kinds.faults import Fault, Findings, SplitReport, count, notes_on, readable_image, size_fault
from pixelwise.data.kinds.folders import by_stem, is_there
from pixelwise.errors import DataError
from pixelwise.files.images import image_size, read_image, turned_upright
from pixelwise.files.parallel import Progress, apply
from pixelwise.labels import LabelSet
from pixelwise.types import Annotation, Sample

LARGEST_TRACK_ID = 2**63 - 1
"""Track ids are integers of 64 bits."""


class Shape(NamedTuple):
    """One segment or object of a frame, as a list in a file has it.

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


@dataclass(frozen=True)
class Frame:
    """One frame as folders and lists have it, before an image is read.

    Attributes:
        clip: its name.
        name: of the frame in the clip, such as `000003`.
        image: its file, or None where it is missing.
        truth: the file that holds its truth, or None where it is missing.
        shapes: what a list says of it.
        size: height and width by the list, or None.
    """

    clip: str
    name: str
    image: Path | None
    truth: Path | None
    shapes: tuple[Shape, ...] = field(default=(), repr=False)
    size: tuple[int, int] | None = None

    @property
    def id(self) -> str:
        """Names the frame within its set."""
        return f"{self.clip}/{self.name}"


ReadTruth = Callable[[Frame, LabelSet, tuple[int, int]], Annotation]
"""Reads the truth of a frame whose image has that height and width; a function of a module, or a partial of one."""


@dataclass(frozen=True)
class ClipFrames:
    """Labelled frames, clip by clip, in the order of time. See Dataset for the attributes.

    Attributes:
        frames: with the files of each.
        read: reads the truth of one.
        numbered_by: what divides the id of an object with its number in the clip as remainder; None where the id is
            the number. See `data.truth.track_ids`.
    """

    name: str
    format: str
    labels: LabelSet
    frames: tuple[Frame, ...] = field(repr=False)
    read: ReadTruth = field(repr=False)
    note: str | None = None
    numbered_by: int | None = None

    def __post_init__(self) -> None:
        require_unique(self.ids, source=self.name)

    def flow(self, index: int, *, reference: int) -> None:
        """Nobody knows the flow."""

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """The clip and the name of each frame, `0002/000017`."""
        return tuple(frame.id for frame in self.frames)

    @cached_property
    def clips(self) -> tuple[str, ...]:
        """The clip of each frame."""
        return tuple(frame.clip for frame in self.frames)

    @cached_property
    def _places(self) -> tuple[int, ...]:
        return places_in_clips(self.clips)

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> Sample:
        """Read one frame and its truth. Raises DataError when either is unusable, or their sizes differ."""
        frame = self.frames[index]
        assert frame.image is not None
        try:
            image = read_image(frame.image)
            size = (image.shape[1], image.shape[2])
            if frame.size not in (None, size):
                raise DataError(f"{frame.image}: {_sides(size)}, its list says {_sides(frame.size)} (height×width)")
            truth = self.read(frame, self.labels, size)
        except DataError as error:
            raise DataError(f"{error} (frame '{frame.id}')") from None
        return Sample(image, truth, frame.id, size, clip=frame.clip, frame=self._places[index])

    def size_of(self, index: int) -> tuple[int, int]:
        """Height and width of the upright image, by its list, else from its header."""
        frame = self.frames[index]
        return frame.size or image_size(self.image_path(index))

    def image_path(self, index: int) -> Path:
        """The file of the image."""
        path = self.frames[index].image
        assert path is not None
        return path

    def truth_path(self, index: int) -> Path:
        """The file that holds its truth."""
        path = self.frames[index].truth
        assert path is not None
        return path


def open_frames(
    frames: Sequence[Frame],
    labels: LabelSet,
    *,
    name: str,
    format: str,
    read: ReadTruth,
    note: str | None = None,
    numbered_by: int | None = None,
) -> ClipFrames:
    """The data set of frames that are complete. Raises DataError when there are none, or a file is missing."""
    for frame in frames:
        for what, path in (("image", frame.image), ("truth", frame.truth)):
            if path is None or not is_there(path):
                where = f", {path}" if path else ""
                raise DataError(f"{name}: no {what} of frame '{frame.id}'{where}; see pixelwise data check")
    if not frames:
        raise DataError(f"{name}: no frames in this split")
    return ClipFrames(name, format, labels, tuple(frames), read, note, numbered_by)


def places_in_clips(clips: Sequence[str]) -> tuple[int, ...]:
    """The place of each frame in its clip, from 0, given the clips of frames that follow each other."""
    seen: Counter[str] = Counter()
    places: list[int] = []
    for clip in clips:
        places.append(seen[clip])
        seen[clip] += 1
    return tuple(places)


def folders_in(folder: Path) -> tuple[str, ...]:
    """The sub-folders by name. Raises DataError where there is no such folder."""
    try:
        return tuple(sorted(inner.name for inner in folder.iterdir() if inner.is_dir() and inner.name[0] != "."))
    except OSError as error:
        raise DataError(f"{folder}: {(error.strerror or str(error)).lower()}") from None


def pair_clip(clip: str, images: Path, masks: Path) -> Iterator[Frame]:
    """Every image and every mask of two folders of one clip, paired by name, in order of the names."""
    image_of, mask_of = (by_stem(folder) if folder.is_dir() else {} for folder in (images, masks))
    for name in sorted(image_of.keys() | mask_of.keys(), key=in_time):
        image, mask = image_of.get(name), mask_of.get(name)
        yield Frame(clip, name, image[0] if image else None, mask[0] if mask else None)


def in_time(name: str) -> tuple[str, int, str]:
    """A key by which names of frames stand in the order of time: `frame_2` before `frame_10`."""
    number = number_of(name)
    return (name, -1, "") if number is None else (re.split(r"\d+(?=\D*$)", name)[0], number, name)


def number_of(name: str) -> int | None:
    """The last number in the name of a frame, or None."""
    found = re.findall(r"\d+", name)
    return int(found[-1]) if found else None


class TruthFindings(NamedTuple):
    """What was found in the truth of one frame.

    Attributes:
        faults: of it alone.
        size: height and width by the truth, or None where it cannot be read or does not tell.
        classes: id that should keep its class in the whole clip → class id, or None where the frame has it in several
            classes, so that ids are counted class by class.
        tracks: the ids of the objects.
        class_ids: the classes that occur.
        crowds: how many regions of many objects it has.
    """

    faults: tuple[Fault, ...] = ()
    size: tuple[int, int] | None = None
    classes: Mapping[int, int | None] = {}
    tracks: frozenset[int] = frozenset()
    class_ids: frozenset[int] = frozenset()
    crowds: int = 0


InspectTruth = Callable[[Frame, LabelSet, "tuple[int, int] | None"], TruthFindings]
"""What is in the truth of a frame, given the size of its image, or None where that cannot be read."""


class FrameFindings(NamedTuple):
    """What was found in one frame: faults, the size of its image, whether EXIF turns it, and its truth."""

    faults: tuple[Fault, ...]
    size: tuple[int, int] | None
    turned: bool
    truth: TruthFindings


def check_frames(
    frames: Sequence[Frame],
    labels: LabelSet,
    *,
    split: str,
    source: Path | str,
    inspect: InspectTruth,
    workers: int,
    progress: Progress,
    listed: Iterable[Fault] = (),
) -> SplitReport:
    """Read every image and the truth of every frame of a split, and compare the frames of each clip.

    Args:
        frames: clip by clip, in the order of time.
        labels: what the ids on disk mean.
        split: its name.
        source: the file or the folder that lists it, by which its faults are headed.
        inspect: reads the truth of a frame; a function of a module, or a partial of one.
        workers: processes that read; 0 reads in this one.
        progress: is told of each frame.
        listed: what was already found to be wrong with the lists.
    """
    read = apply(partial(inspect_frame, labels=labels, inspect=inspect), frames, workers=workers)
    findings = list(progress(read, total=len(frames), what=split))
    faults = [*listed, *_list_faults(frames, source)]
    faults += [fault for found in findings for fault in found.faults]
    tracks: set[tuple[str, int]] = set()
    for clip, group in groupby(zip(frames, findings, strict=True), key=lambda pair: pair[0].clip):
        of_clip = list(group)
        tracks |= {(clip, id) for _, found in of_clip for id in found.truth.tracks}
        faults += [*_gaps(clip, [frame for frame, _ in of_clip], source), *_changes(of_clip, labels)]
    crowds = sum(found.truth.crowds for found in findings)
    plain = [Findings((), found.truth.class_ids, found.turned) for found in findings]
    return SplitReport(
        split=split,
        title=str(source),
        counts=(
            count(len({frame.clip for frame in frames}), "clip"),
            count(len(frames), "frame"),
            count(len(tracks), "track"),
            count(len(labels), "class", "classes"),
        ),
        ids=tuple(frame.id for frame in frames),
        images=tuple(frame.image for frame in frames),
        faults=tuple(faults),
        notes=(*notes_on(plain, labels), *([count(crowds, "region") + " of many objects"] if crowds else [])),
        of_clips=True,
    )


def inspect_frame(frame: Frame, *, labels: LabelSet, inspect: InspectTruth) -> FrameFindings:
    """Read one frame and its truth, and compare them."""
    faults: list[Fault] = []
    size, degrees = None, 0
    if frame.image is None or not is_there(frame.image):
        where = frame.image or frame.truth
        faults.append(
            Fault("missing image", str(where), f"no image of frame '{frame.id}'; add it, or take its truth away")
        )
    else:
        size, degrees, fault = readable_image(frame.image, str(frame.image))
        faults += [fault] if fault else []
    if frame.truth is None or not is_there(frame.truth):
        faults.append(
            Fault(
                "missing truth",
                str(frame.truth or frame.image),
                f"no truth of frame '{frame.id}'; add it, or take its image away",
            )
        )
        return FrameFindings(tuple(faults), size, degrees != 0, TruthFindings())
    found = inspect(frame, labels, size)
    for stated, by in ((frame.size, "list"), (found.size, f"truth in {frame.truth.name}")):
        if size is not None and stated not in (None, size):
            where = f"{frame.image} (frame '{frame.id}')"
            faults.append(size_fault(where, size, degrees, stated=stated, by=by))
    return FrameFindings((*faults, *found.faults), size, degrees != 0, found._replace(faults=()))


class MisfitError(DataError):
    """The truth of a frame has another size than its image, and turning it does not help."""


class RepairedTruth(NamedTuple):
    """The truth of a frame as far as it can be used, and what was done to it, by the keys of `repair.REPAIRS`."""

    truth: Annotation
    done: Mapping[str, int]


ReadRepaired = Callable[[Frame, LabelSet, "tuple[int, int]", int], RepairedTruth]
"""Reads the truth of a frame whose upright image has that height and width and was turned by that EXIF orientation; a
function of a module, or a partial of one. Raises DataError for one that is unusable, MisfitError for its size."""


class FramesToRepair(NamedTuple):
    """What a format tells of a split whose faults are to be repaired.

    Attributes:
        frames: clip by clip, in the order of time, also those without image or truth.
        labels: what the ids on disk mean.
        read: reads the truth of one.
        done: what was left out of its lists, by the keys of `repair.REPAIRS`.
        numbered_by: see ClipFrames.
    """

    frames: tuple[Frame, ...]
    labels: LabelSet
    read: ReadRepaired
    done: Mapping[str, int] = {}
    numbered_by: int | None = None


def turned_to_fit(ids: np.ndarray, size: tuple[int, int], orientation: int, *, source: Path | None) -> np.ndarray:
    """A map [H, W], turned as EXIF turns its image if that makes it fit. Raises MisfitError if nothing does."""
    if ids.shape == size:
        return ids
    if orientation >= 5 and ids.shape == size[::-1]:
        return turned_upright(ids, orientation)
    raise MisfitError(f"{source}: the map is {_sides((ids.shape[0], ids.shape[1]))}, its image {_sides(size)}")


def unbroken(frames: Sequence[tuple[Frame, tuple[int, int]]]) -> Iterator[list[Frame]]:
    """The frames of a clip in parts between which frames are missing, or the size of the images changes."""
    named = [frame for frame, _ in frames]
    breaks = _breaks([frame.name for frame in named])
    breaks |= {place for place in range(1, len(frames)) if frames[place][1] != frames[place - 1][1]}
    if not breaks:
        yield named
        return
    for start, stop in pairwise([0, *sorted(breaks), len(frames)]):
        yield from unbroken(frames[start:stop])


def _list_faults(frames: Sequence[Frame], source: Path | str) -> Iterator[Fault]:
    if not frames:
        yield Fault("empty split", str(source), "no frames in this split")
    for id, times in Counter(frame.id for frame in frames).items():
        if times > 1:
            yield Fault("repeated id", str(source), f"frame '{id}' stands {times} times in it")


def _gaps(clip: str, frames: Sequence[Frame], source: Path | str) -> Iterator[Fault]:
    """Frames that are missing between others, by their numbers, most of which are at one distance."""
    numbers, usual = _numbers_and_step([frame.name for frame in frames])
    for (before, first), (after, second) in pairwise(numbers):
        if usual and after - before >= 2 * usual:
            lacking = count((after - before) // usual - 1, "frame is", "frames are")
            text = (
                f"{lacking} missing between '{frames[first].name}' and '{frames[second].name}'; others are {usual} "
                "apart; add them, or cut the clip there (pixelwise data check --fix does)"
            )
            yield Fault("missing frames", f"{source}: clip '{clip}'", text)


def _breaks(names: Sequence[str]) -> set[int]:
    """The places of frames before which others are missing."""
    numbers, usual = _numbers_and_step(names)
    return {place for (before, _), (after, place) in pairwise(numbers) if usual and after - before >= 2 * usual}


def _numbers_and_step(names: Sequence[str]) -> tuple[list[tuple[int, int]], int]:
    """The number and the place of each frame that has one, and by how much most of them grow, or 0."""
    numbers = [(number, place) for place, name in enumerate(names) if (number := number_of(name)) is not None]
    steps = Counter(after - before for (before, _), (after, _) in pairwise(numbers))
    return numbers, max((step for step in steps if step > 0), key=lambda step: (steps[step], -step), default=0)


def _changes(frames: Sequence[tuple[Frame, FrameFindings]], labels: LabelSet) -> Iterator[Fault]:
    """Sizes, and classes of ids, that are others than before in the clip; each change once."""
    before: tuple[Frame, tuple[int, int]] | None = None
    class_of: dict[int, tuple[int, Frame]] = {}
    shared = {id for _, found in frames for id, class_id in found.truth.classes.items() if class_id is None}
    for frame, found in frames:
        if found.size is not None:
            if before is not None and found.size != before[1]:
                text = f"{_sides(found.size)}, the frame before, '{before[0].name}', {_sides(before[1])} (height×width)"
                yield Fault("size changes", f"{frame.image} (frame '{frame.id}')", text)
            before = (frame, found.size)
        for id, class_id in found.truth.classes.items():
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


def without_path(error: DataError, path: Path | str) -> str:
    """The error's text without the file it begins with."""
    return str(error).removeprefix(f"{path}: ")


def _sides(size: tuple[int, int] | None) -> str:
    return "×".join(str(side) for side in size or ())
