"""Segment ids as COCO's panoptic PNGs hold them: id = R + 256·G + 65536·B, 0 = void."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int32, UInt8

from pixelwise.errors import DataError


def ids_to_rgb(ids: Int32[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W 3"]:
    """The colours of a map of segment ids. Raises DataError for an id that 24 bits do not hold."""
    if ids.size and not (ids.min() >= 0 and ids.max() < 2**24):
        raise DataError(f"segment ids {ids.min()} to {ids.max()}; a panoptic PNG holds 0 to {2**24 - 1:,}")
    return np.stack([(ids >> shift & 255).astype(np.uint8) for shift in (0, 8, 16)], axis=-1)


def rgb_to_ids(rgb: UInt8[np.ndarray, "H W 3"]) -> Int32[np.ndarray, "H W"]:
    """The segment ids that the colours stand for."""
    red, green, blue = (rgb[..., channel].astype(np.int32) for channel in range(3))
    return red + (green << 8) + (blue << 16)
