"""Tiny sets of the format davis."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tests.data.clip_drawing import CLIPS, car_and_person, frames
from tests.data.drawing import write_image


def davis(root: Path, *, lists: bool = True) -> Path:
    """As in 2017: palette masks with the numbers 1 and 2."""

    def write(split: str, clip: str, frame: int, seed: int) -> None:
        car, person = car_and_person(frame)
        write_image(root / "JPEGImages" / "480p" / clip / f"{frame:05d}.png", seed=seed)
        picture = Image.fromarray((car + 2 * person).astype(np.uint8))
        picture.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
        path = root / "Annotations" / "480p" / clip / f"{frame:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)

    frames(write)
    if lists:
        (root / "ImageSets" / "2017").mkdir(parents=True)
        for split, clips in CLIPS.items():
            (root / "ImageSets" / "2017" / f"{split}.txt").write_text("".join(f"{clip}\n" for clip in clips))
    return root


HAS = frozenset(("objects", "clips"))
"""What its ground truth has."""


def tiny_set(root: Path) -> Path:
    """A faultless set of a few images, with a train and a val split."""
    return davis(root)
