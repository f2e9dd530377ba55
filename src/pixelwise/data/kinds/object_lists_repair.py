"""Copies of labelme and yolo sets with their faults repaired where that can be done without guessing.

Both have a file for each image in which objects are drawn. What is sound is copied as it stands there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from pixelwise.errors import DataError
from pixelwise.ops import rle


class Drawn(NamedTuple):
    """One object: where it stands in the file, what it is, and its pixels in their box."""

    places: tuple[int, ...]
    kind: Any
    crowd: bool
    mask: np.ndarray
    box: rle.Box


def told_apart(drawn: Sequence[Drawn], done: Counter[str]) -> Iterator[Drawn]:
    """The objects without those that stand there already."""
    first_of: dict[tuple[bool, rle.Box, bytes], Drawn] = {}
    for one in drawn:
        first = first_of.setdefault((one.crowd, one.box, np.packbits(one.mask).tobytes()), one)
        if first is not one and first.kind == one.kind:
            done["repeated_annotations"] += 1
            continue
        done["two_classes"] += first is not one
        yield one


def rasterised(polygons: Sequence[Sequence[float]], size: tuple[int, int]) -> tuple[np.ndarray, rle.Box] | None:
    """The pixels of an object in their box, or None where it has none."""
    try:
        mask, box = rle.crop_polygons(polygons, size)
    except DataError:
        return None
    return (mask, box) if mask.size else None
