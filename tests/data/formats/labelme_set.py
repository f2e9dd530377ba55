"""Tiny sets of the format labelme."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.data.drawing import write_image


def shape(label: str, points: Sequence[Sequence[float]], kind: str = "polygon", **fields: Any) -> dict[str, Any]:
    """A shape of LabelMe; `fields` replace what the entry would have."""
    return {"label": label, "points": [*points], "group_id": None, "shape_type": kind, "flags": {}} | fields


def labelme_file(root: Path, name: str, shapes: Sequence[Mapping[str, Any]], *, seed: int = 0, **fields: Any) -> Path:
    """NAME.png of 8×8 and NAME.json; `fields` replace what the file would have."""
    write_image(root / f"{name}.png", seed=seed, size_hw=(8, 8))
    content = {"version": "5.5.0", "flags": {}, "shapes": list(shapes), "imagePath": f"{name}.png", "imageData": None,
               "imageHeight": 8, "imageWidth": 8}  # fmt: skip
    (root / f"{name}.json").write_text(json.dumps({**content, **fields}))
    return root / f"{name}.json"


def labelme(root: Path, splits: Mapping[str, Sequence[str]] | None = None) -> Path:
    """SPLIT/NAME.png and SPLIT/NAME.json with two crates, the first of two parts, and a truck."""
    seed = 0
    for split, names in (splits or {"train": ("a", "b", "c"), "val": ("d", "e")}).items():
        for name in names:
            shapes = [
                shape("crate", [(0, 0), (2, 0), (2, 2), (0, 2)], group_id=1),
                shape("truck", [(1, 5), (6, 8)], "rectangle"),
                shape("crate", [(3, 0), (5, 0), (5, 2), (3, 2)], group_id=1),
                shape("crate", [(6, 0), (8, 0), (8, 2)]),
            ]
            labelme_file(root / split, name, shapes, seed=(seed := seed + 1))
    return root


HAS = frozenset(("objects",))
"""What its ground truth has."""


def tiny_set(root: Path) -> Path:
    """A faultless set of a few images, with a train and a val split."""
    return labelme(root)
