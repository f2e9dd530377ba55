"""Tiny sets of the format cutout-clips."""

from __future__ import annotations

from pathlib import Path

from tests.data.drawing import write_image
from tests.data.formats.coco_set import annotation, coco


def cutout_clips(root: Path) -> Path:
    """Stills of the format coco, large enough for an object to be cut out."""
    for split, id in (("train", 7), ("val", 8)):
        images = [{"id": id + 10 * n, "file_name": f"{split}{n}.png", "height": 60, "width": 80} for n in range(2)]
        objects = [
            annotation(10 * n + k, id + 10 * n, (3, 9)[k], ((5, 5, 35, 30), (40, 20, 70, 50))[k])
            for n in range(2)
            for k in range(2)
        ]
        coco(root, objects, split=split, images=images)
        for n, image in enumerate(images):
            write_image(root / split / str(image["file_name"]), seed=id + 10 * n, size_hw=(60, 80))
    return root


HAS = frozenset(("objects", "segments", "clips"))
"""What its ground truth has."""


def tiny_set(root: Path) -> Path:
    """A faultless set of a few images, with a train and a val split."""
    return cutout_clips(root)
