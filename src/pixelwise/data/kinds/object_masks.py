"""Files in which each pixel holds the number of its object, beside or instead of files of classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from pixelwise.data.listing import Fault
from pixelwise.errors import DataError
from pixelwise.files.images import read_ids
from pixelwise.labels import LabelSet


def instances_option(options: Mapping[str, str], *, name: str) -> bool | None:
    """What the option `instances` says. Raises DataError for another value than true or false."""
    option = options.get("instances")
    if option not in (None, "true", "false"):
        raise DataError(f"{name}: instances={option}; expected true or false")
    return None if option is None else option == "true"


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
