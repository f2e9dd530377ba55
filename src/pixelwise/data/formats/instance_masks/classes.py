"""The class of the ids in an instance mask: one for all, by the id itself, or by a table.

A table is a JSON file: the image's name (or `SPLIT/NAME`) → number → the name of the class, or
`{"class": NAME, "crowd": true}` for a region of many objects.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from pixelwise.data.kinds.coco_json import labels_from
from pixelwise.data.kinds.folders import stored_labels
from pixelwise.data.listing import Written
from pixelwise.errors import DataError
from pixelwise.files.atomic import write_file
from pixelwise.files.text import read_json
from pixelwise.labels import LabelSet

TABLE = "classes.json"
"""The table that is taken where no option names one."""


class ObjectClass(NamedTuple):
    """What a number in a mask means.

    Attributes:
        class_id: 0…K-1.
        crowd: whether it is a region of many objects.
        is_object: whether it is counted, as an object or a crowd; else it is a class without objects.
    """

    class_id: int
    crowd: bool = False
    is_object: bool = True


@dataclass(frozen=True)
class ObjectClasses:
    """The meaning of the numbers in the masks of a set.

    Attributes:
        labels: what the class ids mean.
        source: what tells the classes, for errors.
        only: the class of all objects, or None.
        divisor: number = class on disk · divisor + count, a class alone is a region without objects; or None.
        table: image → number → what it means, where neither of them tells.
    """

    labels: LabelSet
    source: str
    only: int | None = None
    divisor: int | None = None
    table: Mapping[str, Mapping[int, ObjectClass]] | None = None

    def of(self, number: int, names: Sequence[str]) -> ObjectClass | None:
        """The meaning of one number in the mask of an image that goes by these names; None of an unknown number."""
        if self.only is not None:
            return ObjectClass(self.only)
        if self.divisor is not None:
            dataset_id, is_region = (number, True) if number < self.divisor else (number // self.divisor, False)
            if dataset_id not in self.labels.dataset_ids:
                return None
            class_id = self.labels.dataset_ids.index(dataset_id)
            is_thing = self.labels.is_thing[class_id]
            return ObjectClass(class_id, crowd=is_region and is_thing, is_object=is_thing)
        return self.of_image(names).get(number)

    def of_image(self, names: Sequence[str]) -> Mapping[int, ObjectClass]:
        """What the table says of an image."""
        table = self.table or {}
        return next((table[name] for name in names if name in table), {})


def object_classes(path: Path, options: Mapping[str, str]) -> ObjectClasses:
    """What the options and files of a set say of its classes.

    The label set is that of the option `labels`, of labels.toml or labels.txt, of the names in the table, or, where
    there is none of them, `background` and `object`. `background` comes first where a list of names lacks it; if no
    class is said to be a thing, all others are.

    Raises:
        DataError: a faulty file; or several classes, and nothing that tells them apart.
    """
    file, divisor = path / options.get("classes", TABLE), _divisor(options)
    stored = _read_table(file) if "classes" in options or file.is_file() else None
    labels = _labels(path, options, stored)
    if stored is not None and divisor is None:
        return ObjectClasses(labels, str(file), table=_understood(stored, labels, file))
    if divisor is not None:
        return ObjectClasses(labels, f"divisor {divisor:,}", divisor=divisor)
    things = [index for index, is_thing in enumerate(labels.is_thing) if is_thing]
    if len(things) != 1:
        raise DataError(
            f"{path}: {len(things)} classes of objects, and nothing says of which a number in a mask is; add "
            f"?divisor=1000 (number = class·1000 + count), or write {TABLE}: "
            '{"IMAGE": {"1": "CLASS", …}, …}'
        )
    return ObjectClasses(labels, "the only class", only=things[0])


def meaning_of(name: str, *, crowd: bool) -> str | dict[str, object]:
    """What the table says of a number."""
    return {"class": name, "crowd": True} if crowd else name


def add_meanings(table: Path, split: str, written: Sequence[Written]) -> None:
    """Add the meanings of the numbers of a split to a table, or begin it; `entry` of an image has them."""
    content = read_json(table) if table.is_file() else {}
    content |= {f"{split}/{one.name}": one.entry["meanings"] for one in written}
    write_file(table, json.dumps(content, ensure_ascii=False, indent=1))


def as_things(labels: LabelSet) -> LabelSet:
    """The set with all classes but the background as things, if it says of none that it is one."""
    if any(labels.is_thing):
        return labels
    return replace(labels, is_thing=tuple(index != labels.background_id for index in range(len(labels))))


def contiguous_things(labels: LabelSet) -> LabelSet:
    """The same classes with the ids 0…K-1 on disk, void after them."""
    return replace(labels, dataset_ids=tuple(range(len(labels))), void_ids=(255,) if len(labels) <= 255 else (65535,))


def _labels(path: Path, options: Mapping[str, str], stored: Mapping[str, Mapping[int, Any]] | None) -> LabelSet:
    found, name = stored_labels(path, options), path.resolve().name
    if found is not None:
        labels, is_list = found
        if not is_list:
            return _with_ground(labels)
        # the number 0 is no object, so that the first class of a list without background has the number 1
        return labels_from([*enumerate(labels.names, 0 if labels.names[0] == "background" else 1)], name=name)
    if stored is None:
        return labels_from([(1, "object")], name=name)
    names = {one["class"] for of_image in stored.values() for one in of_image.values()}
    return labels_from([*enumerate(sorted(names) or ["object"], 1)], name=name)


def _with_ground(labels: LabelSet) -> LabelSet:
    """The set of a .toml file; a background before it if it has none and all of its classes are things."""
    if labels.background_id is not None:
        return as_things(labels)
    if not all(labels.is_thing):
        return labels
    free = 0 if 0 not in (*labels.dataset_ids, *labels.void_ids) else min(*labels.dataset_ids, *labels.void_ids) - 1
    return replace(
        labels,
        names=("background", *labels.names),
        is_thing=(False, *labels.is_thing),
        palette=((0, 0, 0), *labels.palette),
        dataset_ids=(free, *labels.dataset_ids),
    )


def _divisor(options: Mapping[str, str]) -> int | None:
    text = options.get("divisor")
    if text is None:
        return None
    if not text.isdecimal() or int(text) < 2:
        raise DataError(f"instance-masks: divisor={text}; expected a whole number above 1, such as 1000")
    return int(text)


def _read_table(file: Path) -> dict[str, dict[int, dict[str, Any]]]:
    """Image → number → `class` and `crowd`, as they stand in the file."""
    content = read_json(file)
    form = '{"IMAGE": {"1": "CLASS", …}, …}'
    if not isinstance(content, dict):
        raise DataError(f"{file}: {form}")
    table: dict[str, dict[int, dict[str, Any]]] = {}
    for image, numbers in content.items():
        if not isinstance(numbers, dict):
            raise DataError(f"{file}: image '{image}': {form}")
        table[image] = {}
        for number, meaning in numbers.items():
            entry = {"class": meaning} if isinstance(meaning, str) else meaning
            if not number.isdecimal() or not isinstance(entry, dict) or not isinstance(entry.get("class"), str):
                raise DataError(f"{file}: image '{image}', object '{number}': {form}")
            table[image][int(number)] = entry
    return table


def _understood(
    stored: Mapping[str, Mapping[int, Mapping[str, Any]]], labels: LabelSet, file: Path
) -> dict[str, dict[int, ObjectClass]]:
    table: dict[str, dict[int, ObjectClass]] = {}
    for image, numbers in stored.items():
        table[image] = {}
        for number, entry in numbers.items():
            name = entry["class"]
            if name not in labels.names:
                raise DataError(
                    f"{file}: image '{image}', object {number}: class '{name}' is not in LabelSet '{labels.name}' "
                    f"({', '.join(labels.names[:24])})"
                )
            table[image][number] = ObjectClass(labels.names.index(name), crowd=bool(entry.get("crowd", False)))
    return table
