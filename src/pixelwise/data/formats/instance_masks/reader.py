"""Reading; see the package."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch

from pixelwise.data.formats.instance_masks.classes import ObjectClasses, contiguous_things, object_classes
from pixelwise.data.formats.instance_masks.repair import names_of, repair_of
from pixelwise.data.formats.instance_masks.writer import ObjectMasksWriter
from pixelwise.data.kinds import pair_layout
from pixelwise.data.kinds.class_masks import require_size, stored_mask
from pixelwise.data.kinds.class_masks_writer import writable_labels
from pixelwise.data.listing import Fault, Findings, Item, Listing, Size
from pixelwise.data.truth.segments import ids_in, instances_of_ids
from pixelwise.errors import DataError
from pixelwise.files.images import read_ids
from pixelwise.labels import LabelSet
from pixelwise.types import Annotation

OPTIONS: Mapping[str, str] = {
    "images": "the folder of images",
    "masks": "the folder of masks",
    "suffix": "what a mask's name has after its image's, such as _mask",
    "labels": "a published label set, or a .txt or .toml file in the folder",
    "divisor": "a number in a mask is class · divisor + count, such as 1000",
    "classes": "a JSON file in the folder with the class of each number of each image",
    "void": "a number that means: ignored",
}


def list_split(path: Path, split: str, options: Mapping[str, str]) -> Listing:
    """The images and masks of one split, also those without partner. Raises DataError when classes are not told."""
    items, classes, void = pair_layout.list_items(path, split, options), object_classes(path, options), void_of(options)
    return Listing(
        items,
        classes.labels,
        read=partial(read_numbers, classes=classes, split=split, void=void),
        inspect=partial(inspect_numbers, classes=classes, split=split, void=void),
        source=pair_layout.source_of(path, split, options),
        notes=pair_layout.split_notes(path, options),
        halves=True,
        repair=partial(repair_of, items, classes, void),
    )


def read_numbers(
    item: Item,
    labels: LabelSet,  # noqa: ARG001
    size: Size,
    *,
    classes: ObjectClasses,
    split: str,
    void: tuple[int, ...],
) -> Annotation:
    """The objects of a mask and the class of each pixel; see `Listing.read`."""
    assert item.truth is not None
    numbers = read_ids(item.truth)
    require_size(numbers.shape, size, source=item.truth, image=item.image, noun="mask")
    return truth_of(numbers, classes, names_of(item.id, split), void=void, source=str(item.truth))


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
    return ObjectMasksWriter(labels, "instance-masks", image=image, mask=mask)


def inspect_numbers(
    item: Item,
    labels: LabelSet,
    size: Size | None,
    *,
    classes: ObjectClasses,
    split: str,
    void: tuple[int, ...],
) -> Findings:
    """Numbers that are of no class, and numbers of the table that no pixel has; see `Listing.inspect`."""
    assert item.truth is not None
    numbers = stored_mask(item.truth)
    if isinstance(numbers, Fault):
        return Findings((numbers,))
    faults: list[Fault] = []
    found, names = ids_in(numbers, but=(0, *void)), names_of(item.id, split)
    class_ids: set[int] = set()
    for number in found:
        meant = classes.of(number, names)
        if meant is None:
            where = f"{item.truth}: object {number}"
            faults.append(Fault("object of no class", where, f"{classes.source} does not give its class"))
        else:
            class_ids.add(meant.class_id)
    for number in classes.of_image(names):
        if number not in found:
            where = f"{classes.source}: image '{item.id}', object {number}"
            faults.append(Fault("object without pixels", where, f"no pixel of {item.truth} has this number"))
    if labels.background_id is not None and (numbers == 0).any():
        class_ids.add(labels.background_id)
    size = (numbers.shape[0], numbers.shape[1])
    return Findings(tuple(faults), size, f"mask {item.truth.name}", frozenset(class_ids), parts=len(found))


def void_of(options: Mapping[str, str]) -> tuple[int, ...]:
    """The numbers that are ignored. Raises DataError for an option that is no number."""
    text = options.get("void")
    if text is None:
        return ()
    if not text.isdecimal() or int(text) == 0:
        raise DataError(f"instance-masks: void={text}; expected a number above 0, such as 255")
    return (int(text),)
