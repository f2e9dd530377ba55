"""Small COCO sets with odd but sound entries, results for them, and what pycocotools counts of the two files."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

NUMBERS = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
NUMBERS += ("ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large")

HEIGHT, WIDTH = 120, 160

CATEGORIES = [{"id": id, "name": f"kind {id}"} for id in (3, 7, 40)]


def write_images(root: Path, ids: list[int]) -> list[dict[str, Any]]:
    """An image for each id in ROOT/val, and its entry."""
    (root / "val").mkdir(parents=True)
    entries = []
    for id in ids:
        Image.new("RGB", (WIDTH, HEIGHT)).save(root / "val" / f"picture {id}.png")
        entries.append({"id": id, "file_name": f"picture {id}.png", "height": HEIGHT, "width": WIDTH})
    return entries


def write_set(root: Path, images: list[dict[str, Any]], annotations: list[dict[str, Any]]) -> Path:
    """ROOT/annotations/instances_val.json."""
    file = root / "annotations" / "instances_val.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    content = {"info": {}, "images": images, "annotations": annotations, "categories": CATEGORIES}
    file.write_text(json.dumps(content))
    return file


def polygon(x: float, y: float, w: float, h: float) -> list[float]:
    """An octagon in a box."""
    a, b = w / 4, h / 4
    right, bottom = x + w, y + h
    points = [(x + a, y), (right - a, y), (right, y + b), (right, bottom - b)]
    points += [(right - a, bottom), (x + a, bottom), (x, bottom - b), (x, y + b)]
    return [float(value) for point in points for value in point]


def runs_of(x: float, y: float, w: float, h: float) -> dict[str, Any]:
    """The RLE of the octagon."""
    runs = coco_mask.merge(coco_mask.frPyObjects([polygon(x, y, w, h)], HEIGHT, WIDTH))
    return {"size": [HEIGHT, WIDTH], "counts": runs["counts"].decode()}


def random_box(generator: np.random.Generator) -> list[float]:
    """x y width height of all sizes, whole numbers and decimals."""
    w, h = (float(side) for side in np.exp(generator.uniform(1.2, 4.7, 2)))
    x, y = float(generator.uniform(0, max(1.0, WIDTH - w))), float(generator.uniform(0, max(1.0, HEIGHT - h)))
    return [round(value, int(generator.integers(0, 3))) for value in (x, y, max(w, 3.0), max(h, 3.0))]


def official(truth: Path, results: Path, kind: str) -> dict[str, float | None]:
    """pycocotools' twelve numbers of `segm` or `bbox`."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(truth))
        evaluating = COCOeval(coco, coco.loadRes(str(results)), kind)
        evaluating.evaluate()
        evaluating.accumulate()
        evaluating.summarize()
    return {name: None if value < 0 else float(value) for name, value in zip(NUMBERS, evaluating.stats, strict=True)}
