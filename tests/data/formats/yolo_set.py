"""Tiny sets of the format yolo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.data.drawing import write_image


def yolo(root: Path, splits: Mapping[str, Sequence[str]] | None = None) -> Path:
    """images/SPLIT/NAME.png of 8×8, labels/SPLIT/NAME.txt with a crate and a truck (none in `c`), and data.yaml."""
    seed = 0
    splits = splits or {"train": ("a", "b", "c"), "val": ("d", "e")}
    for split, names in splits.items():
        for name in names:
            write_image(root / "images" / split / f"{name}.png", seed=(seed := seed + 1), size_hw=(8, 8))
            file = root / "labels" / split / f"{name}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            lines = "0 0 0 0.25 0 0.25 0.25 0 0.25\n1 0.5 0.25 1 0.25 1 1 0.5 1\n"
            file.write_text(lines if name != "c" else "")
    lines = [f"{split}: images/{split}" for split in splits]
    (root / "data.yaml").write_text("\n".join([*lines, "nc: 2", "names: [crate, truck]"]) + "\n")
    return root


HAS = frozenset(("objects",))
"""What its ground truth has."""


def tiny_set(root: Path) -> Path:
    """A faultless set of a few images, with a train and a val split."""
    return yolo(root)
