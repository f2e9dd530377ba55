"""Writing COCO panoptic: annotations/panoptic_SPLIT.json, annotations/panoptic_SPLIT/ with PNGs, SPLIT/ with images.

Where the truth has segments they keep their ids. Else they are made of its objects, painted in the order of
`data.painting`, and of its classes: each class of stuff is one segment; what is of a thing's class and of no object is
a crowd. The class of a pixel stays what the truth says; only a crowd region, which in some formats has no class, gets
one. `info.label_set` keeps the label set; other tools pass it over.

With 2 channels (see `data.panoptic_maps`) the JSON has no `segments_info`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from pixelwise.data.object_ids import painted_ids
from pixelwise.data.pair_target import Original, Written
from pixelwise.data.panoptic_json import panoptic_categories
from pixelwise.data.panoptic_maps import panoptic_of, two_channels, write_segment_ids
from pixelwise.data.segments import regions_of_ids, with_ids
from pixelwise.errors import DataError
from pixelwise.labels import LARGEST_ID, LabelSet, published
from pixelwise.ops.panoptic import stuff_segment_ids, thing_segment_ids
from pixelwise.types import Annotation, Panoptic


@dataclass(frozen=True)
class PanopticTarget:
    """The format coco-panoptic. See Target for the attributes.

    Attributes:
        two_channels: whether PNGs hold class and number instead of ids.
    """

    labels: LabelSet
    two_channels: bool = False
    format: str = "coco-panoptic"
    shares_images: bool = False

    def write(self, root: Path, original: Original) -> Written:
        """Write one image and its PNG; its segments go into the entry, for `finish`. See Target."""
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
            entry["segments_info"] = self._infos(panoptic)
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

    def finish_set(self, root: Path) -> None:
        """Nothing: the label set stands in every JSON file."""

    def _infos(self, panoptic: Panoptic) -> list[dict[str, Any]]:
        regions = regions_of_ids(panoptic.ids.numpy())
        place = {int(id): number for number, id in enumerate(regions.ids)}
        infos: list[dict[str, Any]] = []
        for id, class_id, crowd in zip(
            panoptic.segment_ids.tolist(), panoptic.labels.tolist(), panoptic.crowd.tolist(), strict=True
        ):
            number = place.get(id)
            if number is not None:
                x1, y1, x2, y2 = regions.boxes[number].tolist()
                infos.append(
                    {
                        "id": id,
                        "category_id": self.labels.native_ids[class_id],
                        "area": int(regions.areas[number]),
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "iscrowd": int(crowd),
                    }
                )
        return infos


def segments_of(truth: Annotation, labels: LabelSet, *, source: Path) -> tuple[Panoptic, dict[str, int]]:
    """The segments of any truth, and what they cannot hold, by the keys of `conversion.LOSSES`.

    Raises DataError, beginning with `source`, where the truth has neither segments nor the class of each pixel.
    """
    if truth.panoptic is not None:
        return truth.panoptic, {"empty_segments": int((truth.panoptic.areas() == 0).sum())}
    if truth.semantic is None:
        raise DataError(f"{source}: its truth has no class for each pixel")
    semantic = truth.semantic.numpy().astype(np.int32)
    ids = np.zeros(semantic.shape, dtype=np.int32)
    objects, losses = truth.instances, Counter[str]()
    found: list[tuple[int, int, bool]] = []  # id, class, crowd
    count = 0
    if objects is not None and objects.masks is not None and len(objects):
        count = len(objects)
        numbers = [*range(1, count + 1)]
        ids, lost = painted_ids(objects, numbers, ids, crowds=True)
        crowd = objects.crowd.tolist() if objects.crowd is not None else [False] * count
        things = torch.tensor(labels.is_thing)[objects.labels].numpy()
        class_of = np.array([-1, *objects.labels.tolist()], dtype=np.int32)
        # classes go before objects: an object keeps the pixels of its class, a crowd those of no class too
        fits = class_of[ids] == semantic
        fits |= (semantic == labels.ignore_id) & np.array([False, *crowd])[ids]
        ids[~fits | ~np.array([False, *things])[ids]] = 0
        left = set(np.unique(ids).tolist())
        segment_ids = thing_segment_ids(torch.arange(count), len(labels)).tolist()
        for number in numbers:
            if number in left:
                found.append((segment_ids[number - 1], int(objects.labels[number - 1]), crowd[number - 1]))
        losses["overlapping_pixels"] = lost.get("overlapping_pixels", 0)
        losses["hidden_objects"] = int(things.sum()) - len(found)
        losses["flattened_objects"] = count - int(things.sum())
        ids = np.array([0, *segment_ids], dtype=np.int32)[ids]
    free = (ids == 0) & (semantic != labels.ignore_id)
    for class_id in np.unique(semantic[free]).tolist():
        if labels.is_thing[class_id]:
            segment_id, count = int(thing_segment_ids(torch.tensor([count]), len(labels))[0]), count + 1
            losses["crowds_of_classes"] += 1
        else:
            segment_id = int(stuff_segment_ids(torch.tensor([class_id]))[0])
        ids[free & (semantic == class_id)] = segment_id
        found.append((segment_id, class_id, labels.is_thing[class_id]))
    found.sort()
    panoptic = panoptic_of(ids, *zip(*found, strict=True)) if found else panoptic_of(ids, (), (), ())
    return panoptic, dict(losses)


def within_24_bits(panoptic: Panoptic) -> tuple[Panoptic, int]:
    """The segments with ids that a PNG holds, and how many got another one: those whose id is too large."""
    too_large = panoptic.segment_ids >= LARGEST_ID
    wrong = int(too_large.sum())
    if not wrong:
        return panoptic, 0
    taken = set(panoptic.segment_ids[~too_large].tolist())
    free = (id for id in range(1, LARGEST_ID) if id not in taken)
    segment_ids = panoptic.segment_ids.clone()
    for place in too_large.nonzero().flatten().tolist():
        segment_ids[place] = next(free)
    return replace(panoptic, ids=with_ids(panoptic, segment_ids), segment_ids=segment_ids), wrong


def panoptic_labels(labels: LabelSet) -> LabelSet:
    """The same classes with ids on disk above 0, where 0 is void; a set with COCO's names gets COCO's ids."""
    coco = published("coco_panoptic")
    if labels.names == coco.names:
        return coco
    kept = all(id > 0 for id in labels.native_ids)
    ids = labels.native_ids if kept else tuple(range(1, len(labels) + 1))
    return replace(labels, native_ids=ids, void_ids=(0,))


def image_ids(ids: Sequence[str]) -> list[int | str]:
    """The ids as numbers if all are numbers as they would be printed, else as they are."""
    if all(id.isascii() and id.isdigit() and len(id) <= 15 and str(int(id)) == id for id in ids):
        return [int(id) for id in ids]
    return [*ids]
