"""Writing LabelMe: SPLIT/ with a JSON file beside each image, and labels.toml.

Masks become polygons along the edges of their pixels, which by COCO's rule cover exactly these pixels; parts of one
object share a group_id. A crowd has the flag `crowd`. Crowds come first, then the largest, as shapes are painted over
each other in their order.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixelwise.data.kinds.writing import Original, Writer, Written
from pixelwise.data.truth.regions import Region, loose_boxes, regions_of
from pixelwise.ops.outlines import polygons_of

VERSION = "5.5.0"
"""The version of LabelMe whose files these are."""


@dataclass(frozen=True)
class LabelmeWriter(Writer):
    """The format labelme. See Writer for the attributes."""

    format: str = "labelme"
    label_file: str | None = "labels.toml"

    def write(self, root: Path, original: Original) -> Written:
        """Write one image and its JSON file. See Writer."""
        regions, lost = regions_of(original.truth, self.labels, source=original.image)
        regions = sorted(regions, key=lambda region: (not region.crowd, -int(region.mask.sum())))  # painted in order
        file, losses = original.write_image(root, f"{original.split}/{original.name}")
        content = {
            "version": VERSION,
            "flags": {},
            "shapes": [shape for number, region in enumerate(regions, 1) for shape in self._shapes(region, number)],
            "imagePath": Path(file).name,
            "imageData": None,
            "imageHeight": original.pixels.shape[0],
            "imageWidth": original.pixels.shape[1],
        }
        (root / original.split / f"{original.name}.json").write_text(
            json.dumps(content, ensure_ascii=False), encoding="utf-8"
        )
        return Written(original.name, file, losses | lost | loose_boxes(regions))

    def _shapes(self, region: Region, number: int) -> Iterator[dict[str, Any]]:
        polygons = polygons_of(region.mask, region.place)
        for polygon in polygons:
            yield {
                "label": self.labels.names[region.class_id],
                "points": [list(point) for point in zip(polygon[::2], polygon[1::2], strict=True)],
                "group_id": number if len(polygons) > 1 else None,
                "description": "",
                "shape_type": "polygon",
                "flags": {"crowd": True} if region.crowd else {},
            }
