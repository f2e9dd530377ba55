"""Tiny sets of the format kitti-step."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.data.clip_drawing import SEMANTIC, car_and_person, frames, write_rgb
from tests.data.drawing import write_image


def step_channels(frame: int) -> np.ndarray:
    """Class, and number in two channels: car 300, person 7."""
    car, person = car_and_person(frame)
    channels = np.stack([SEMANTIC, SEMANTIC * 0, SEMANTIC * 0], axis=-1)
    channels[car] = (13, 300 // 256, 300 % 256)
    channels[person] = (11, 0, 7)
    return channels


def kitti_step(root: Path) -> Path:
    def write(split: str, clip: str, frame: int, seed: int) -> None:
        write_image(root / "images" / split / clip / f"{frame:06d}.png", seed=seed)
        write_rgb(root / "panoptic_maps" / split / clip / f"{frame:06d}.png", step_channels(frame))

    frames(write)
    return root


HAS = frozenset(("objects", "segments", "clips"))
"""What its ground truth has."""


def tiny_set(root: Path) -> Path:
    """A faultless set of a few images, with a train and a val split."""
    return kitti_step(root)
