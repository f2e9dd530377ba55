"""The text files of YOLO, one for each image: a line for each object, its class and then the corners of its polygon.

Coordinates are fractions of the image's width and height. A line of four numbers is a box (its centre, width and
height), which does not say which pixels are the object's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pixelwise.data.kinds.object_lists import DrawnFault
from pixelwise.files.text import read_lines

FAR_OUTSIDE = 0.5
"""Coordinates that are further outside of 0 to 1 are no fractions."""

OUTSIDE = 0.01
"""Coordinates that are further outside of 0 to 1 are a fault, but what lies inside can be used."""


class Line(NamedTuple):
    """One sound line.

    Attributes:
        place: in the file, from 1.
        class_id: as it stands in it.
        polygon: x1 y1 x2 y2 …, fractions of width and height.
    """

    place: int
    class_id: int
    polygon: Sequence[float]


@dataclass(frozen=True)
class YoloFile:
    """The content of a file.

    Attributes:
        path: the file.
        lines: the sound ones.
        boxes: the lines that are boxes, as polygons of their corners.
        faults: of all lines.
    """

    path: Path
    lines: tuple[Line, ...]
    boxes: tuple[Line, ...]
    faults: tuple[DrawnFault, ...]


def read_yolo(path: Path) -> YoloFile:
    """Read a file; none at all is one without lines. Raises DataError when it is no text."""
    if not path.exists():
        return YoloFile(path, (), (), ())
    texts = read_lines(path)
    lines: list[Line] = []
    boxes: list[Line] = []
    faults: list[DrawnFault] = []
    for place, text in enumerate(texts, start=1):
        words = text.split()
        if not words:
            continue
        found = _line(words, place)
        if isinstance(found, Line):
            lines.append(found)
            if leaves_unit_square(found):
                text = f"a corner lies {_farthest(found.polygon):.3g} of the image outside of it"
                faults.append(DrawnFault("polygon outside", place, text, False))
            continue
        if len(words) == 5 and not found.fatal:
            boxes.append(_box(place, words))
        faults.append(found)
    return YoloFile(path, tuple(lines), tuple(boxes), tuple(faults))


def leaves_unit_square(line: Line) -> bool:
    """Whether a corner lies so far outside of the image that it is a fault."""
    return _farthest(line.polygon) > OUTSIDE


def _farthest(coordinates: Sequence[float]) -> float:
    """How far outside of 0 to 1 the farthest coordinate is; below 0 where all are inside."""
    return max((max(-value, value - 1) for value in coordinates), default=0)


def all_faults(file: YoloFile, known: Sequence[int]) -> Iterator[DrawnFault]:
    """The faults of a file, and its lines of unknown classes."""
    yield from file.faults
    for line in (*file.lines, *file.boxes):
        if line.class_id not in known:
            yield DrawnFault("unknown category", line.place, f"class {line.class_id} is not in the label set", True)


def _box(place: int, words: Sequence[str]) -> Line:
    class_id, x, y, width, height = (float(word) for word in words)
    left, top, right, bottom = x - width / 2, y - height / 2, x + width / 2, y + height / 2
    return Line(place, int(class_id), (left, top, right, top, right, bottom, left, bottom))


def _line(words: Sequence[str], place: int) -> Line | DrawnFault:
    try:
        values = [float(word) for word in words]
    except ValueError:
        return DrawnFault("line", place, "expected a class and numbers x1 y1 x2 y2 …", True)
    class_id, coordinates = values[0], values[1:]
    if not all(map(math.isfinite, values)) or class_id != int(class_id) or class_id < 0:
        return DrawnFault("line", place, "expected a class (a whole number) and numbers x1 y1 x2 y2 …", True)
    farthest = _farthest(coordinates)
    if farthest > FAR_OUTSIDE:
        text = f"a coordinate {farthest:g} outside of 0 to 1; expected fractions of width and height, no pixels"
        return DrawnFault("line", place, text, True)
    if len(coordinates) == 4:
        return DrawnFault("no segmentation", place, "no polygon; a box alone does not say which pixels", False)
    if len(coordinates) % 2:
        return DrawnFault("line", place, f"{len(coordinates)} coordinates; expected pairs x y", True)
    if len(coordinates) < 6:
        points = len(coordinates) // 2
        return DrawnFault("polygon without extent", place, f"the polygon has {points} points, not three", False)
    return Line(place, int(class_id), coordinates)
