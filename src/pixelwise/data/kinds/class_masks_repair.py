"""Repaired copies of sets of one mask of class ids for each image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pixelwise.data.kinds.folders import Entry
from pixelwise.data.kinds.repair_images import FolderCopy, Repaired, read_pair
from pixelwise.data.kinds.writing import Original, Target, Written
from pixelwise.data.truth.colours import match_colours
from pixelwise.errors import DataError
from pixelwise.files.images import read_ids, turned_upright
from pixelwise.labels import LabelSet
from pixelwise.types import Annotation, Instances

InstancesIn = Callable[[np.ndarray, np.ndarray, LabelSet], Instances]
"""What a format offers whose pairs may have object ids: the objects of ids [H, W] and class ids [H, W]."""


def _pair_copy(format: Any, path: Path, splits: Sequence[str], options: Mapping[str, str]) -> FolderCopy:
    """How the copy of a set of images and masks of class ids is made."""
    labels = _with_void(format.labels_of(path, options))
    kept = {name: value for name, value in options.items() if name in ("ids", "annotations")}
    if "ids" in format.OPTIONS:
        kept["ids"] = format.ids_of(path, splits[0], options)
    target: Target = replace(format.writer(kept, labels), labels=labels)
    entries = {split: _listed(format, path, split, options) for split in splits}
    has_objects = any(entry.objects for of_split in entries.values() for entry in of_split)
    repairer = PairRepairer(
        labels,
        target,
        colours=options.get("palette") is not None,
        instances_in=getattr(format, "instances_in", None) if has_objects else None,
    )
    return FolderCopy(entries, repairer, kept)


def _listed(format: Any, path: Path, split: str, options: Mapping[str, str]) -> list[Entry]:
    try:
        return list(format.list_entries(path, split, options))
    except DataError:  # a list that is no text; the check has named it
        return []


@dataclass(frozen=True)
class PairRepairer:
    """Writes images and masks of class ids, by the format's own target. See Repairer.

    Attributes:
        labels: the classes.
        target: of the format.
        colours: whether masks hold colours, instead of ids.
        instances_in: of the format, where the set has object ids.
    """

    labels: LabelSet
    target: Target
    colours: bool
    instances_in: InstancesIn | None

    def repair(self, entry: Entry, *, root: Path, split: str) -> Repaired:
        """Make unknown ids void, and classes and objects agree."""
        done: Counter[str] = Counter()
        pair = read_pair(entry, done, colours=self.colours)
        if pair is None or entry.image is None:
            return Repaired(None, done)
        class_ids, unknown = _class_ids(pair.mask, self.labels, colours=self.colours)
        done["unknown_pixels"] += unknown
        if (class_ids == self.labels.ignore_id).all():
            return Repaired(None, {"only_void": 1})
        done["upright_images"] += pair.orientation != 1
        instances = None
        if self.instances_in is not None:
            ids = _read_objects(entry, class_ids.shape, pair.orientation)
            if ids is None:
                return Repaired(None, {"missing_objects": 1})
            tells_class = getattr(self.target, "divisor", None) is not None
            instances = _agreeing(self.instances_in, ids, class_ids, self.labels, done, tells_class=tells_class)
        written = self.target.write(
            root,
            Original(
                split=split,
                name=entry.id,
                id=entry.id,
                image=entry.image,
                pixels=pair.pixels,
                truth=Annotation(semantic=torch.from_numpy(class_ids), instances=instances),
                upright=pair.orientation != 1,
            ),
        )
        return Repaired(written, done)

    def finish(self, root: Path, *, split: str, written: Sequence[Written]) -> None:
        """As the target."""
        self.target.finish(root, split=split, written=written)

    def finish_set(self, root: Path) -> None:
        """As the target."""
        self.target.finish_set(root)


def _read_objects(entry: Entry, size: tuple[int, ...], orientation: int) -> np.ndarray | None:
    """Object ids [H, W], turned as EXIF turns the image if that makes them fit; None where there are none."""
    try:
        ids = None if entry.objects is None else read_ids(entry.objects)
    except DataError:
        return None
    if ids is not None and ids.shape != size and orientation >= 5:
        ids = turned_upright(ids, orientation)
    return ids if ids is not None and ids.shape == size else None


def _agreeing(
    instances_in: InstancesIn,
    ids: np.ndarray,
    class_ids: np.ndarray,
    labels: LabelSet,
    done: Counter[str],
    *,
    tells_class: bool,
) -> Instances:
    """The objects of an image; its class ids are made to agree with them, in place.

    Args:
        instances_in: of the format.
        ids: of the objects.
        class_ids: by the class mask.
        labels: what class ids mean.
        done: is told what was done.
        tells_class: whether the id of an object tells its class, and regions have ids too.
    """
    instances = instances_in(ids, class_ids, labels)
    assert instances.masks is not None
    covered = np.zeros(ids.shape, dtype=np.bool_)
    for number, class_id in enumerate(instances.labels.tolist()):
        x1, y1, x2, y2 = instances.masks.boxes[number].tolist()
        inside, place = instances.masks.crop(number).numpy() != 0, np.s_[y1:y2, x1:x2]
        covered[place] |= inside
        wrong = inside & (class_ids[place] != labels.ignore_id) & (class_ids[place] != class_id)
        done["object_classes"] += bool(wrong.any())
        class_ids[place][wrong] = class_id
    if not tells_class:
        there = set(np.unique(ids).tolist()) - {0, *labels.void_ids}
        done["objects_without_class"] += len(there) - len(instances)
        lost = ~covered & (class_ids != labels.ignore_id) & (class_ids != (labels.background_id or 0))
        done["pixels_without_object"] += int(lost.sum())
        class_ids[lost] = labels.ignore_id
    return instances


def _class_ids(mask: np.ndarray, labels: LabelSet, *, colours: bool) -> tuple[np.ndarray, int]:
    """Class ids, unknown ids or colours as void, and the number of those pixels."""
    if colours:
        ids, unknown = match_colours(mask, labels)
        return ids, sum(unknown.values())
    known = np.isin(mask, (*labels.dataset_ids, *labels.void_ids))
    ids = np.where(known, mask.astype(np.int32), labels.void_ids[0])
    return labels.class_ids(ids, source="mask"), int((~known).sum())


def _with_void(labels: LabelSet) -> LabelSet:
    """The same set with an id for void, if it has none."""
    if labels.void_ids:
        return labels
    return replace(labels, void_ids=(255,) if 255 not in labels.dataset_ids else (max(labels.dataset_ids) + 1,))
