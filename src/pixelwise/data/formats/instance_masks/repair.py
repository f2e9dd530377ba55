"""A copy of a set of instance-masks with its faults repaired where that can be done without guessing.

Objects keep their numbers; what numbers mean is told as in the set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pixelwise.data.formats.instance_masks.classes import TABLE, ObjectClasses, add_meanings, meaning_of
from pixelwise.data.kinds.folders import labels_toml
from pixelwise.data.kinds.repairing import read_upright, usable_mask
from pixelwise.data.kinds.writing import write_ids, write_image
from pixelwise.data.listing import Item, Repair, Repaired, Written
from pixelwise.data.truth.object_ids import object_colours
from pixelwise.data.truth.segments import ids_in

_LARGEST = 65535


def repair_of(items: Sequence[Item], classes: ObjectClasses, void: tuple[int, ...]) -> Repair:
    """How the copy of a split is made."""
    if not void and classes.only is None:
        void = (_free_number(classes),)
    options = {"divisor": str(classes.divisor)} if classes.divisor is not None else {}
    if void:
        options["void"] = str(void[0])
    return Repair(items, ObjectMasksRepairer(classes, void), options=options)


def names_of(id: str, split: str) -> tuple[str, ...]:
    """The names that an image may have in the table."""
    return f"{split}/{id}", id


@dataclass(frozen=True)
class ObjectMasksRepairer:
    """Writes images/SPLIT/, masks/SPLIT/, labels.toml, and classes.json where the set has a table. See Repairer.

    Attributes:
        classes: what the numbers mean.
        void: numbers that are ignored; the first stands for numbers of no class.
    """

    classes: ObjectClasses
    void: tuple[int, ...]

    def repair(self, item: Item, *, root: Path, split: str, id: str) -> Repaired:
        """Make the numbers of no class void. See Repairer."""
        pixels, orientation = read_upright(item)
        mask, steps = usable_mask(item, (pixels.shape[0], pixels.shape[1]), orientation)
        done = Counter(steps)
        numbers, names = mask.astype(np.int32), names_of(id, split)
        found = ids_in(numbers, but=(0, *self.void))
        unknown = [number for number in found if self.classes.of(number, names) is None]
        if unknown:
            of_none = np.isin(numbers, unknown)
            done["unknown_pixels"] += int(of_none.sum())
            numbers[of_none] = self.void[0]
        table = self.classes.of_image(names)
        done["table_numbers"] += len(table.keys() - set(found))
        done["upright_images"] += orientation != 1
        assert item.image is not None
        file, _ = write_image(root, f"images/{split}/{id}", item.image, pixels, upright=orientation != 1)
        path = root / "masks" / split / f"{id}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_ids(path, numbers, object_colours())
        names = self.classes.labels.names
        meanings = {
            str(number): meaning_of(names[one.class_id], crowd=one.crowd)
            for number, one in table.items()
            if number in found
        }
        return Repaired(Written(id, file, {}, {"meanings": meanings}), done)

    def finish(self, root: Path, *, split: str, written: Sequence[Written]) -> None:
        """Add the meanings of the numbers of a split to the table."""
        if self.classes.table is not None:
            add_meanings(root / TABLE, split, written)

    def finish_set(self, root: Path) -> None:
        """Write labels.toml."""
        (root / "labels.toml").write_text(labels_toml(self.classes.labels), encoding="utf-8")


def _free_number(classes: ObjectClasses) -> int:
    """The largest number that means nothing in any image."""
    table = classes.table or {}
    taken = {number for of_image in table.values() for number in of_image}
    return next(number for number in range(_LARGEST, 0, -1) if number not in taken and classes.of(number, ()) is None)
