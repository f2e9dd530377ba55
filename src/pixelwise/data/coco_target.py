"""Writing COCO instances: annotations/instances_SPLIT.json and SPLIT/ with the images.

Objects are written as they are, as compressed run lengths. Where the source tells the class of a pixel and no object,
each class of an image becomes one annotation with `iscrowd` 0: it may hold many objects, but it reads back to the same
classes, pixel by pixel, and every tool that takes run lengths can read it. `info.label_set` keeps the label set, so
that a set without `background` reads back as one; other tools pass it over.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8

from pixelwise.data.coco_boxes import tight_box
from pixelwise.data.painting import painted
from pixelwise.data.pair_target import Written, write_image
from pixelwise.errors import DataError
from pixelwise.labels import LabelSet, published
from pixelwise.ops import rle
from pixelwise.types import Annotation, Masks


class Region(NamedTuple):
    """What becomes one annotation.

    Attributes:
        class_id: 0…K-1.
        place: x1 y1 x2 y2 of its pixels' box, exclusive.
        mask: bool [h, w], inside that box.
        crowd: whether it stands for many objects that nobody told apart.
        box: x1 y1 x2 y2 in pixels, as annotated.
    """

    class_id: int
    place: tuple[int, int, int, int]
    mask: np.ndarray
    crowd: bool
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class CocoTarget:
    """The format coco. See Target for the attributes."""

    labels: LabelSet
    format: str = "coco"
    shares_images: bool = False

    def write(
        self,
        root: Path,
        *,
        split: str,
        name: str,
        id: str,
        image: Path,
        pixels: UInt8[np.ndarray, "H W 3"],
        truth: Annotation,
        upright: bool = False,
    ) -> Written:
        """Write one image; its annotations go into the entry, for `finish`. See Target."""
        if truth.semantic is None:
            raise DataError(f"{image}: its truth has no class for each pixel")
        file, losses = write_image(root, f"{split}/{name}", image, pixels, upright=upright)
        semantic = truth.semantic.numpy()
        objects = [*self._objects(truth)]
        regions = [*self._regions(semantic, objects)]
        size = (semantic.shape[0], semantic.shape[1])
        annotations = [self._entry(region, size) for region in (*objects, *regions)]
        entry = {
            "id": id,
            "file_name": Path(file).name,
            "height": size[0],
            "width": size[1],
            "annotations": annotations,
        }
        lost = {
            "left_out_objects": (0 if truth.instances is None else len(truth.instances)) - len(objects),
            "joined_regions": sum(self.labels.is_thing[region.class_id] for region in regions),
            **self._changes(semantic, [*objects, *regions]),
        }
        return Written(name, file, losses | {key: number for key, number in lost.items() if number}, entry)

    def finish(self, root: Path, *, split: str, written: Sequence[Written]) -> None:
        """Write the JSON file of the split."""
        images, annotations, number = [], [], count(1)
        for image_id, one in zip(_image_ids([str(one.entry["id"]) for one in written]), written, strict=True):
            image = {name: value for name, value in one.entry.items() if name != "annotations"}
            images.append(image | {"id": image_id})
            annotations += [{"id": next(number), "image_id": image_id, **of_one} for of_one in one.entry["annotations"]]
        path = root / "annotations" / f"instances_{split}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "info": {"description": f"{self.labels.name}, {split}", "label_set": self.labels.to_json()},
            "licenses": [],
            "categories": [*self._categories()],
            "images": images,
            "annotations": annotations,
        }
        path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")

    def finish_set(self, root: Path) -> None:
        """Nothing: the label set stands in every JSON file."""

    def _categories(self) -> Iterator[dict[str, Any]]:
        labels = self.labels
        for index, (id, name) in enumerate(zip(labels.native_ids, labels.names, strict=True)):
            if index != labels.background_id:
                kind = "thing" if labels.is_thing[index] else "stuff"
                yield {"id": id, "name": name, "supercategory": kind, "color": list(labels.palette[index])}

    def _objects(self, truth: Annotation) -> Iterator[Region]:
        """The objects of the truth that cover a pixel and are of a category."""
        instances = truth.instances
        if instances is None or instances.masks is None:
            return
        for number in range(len(instances)):
            class_id, mask = int(instances.labels[number]), instances.masks.crop(number).numpy() != 0
            if class_id != self.labels.background_id and mask.any():
                x1, y1, x2, y2 = instances.masks.boxes[number].tolist()
                left, top, right, bottom = (float(value) for value in instances.boxes[number])
                box = (left, top, right, bottom) if left < right and top < bottom else (x1, y1, x2, y2)
                crowd = bool(instances.crowd is not None and instances.crowd[number])
                yield Region(class_id, (x1, y1, x2, y2), mask, crowd, box)

    def _regions(self, semantic: np.ndarray, objects: Sequence[Region]) -> Iterator[Region]:
        """One region for each class, of the pixels that the objects do not give it."""
        left = semantic != self._painted(objects, semantic.shape)
        for class_id in np.unique(semantic[left]):
            if class_id not in (self.labels.ignore_id, self.labels.background_id):
                mask = left & (semantic == class_id)
                x1, y1, x2, y2 = tight_box(mask)
                yield Region(int(class_id), (x1, y1, x2, y2), mask[y1:y2, x1:x2].copy(), False, (x1, y1, x2, y2))

    def _changes(self, semantic: np.ndarray, regions: Sequence[Region]) -> dict[str, int]:
        """How many pixels will read back as another class."""
        changed = semantic != self._painted(regions, semantic.shape)
        void = int((changed & (semantic == self.labels.ignore_id)).sum())
        return {"void_pixels_as_class": void, "changed_pixels": int(changed.sum()) - void}

    def _painted(self, regions: Sequence[Region], size: tuple[int, ...]) -> np.ndarray:
        crops = [torch.from_numpy(region.mask) for region in regions]
        masks = Masks.from_crops(crops, [region.place for region in regions], (size[0], size[1]))
        class_ids = np.array([region.class_id for region in regions], dtype=np.int64)
        crowd = np.array([region.crowd for region in regions], dtype=np.bool_)
        return painted(masks, class_ids, crowd, self.labels)

    def _entry(self, region: Region, size: tuple[int, int]) -> dict[str, Any]:
        left, top, right, bottom = region.box
        x1, y1, x2, y2 = region.place
        mask = np.zeros(size, dtype=np.bool_)
        mask[y1:y2, x1:x2] = region.mask
        return {
            "category_id": self.labels.native_ids[region.class_id],
            "bbox": [round(value, 2) for value in (left, top, right - left, bottom - top)],
            "area": int(region.mask.sum()),
            "iscrowd": int(region.crowd),
            "segmentation": rle.encode(mask),
        }


def coco_labels(labels: LabelSet) -> LabelSet:
    """The same classes with ids that COCO's tools accept: from 1 on, 0 for `background`, which is no category.

    Ids on disk stay what they are if they are above 0; a set with COCO's names gets COCO's ids.
    """
    if labels.names == published("coco").names:
        return published("coco")
    background = labels.background_id
    kept = all(id > 0 for index, id in enumerate(labels.native_ids) if index != background)
    numbers = count(1)
    ids = tuple(
        0 if index == background else id if kept else next(numbers) for index, id in enumerate(labels.native_ids)
    )
    return replace(labels, native_ids=ids, void_ids=(255,) if 255 not in ids else (max(ids) + 1,))


def _image_ids(ids: Sequence[str]) -> list[int]:
    """The ids as numbers if they are numbers, else 1, 2, 3 …"""
    if all(id.isascii() and id.isdigit() and len(id) <= 15 for id in ids) and len({int(id) for id in ids}) == len(ids):
        return [int(id) for id in ids]
    return [*range(1, len(ids) + 1)]
