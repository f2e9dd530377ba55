"""Tiny sets of the format voc."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.data.drawing import write_image, write_mask


def voc(root: Path, lists: Mapping[str, Sequence[str]], *, objects: bool = False) -> Path:
    """JPEGImages, SegmentationClass and the lists, with files for every listed id.

    With objects, two aeroplanes stand side by side where the class mask has one region.
    """
    for seed, name in enumerate(sorted({name for names in lists.values() for name in names})):
        write_image(root / "JPEGImages" / f"{name}.jpg", seed=seed)
        write_mask(root / "SegmentationClass" / f"{name}.png")
        if objects:
            write_mask(root / "SegmentationObject" / f"{name}.png", [[0, 0, 0, 1, 2, 2]] * 4)
    folder = root / "ImageSets" / "Segmentation"
    folder.mkdir(parents=True, exist_ok=True)
    for split, names in lists.items():
        (folder / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    return root


HAS = frozenset(("objects",))
"""What its ground truth has."""


def tiny_set(root: Path) -> Path:
    """A faultless set of a few images, with a train and a val split."""
    return voc(root, {"train": ("a", "b", "c"), "val": ("d", "e")}, objects=True)
