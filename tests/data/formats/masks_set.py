"""Tiny sets of the format masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.data.drawing import write_image, write_mask


def masks(root: Path, names: Sequence[str], *, labels: str | None = "floor\nwall\n") -> Path:
    """images/ and masks/ without splits."""
    for seed, name in enumerate(names):
        write_image(root / "images" / f"{name}.png", seed=seed)
        write_mask(root / "masks" / f"{name}.png")
    if labels is not None:
        (root / "labels.txt").write_text(labels)
    return root


HAS = frozenset()
"""What its ground truth has."""


def tiny_set(root: Path) -> Path:
    """A faultless set of a few images, with a train and a val split."""
    return masks(root, [f"image {index}" for index in range(10)])
