"""Writing COCO panoptic: annotations/panoptic_SPLIT.json, annotations/panoptic_SPLIT/ with PNGs, SPLIT/ with images.

Where the ground truth has segments they keep their ids. Else they are made of its objects, painted in the order of
`data.truth.painting`, and of its classes: each class of stuff is one segment; what is of a thing's class and of no
object is a crowd. The class of a pixel stays what the ground truth says; only a crowd region, which in some formats
has no class, gets one. `info.label_set` keeps the label set; other tools pass it over.

With 2 channels (see `data.kinds.segment_maps`) the JSON has no `segments_info`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from pixelwise.data.kinds.panoptic_json import panoptic_categories
from pixelwise.data.kinds.segment_maps import segment_infos, two_channels, write_segment_ids
from pixelwise.data.kinds.writing import Original, Writer, Written
from pixelwise.data.truth.segments_of import segments_of, within_24_bits
from pixelwise.labels import LabelSet, published


@dataclass(frozen=True)
class PanopticWriter(Writer):
    """The format coco-panoptic. See Writer for the attributes.

    Attributes:
        two_channels: whether PNGs hold class and number instead of ids.
    """

    two_channels: bool = False
    format: str = "coco-panoptic"

    def write(self, root: Path, original: Original) -> Written:
        """Write one image and its PNG; its segments go into the entry, for `finish`. See Writer."""
        panoptic, lost = segments_of(original.truth, self.labels, source=original.image)
        file, losses = original.write_image(root, f"{original.split}/{original.name}")
        path = root / "annotations" / f"panoptic_{original.split}" / f"{original.name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        entry: dict[str, Any] = {
            "id": original.id,
            "file_name": Path(file).name,
            "height": original.pixels.shape[0],
            "width": original.pixels.shape[1],
        }
        counted = Counter(losses)
        counted.update(lost)
        if self.two_channels:
            channels, more = two_channels(panoptic, self.labels)
            counted.update(more)
            Image.fromarray(channels).save(path)
        else:
            panoptic, renumbered = within_24_bits(panoptic)
            counted["renumbered_segments"] += renumbered
            write_segment_ids(path, panoptic.ids.numpy())
            entry["segments_info"] = [*segment_infos(panoptic, self.labels)]
        return Written(original.name, file, {key: number for key, number in counted.items() if number}, entry)

    def finish(self, root: Path, *, split: str, written: Sequence[Written]) -> None:
        """Write the JSON file of the split."""
        images, annotations = [], []
        for image_id, one in zip(image_ids([str(one.entry["id"]) for one in written]), written, strict=True):
            segments = {key: one.entry[key] for key in ("segments_info",) if key in one.entry}
            images.append({key: value for key, value in one.entry.items() if key not in segments} | {"id": image_id})
            annotations.append({"image_id": image_id, "file_name": f"{one.name}.png", **segments})
        labels = self.labels
        content = {
            "info": {"description": f"{labels.name}, {split}", "label_set": labels.to_json()},
            "licenses": [],
            "categories": panoptic_categories(labels),
            "images": images,
            "annotations": annotations,
        }
        path = root / "annotations" / f"panoptic_{split}.json"
        path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def panoptic_labels(labels: LabelSet) -> LabelSet:
    """The same classes with ids on disk above 0, where 0 is void; a set with COCO's names gets COCO's ids."""
    coco = published("coco_panoptic")
    if labels.names == coco.names:
        return coco
    kept = all(id > 0 for id in labels.dataset_ids)
    ids = labels.dataset_ids if kept else tuple(range(1, len(labels) + 1))
    return replace(labels, dataset_ids=ids, void_ids=(0,))


def image_ids(ids: Sequence[str]) -> list[int | str]:
    """The ids as numbers if all are numbers as they would be printed, else as they are."""
    if all(id.isascii() and id.isdigit() and len(id) <= 15 and str(int(id)) == id for id in ids):
        return [int(id) for id in ids]
    return [*ids]
