"""Tiny sets of the format cityscapes-dvps."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.data.clip_drawing import SEMANTIC, car_and_person, frames, write_grey16
from tests.data.drawing import write_image


def cityscapes_dvps(root: Path) -> Path:
    def write(split: str, clip: str, frame: int, seed: int) -> None:
        name = f"00{clip}_{frame:06d}_ulm_000000_{frame * 5:06d}"
        car, person = car_and_person(frame)
        ids = np.where(SEMANTIC == 255, 32, SEMANTIC) * 1000
        ids[car], ids[person] = 13_002, 11_001
        write_image(root / "video_sequence" / split / f"{name}_leftImg8bit.png", seed=seed)
        write_grey16(root / "video_sequence" / split / f"{name}_gtFine_instanceTrainIds.png", ids)

    frames(write)
    return root


HAS = frozenset(("objects", "segments", "clips"))
"""What its ground truth has."""


def tiny_set(root: Path) -> Path:
    """A faultless set of a few images, with a train and a val split."""
    return cityscapes_dvps(root)
