"""Tiny sets of the format mots."""

from __future__ import annotations

from pathlib import Path

from pixelwise.ops import rle
from tests.data.clip_drawing import car_and_person, frames
from tests.data.drawing import write_image


def mots(root: Path) -> Path:
    """As MOTSChallenge has it, frames counted from 1."""

    def write(split: str, clip: str, frame: int, seed: int) -> None:
        write_image(root / split / clip / "img1" / f"{frame + 1:06d}.png", seed=seed)
        car, person = car_and_person(frame)
        text = root / split / clip / "gt" / "gt.txt"
        text.parent.mkdir(parents=True, exist_ok=True)
        with text.open("a") as file:
            file.write(f"{frame + 1} 1005 1 4 6 {rle.encode(car)['counts']}\n")
            file.write(f"{frame + 1} 2001 2 4 6 {rle.encode(person)['counts']}\n")

    frames(write)
    return root


HAS = frozenset(("objects", "clips"))
"""What its ground truth has."""


def tiny_set(root: Path) -> Path:
    """A faultless set of a few images, with a train and a val split."""
    return mots(root)
