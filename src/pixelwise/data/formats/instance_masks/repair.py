"""A copy of a set of instance-masks with its faults repaired where that can be done without guessing.

Objects keep their numbers; what numbers mean is told as in the set.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pixelwise.data.formats.instance_masks.classes import TABLE, ObjectClass, ObjectClasses, object_classes
from pixelwise.data.formats.instance_masks.reader import names_of, void_of
from pixelwise.data.kinds import pair_layout
from pixelwise.data.kinds.folders import Entry, labels_toml
from pixelwise.data.kinds.repair_images import FolderCopy, Repaired, read_pair
from pixelwise.data.kinds.writing import Written, write_ids, write_image
from pixelwise.data.truth.object_ids import object_colours
from pixelwise.data.truth.segments import ids_in
from pixelwise.files.atomic import write_file
from pixelwise.files.text import read_json

_LARGEST = 65535


def copy_of(path: Path, splits: Sequence[str], options: Mapping[str, str]) -> FolderCopy:
    """How the copy of some splits is made. Raises DataError when classes cannot be told apart."""
    classes = object_classes(path, options)
    entries = {split: pair_layout.list_entries(path, split, options) for split in splits}
    void = void_of(options)
    if not void and classes.only is None:
        void = (_free_number(classes),)
    query = {"divisor": str(classes.divisor)} if classes.divisor is not None else {}
    if void:
        query["void"] = str(void[0])
    return FolderCopy(entries, ObjectMasksRepairer(classes, void), query)


@dataclass(frozen=True)
class ObjectMasksRepairer:
    """Writes images/SPLIT/, masks/SPLIT/, labels.toml, and classes.json where the set has a table. See Repairer.

    Attributes:
        classes: what the numbers mean.
        void: numbers that are ignored; the first stands for numbers of no class.
    """

    classes: ObjectClasses
    void: tuple[int, ...]

    def repair(self, entry: Entry, *, root: Path, split: str) -> Repaired:
        """Make the numbers of no class void."""
        done: Counter[str] = Counter()
        pair = read_pair(entry, done)
        if pair is None or entry.image is None:
            return Repaired(None, done)
        numbers, names = pair.mask.astype(np.int32), names_of(entry.id, split)
        found = ids_in(numbers, but=(0, *self.void))
        unknown = [number for number in found if self.classes.of(number, names) is None]
        if unknown:
            of_none = np.isin(numbers, unknown)
            done["unknown_pixels"] += int(of_none.sum())
            numbers[of_none] = self.void[0]
        table = self.classes.of_image(names)
        done["table_numbers"] += len(table.keys() - set(found))
        done["upright_images"] += pair.orientation != 1
        file, _ = write_image(
            root, f"images/{split}/{entry.id}", entry.image, pair.pixels, upright=pair.orientation != 1
        )
        mask = root / "masks" / split / f"{entry.id}.png"
        mask.parent.mkdir(parents=True, exist_ok=True)
        write_ids(mask, numbers, object_colours())
        meanings = {str(number): self._meaning(one) for number, one in table.items() if number in found}
        return Repaired(Written(entry.id, file, {}, {"meanings": meanings}), done)

    def finish(self, root: Path, *, split: str, written: Sequence[Written]) -> None:
        """Add the meanings of the numbers of a split to the table."""
        if self.classes.table is None:
            return
        path = root / TABLE
        table = read_json(path) if path.is_file() else {}
        table |= {f"{split}/{one.name}": one.entry["meanings"] for one in written}
        write_file(path, json.dumps(table, ensure_ascii=False, indent=1))

    def finish_set(self, root: Path) -> None:
        """Write labels.toml."""
        (root / "labels.toml").write_text(labels_toml(self.classes.labels), encoding="utf-8")

    def _meaning(self, one: ObjectClass) -> str | dict[str, object]:
        name = self.classes.labels.names[one.class_id]
        return {"class": name, "crowd": True} if one.crowd else name


def _free_number(classes: ObjectClasses) -> int:
    """The largest number that means nothing in any image."""
    table = classes.table or {}
    taken = {number for of_image in table.values() for number in of_image}
    return next(number for number in range(_LARGEST, 0, -1) if number not in taken and classes.of(number, ()) is None)
