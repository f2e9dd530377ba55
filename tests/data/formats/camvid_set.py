"""Tiny sets of the format camvid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.data.drawing import write_image, write_mask


def camvid(root: Path, splits: Mapping[str, Sequence[str]] | None = None) -> Path:
    """SPLIT/NAME.png and SPLITannot/NAME.png; no two images are equal."""
    seed = 0
    for split, names in (splits or {"train": ("a", "b", "c"), "val": ("d", "e")}).items():
        for name in names:
            write_image(root / split / f"{name}.png", seed=(seed := seed + 1))
            write_mask(root / f"{split}annot" / f"{name}.png")
    return root


HAS = frozenset()
"""What its ground truth has."""


def tiny_set(root: Path) -> Path:
    """A faultless set of a few images, with a train and a val split."""
    return camvid(root)
