"""From one format on disk to another, and what gets lost on the way, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pixelwise.data.dataset import Dataset, Mapped
from pixelwise.data.kinds.folders import UNIONS
from pixelwise.data.kinds.writing import MakeWriter, Original, Writer
from pixelwise.data.listing import Written
from pixelwise.data.spec import DataSpec, folder_of, format_named, format_names, format_of, open_dataset
from pixelwise.errors import DataError, in_words
from pixelwise.files.atomic import replace_folder
from pixelwise.files.images import exif_orientation
from pixelwise.files.parallel import Progress, apply, silent
from pixelwise.labels import LabelMap, LabelSet

LOSSES: Mapping[str, str] = {
    "unmapped_pixels": "{} [pixel|pixels] of classes that have no place in the target [becomes|become] void",
    "unmapped_objects": "{} [object|objects] of classes that have no place in the target [is|are] skipped",
    "void_pixels_as_class": "{} void [pixel|pixels] [becomes|become] background (or the class around them); a set of "
    "objects has no void",
    "crowd_pixels": "{} [pixel|pixels] of crowd regions [loses its class|lose their class]",
    "changed_pixels": "{} [pixel|pixels] [changes|change] [its|their] class where objects overlap",
    "left_out_objects": "{} [object|objects] without a pixel, or of the background, [is|are] skipped",
    "loose_boxes": "{} [box|boxes] replaced by the tight [box|boxes] of the [mask|masks]",
    "joined_regions": "{} [region|regions] of countable classes [becomes|become] one annotation each, however many "
    "objects they hold",
    "flattened_objects": "{} [object|objects] [becomes|become] the class of [its|their] pixels; where one ends and "
    "the next begins is lost",
    "overlapping_pixels": "{} [pixel|pixels] [belongs|belong] to several objects; the smallest of these keeps "
    "[it|them]",
    "hidden_objects": "{} [object|objects] [is|are] covered by smaller ones and [vanishes|vanish]",
    "empty_segments": "{} [segment|segments] without a pixel [is|are] skipped",
    "joined_segments": "{} [segment|segments] [becomes|become] one with another of [its|their] class: stuff, or crowds",
    "renumbered_segments": "{} [segment|segments] [gets|get] another id",
    "crowds_of_classes": "{} [region|regions] of countable classes [becomes a crowd|become crowds], since [it "
    "has|they have] no instances",
    "renumbered_objects": "{} [object|objects] [gets|get] another number in [its|their] clip; the target cannot hold "
    "[its|theirs], or has it",
    "classless_objects": "{} [object|objects] in frames [loses|lose] [its|their] class; the target has one",
    "stuff_pixels": "{} [pixel|pixels] of classes that have no objects [becomes|become] background, or void",
    "left_out_crowds": "{} crowd [region|regions] [is|are] skipped, and [becomes|become] background",
    "crowd_regions": "{} crowd [region|regions] [becomes|become] void where no object covers [it|them]",
    "reencoded_images": "{} [image|images] [is|are] encoded anew, the target does not take [its|their] kind of file",
    "turned_images": "{} [image|images] [is|are] copied with [its|their] EXIF rotation; [its|their] ground truth is "
    "that of the upright image",
    "renamed_images": "{} [image|images] [gets|get] another name, because the target would have two of one name",
}
"""What a target may be unable to hold: key → its line; see `errors.in_words`."""


@dataclass(frozen=True)
class Conversion:
    """What was written.

    Attributes:
        source: the specification of what was read.
        target: the specification of what was written.
        images: split → how many images it has now.
        failures: one line for each image, or split, that could not be read and was skipped.
        losses: key of LOSSES → how much the target could not hold.
        notes: for the user.
        label_map: how the classes of the source became those of the target, or None where they are the same.
    """

    source: str
    target: str
    images: Mapping[str, int]
    failures: tuple[str, ...] = ()
    losses: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    label_map: LabelMap | None = None

    def lines(self) -> Iterator[str]:
        """What the target cannot hold, one line each."""
        for key, text in LOSSES.items():
            if self.losses.get(key):
                yield in_words(text, self.losses[key])


@dataclass(frozen=True)
class _Outcome:
    """One image: what was written, or why nothing was."""

    written: Written | None = None
    failure: str | None = None
    unwritable: str | None = None


def writable_formats() -> tuple[str, ...]:
    """The formats that can be written."""
    return tuple(name for name in format_names() if format_named(name).writer is not None)


def convert_dataset(
    source: DataSpec,
    target: DataSpec,
    *,
    map_labels: Callable[[LabelSet, LabelSet], LabelMap] | None = None,
    overwrite: bool = False,
    workers: int = 0,
    progress: Progress = silent,
) -> Conversion:
    """Write a data set anew in another format, or in the same.

    The new folder appears when it is complete; before, nothing is changed.

    Args:
        source: one split, or all where it names none.
        target: what is to be written; with a split, the one split of the source gets that name.
        map_labels: makes the map from the source's classes to the target's where they differ.
        overwrite: replace a set of the target's format that lies in its place.
        workers: processes that read and write; 0 does both in this one.
        progress: called for each image.

    Raises:
        DataError: nothing was attempted: an unusable specification, label sets that differ and no map, a target that
            is not empty or holds the source; or the disk is full.
    """
    format, writer = format_of(source), _writer(target)
    datasets, notes, unusable = _opened(source, target)
    first = next(iter(datasets.values()))
    to = replace(writer(dict(target.options), first.labels), numbered_by=first.numbered_by)
    label_map = _label_map(first, to, target, map_labels)
    root = Path(target.path).expanduser()
    _require_free(root, target, datasets.values(), overwrite=overwrite)
    outcomes: dict[str, list[_Outcome]] = {}
    finished: Counter[str] = Counter()

    def fill(folder: Path) -> None:
        names = _Names(to, by_file=format.numbered_ids)
        for split, dataset in datasets.items():
            read = Mapped(dataset, label_map) if label_map else dataset
            job = partial(_convert, dataset=read, target=to, root=folder, split=split, encode=format.synthetic)
            named = names.of(split, dataset, keep_ids=dataset.clips is not None)
            found = progress(apply(job, named, workers=workers), total=len(named), what=split)
            outcomes[split] = _require_written(found, root)
            written = [one.written for one in outcomes[split] if one.written]
            if written:
                finished.update(to.finish(folder, split=split, written=written) or {})
        to.finish_set(folder)
        if not any(one.written for of_split in outcomes.values() for one in of_split):
            raise _NothingWrittenError

    try:
        replace_folder(root, fill)
    except _NothingWrittenError:
        pass
    except OSError as error:
        raise DataError(f"{root}: cannot be written ({error.strerror or error}); nothing was changed") from None
    return _summed(source, target, outcomes, finished, notes, label_map, unusable)


class _NothingWrittenError(Exception):
    """No image could be read; the target stays as it was."""


class _Names:
    """Names of files, unique where they meet.

    Args:
        target: that is written.
        by_file: whether images are called as their files, since ids are numbers in a list.
    """

    def __init__(self, target: Writer, *, by_file: bool) -> None:
        self.shared, self.by_file = target.shares_images, by_file
        self.files: dict[str, Path] = {}
        self.ids: set[str] = set()

    def of(self, split: str, dataset: Dataset, *, keep_ids: bool) -> list[_Named]:
        """How each image of a split is called; ids that an earlier split has become others, unless they are kept."""
        if not self.shared:
            self.files = {}
        ids = [dataset.image_path(index).stem if self.by_file else id for index, id in enumerate(dataset.ids)]
        preferred = [id.replace("/", "_") for id in ids]
        repeated = {name for name, times in Counter(preferred).items() if times > 1}
        named: list[_Named] = []
        new_ids = dataset.ids if keep_ids else self._unique(split, dataset.ids)
        for index, name in enumerate(preferred):
            if name in repeated:  # as in a COCO file whose images lie in several folders
                name = f"{name}_{dataset.ids[index].replace('/', '_')}"
            image, stem = dataset.image_path(index), name
            if self.files.get(name, image) != image:
                name = f"{stem}_{split}"
            number = 1
            while self.files.get(name, image) != image:
                name = f"{stem}_{split}_{(number := number + 1)}"
            self.files[name] = image
            named.append(_Named(index, name, new_ids[index], name != preferred[index]))
        return named

    def _unique(self, split: str, ids: Sequence[str]) -> list[str]:
        """Ids that no earlier split has: numbers go on behind the largest, text begins with the split."""
        free = count(max((int(id) for id in {*self.ids, *ids} if id.isdecimal()), default=0) + 1)
        unique = [id if id not in self.ids else str(next(free)) if id.isdecimal() else f"{split}_{id}" for id in ids]
        self.ids.update(unique)
        return unique


class _Named(NamedTuple):
    """An image: its place in the set, the name of its files, its id, and whether that name is another than before."""

    place: int
    name: str
    id: str
    renamed: bool


def _convert(item: _Named, *, dataset: Dataset, target: Writer, root: Path, split: str, encode: bool) -> _Outcome:
    """Read one image and write it, encoded anew where it is not that of its file."""
    index, name, id, renamed = item
    inner = dataset.dataset if isinstance(dataset, Mapped) else dataset
    try:
        sample = inner[index]
        truth = dataset.mapped(sample.truth) if isinstance(dataset, Mapped) else sample.truth
        image = dataset.image_path(index)
        turned = exif_orientation(image) != 1
        pixels = sample.image.permute(1, 2, 0).contiguous().numpy()
        written = target.write(
            root,
            Original(
                split=split,
                name=name,
                id=id,
                image=image,
                pixels=pixels,
                truth=truth,
                upright=encode,
            ),
        )
    except DataError as error:
        return _Outcome(failure=str(error))
    except OSError as error:  # as text, since not every exception survives the way to another process
        return _Outcome(unwritable=error.strerror or str(error))
    losses = Counter(written.losses)
    losses["renamed_images"] = int(renamed)
    losses["turned_images"] = int(turned and not losses["reencoded_images"])
    if truth.semantic is not None and sample.truth.semantic is not None:
        void = int(np.count_nonzero(truth.semantic.numpy() == dataset.labels.ignore_id))
        losses["unmapped_pixels"] = void - int(
            np.count_nonzero(sample.truth.semantic.numpy() == inner.labels.ignore_id)
        )
    if truth.instances is not None and sample.truth.instances is not None:
        losses["unmapped_objects"] = max(0, len(sample.truth.instances) - len(truth.instances))
    return _Outcome(Written(written.name, written.file, losses, written.entry))


def _require_written(found: Iterable[_Outcome], root: Path) -> list[_Outcome]:
    outcomes: list[_Outcome] = []
    for outcome in found:
        if outcome.unwritable is not None:
            raise DataError(f"{root}: cannot be written ({outcome.unwritable}); nothing was changed")
        outcomes.append(outcome)
    return outcomes


def _writer(target: DataSpec) -> MakeWriter:
    format = format_of(target)
    if format.writer is None:
        raise DataError(f"{target}: {target.format} is read, not written; {', '.join(writable_formats())} are written")
    strange = next((name for name, _ in target.options if name not in format.takes), None)
    if strange is not None:
        taken = ", ".join(f"{name} ({format.options[name]})" for name in format.takes) or "none"
        raise DataError(f"{target.format}: a new set takes no option {strange}; it takes {taken}")
    return format.writer


def _opened(source: DataSpec, target: DataSpec) -> tuple[dict[str, Dataset], list[str], list[str]]:
    """Name in the target → data set, what was decided, and one line for each split that cannot be opened.

    Raises DataError where none can, or the splits have different classes.
    """
    format, path, options = format_of(source), folder_of(source), dict(source.options)
    splits = (source.split,) if source.split else format.splits(path, options)
    notes: list[str] = []
    if target.split and len(splits) > 1:
        raise DataError(f"{target}: {source} has the splits {', '.join(splits)}; only one can become @{target.split}")
    datasets: dict[str, Dataset] = {}
    errors: list[DataError] = []
    for split in splits:
        try:
            datasets[target.split or split] = open_dataset(source, default_split=split)
        except DataError as error:
            errors.append(error)
    if not datasets:
        raise errors[0]
    if not format_of(target).shared_images:
        for union in _unions(datasets):
            del datasets[union]
            notes.append(f"split {union} is skipped, its images are in {', '.join(datasets)}")
    notes += dict.fromkeys(dataset.note for dataset in datasets.values() if dataset.note)
    first, *others = datasets.values()
    for other in others:
        first.labels.require_same(other.labels, mine=f"data {first.name}", theirs=f"data {other.name}")
    if len(first.labels.void_ids) > 1:
        notes.append(f"the {len(first.labels.void_ids)} ids on disk that mean void become one")
    return datasets, notes, [f"{error}; the split is skipped" for error in errors]


def _unions(datasets: Mapping[str, Dataset]) -> list[str]:
    """The splits that hold nothing but images of the others."""
    images = {split: {of.image_path(index) for index in range(len(of))} for split, of in datasets.items()}
    parts = set[Path]().union(*(found for split, found in images.items() if split not in UNIONS))
    return [split for split in UNIONS if split in images and images[split] <= parts]


def _label_map(
    first: Dataset, to: Writer, target: DataSpec, map_labels: Callable[[LabelSet, LabelSet], LabelMap] | None
) -> LabelMap | None:
    if first.labels.names == to.labels.names:
        return None
    if map_labels is None and dict(target.options).get("classes") == "things":
        return LabelMap.by_names(first.labels, to.labels, default="background")
    if map_labels is None:
        to.labels.require_same(first.labels, mine=f"target {target}", theirs=f"data {first.name}")
        return None
    return map_labels(first.labels, to.labels)


def _require_free(root: Path, target: DataSpec, datasets: Iterable[Dataset], *, overwrite: bool) -> None:
    """Raise DataError unless the folder may be written: it is not there, it is empty, or it may be replaced."""
    if root.is_file():
        raise DataError(f"{target}: {root} is a file; expected a folder")
    place = root.resolve()
    if Path.cwd().is_relative_to(place):
        raise DataError(f"{target}: {root} is the folder you are in, or one around it; choose another")
    if not root.is_dir() or not any(root.iterdir()):
        return
    if not overwrite:
        raise DataError(f"{target}: {root} is not empty; choose another folder, or add --overwrite")
    for dataset in datasets:
        for index in range(len(dataset)):
            if any(path.resolve().is_relative_to(place) for path in (dataset.image_path(index), dataset.truth_path(0))):
                raise DataError(f"{target}: {root} holds what is to be converted; choose another folder")
    try:
        format_of(target).splits(root, dict(target.options))
    except DataError as error:
        raise DataError(f"{root}: --overwrite replaces only a set of the same format ({error})") from None


def _summed(
    source: DataSpec,
    target: DataSpec,
    outcomes: Mapping[str, Sequence[_Outcome]],
    finished: Counter[str],
    notes: Sequence[str],
    label_map: LabelMap | None,
    unusable: Sequence[str],
) -> Conversion:
    flat = [one for of_split in outcomes.values() for one in of_split]
    losses = sum((Counter(one.written.losses) for one in flat if one.written), finished)
    images = {split: sum(one.written is not None for one in of_split) for split, of_split in outcomes.items()}
    return Conversion(
        source=str(source),
        target=str(target),
        images={split: number for split, number in images.items() if number},
        failures=(*unusable, *(one.failure for one in flat if one.failure is not None)),
        losses={key: losses[key] for key in LOSSES if losses[key]},
        notes=tuple(notes),
        label_map=label_map,
    )
