"""COCO's run-length encoding (RLE), in which binary masks are read and written.

Runs go down the columns, first the zeros. `{"size": [h, w], "counts": "…"}` is the compressed form.
The C++ code of faster-coco-eval does the work; it refuses runs that do not fill the size before it writes a pixel.

`crop` and `crop_polygons` return a mask inside its tight box. Polygons are rasterised as runs in the coordinates of the
whole image, since COCO's rounding depends on them; only the pixels of the box are written.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import faster_coco_eval.mask_api_new_cpp as _mask_api
import numpy as np
from faster_coco_eval import mask as coco_mask
from jaxtyping import UInt8

from pixelwise.errors import DataError

Box = tuple[int, int, int, int]
"""x1 y1 x2 y2 in pixels, x2 y2 exclusive; 0 0 0 0 of an empty mask."""

FARTHEST_PX = 100_000
"""Largest coordinate of a polygon, since rasterising a longer edge takes gigabytes."""


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


def encode_crop(crop: np.ndarray, box: Sequence[int], size: tuple[int, int]) -> dict[str, Any]:
    """Encode a mask of which only the part inside a box is given.

    Args:
        crop: bool or u8 [h, w], the mask inside the box.
        box: x1 y1 x2 y2, pixels.
        size: height and width of the image.
    """
    x1, y1, _, _ = box
    columns = np.zeros((crop.shape[1], crop.shape[0] + 2), dtype=np.int8)
    columns[:, 1:-1] = (crop != 0).T
    steps = np.diff(columns, axis=1)
    starts, stops = (np.nonzero(steps == step) for step in (1, -1))
    begins, ends = ((column + x1) * size[0] + row + y1 for column, row in (starts, stops))
    # a run that ends at the bottom of the image goes on at the top of the next column
    joined = begins[1:] == ends[:-1]
    return from_runs(begins[np.append(True, ~joined)[: len(begins)]], ends[np.append(~joined, True)[: len(ends)]], size)


def decode(rle: Mapping[str, Any], *, size: tuple[int, int] | None = None, source: str = "RLE") -> np.ndarray:
    """Decode one RLE, compressed or with a list of run lengths.

    Args:
        rle: `size` and `counts`.
        size: height and width that it must have; checked before decoding.
        source: beginning of error messages.

    Returns:
        u8 [H, W] of 0 and 1.

    Raises:
        DataError: the size is malformed or differs, or the runs are malformed or do not fill the size.
    """
    height, width = _size_of(rle, size, source)
    try:
        return coco_mask.decode(_compressed(rle["counts"], height, width))
    except _BROKEN as error:
        raise DataError(f"{source}: {_why_broken(height, width, error)}") from None


def crop(
    rle: Mapping[str, Any], *, size: tuple[int, int] | None = None, source: str = "RLE"
) -> tuple[UInt8[np.ndarray, "h w"], Box]:
    """Decode one RLE inside its tight box alone; takes and raises what `decode` does.

    Returns:
        0 and 1 inside the box, and the box.
    """
    height, width = _size_of(rle, size, source)
    try:
        return _tight_crop(_compressed(rle["counts"], height, width), height, width)
    except _BROKEN as error:
        raise DataError(f"{source}: {_why_broken(height, width, error)}") from None


def from_polygons(polygons: Sequence[Sequence[float]], size: tuple[int, int], *, source: str = "polygon") -> np.ndarray:
    """Rasterise the polygons of one instance to their union, by COCO's rule.

    Args:
        polygons: [x1, y1, x2, y2, …] each, in pixels; without any the mask is empty.
        size: height and width of the image; parts outside are clipped.
        source: beginning of error messages.

    Returns:
        u8 [H, W] of 0 and 1.

    Raises:
        DataError: a polygon of less than three points, or a coordinate that is no number or too far away.
    """
    traced = _traced(polygons, size, source)
    return np.zeros(size, dtype=np.uint8) if traced is None else coco_mask.decode(traced)


def crop_polygons(
    polygons: Sequence[Sequence[float]], size: tuple[int, int], *, source: str = "polygon"
) -> tuple[UInt8[np.ndarray, "h w"], Box]:
    """Rasterise the polygons of one instance inside their tight box alone; takes and raises what `from_polygons` does.

    Returns:
        0 and 1 inside the box, and the box.
    """
    traced = _traced(polygons, size, source)
    return (np.zeros((0, 0), dtype=np.uint8), (0, 0, 0, 0)) if traced is None else _tight_crop(traced, *size)


_BROKEN = (MemoryError, OverflowError, RuntimeError, TypeError, ValueError)


def area(rle: Mapping[str, Any]) -> int:
    """Pixels that are one in a compressed RLE."""
    return int(coco_mask.area({"size": list(rle["size"]), "counts": _ascii(rle["counts"])}))


def ious(some: Sequence[Any], others: Sequence[Any]) -> np.ndarray:
    """IoU [N, M] of masks as compressed RLE of one size, or of boxes x y width height."""
    return np.asarray(coco_mask.iou(list(some), list(others), [0] * len(others))).reshape(len(some), len(others))


def _why_broken(height: int, width: int, error: Exception) -> str:
    reason = " ".join(str(error).split()).rstrip(".")
    return f"the runs do not make a mask of {height}×{width} ({reason})"


def _size_of(rle: Mapping[str, Any], size: tuple[int, int] | None, source: str) -> tuple[int, int]:
    try:
        height, width = (operator.index(side) for side in rle["size"])
        rle["counts"]
    except (KeyError, OverflowError, TypeError, ValueError):
        raise DataError(f"{source}: expected an RLE with size [height, width], whole numbers, and counts") from None
    if height < 1 or width < 1:
        raise DataError(f"{source}: an RLE of size {height}×{width} has no pixels")
    if size is not None and (height, width) != tuple(size):
        raise DataError(f"{source}: the RLE is {height}×{width}, the image {size[0]}×{size[1]} (height×width)")
    return height, width


def _compressed(counts: Any, height: int, width: int) -> Any:
    if isinstance(counts, list | tuple):
        runs = {"size": [height, width], "counts": _run_lengths(counts, height * width)}
        return coco_mask.frPyObjects(runs, height, width)
    return {"size": [height, width], "counts": _ascii(counts)}


def _traced(polygons: Sequence[Sequence[float]], size: tuple[int, int], source: str) -> Any:
    """The union of polygons as compressed runs; None without polygons."""
    try:
        parts = [list(map(float, polygon)) for polygon in polygons]
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"{source}: expected polygons, lists of numbers x, y, x, y, …") from None
    for polygon in parts:
        if len(polygon) < 6 or len(polygon) % 2:
            raise DataError(f"{source}: a polygon of {len(polygon)} numbers; expected at least three points (x, y)")
        strange = [value for value in polygon if not abs(value) <= FARTHEST_PX]  # NaN is strange, too
        if strange:
            raise DataError(f"{source}: a polygon with the coordinate {strange[0]}; expected at most {FARTHEST_PX:,}")
    if not parts:
        return None
    rles: Any = coco_mask.frPyObjects(parts, *size)
    return rles[0] if len(rles) == 1 else coco_mask.merge(rles)


def _tight_crop(compressed: Any, height: int, width: int) -> tuple[np.ndarray, Box]:
    """The pixels of compressed runs inside their tight box. Raises ValueError for runs that do not fill the size."""
    counts: list[int] = _mask_api.toUncompressedRLE([compressed])[0]["counts"]
    if min(counts, default=-1) < 0 or sum(counts) != height * width:
        raise ValueError(f"they fill {sum(counts):,} pixels of {height * width:,}")
    if 0 in counts[1:]:
        counts = _without_empty_runs(counts)
        compressed = coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)  # pyright: ignore
    x1, y1, columns, rows = (int(value) for value in _mask_api.toBbox([compressed])[0])
    if not columns:
        return np.zeros((0, 0), dtype=np.uint8), (0, 0, 0, 0)
    counts[0] -= x1 * height
    if len(counts) % 2:
        counts[-1] -= (width - x1 - columns) * height
    values = np.zeros(len(counts), dtype=np.uint8)
    values[1::2] = 1
    pixels = values.repeat(counts).reshape(columns, height)
    return np.ascontiguousarray(pixels[:, y1 : y1 + rows].T), (x1, y1, x1 + columns, y1 + rows)


def _without_empty_runs(counts: Sequence[int]) -> list[int]:
    """The same pixels with no run of length 0 but the first."""
    merged = [0]
    for place, run in enumerate(counts):
        if place % 2 == (len(merged) - 1) % 2:
            merged[-1] += run
        elif run:
            merged.append(run)
    return merged


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
