"""Tiny sets of the format coco."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.data.drawing import rectangle, write_image


def annotation(id: int | str, image_id: int, category_id: int, box: Sequence[float], **fields: Any) -> dict[str, Any]:
    """A rectangle x1 y1 x2 y2 as one polygon; `fields` replace what the entry would have."""
    x1, y1, x2, y2 = box
    entry = {
        "id": id,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": (x2 - x1) * (y2 - y1),
        "iscrowd": 0,
        "segmentation": [rectangle(x1, y1, x2, y2)],
    }
    return {**entry, **fields}


def coco(
    root: Path,
    annotations: Sequence[Mapping[str, Any]],
    *,
    split: str = "train",
    images: Sequence[Mapping[str, Any]] = ({"id": 7, "file_name": "a.png", "height": 8, "width": 8},),
    categories: Sequence[Mapping[str, Any]] = ({"id": 3, "name": "crate"}, {"id": 9, "name": "truck"}),
) -> Path:
    """annotations/instances_SPLIT.json, and SPLIT/ with an image for every entry."""
    content = {"images": list(images), "annotations": list(annotations), "categories": list(categories)}
    file = root / "annotations" / f"instances_{split}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    for seed, image in enumerate(images):
        if isinstance(image.get("height"), int) and "file_name" in image:
            write_image(root / split / image["file_name"], seed=seed, size_hw=(image["height"], image["width"]))
    return root


HAS = frozenset(("objects",))
"""What its ground truth has."""


def tiny_set(root: Path) -> Path:
    """A faultless set of a few images, with a train and a val split."""
    objects = [annotation(1, 7, 3, (1, 1, 6, 5)), annotation(2, 7, 9, (2, 3, 8, 8))]
    for split, id in (("train", 7), ("val", 8)):
        image = {"id": id, "file_name": f"{split}.png", "height": 8, "width": 8}
        nothing = {"id": id + 10, "file_name": f"{split}_2.png", "height": 8, "width": 8}
        coco(root, [{**one, "image_id": id} for one in objects], split=split, images=[image, nothing])
        for seed, one in enumerate((image, nothing)):
            write_image(root / split / str(one["file_name"]), seed=10 * id + seed, size_hw=(8, 8))
    return root
