"""A panoptic JSON with its faults repaired where that can be done without guessing; the PNGs stay what they are.

Areas and boxes become those of the PNG, and segments without pixels, of no category or with the id 0 or that of another
go. An image goes if it, its annotation or its PNG is missing, unreadable or of another size, or if the PNG has an id
that is not listed: which class its pixels have only the annotator knows.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixelwise.data.kinds.coco_json import Entry, is_integer
from pixelwise.data.kinds.repairing import read_upright
from pixelwise.data.kinds.segment_maps import box_of, is_other_box, read_segment_ids
from pixelwise.data.listing import Item, Repaired, Repairer, UnusableError, Written
from pixelwise.data.truth.segments import regions_of_ids
from pixelwise.errors import DataError


@dataclass(frozen=True)
class PanopticRepairer(Repairer):
    """Writes panoptic_SPLIT.json. `Item.extra` is the entry of an image, and its segments. See Repairer.

    Attributes:
        rest: what stands in the JSON besides.
        categories: as they stand in it.
        folder: of the images.
        maps: the folder of PNGs.
    """

    rest: Mapping[str, Any]
    categories: Sequence[Entry]
    folder: Path
    maps: Path

    def repair(self, item: Item, *, root: Path, split: str, id: str) -> Repaired:  # noqa: ARG002
        """Read one image and its PNG, and make the list fit them. See Repairer."""
        pixels, _ = read_upright(item)
        assert item.truth is not None
        assert item.image is not None
        try:
            ids = read_segment_ids(item.truth)
        except DataError:
            raise UnusableError("unreadable_masks") from None
        if ids.shape != pixels.shape[:2]:
            raise UnusableError("size_mismatches")
        entry, infos = item.extra
        done: Counter[str] = Counter()
        size = {"height": pixels.shape[0], "width": pixels.shape[1]}
        done["sizes"] += any(entry.get(side) != length for side, length in size.items())
        image = {**entry, "file_name": item.image.relative_to(self.folder).as_posix(), **size}
        map = item.truth
        annotation = {
            "image_id": entry["id"],
            "file_name": map.relative_to(self.maps).as_posix() if map.is_relative_to(self.maps) else map.name,
            "segments_info": _segments(ids, infos, done),
        }
        return Repaired(Written(id, str(item.image), {}, {"image": image, "annotation": annotation}), done)

    def finish(self, root: Path, *, split: str, written: Sequence[Written]) -> None:
        """Write the JSON of a split."""
        content = {
            **self.rest,
            "images": [one.entry["image"] for one in written],
            "annotations": [one.entry["annotation"] for one in written],
            "categories": self.categories,
        }
        text = json.dumps(content, ensure_ascii=False)
        (root / f"panoptic_{split}.json").write_text(text, encoding="utf-8")


def _segments(ids: Any, infos: Sequence[Entry], done: Counter[str]) -> list[Entry]:
    """The segments that have pixels, with areas and boxes of the PNG. Raises UnusableError for ids without segment."""
    regions = regions_of_ids(ids)
    place = {int(id): number for number, id in enumerate(regions.ids)}
    if set(place) - {info["id"] for info in infos} - {0}:
        raise UnusableError("unlisted_ids")
    kept: list[Entry] = []
    for info in infos:
        number = place.get(info["id"])
        if number is None:
            done["segments_without_pixels"] += 1
            continue
        area, box = int(regions.areas[number]), box_of(regions.boxes[number])
        repaired = dict(info)
        if "area" in info and not (is_integer(info["area"]) and info["area"] == area):
            done["areas"] += 1
            repaired["area"] = area
        if "bbox" in info and is_other_box(info["bbox"], box):
            done["boxes"] += 1
            repaired["bbox"] = box
        kept.append(repaired)
    return kept
