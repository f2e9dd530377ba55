"""Points turned as EXIF turns their image."""

from __future__ import annotations

from collections.abc import Sequence

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
