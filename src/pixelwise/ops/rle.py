"""COCO's run-length encoding: the form in which binary masks leave and enter the program.

Runs go down the columns, first the zeros. `{"size": [h, w], "counts": "…"}` is the compressed form.
The C++ code of faster-coco-eval does the work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from faster_coco_eval import mask as coco_mask

from pixelwise.errors import DataError


def encode(mask: np.ndarray) -> dict[str, Any]:
    """Encode one mask bool or u8 [H, W] as compressed RLE with `counts` as text."""
    encoded = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in encoded["size"]], "counts": _text(encoded["counts"])}


def decode(rle: dict[str, Any], *, source: str = "RLE") -> np.ndarray:
    """Decode one RLE, compressed or with a list of run lengths, to u8 [H, W].

    Raises:
        DataError: the size or the runs are malformed, or the runs do not fill the size; starts with `source`.
    """
    try:
        height, width = (int(side) for side in rle["size"])
        counts = rle["counts"]
    except (KeyError, TypeError, ValueError):
        raise DataError(f"{source}: an RLE needs size [h, w] and counts") from None
    if isinstance(counts, str | bytes):
        try:
            return coco_mask.decode({"size": [height, width], "counts": counts})
        except (ValueError, RuntimeError) as error:  # runs that are malformed, too long or too short
            raise DataError(f"{source}: the runs of the RLE do not fill its size {height}×{width} ({error})") from None
    if sum(counts) != height * width:
        raise DataError(f"{source}: the runs add up to {sum(counts):,}, the size {height}×{width} has {height * width:,}")
    values = np.arange(len(counts), dtype=np.uint8) % 2
    return np.repeat(values, counts).reshape(width, height).T


def from_polygons(polygons: Sequence[Sequence[float]], size: tuple[int, int], *, source: str = "polygon") -> np.ndarray:
    """Rasterise the polygons of one object, [x1, y1, x2, y2, …] each, to their union u8 [H, W], by COCO's rule."""
    for polygon in polygons:
        if len(polygon) < 6 or len(polygon) % 2:
            raise DataError(f"{source}: a polygon of {len(polygon)} numbers; at least three points (x, y) are needed")
    if not polygons:
        return np.zeros(size, dtype=np.uint8)
    rles = coco_mask.frPyObjects([list(polygon) for polygon in polygons], *size)
    return coco_mask.decode(coco_mask.merge(rles))


def _text(counts: str | bytes) -> str:
    return counts.decode("ascii") if isinstance(counts, bytes) else counts
