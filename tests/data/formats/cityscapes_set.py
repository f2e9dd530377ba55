"""Tiny sets of the format cityscapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.data.drawing import write_image, write_mask


def cityscapes(
    root: Path, splits: Mapping[str, Sequence[str]] | None = None, *, ids: str = "labelIds", annotations: str = "gtFine"
) -> Path:
    """leftImg8bit and gtFine: ignored, road, sidewalk and car; the city is what stands before the first `_`."""
    rows = {"labelIds": [3, 7, 7, 8, 26, 26], "labelTrainIds": [255, 0, 0, 1, 13, 13]}[ids]
    seed = 0
    for split, names in (splits or {"train": ("ulm_0_1", "ulm_0_2", "bonn_0_1"), "val": ("jena_3_4",)}).items():
        for name in names:
            city = name.partition("_")[0]
            write_image(root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png", seed=(seed := seed + 1))
            write_mask(root / annotations / split / city / f"{name}_{annotations}_{ids}.png", [rows] * 4)
    return root


HAS = frozenset()
"""What its ground truth has."""


def tiny_set(root: Path) -> Path:
    """A faultless set of a few images, with a train and a val split."""
    return cityscapes(root)
