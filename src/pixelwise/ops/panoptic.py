"""Segment ids: those of predictions, and their coding in COCO's panoptic PNGs (id = R + 256·G + 65536·B).

In a prediction 0 is void, a class of stuff is one segment with the id class + 1, and the n-th thing has the id
classes + 1 + n. In one image things are counted by descending score, in a clip by their tracks, so that in all frames
an id is one thing or one class.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Int32, Int64, UInt8
from torch import Tensor

from pixelwise.errors import DataError

VOID_ID = 0
"""Id of pixels without a segment."""

TABLE_LENGTH = 2**20
"""Ids below are looked up in a table."""

SLAB_PIXELS = 2**20
"""Pixels that are looked up at once."""


def stuff_segment_ids(class_ids: Int64[Tensor, " S"]) -> Int32[Tensor, " S"]:
    """The segment of each class of stuff."""
    return (class_ids + 1).int()


def thing_segment_ids(numbers: Int64[Tensor, " N"], num_classes: int) -> Int32[Tensor, " N"]:
    """The segment of each thing.

    Args:
        numbers: from 0 on: rank by score in an image, track id in a clip.
        num_classes: of the label set, things and stuff.

    Raises:
        DataError: more things than 31 bits hold.
    """
    largest = torch.iinfo(torch.int32).max - num_classes - 1
    if len(numbers) and int(numbers.max()) > largest:
        raise DataError(
            f"thing {int(numbers.max()):,} of a clip: segment ids hold {largest + 1:,} things; cut the clip in two"
        )
    return (numbers + num_classes + 1).int()


def segment_places(ids: Int32[np.ndarray, "H W"], segment_ids: Int32[np.ndarray, " S"]) -> Int32[np.ndarray, "H W"]:
    """For each pixel the index of its segment in `segment_ids`, -1 without one."""
    places = np.full(ids.shape, -1, dtype=np.int32)
    if not len(segment_ids):
        return places
    order = np.argsort(segment_ids)
    known, table = segment_ids[order], None
    if known[0] >= 0 and known[-1] < TABLE_LENGTH:  # ten times faster than searching; the last entry is for other ids
        table = np.full(int(known[-1]) + 2, -1, dtype=np.int32)
        table[known] = order
    rows = max(1, SLAB_PIXELS // max(1, ids.shape[1]))
    for start in range(0, len(ids), rows):
        part = ids[start : start + rows]
        if table is not None:
            places[start : start + rows] = table.take(part, mode="clip")
        else:
            found = np.searchsorted(known, part).clip(max=len(known) - 1)
            places[start : start + rows] = np.where(known[found] == part, order[found], -1)
    return places


def ids_to_rgb(ids: Int32[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W 3"]:
    """The colours of a map of segment ids. Raises DataError for an id that 24 bits do not hold."""
    if ids.size and not (ids.min() >= 0 and ids.max() < 2**24):
        raise DataError(f"segment ids {ids.min()} to {ids.max()}; a panoptic PNG holds 0 to {2**24 - 1:,}")
    return np.stack([(ids >> shift & 255).astype(np.uint8) for shift in (0, 8, 16)], axis=-1)


def rgb_to_ids(rgb: UInt8[np.ndarray, "H W 3"]) -> Int32[np.ndarray, "H W"]:
    """The segment ids of the colours."""
    red, green, blue = (rgb[..., channel].astype(np.int32) for channel in range(3))
    return red + (green << 8) + (blue << 16)
