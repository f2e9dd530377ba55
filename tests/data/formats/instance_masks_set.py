"""Tiny sets of the format instance-masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.data.drawing import write_image, write_mask


def instance_masks(root: Path, names: Sequence[str]) -> Path:
    """images/ and masks/ without splits: two objects of one class in each mask but the first."""
    for seed, name in enumerate(names):
        write_image(root / "images" / f"{name}.png", seed=seed)
        write_mask(root / "masks" / f"{name}.png", np.array([[0, 1, 1, 0, 7, 7]] * 4) * (seed > 0))
    return root


HAS = frozenset(("objects",))
"""What its ground truth has."""


def tiny_set(root: Path) -> Path:
    """A faultless set of a few images, with a train and a val split."""
    return instance_masks(root, [f"image {index}" for index in range(10)])
