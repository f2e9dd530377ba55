"""Copies of labelme and yolo sets with their faults repaired where that can be done without guessing.

Both have a file for each image in which objects are drawn. What is sound is copied as it stands there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from pixelwise.data.kinds.folders import Entry
from pixelwise.errors import DataError
from pixelwise.files.images import read_image
from pixelwise.ops import rle


class _Drawn(NamedTuple):
    """One object: where it stands in the file, what it is, and its pixels in their box."""

    places: tuple[int, ...]
    kind: Any
    crowd: bool
    mask: np.ndarray
    box: rle.Box


def _pixels(entry: Entry) -> tuple[np.ndarray | None, str]:
    """The upright image, or why there is none."""
    if entry.image is None or not entry.image.is_file():
        return None, "missing_images"
    try:
        return read_image(entry.image).permute(1, 2, 0).contiguous().numpy(), ""
    except DataError:
        return None, "unreadable_images"


def _told_apart(drawn: Sequence[_Drawn], done: Counter[str]) -> Iterator[_Drawn]:
    """The objects without those that stand there already."""
    first_of: dict[tuple[bool, rle.Box, bytes], _Drawn] = {}
    for one in drawn:
        first = first_of.setdefault((one.crowd, one.box, np.packbits(one.mask).tobytes()), one)
        if first is not one and first.kind == one.kind:
            done["repeated_annotations"] += 1
            continue
        done["two_classes"] += first is not one
        yield one


def _rasterised(polygons: Sequence[Sequence[float]], size: tuple[int, int]) -> tuple[np.ndarray, rle.Box] | None:
    """The pixels of an object in their box, or None where it has none."""
    try:
        mask, box = rle.crop_polygons(polygons, size)
    except DataError:
        return None
    return (mask, box) if mask.size else None
