"""What every data set offers, and the shapes that the formats on disk take."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from pixelwise.data.listing import Item, Listing, ReadTruth
from pixelwise.data.passed_over import passed_over_notes
from pixelwise.data.truth.segments import annotation_of, mapped_segments
from pixelwise.errors import DataError
from pixelwise.files.images import image_size, read_image
from pixelwise.labels import LabelMap, LabelSet
from pixelwise.types import Annotation, Sample

if TYPE_CHECKING:  # pyright takes no cached_property for the property of a protocol
    cached_property = property
else:
    from functools import cached_property


class Dataset(Protocol):
    """Images with their ground truth, by number. Can be pickled, so that other processes may read.

    Attributes:
        name: the specification it was opened by, such as `camvid:./CamVid@train`.
        format: the format on disk.
        labels: what the class ids of the ground truth mean.
        ids: one for each image, unique.
        note: a note to the user about its opening, or None.
        clips: the clip of each image, where all are frames that stand clip by clip in the order of time; else None.
        numbered_by: what divides the id of an object with its number in the clip as remainder; None where the id is the
            number. See `data.truth.track_ids`.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def format(self) -> str: ...  # noqa: D102

    @property
    def labels(self) -> LabelSet: ...  # noqa: D102

    @property
    def ids(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def note(self) -> str | None: ...  # noqa: D102

    @property
    def clips(self) -> tuple[str, ...] | None: ...  # noqa: D102

    @property
    def numbered_by(self) -> int | None: ...  # noqa: D102

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample:
        """Read one image and its truth. Raises DataError with the file and the id."""
        ...

    def size_of(self, index: int) -> tuple[int, int]:
        """Height and width of the upright image, from its header."""
        ...

    def image_path(self, index: int) -> Path:
        """The file of the image."""
        ...

    def truth_path(self, index: int) -> Path:
        """The file that holds its truth."""
        ...

    def flow(self, index: int, *, reference: int) -> Float[Tensor, "2 H W"] | None:
        """The optical flow from a frame to another of its clip, by the other's index in it; None if unknown."""
        ...


@dataclass(frozen=True, eq=False)
class FileDataset:
    """Images with their ground truth as files and lists have it. See Dataset for the attributes.

    Attributes:
        items: the images; every one has a file.
        read: reads the ground truth of one.
        source: the file or the folder that lists them.
    """

    name: str
    format: str
    labels: LabelSet
    items: tuple[Item, ...] = field(repr=False)
    read: ReadTruth = field(repr=False)
    source: Path | str = ""
    note: str | None = None
    numbered_by: int | None = None

    def __post_init__(self) -> None:
        require_unique(self.ids, source=self.name)

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """The id of each image."""
        return tuple(item.id for item in self.items)

    @cached_property
    def clips(self) -> tuple[str, ...] | None:
        """The clip of each image; None of stills."""
        return tuple(item.clip for item in self.items if item.clip is not None) or None

    @cached_property
    def _places(self) -> tuple[int, ...]:
        return places_in_clips(self.clips or ())

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Sample:
        """Read one image and its truth. Raises DataError when either is unusable, or their sizes differ."""
        index = range(len(self))[index]  # negative and too large indices as in a list
        item = self.items[index]
        try:
            image = read_image(self.image_path(index))
            size = (image.shape[1], image.shape[2])
            if item.size_hw not in (None, size):
                raise DataError(
                    f"{item.image}: {size[0]}×{size[1]} pixels (height×width, upright), {self.source} says "
                    f"{'×'.join(map(str, item.size_hw or ()))}"
                )
            truth = self.read(item, self.labels, size)
        except DataError as error:
            raise DataError(f"{error} ({'image' if item.clip is None else 'frame'} '{item.id}')") from None
        if item.clip is None:
            return Sample(image, truth, item.id, size)
        return Sample(image, truth, item.id, size, clip=item.clip, frame=self._places[index])

    def truth(self, index: int) -> Annotation:
        """The ground truth of one image, without reading the image's pixels."""
        return self.read(self.items[index], self.labels, self.size_of(index))

    def size_of(self, index: int) -> tuple[int, int]:
        """Height and width of the upright image, by its list, else from its header."""
        return self.items[index].size_hw or image_size(self.image_path(index))

    def image_path(self, index: int) -> Path:
        """The file of the image."""
        path = self.items[index].image
        assert path is not None
        return path

    def truth_path(self, index: int) -> Path:
        """The file that holds its truth."""
        path = self.items[index].truth
        assert path is not None
        return path

    def flow(self, index: int, *, reference: int) -> None:
        """The flow is unknown."""


def open_listing(listing: Listing, *, name: str, format: str) -> Dataset:
    """The data set of a split. Raises DataError for the first fault with which it cannot be opened."""
    fatal = next((fault for fault in listing.faults if fault.fatal), None)
    if fatal is not None:
        file = f"{listing.source}: " if listing.one_file and not fatal.where.startswith(str(listing.source)) else ""
        raise DataError(f"{file}{fatal.where}: {fatal.text}; pixelwise data check lists all such faults")
    items = listing.items
    skipped = [listing.skipped] if listing.skipped else []
    if listing.halves:
        # where a clip lacks an image, its frames do not follow each other
        lonely = [sum(item.truth is None for item in items), sum(_is_lonely_truth(item) for item in items)]
        items = tuple(item for item in items if item.truth and not _is_lonely_truth(item))
        if not items:
            raise DataError(
                f"{name}: no image of this split has a {listing.noun}; {len(listing.items)} names were compared"
                + "".join(f", {note}" for note in listing.notes)
            )
        if any(lonely):
            noun = listing.noun
            skipped.append(f"skipped: {lonely[0]} images without a {noun}, {lonely[1]} {noun}s without an image")
    if not items:
        raise DataError(f"{listing.source}: no images in this split ({name})")
    for item in items:
        if item.rivals:
            raise DataError(f"{item.rivals[0]}: another file has the name '{item.id}' too; take away one of them")
    _require_files(items, listing, name=name)
    note = "; ".join([*listing.notes, *skipped, *passed_over_notes(listing.items, listing.source)]) or None
    dataset = FileDataset(name, format, listing.labels, items, listing.read, listing.source, note, listing.numbered_by)
    return dataset if listing.make is None else listing.make(dataset, name)


def _is_lonely_truth(item: Item) -> bool:
    return item.image is None and item.clip is None


def _require_files(items: Sequence[Item], listing: Listing, *, name: str) -> None:
    """Raise DataError where an image or its ground truth is missing."""
    there: dict[Path, bool] = {}
    for what in ("image", listing.noun):
        if what != "image" and listing.may_lack:
            continue
        paths = [item.image if what == "image" else item.truth for item in items]
        there |= {path: is_there(path) for path in dict.fromkeys(paths) if path is not None and path not in there}
        missing = [place for place, path in enumerate(paths) if path is None or not there[path]]
        if missing:
            path = paths[missing[0]]
            raise DataError(
                f"{name}: no {what} for '{items[missing[0]].id}'{f', {path}' if path else ''}; {len(missing)} of "
                f"{len(items)} are missing: see pixelwise data check"
            )


def is_there(path: Path) -> bool:
    """Whether a path is a file, or may be one in a folder that must not be looked into, as reading it will tell."""
    try:
        return path.is_file()
    except OSError:
        return True


def places_in_clips(clips: Sequence[str]) -> tuple[int, ...]:
    """The place of each frame in its clip, from 0, given the clips of frames that follow each other."""
    seen: Counter[str] = Counter()
    places: list[int] = []
    for clip in clips:
        places.append(seen[clip])
        seen[clip] += 1
    return tuple(places)


@dataclass(frozen=True)
class Merged:
    """Several sets over one label set, one after the other.

    Where an id, or the name of a clip, stands in more than one of them, every id and every name of a clip is prefixed
    with the number of its set: `2/0001`.
    """

    parts: tuple[Dataset, ...]

    def __post_init__(self) -> None:
        if not self.parts:
            raise DataError("no data set to merge")
        first = self.parts[0]
        for other in self.parts[1:]:
            first.labels.require_same(other.labels, mine=f"data {first.name}", theirs=f"data {other.name}")

    @property
    def name(self) -> str:
        """The specifications of the parts, joined by ` + `."""
        return " + ".join(part.name for part in self.parts)

    @property
    def format(self) -> str:
        """The formats of the parts, joined by `+`, each once."""
        return "+".join(dict.fromkeys(part.format for part in self.parts))

    @property
    def labels(self) -> LabelSet:
        """The label set of the first part; the names are those of all."""
        return self.parts[0].labels

    @property
    def note(self) -> str | None:
        """The notes of the parts, joined."""
        return "; ".join(part.note for part in self.parts if part.note) or None

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """The ids of all parts, in order."""
        return tuple(self._named(number, id) for number, part in enumerate(self.parts) for id in part.ids)

    @cached_property
    def clips(self) -> tuple[str, ...] | None:
        """The clip of each image; None unless all parts are sets of clips."""
        clips = [part.clips for part in self.parts]
        if None in clips:
            return None
        return tuple(self._named(part, name) for part, names in enumerate(clips) for name in names or ())

    @cached_property
    def _are_prefixed(self) -> bool:
        plain = [id for part in self.parts for id in part.ids]
        clips = [name for part in self.parts for name in set(part.clips or ())]
        return any(len(set(names)) < len(names) for names in (plain, clips))

    def _named(self, part: int, name: str) -> str:
        return f"{part + 1}/{name}" if self._are_prefixed else name

    @cached_property
    def _starts(self) -> list[int]:
        return [*accumulate(map(len, self.parts), initial=0)]

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> Sample:
        """The sample of the part that the index falls into, under its id here."""
        number, inner = self._place(index)
        sample = self.parts[number][inner]
        clip = None if sample.clip is None else self._named(number, sample.clip)
        return replace(sample, id=self.ids[index], clip=clip)

    def size_of(self, index: int) -> tuple[int, int]:
        """Height and width of the upright image, from its header."""
        part, inner = self.find(index)
        return part.size_of(inner)

    def image_path(self, index: int) -> Path:
        """The file of the image."""
        part, inner = self.find(index)
        return part.image_path(inner)

    def truth_path(self, index: int) -> Path:
        """The file that holds its truth."""
        part, inner = self.find(index)
        return part.truth_path(inner)

    @property
    def numbered_by(self) -> int | None:
        """As all parts, if they agree."""
        found = {part.numbered_by for part in self.parts}
        return found.pop() if len(found) == 1 else None

    def flow(self, index: int, *, reference: int) -> Float[Tensor, "2 H W"] | None:
        """As the part that the index falls into."""
        part, inner = self.find(index)
        return part.flow(inner, reference=reference)

    def find(self, index: int) -> tuple[Dataset, int]:
        """The part that the index falls into, and its place there."""
        part, inner = self._place(index)
        return self.parts[part], inner

    def _place(self, index: int) -> tuple[int, int]:
        index = range(len(self))[index]  # negative and too large indices as in a list
        part = bisect_right(self._starts, index) - 1
        return part, index - self._starts[part]


@dataclass(frozen=True)
class Wrapped:
    """Another set, for those that change its samples and nothing else."""

    dataset: Dataset

    @property
    def name(self) -> str:
        """As the other set."""
        return self.dataset.name

    @property
    def format(self) -> str:
        """As the other set."""
        return self.dataset.format

    @property
    def labels(self) -> LabelSet:
        """As the other set."""
        return self.dataset.labels

    @property
    def note(self) -> str | None:
        """As the other set."""
        return self.dataset.note

    @property
    def ids(self) -> tuple[str, ...]:
        """As the other set."""
        return self.dataset.ids

    @property
    def clips(self) -> tuple[str, ...] | None:
        """As the other set."""
        return self.dataset.clips

    @property
    def numbered_by(self) -> int | None:
        """As the other set."""
        return self.dataset.numbered_by

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        """The sample of the other set."""
        return self.dataset[index]

    def size_of(self, index: int) -> tuple[int, int]:
        """Height and width of the upright image, from its header."""
        return self.dataset.size_of(index)

    def image_path(self, index: int) -> Path:
        """The file of the image."""
        return self.dataset.image_path(index)

    def truth_path(self, index: int) -> Path:
        """The file that holds its truth."""
        return self.dataset.truth_path(index)

    def flow(self, index: int, *, reference: int) -> Float[Tensor, "2 H W"] | None:
        """As the other set."""
        return self.dataset.flow(index, reference=reference)


@dataclass(frozen=True)
class Mapped(Wrapped):
    """A set whose classes are those of another label set.

    Objects whose class the map ignores, or makes one that has no objects such as the background, are excluded from
    `instances`. Where the ground truth has segments, those of ignored classes become void, and classes and objects are
    made anew from them.
    """

    label_map: LabelMap

    def __post_init__(self) -> None:
        self.dataset.labels.require_same(
            self.label_map.source, mine=f"data {self.dataset.name}", theirs="the source of the label map"
        )

    @property
    def labels(self) -> LabelSet:
        """The target of the map."""
        return self.label_map.target

    def __getitem__(self, index: int) -> Sample:
        """The sample with the classes of the target."""
        sample = self.dataset[index]
        return replace(sample, truth=self.mapped(sample.truth))

    def mapped(self, truth: Annotation) -> Annotation:
        """Ground truth of the set that is mapped, with the classes of the target."""
        if truth.semantic is not None:
            semantic = self.label_map.apply(truth.semantic.numpy())
            truth = replace(truth, semantic=torch.from_numpy(semantic))
        if truth.instances is not None:
            labels = torch.tensor(self.label_map.table)[truth.instances.labels]
            kept = torch.isin(labels, torch.tensor(self.labels.object_ids)).nonzero().flatten()
            truth = replace(truth, instances=replace(truth.instances[kept], labels=labels[kept]))
        if truth.panoptic is not None:
            tracked = truth.instances is not None and truth.instances.track_ids is not None
            made = annotation_of(mapped_segments(truth.panoptic, self.label_map), self.labels, clip=tracked)
            truth = replace(truth, panoptic=made.panoptic, semantic=made.semantic, instances=made.instances)
        return truth


@runtime_checkable
class FrameSamples(Protocol):
    """Samples that may be frames of clips. See Dataset."""

    @property
    def clips(self) -> tuple[str, ...] | None: ...  # noqa: D102


@runtime_checkable
class FlowSamples(Protocol):
    """Samples of which the flow may be known. See Dataset."""

    def flow(self, index: int, *, reference: int) -> Float[Tensor, "2 H W"] | None: ...  # noqa: D102


def clip_of_each(dataset: object) -> tuple[str | None, ...] | None:
    """As `Dataset.clips`, also of a set that joins clips with stills, which have None; None if there are no clips."""
    if isinstance(dataset, Wrapped):
        return clip_of_each(dataset.dataset)
    if not isinstance(dataset, Merged):
        return dataset.clips if isinstance(dataset, FrameSamples) else None
    parts = [clip_of_each(part) for part in dataset.parts]
    if all(clips is None for clips in parts):
        return None
    return tuple(
        None if clip is None else f"{number}/{clip}"
        for number, (part, clips) in enumerate(zip(dataset.parts, parts, strict=True), start=1)
        for clip in clips or (None,) * len(part)
    )


def flow_of(samples: object, index: int, reference: int) -> Float[Tensor, "2 H W"] | None:
    """The optical flow from a frame to another of its clip, by the other's index in it; None if unknown."""
    return samples.flow(index, reference=reference) if isinstance(samples, FlowSamples) else None


def require_unique(ids: Sequence[str], *, source: str) -> None:
    """Raise DataError, beginning with `source`, when an id occurs more than once."""
    repeated = [id for id, count in Counter(ids).items() if count > 1]
    if repeated:
        raise DataError(f"{source}: id '{repeated[0]}' occurs more than once; {len(repeated)} such ids in all")
