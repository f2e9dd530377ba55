"""Tiny sets of the format ade20k."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.data.drawing import write_mask, write_turned


def ade20k(root: Path, splits: Mapping[str, Sequence[str]] | None = None) -> Path:
    """images/FOLDER/NAME.jpg and annotations/FOLDER/NAME.png: unlabelled, wall, building."""
    seed = 0
    for folder, names in (splits or {"training": ("a", "b", "c"), "validation": ("d", "e")}).items():
        for name in names:
            write_turned(root / "images" / folder / f"{name}.jpg", orientation=1, seed=(seed := seed + 1))
            write_mask(root / "annotations" / folder / f"{name}.png", [[0, 1, 1, 2, 2, 2]] * 4)
    return root


HAS = frozenset()
"""What its ground truth has."""


def tiny_set(root: Path) -> Path:
    """A faultless set of a few images, with a train and a val split."""
    return ade20k(root)
