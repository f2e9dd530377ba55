"""COCO's run-length encoding: the form in which binary masks leave and enter the program.

Runs go down the columns, first the zeros. `{"size": [h, w], "counts": "…"}` is the compressed form.
The C++ code of faster-coco-eval does the work; it refuses runs that do not fill the size before it writes a pixel.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from faster_coco_eval import mask as coco_mask

from pixelwise.errors import DataError

FARTHEST_PX = 100_000
"""Largest coordinate of a polygon: rasterising walks along its edges, one that leads far away takes gigabytes."""


def encode(mask: np.ndarray) -> dict[str, Any]:
    """Encode one mask bool or u8 [H, W] as compressed RLE with `counts` as text."""
    encoded = coco_mask.encode(np.asfortranarray(mask != 0, dtype=np.uint8))
    return {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode("ascii")}


def from_runs(starts: np.ndarray, stops: np.ndarray, size: tuple[int, int]) -> dict[str, Any]:
    """Compress a mask given by its runs of ones down the columns.

    Args:
        starts: where each run begins, column · height + row, in ascending order.
        stops: where it ends, exclusive; before the next begins.
        size: height and width of the mask.
    """
    height, width = size
    edges = np.concatenate(([0], np.stack([starts, stops], axis=1).ravel(), [height * width]))
    counts = np.diff(edges)
    counts = counts[:-1] if counts[-1] == 0 else counts
    runs: Any = {"size": [height, width], "counts": counts.tolist()}
    compressed: Any = coco_mask.frPyObjects(runs, height, width)
    return {"size": [height, width], "counts": _ascii(compressed["counts"]).decode("ascii")}


def decode(rle: Mapping[str, Any], *, size: tuple[int, int] | None = None, source: str = "RLE") -> np.ndarray:
    """Decode one RLE, compressed or with a list of run lengths.

    Args:
        rle: `size` and `counts`.
        size: height and width that it must have; looked at before anything is decoded.
        source: what the error begins with.

    Returns:
        u8 [H, W] of 0 and 1.

    Raises:
        DataError: the size is malformed or another one, or the runs are malformed or do not fill the size.
    """
    try:
        height, width = (operator.index(side) for side in rle["size"])
        counts = rle["counts"]
    except (KeyError, TypeError, ValueError):
        raise DataError(f"{source}: an RLE needs size [height, width], whole numbers, and counts") from None
    if height < 1 or width < 1:
        raise DataError(f"{source}: an RLE of size {height}×{width} has no pixels")
    if size is not None and (height, width) != tuple(size):
        raise DataError(f"{source}: the RLE is {height}×{width}, the image {size[0]}×{size[1]} (height×width)")
    try:
        if isinstance(counts, list | tuple):
            runs = {"size": [height, width], "counts": _run_lengths(counts, height * width)}
            compressed = coco_mask.frPyObjects(runs, height, width)
        else:
            compressed = {"size": [height, width], "counts": _ascii(counts)}
        return coco_mask.decode(compressed)
    except (MemoryError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise DataError(f"{source}: the runs do not make a mask of {height}×{width} ({reason})") from None


def from_polygons(polygons: Sequence[Sequence[float]], size: tuple[int, int], *, source: str = "polygon") -> np.ndarray:
    """Rasterise the polygons of one object to their union, by COCO's rule.

    Args:
        polygons: [x1, y1, x2, y2, …] each, in pixels; none give an empty mask.
        size: height and width of the image; what lies outside is cut off.
        source: what the error begins with.

    Returns:
        u8 [H, W] of 0 and 1.

    Raises:
        DataError: a polygon of less than three points, or a coordinate that is no number or too far away.
    """
    height, width = size
    for polygon in polygons:
        if len(polygon) < 6 or len(polygon) % 2:
            raise DataError(f"{source}: a polygon of {len(polygon)} numbers; at least three points (x, y) are wanted")
        strange = [value for value in polygon if not abs(value) <= FARTHEST_PX]  # so that NaN is strange too
        if strange:
            raise DataError(f"{source}: a polygon with the coordinate {strange[0]}; at most {FARTHEST_PX:,} is wanted")
    if not polygons:
        return np.zeros((height, width), dtype=np.uint8)
    rles = coco_mask.frPyObjects([list(map(float, polygon)) for polygon in polygons], height, width)
    return coco_mask.decode(coco_mask.merge(rles))  # pyright: ignore[reportArgumentType]


def _run_lengths(counts: Sequence[Any], pixels: int) -> list[int]:
    runs = [operator.index(count) for count in counts]
    impossible = [run for run in runs if not 0 <= run <= pixels]
    if impossible:
        raise ValueError(f"a run of {impossible[0]:,} pixels")
    return runs


def _ascii(counts: Any) -> bytes:
    if not isinstance(counts, str | bytes):
        raise TypeError(f"counts are text or a list, not {type(counts).__name__}")
    return counts.encode("ascii") if isinstance(counts, str) else counts
