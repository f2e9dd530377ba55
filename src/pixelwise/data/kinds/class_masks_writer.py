"""Writing masks of class ids, one for each image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path

import numpy as np

from pixelwise.data.kinds.folders import published_names, read_labels
from pixelwise.data.kinds.writing import Original, Writer, Written, write_ids
from pixelwise.data.truth.object_ids import numbered_by_class, object_colours, painted_ids
from pixelwise.errors import DataError
from pixelwise.labels import LabelSet, published
from pixelwise.types import Annotation, Instances


@dataclass(frozen=True, kw_only=True)
class PairWriter(Writer):
    """A format with one mask file for each image. See Writer for the attributes.

    Attributes:
        image: where an image goes, with {split} and {name}, without its suffix.
        mask: where its mask goes.
        list_file: where the names of a split are listed, or None.
        folders: split → its name on disk, of those that differ.
        palette: whether masks carry the colours of the classes.
        objects: where the ids of its objects go, if the format has such files and the ground truth has objects.
        object_labels: the label set whose ids the files of objects hold, where it is not `labels`.
        divisor: object ids are class · divisor + number, and regions and crowds have the class alone; None: numbers.
    """

    image: str
    mask: str
    list_file: str | None = None
    folders: Mapping[str, str] = field(default_factory=dict)
    palette: bool = False
    label_file: str | None = "labels.toml"
    objects: str | None = None
    object_labels: LabelSet | None = None
    divisor: int | None = None

    def write(self, root: Path, original: Original) -> Written:
        """Write one image and its mask; see Writer. Raises DataError where there are ids that a PNG cannot hold."""
        place = {"split": self.folders.get(original.split, original.split), "name": original.name}
        file, losses = original.write_image(root, self.image.format(**place), suffixes=self.suffixes)
        if original.truth.semantic is None:
            raise DataError(f"{original.image}: its ground truth has no class for each pixel")
        mask = root / self.mask.format(**place)
        mask.parent.mkdir(parents=True, exist_ok=True)
        write_ids(
            mask, self.labels.dataset_ids_of(original.truth.semantic.numpy()), self.labels if self.palette else None
        )
        if self.objects is None or original.truth.instances is None or original.truth.instances.masks is None:
            return Written(original.name, file, losses | _flattened(original.truth))
        path = root / self.objects.format(**place)
        path.parent.mkdir(parents=True, exist_ok=True)
        return Written(
            original.name,
            file,
            losses | self._write_objects(path, original.truth.instances, original.truth.semantic.numpy()),
        )

    def _write_objects(self, path: Path, instances: Instances, semantic: np.ndarray) -> dict[str, int]:
        """Write object ids; what is lost."""
        labels = self.object_labels or self.labels
        if self.divisor is None:
            free = (number for number in count(1) if number not in labels.void_ids)
            numbers = [*islice(free, len(instances))]
            ids, losses = painted_ids(instances, numbers, np.zeros(semantic.shape, dtype=np.int32), crowds=False)
            void = np.full(semantic.shape, labels.void_ids[0] if labels.void_ids else 0)
            ids = np.where((semantic == labels.ignore_id) & (ids == 0), void, ids)
            write_ids(path, ids, object_colours())
            return losses
        numbers = numbered_by_class(instances, labels, self.divisor)
        ids, losses = painted_ids(instances, numbers, labels.dataset_ids_of(semantic), crowds=True)
        write_ids(path, ids, None)
        return losses

    def finish(self, root: Path, *, split: str, written: Sequence[Written]) -> None:
        """Write the list of the split, if the format has one."""
        if self.list_file is not None:
            path = root / self.list_file.format(split=split)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{one.name}\n" for one in written), encoding="utf-8")


def writable_labels(options: Mapping[str, str], *, source: LabelSet, default: str | None) -> LabelSet:
    """The label set of a new data set: the option `labels`, else `default`, else that of the source.

    Args:
        options: of the target's specification; `labels` is a published set, or a file.
        source: the label set of what is converted.
        default: the published set of the format, or None.
    """
    named_labels = options.get("labels")
    if named_labels in published_names():
        return published(named_labels)
    if named_labels:
        return read_labels(Path(named_labels).expanduser())
    return published(default) if default else source


def _flattened(truth: Annotation) -> dict[str, int]:
    """What is lost when objects become the classes of pixels."""
    instances = truth.instances
    if instances is None or not len(instances):
        return {}
    crowd = int(instances.crowds.sum())
    losses = {"flattened_objects": len(instances) - crowd}
    losses["joined_segments" if truth.panoptic is not None else "crowd_regions"] = crowd  # segments have a class
    if instances.masks is not None:
        covered = np.zeros(instances.masks.size, dtype=np.int32)
        for number in (~instances.crowds).nonzero().flatten().tolist():
            x1, y1, x2, y2 = instances.masks.boxes[number].tolist()
            covered[y1:y2, x1:x2] += instances.masks.crop(number).numpy() != 0
        losses["overlapping_pixels"] = int((covered > 1).sum())
    return {key: value for key, value in losses.items() if value}
