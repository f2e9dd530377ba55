"""Tiny sets of the format coco-panoptic."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.data.drawing import write_image


def segment(id: int, category_id: int, **fields: Any) -> dict[str, Any]:
    """An entry of segments_info; `fields` replace what it would have."""
    return {"id": id, "category_id": category_id, "iscrowd": 0} | fields


def write_segments(path: Path, ids: Any) -> Path:
    """A PNG of segment ids: R + 256·G + 65536·B."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.asarray(ids)
    Image.fromarray(np.stack([values >> shift & 255 for shift in (0, 8, 16)], axis=-1).astype(np.uint8)).save(path)
    return path


STREET = (
    {"id": 7, "name": "road", "isthing": 0, "color": [128, 64, 128]},
    {"id": 26, "name": "car", "isthing": 1, "color": [0, 0, 142]},
    {"id": 30, "name": "person", "isthing": 1},
)
"""Categories with gaps between their ids, one without colour."""


SEGMENT_IDS = [[1, 1, 300, 300, 70000, 0]] * 2 + [[1, 1, 1, 9, 9, 0]] * 2
"""Of `SIZE_HW`: road, a car, a person, a crowd of people, void."""


def coco_panoptic(
    root: Path,
    splits: Mapping[str, Sequence[str]] | None = None,
    *,
    ids: Any = None,
    segments: Sequence[Mapping[str, Any]] | None = None,
    categories: Sequence[Mapping[str, Any]] = STREET,
) -> Path:
    """annotations/panoptic_SPLIT2017.json and the folder of PNGs, SPLIT2017/ with images; the last one is void."""
    if segments is None:
        segments = [
            segment(1, 7, area=10, bbox=[0, 0, 3, 4]),
            segment(300, 26, area=4, bbox=[2, 0, 2, 2]),
            segment(70000, 30, area=2, bbox=[4, 0, 1, 2]),
            segment(9, 30, iscrowd=1, area=4, bbox=[3, 2, 2, 2]),
        ]
    ids = SEGMENT_IDS if ids is None else ids
    number = 0
    for split, names in (splits or {"train": ("a", "b", "c"), "val": ("d", "e")}).items():
        images, annotations = [], []
        for name in names:
            number += 1
            is_void = len(names) > 1 and name == names[-1]
            write_image(root / f"{split}2017" / f"{name}.png", seed=number, size_hw=np.shape(ids)[:2])
            write_segments(
                root / "annotations" / f"panoptic_{split}2017" / f"{name}.png", np.asarray(ids) * (not is_void)
            )
            images.append({"id": number, "file_name": f"{name}.png", "height": len(ids), "width": len(ids[0])})
            infos = [] if is_void else [*segments]
            annotations.append({"image_id": number, "file_name": f"{name}.png", "segments_info": infos})
        content = {"images": images, "annotations": annotations, "categories": list(categories)}
        file = root / "annotations" / f"panoptic_{split}2017.json"
        file.write_text(json.dumps(content))
    return root


HAS = frozenset(("objects", "segments"))
"""What its ground truth has."""


def tiny_set(root: Path) -> Path:
    """A faultless set of a few images, with a train and a val split."""
    return coco_panoptic(root)
