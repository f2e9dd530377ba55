"""What every data set offers, and the shapes that the formats on disk take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pixelwise.data.truth.segments import annotation_of, mapped_segments
from pixelwise.errors import DataError
from pixelwise.labels import LabelMap, LabelSet
from pixelwise.types import Annotation, Sample


class Dataset(Protocol):
    """Images with their truth, by number. Can be pickled, so that other processes may read.

    A set of clips has a further attribute, `clips`, the clip of each image; see `clips_of`.

    Attributes:
        name: the specification it was opened by, such as `camvid:./CamVid@train`.
        format: the format on disk.
        labels: what the class ids of the truth mean.
        ids: one for each image, unique.
        note: what was decided when it was opened and the user should know, or None.
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

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of all parts, in order."""
        return self._ids

    @property
    def clips(self) -> tuple[str, ...] | None:
        """The clip of each image; None unless all parts are sets of clips."""
        return self._clips

    @cached_property
    def _ids(self) -> tuple[str, ...]:
        plain = [id for part in self.parts for id in part.ids]
        if not self._are_prefixed:
            return tuple(plain)
        return tuple(f"{number}/{id}" for number, part in enumerate(self.parts, start=1) for id in part.ids)

    @cached_property
    def _clips(self) -> tuple[str, ...] | None:
        clips = [clips_of(part) for part in self.parts]
        if any(names is None for names in clips):
            return None
        return tuple(self._clip(part, name) for part, names in enumerate(clips) for name in names or ())

    @cached_property
    def _are_prefixed(self) -> bool:
        plain = [id for part in self.parts for id in part.ids]
        clips = [name for part in self.parts for name in set(clips_of(part) or ())]
        return any(len(set(names)) < len(names) for names in (plain, clips))

    def _clip(self, part: int, name: str) -> str:
        return f"{part + 1}/{name}" if self._are_prefixed else name

    @cached_property
    def _starts(self) -> np.ndarray:
        return np.cumsum([0, *(len(part) for part in self.parts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> Sample:
        """The sample of the part that the index falls into, under its id here."""
        index = range(len(self))[index]
        number = self._part(index)
        sample = self.parts[number][index - int(self._starts[number])]
        clip = None if sample.clip is None else self._clip(number, sample.clip)
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

    def find(self, index: int) -> tuple[Dataset, int]:
        """The part that the index falls into, and its place there."""
        index = range(len(self))[index]  # negative and too large indices as in a list
        part = self._part(index)
        return self.parts[part], index - int(self._starts[part])

    def _part(self, index: int) -> int:
        return int(np.searchsorted(self._starts, index, side="right")) - 1


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
        """The clip of each image, if the other set has them."""
        return clips_of(self.dataset)

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


@dataclass(frozen=True)
class Mapped(Wrapped):
    """A set whose classes are those of another label set.

    Objects whose class the map ignores, or makes one that has no objects such as the background, are left out of
    `instances`. Where the truth has segments, those of ignored classes become void, and classes and objects are made
    anew from them.
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
        """Truth of the set that is mapped, with the classes of the target."""
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


def clips_of(dataset: object) -> tuple[str, ...] | None:
    """The clip of each image, of a set whose images are frames that stand clip by clip in the order of time; else None.

    Nothing is read.
    """
    return getattr(dataset, "clips", None)


def clip_of_each(dataset: object) -> tuple[str | None, ...] | None:
    """As `clips_of`, also of a set that joins clips with stills, of which each has None; None if there are no clips."""
    if isinstance(dataset, Wrapped):
        return clip_of_each(dataset.dataset)
    if not isinstance(dataset, Merged):
        return clips_of(dataset)
    parts = [clip_of_each(part) for part in dataset.parts]
    if all(clips is None for clips in parts):
        return None
    return tuple(
        None if clip is None else f"{number}/{clip}"
        for number, (part, clips) in enumerate(zip(dataset.parts, parts, strict=True), start=1)
        for clip in clips or (None,) * len(part)
    )


def flow_of(dataset: object, index: int, reference: int) -> Float[Tensor, "2 H W"] | None:
    """The optical flow from a frame to another of its clip, of a set that knows it; else None.

    Args:
        dataset: the set.
        index: of the frame.
        reference: the other frame's place in the clip.
    """
    if isinstance(dataset, Wrapped):
        return flow_of(dataset.dataset, index, reference)
    if isinstance(dataset, Merged):
        part, inner = dataset.find(index)
        return flow_of(part, inner, reference)
    flow = getattr(dataset, "flow", None)
    return None if flow is None else flow(index, reference=reference)


def require_unique(ids: Sequence[str], *, source: str) -> None:
    """Raise DataError, beginning with `source`, when an id stands more than once."""
    repeated = [id for id, count in Counter(ids).items() if count > 1]
    if repeated:
        raise DataError(f"{source}: id '{repeated[0]}' stands more than once; {len(repeated)} such ids in all")
