"""Writing YOLO: images/SPLIT/, labels/SPLIT/ with a line for each object, data.yaml, and labels.toml with the rest.

A mask becomes one polygon along the edges of its pixels, parts and holes joined by lines that go there and back; by
COCO's rule it covers exactly these pixels. A crowd has no place in the format.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import yaml

from pixelwise.data.kinds.folders import labels_toml
from pixelwise.data.kinds.writing import Original, Writer, Written
from pixelwise.data.truth.regions import Region, loose_boxes, regions_of
from pixelwise.labels import LabelSet
from pixelwise.ops.outlines import polygon_of

DIGITS = 9
"""After the point: a corner is off by less than a thousandth of a pixel, which rasterising does not notice."""


@dataclass(frozen=True)
class YoloWriter(Writer):
    """The format yolo. See Writer for the attributes."""

    format: str = "yolo"

    def write(self, root: Path, original: Original) -> Written:
        """Write one image and its lines. See Writer."""
        regions, lost = regions_of(original.truth, self.labels, source=original.image)
        objects = [region for region in regions if not region.crowd]
        if len(objects) < len(regions):
            lost = lost | {"left_out_crowds": len(regions) - len(objects)}
        file, losses = original.write_image(root, f"images/{original.split}/{original.name}")
        path = root / "labels" / original.split / f"{original.name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        size = (original.pixels.shape[0], original.pixels.shape[1])
        path.write_text("".join(f"{self._line(region, size)}\n" for region in objects), encoding="utf-8")
        return Written(original.name, file, losses | lost | loose_boxes(objects), {"split": original.split})

    def finish_set(self, root: Path) -> None:
        """Write data.yaml and labels.toml."""
        ids = [id for index, id in enumerate(self.labels.dataset_ids) if index != self.labels.background_id]
        write_label_files(root, self.labels, ids)

    def _line(self, region: Region, size: tuple[int, int]) -> str:
        return line_of(self.labels.dataset_ids[region.class_id], region.mask, region.place, size)


def write_label_files(root: Path, labels: LabelSet, numbers: Collection[int]) -> None:
    """Write data.yaml, which names the folder of each split and the classes of some numbers, and labels.toml."""
    folders = {folder.name: f"images/{folder.name}" for folder in sorted((root / "images").glob("*/"))}
    pairs = zip(labels.dataset_ids, labels.names, strict=True)
    content = {**folders, "names": {id: name for id, name in pairs if id in numbers}}
    text = yaml.safe_dump(content, allow_unicode=True, sort_keys=False)
    (root / "data.yaml").write_text(text, encoding="utf-8")
    (root / "labels.toml").write_text(labels_toml(labels), encoding="utf-8")


def line_of(number: int, mask: np.ndarray, box: tuple[int, int, int, int], size: tuple[int, int]) -> str:
    """The line of an object.

    Args:
        number: of its class.
        mask: [h, w], what is not zero inside its box.
        box: x1 y1 x2 y2 in pixels, x2 y2 exclusive.
        size: height and width of the image.
    """
    polygon = polygon_of(mask, box)
    fractions = (value / size[1 - place % 2] for place, value in enumerate(polygon))
    numbers = (f"{value:.{DIGITS}f}".rstrip("0").rstrip(".") for value in fractions)
    return " ".join((str(number), *numbers))


def yolo_labels(labels: LabelSet) -> LabelSet:
    """The same classes with the ids 0, 1, 2 … on disk; the next one is `background`, which is no class of YOLO's."""
    objects = [index for index in range(len(labels)) if index != labels.background_id]
    ids = tuple(len(objects) if index == labels.background_id else objects.index(index) for index in range(len(labels)))
    return replace(labels, dataset_ids=ids, void_ids=(255,) if 255 not in ids else (max(ids) + 1,))
