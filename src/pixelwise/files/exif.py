"""Rotation of points by EXIF orientation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal

Size = tuple[int, int]


def turned_points(points: Sequence[float], size: Size, orientation: int) -> list[float]:
    """x, y, x, y … of the stored image as they lie in the upright one.

    Args:
        points: pixels.
        size: height and width of the upright image.
        orientation: by which EXIF turns it, 1 to 8.
    """
    if orientation == 1:
        return [*points]
    height, width = size
    turned: list[float] = []
    for x, y in zip(points[::2], points[1::2], strict=True):
        if orientation >= 5:
            x, y = y, x
        turned += (
            width - x if orientation in (2, 3, 6, 7) else x,
            height - y if orientation in (3, 4, 7, 8) else y,
        )
    return turned


Frame = Literal["stored", "upright"]


def frame_of(points: Iterable[float], stored: Size) -> Frame | None:
    """The frame in which points of a turned image are meant: the one that they fit, or None if they fit both or none.

    Args:
        points: x, y, x, y …, pixels.
        stored: height and width of the stored image; those of the upright one are the other way round.
    """
    values = list(points)
    x, y = max(values[::2], default=0), max(values[1::2], default=0)
    in_stored, in_upright = (x <= width + 1 and y <= height + 1 for height, width in (stored, stored[::-1]))
    if in_stored == in_upright:
        return None
    return "stored" if in_stored else "upright"


def common_frame(frames: Iterable[Frame | None]) -> Frame | None:
    """The frame that most images of a set tell, or None where none tells one."""
    told = Counter[Frame](frame for frame in frames if frame)
    return told.most_common(1)[0][0] if told else None
