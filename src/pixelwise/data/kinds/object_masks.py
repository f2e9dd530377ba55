"""Files in which each pixel holds the number of its object, beside or instead of files of classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from pixelwise.data.dataset import Dataset
from pixelwise.data.kinds.class_masks import SemanticPairs
from pixelwise.data.kinds.faults import Fault, count
from pixelwise.errors import DataError
from pixelwise.files.images import read_ids
from pixelwise.labels import LabelSet
from pixelwise.types import Annotation, Sample

ReadObjects = Callable[[Path, np.ndarray, LabelSet], Annotation]
"""Reads the objects of a file, and the segments if it tells them, given the class ids [H, W] of the image."""


@dataclass(frozen=True)
class PairsWithObjects:
    """Images with masks of classes and with the objects in them. See Dataset for the attributes.

    Attributes:
        pairs: the images and masks.
        object_files: the file of object ids of each.
        read: a function of a module, so that other processes may read.
    """

    pairs: SemanticPairs
    object_files: tuple[Path, ...] = field(repr=False)
    read: ReadObjects

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
        """As the pairs."""
        return self.pairs.labels

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
        """Read an image, its mask and its objects. Raises DataError when one is unusable, or their sizes differ."""
        sample = self.pairs[index]
        assert sample.truth.semantic is not None
        try:
            found = self.read(self.object_files[index], sample.truth.semantic.numpy(), self.labels)
        except DataError as error:
            raise DataError(f"{error} (image '{sample.id}')") from None
        return replace(sample, truth=replace(sample.truth, instances=found.instances, panoptic=found.panoptic))

    def size_of(self, index: int) -> tuple[int, int]:
        """Height and width of the upright image, from its header."""
        return self.pairs.size_of(index)

    def image_path(self, index: int) -> Path:
        """The file of the image."""
        return self.pairs.image_path(index)

    def truth_path(self, index: int) -> Path:
        """The mask file."""
        return self.pairs.truth_path(index)


def with_objects(pairs: SemanticPairs, files: Sequence[Path], *, wanted: bool | None, read: ReadObjects) -> Dataset:
    """The pairs with their objects, where every image has a file of them.

    Args:
        pairs: images and masks.
        files: where the objects of each should be.
        wanted: False leaves them out, True refuses a set without; None takes them if they are there for all images,
            and a note says so if they are for some.
        read: reads one file.

    Raises:
        DataError: they are wanted, and a file is missing.
    """
    missing = [file for file in files if not file.is_file()]
    if wanted is False or (wanted is None and len(missing) == len(files)):
        return pairs
    if missing and wanted:
        raise DataError(f"{missing[0]}: no such file of objects; {len(missing)} of {len(files)} are missing")
    if missing:
        lacking = count(len(missing), "image has", "images have")
        note = f"objects are left out: {lacking} no file of them, such as {missing[0].name}"
        return replace(pairs, note="; ".join(text for text in (pairs.note, note) if text))
    return PairsWithObjects(pairs, tuple(files), read)


def objects_wanted(options: Mapping[str, str], *, name: str) -> bool | None:
    """What the option `instances` says. Raises DataError for another value than true or false."""
    wanted = options.get("instances")
    if wanted not in (None, "true", "false"):
        raise DataError(f"{name}: instances={wanted}; true or false is wanted")
    return None if wanted is None else wanted == "true"


def read_object_ids(path: Path, size: tuple[int, ...]) -> np.ndarray:
    """A file of object ids [H, W]. Raises DataError for an unreadable one, or one of another size."""
    ids = read_ids(path)
    if ids.shape != tuple(size):
        raise DataError(f"{path}: {ids.shape[0]}×{ids.shape[1]} pixels, its image {size[0]}×{size[1]}")
    return ids


def contradictions(
    class_ids: np.ndarray, class_id: int | None, labels: LabelSet, path: Path, id: int
) -> Iterator[Fault]:
    """What is wrong with an object by the class mask.

    Args:
        class_ids: of the object's pixels, by the class mask.
        class_id: of the object, where its id tells it.
        labels: what the class ids mean.
        path: the file of object ids.
        id: of the object in it.
    """
    evaluated, counts = np.unique(class_ids[class_ids != labels.ignore_id], return_counts=True)
    found = ", ".join(f"{labels.names[one]} ({pixels:,} pixels)" for one, pixels in zip(evaluated, counts, strict=True))
    where = f"{path}: object {id}"
    if class_id is not None:
        if evaluated.size and evaluated.tolist() != [class_id]:
            yield Fault("object of another class", where, f"a {labels.names[class_id]}; the class mask says {found}")
    elif not evaluated.size or evaluated.tolist() == [labels.background_id]:
        yield Fault("object of no class", where, f"the class mask says {found or 'void'} at all of its pixels")
    elif evaluated.size > 1:
        yield Fault("object in several classes", where, f"the class mask says {found}")
