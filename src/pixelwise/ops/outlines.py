"""Polygons around masks, along the edges of the pixels.

By COCO's rule (`ops.rle`) they cover exactly the pixels of the mask: a vertical edge between two columns crosses no
column's centre, and a horizontal one between two rows none of a row. A hole is connected to the outline around it by a
line there and back, which encloses no area and changes no pixel.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import chain

import numpy as np
from jaxtyping import Shaped
from skimage.measure import label

Point = tuple[int, int]


def polygons_of(crop: Shaped[np.ndarray, "h w"], box: Sequence[int]) -> list[list[int]]:
    """One polygon x1 y1 x2 y2 … for each part of a mask, holes included.

    Args:
        crop: mask, not zero inside; pixels that touch at a corner alone are two parts.
        box: x1 y1 x2 y2 of the crop in the image; the polygons are in pixels of the image.
    """
    parts = np.asarray(label(crop != 0, connectivity=1))
    loops: defaultdict[int, list[list[Point]]] = defaultdict(list)
    for loop in _loops(crop):
        x, y = loop[0]
        loops[int(parts[y, x])].append(loop)
    return [_flat(_joined(sorted(of_part, key=_turning, reverse=True)), box) for of_part in loops.values()]


def polygon_of(crop: Shaped[np.ndarray, "h w"], box: Sequence[int]) -> list[int]:
    """One polygon x1 y1 x2 y2 … around all parts of a mask that is not empty, joined like holes are."""
    return _flat(_joined(sorted(_loops(crop), key=_turning, reverse=True)), box)


def _loops(crop: np.ndarray) -> list[list[Point]]:
    """The corners of each closed line around set pixels, which lie on its right; each begins above a set pixel."""
    mask = np.pad(crop != 0, 1).astype(np.int8)
    down, across = np.diff(mask, axis=0)[:, 1:-1], np.diff(mask, axis=1)[1:-1]
    # start → end of each straight line, by direction
    right = {(x1, y): (x2, y) for y, x1, x2 in _lines(down > 0)}
    left = {(x2, y): (x1, y) for y, x1, x2 in _lines(down < 0)}
    south = {(x, y1): (x, y2) for x, y1, y2 in _lines((across < 0).T)}
    north = {(x, y2): (x, y1) for x, y1, y2 in _lines((across > 0).T)}
    loops: list[list[Point]] = []
    while right:
        start = point = next(iter(right))
        way, loop = right, []
        while True:
            loop.append(point)
            point = way.pop(point)
            if point == start:
                break
            # where two parts touch at a corner, a right turn separates them
            if way is right:
                way = south if point in south else north
            elif way is left:
                way = north if point in north else south
            elif way is south:
                way = left if point in left else right
            else:
                way = right if point in right else left
        loops.append(loop)
    return loops


def _lines(marks: np.ndarray) -> list[tuple[int, int, int]]:
    """Row, first and last place, exclusive, of each run of true values in the rows."""
    steps = np.diff(np.pad(marks.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    rows, starts = np.nonzero(steps > 0)
    return list(zip(rows.tolist(), starts.tolist(), np.nonzero(steps < 0)[1].tolist(), strict=True))


def _turning(loop: list[Point]) -> float:
    """Twice the enclosed area: positive of an outline, negative of a hole."""
    x, y = np.array(loop).T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1))


def _joined(loops: Sequence[list[Point]]) -> list[Point]:
    """One line through all loops, each joined at the corner that is nearest to those before."""
    line = loops[0]
    for loop in loops[1:]:
        distances = np.abs(np.array(line)[:, None] - np.array(loop)).sum(axis=2)
        here, there = np.unravel_index(int(distances.argmin()), distances.shape)
        line = [*line[: here + 1], *loop[there:], *loop[: there + 1], *line[here:]]
    return line


def _flat(line: Sequence[Point], box: Sequence[int]) -> list[int]:
    return list(chain.from_iterable((x + int(box[0]), y + int(box[1])) for x, y in line))
