"""Files of which tiny data sets are made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE_HW = (4, 6)


def write_image(path: Path, *, seed: int = 0, size_hw: tuple[int, int] = SIZE_HW) -> Path:
    """An image of noise; equal seeds give equal files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size_hw, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def write_mask(path: Path, ids: Any = None) -> Path:
    """A greyscale PNG of ids; by default the left half is 0 and the right half 1."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if ids is None:
        ids = np.arange(SIZE_HW[1])[None].repeat(SIZE_HW[0], axis=0) >= SIZE_HW[1] // 2
    Image.fromarray(np.asarray(ids).astype(np.uint8)).save(path)
    return path


def write_turned(path: Path, *, stored_hw: tuple[int, int] = SIZE_HW, orientation: int = 6, seed: int = 0) -> Path:
    """A JPEG whose EXIF tag says that it is to be turned."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.random.default_rng(seed).integers(0, 256, (*stored_hw, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, exif=exif)
    return path


def rectangle(x1: float, y1: float, x2: float, y2: float) -> list[float]:
    """The corners of a polygon."""
    return [x1, y1, x2, y1, x2, y2, x1, y2]
