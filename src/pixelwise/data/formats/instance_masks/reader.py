"""One's own images with masks of objects, one number for each object and 0 for none, paired by name.

The layouts are those of the format masks: `images/SPLIT/` and `masks/SPLIT/`; `images/` and `masks/` without splits;
`SPLIT/` and `SPLITannot/`. `?images=PNGImages&masks=PedMasks&suffix=_mask` reads Penn-Fudan.

Without a label file all objects are of one class, `object`; a `labels.txt` with one name (`background` may stand before
it) gives it another. With several classes, `?divisor=1000` says that a number is class · 1000 + count, or a file
`classes.json` holds the class of each number; see `classes`. `?void=255` names one that means "ignored".

The truth of an image is its objects and the class of each pixel, `background` where no object is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from pixelwise.data.formats.instance_masks.classes import ObjectClasses, contiguous_things, object_classes
from pixelwise.data.formats.instance_masks.writer import ObjectMasksWriter
from pixelwise.data.kinds import pair_layout
from pixelwise.data.kinds.class_masks import SemanticPairs
from pixelwise.data.kinds.class_masks_writer import writable_labels
from pixelwise.data.kinds.faults import Fault, Findings, SplitReport, check_pairs
from pixelwise.data.kinds.folders import Entry, pairs_dataset
from pixelwise.data.truth.segments import ids_in, instances_of_ids
from pixelwise.errors import DataError
from pixelwise.files.images import image_size, read_ids, read_image
from pixelwise.files.parallel import Progress
from pixelwise.labels import LabelSet
from pixelwise.types import Annotation, Sample

OPTIONS: Mapping[str, str] = {
    "images": "the folder of images",
    "masks": "the folder of masks",
    "suffix": "what a mask's name has after its image's, such as _mask",
    "labels": "a published label set, or a .txt or .toml file in the folder",
    "divisor": "a number in a mask is class · divisor + count, such as 1000",
    "classes": "a JSON file in the folder with the class of each number of each image",
    "void": "a number that means: ignored",
}


@dataclass(frozen=True)
class ObjectMasks:
    """Images, each with a mask file of the same size that holds numbers of objects. See Dataset for the attributes.

    Attributes:
        pairs: the images and masks.
        classes: what the numbers mean.
        split: the split, by which the table may name images.
        void: numbers that mean "ignored".
    """

    pairs: SemanticPairs
    classes: ObjectClasses = field(repr=False)
    split: str
    void: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """As the pairs."""
        return self.pairs.name

    @property
    def format(self) -> str:
        """As the pairs."""
        return self.pairs.format

    @property
    def labels(self) -> LabelSet:
        """What the class ids mean."""
        return self.classes.labels

    @property
    def ids(self) -> tuple[str, ...]:
        """As the pairs."""
        return self.pairs.ids

    @property
    def note(self) -> str | None:
        """As the pairs."""
        return self.pairs.note

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        """Read one image and its mask. Raises DataError when either is unusable, or a number is of no class."""
        image_path, mask_path, id = self.pairs.images[index], self.pairs.masks[index], self.ids[index]
        try:
            image, numbers = read_image(image_path), read_ids(mask_path)
        except DataError as error:
            raise DataError(f"{error} (image '{id}')") from None
        size = (image.shape[1], image.shape[2])
        if numbers.shape != size:
            raise DataError(
                f"{mask_path}: the mask is {numbers.shape[0]}×{numbers.shape[1]}, "
                f"its image {image_path} {size[0]}×{size[1]} (image '{id}')"
            )
        truth = truth_of(numbers, self.classes, names_of(id, self.split), void=self.void, source=str(mask_path))
        return Sample(image=image, truth=truth, id=id, original_size=size)

    def size_of(self, index: int) -> tuple[int, int]:
        """Height and width of the upright image, from its header."""
        return image_size(self.pairs.images[index])

    def image_path(self, index: int) -> Path:
        """The file of the image."""
        return self.pairs.images[index]

    def truth_path(self, index: int) -> Path:
        """The mask file."""
        return self.pairs.masks[index]


def open_split(path: Path, split: str, options: Mapping[str, str], *, name: str) -> ObjectMasks:
    """The pairs of one split. Raises DataError when there are none, or several classes cannot be told apart."""
    entries = pair_layout.list_entries(path, split, options)
    pair_layout.require_pairs(path, entries, options, name=name)
    classes, note = object_classes(path, options), pair_layout.pairs_note(path, entries, options)
    pairs = pairs_dataset(entries, classes.labels, name=name, format="instance-masks", note=note)
    return ObjectMasks(pairs, classes, split, void_of(options))


def check_split(path: Path, split: str, options: Mapping[str, str], *, workers: int, progress: Progress) -> SplitReport:
    """Read every image and every mask and report every fault. Raises DataError when classes cannot be told apart."""
    classes = object_classes(path, options)
    report = check_pairs(
        pair_layout.list_entries(path, split, options),
        classes.labels,
        split=split,
        source=pair_layout.source_of(path, split, options),
        workers=workers,
        progress=progress,
        inspect_numbers=partial(_inspect_numbers, classes=classes, split=split, void=void_of(options)),
    )
    note = pair_layout.split_note(path, options)
    return replace(report, notes=(note, *report.notes)) if note else report


def truth_of(
    numbers: np.ndarray, classes: ObjectClasses, names: tuple[str, ...], *, void: tuple[int, ...], source: str
) -> Annotation:
    """The objects of a mask, those in crowds last, and the class of each pixel.

    Args:
        numbers: [H, W], as in the file.
        classes: what they mean.
        names: of the image, as the table may have it.
        void: numbers that are ignored.
        source: the file, for errors.

    Raises:
        DataError: a number is of no class.
    """
    labels = classes.labels
    found = ids_in(numbers, but=(0, *void))
    meant = {number: classes.of(number, names) for number in found}
    unknown = [number for number in found if meant[number] is None]
    if unknown:
        raise DataError(
            f"{source}: object {unknown[0]} is of no class by {classes.source}; {len(unknown)} such number(s) in all"
        )
    known = {number: one for number, one in meant.items() if one is not None}
    objects = sorted((number for number, one in known.items() if one.is_object), key=lambda one: known[one].crowd)
    crowd = [known[number].crowd for number in objects]
    instances = instances_of_ids(numbers, objects, [known[number].class_id for number in objects], crowd)
    values = sorted({0, *void, *found})
    ground = labels.ignore_id if labels.background_id is None else labels.background_id
    table = [
        ground if value == 0 else labels.ignore_id if value in void or known[value].crowd else known[value].class_id
        for value in values
    ]
    dtype = np.uint8 if len(labels) <= 255 else np.int32
    semantic = np.array(table, dtype=dtype)[np.searchsorted(values, numbers)]
    return Annotation(semantic=torch.from_numpy(semantic), instances=instances)


def writer(options: Mapping[str, str], source: LabelSet) -> ObjectMasksWriter:
    """Writes images/SPLIT/ and masks/SPLIT/ (or the names in the options), labels.toml and classes.json."""
    for option in ("divisor", "classes", "void"):
        if option in options:
            raise DataError(f"instance-masks: a new set takes no option {option}; its classes go into classes.json")
    image, mask = pair_layout.places_of(options, format="instance-masks")
    labels = contiguous_things(writable_labels(options, source=source, default=None))
    return ObjectMasksWriter(labels=labels, image=image, mask=mask)


def _inspect_numbers(
    entry: Entry, numbers: np.ndarray, *, classes: ObjectClasses, split: str, void: tuple[int, ...]
) -> Findings:
    """Numbers that are of no class, and numbers of the table that no pixel has."""
    faults: list[Fault] = []
    found, names = ids_in(numbers, but=(0, *void)), names_of(entry.id, split)
    class_ids: set[int] = set()
    for number in found:
        meant = classes.of(number, names)
        if meant is None:
            where = f"{entry.mask}: object {number}"
            faults.append(Fault("object of no class", where, f"{classes.source} does not tell its class"))
        else:
            class_ids.add(meant.class_id)
    for number in classes.of_image(names):
        if number not in found:
            where = f"{classes.source}: image '{entry.id}', object {number}"
            faults.append(Fault("object without pixels", where, f"no pixel of {entry.mask} has this number"))
    if classes.labels.background_id is not None and (numbers == 0).any():
        class_ids.add(classes.labels.background_id)
    return Findings(tuple(faults), frozenset(class_ids))


def names_of(id: str, split: str) -> tuple[str, ...]:
    """The names that an image may have in the table."""
    return f"{split}/{id}", id


def void_of(options: Mapping[str, str]) -> tuple[int, ...]:
    """The numbers that are ignored. Raises DataError for an option that is no number."""
    text = options.get("void")
    if text is None:
        return ()
    if not text.isdecimal() or int(text) == 0:
        raise DataError(f"instance-masks: void={text}; a number above 0 is wanted, such as 255")
    return (int(text),)
