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
from typing import Any

from pixelwise.data.kinds.writing import Original, Writer, Written
from pixelwise.data.truth.regions import Region, regions_of
from pixelwise.errors import DataError
from pixelwise.files.text import read_json
from pixelwise.labels import LabelSet, published
from pixelwise.ops import rle


@dataclass(frozen=True)
class CocoWriter(Writer):
    """The format coco. See Writer for the attributes."""

    format: str = "coco"

    def write(self, root: Path, original: Original) -> Written:
        """Write one image; its annotations go into the entry, for `finish`. See Writer."""
        file, losses = original.write_image(root, f"{original.split}/{original.name}")
        regions, lost = regions_of(original.truth, self.labels, source=original.image)
        size = (original.pixels.shape[0], original.pixels.shape[1])
        annotations = [self._entry(region, size) for region in regions]
        entry = {
            "id": original.id,
            "file_name": Path(file).name,
            "height": size[0],
            "width": size[1],
            "annotations": annotations,
        }
        return Written(original.name, file, losses | lost, entry)

    def finish(self, root: Path, *, split: str, written: Sequence[Written]) -> None:
        """Write the JSON file of the split."""
        path = root / "annotations" / f"instances_{split}.json"
        largest = _largest_ids_beside(path)
        images, annotations, number = [], [], count(1 + largest["annotations"])
        ids = _image_ids([str(one.entry["id"]) for one in written], after=largest["images"])
        for image_id, one in zip(ids, written, strict=True):
            image = {name: value for name, value in one.entry.items() if name != "annotations"}
            images.append(image | {"id": image_id})
            annotations += [{"id": next(number), "image_id": image_id, **of_one} for of_one in one.entry["annotations"]]
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "info": {"description": f"{self.labels.name}, {split}", "label_set": self.labels.to_json()},
            "licenses": [],
            "categories": [*self._categories()],
            "images": images,
            "annotations": annotations,
        }
        path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")

    def _categories(self) -> Iterator[dict[str, Any]]:
        labels = self.labels
        for index, (id, name) in enumerate(zip(labels.dataset_ids, labels.names, strict=True)):
            if index != labels.background_id:
                kind = "thing" if labels.is_thing[index] else "stuff"
                yield {"id": id, "name": name, "supercategory": kind, "color": list(labels.palette[index])}

    def _entry(self, region: Region, size: tuple[int, int]) -> dict[str, Any]:
        left, top, right, bottom = region.box
        return {
            "category_id": self.labels.dataset_ids[region.class_id],
            "bbox": [round(value, 2) for value in (left, top, right - left, bottom - top)],
            "area": int(region.mask.sum()),
            "iscrowd": int(region.crowd),
            "segmentation": rle.encode_crop(region.mask, region.place, size),
        }


def _largest_ids_beside(path: Path) -> dict[str, int]:
    """The largest ids of the splits that were written before, so that ids are unique in all of them."""
    before = [read_json(file) for file in path.parent.glob("instances_*.json") if file != path]
    names = ("images", "annotations")
    return {name: max((one["id"] for split in before for one in split[name]), default=0) for name in names}


def coco_labels(labels: LabelSet) -> LabelSet:
    """The same classes with ids that COCO's tools accept: from 1 on, 0 for `background`, which is no category.

    Ids on disk stay what they are if they are above 0; a set with COCO's names gets COCO's ids.
    """
    if labels.names == published("coco").names:
        return published("coco")
    background = labels.background_id
    kept = all(id > 0 for index, id in enumerate(labels.dataset_ids) if index != background)
    numbers = count(1)
    ids = tuple(
        0 if index == background else id if kept else next(numbers) for index, id in enumerate(labels.dataset_ids)
    )
    return replace(labels, dataset_ids=ids, void_ids=(255,) if 255 not in ids else (max(ids) + 1,))


def things_alone(labels: LabelSet) -> LabelSet:
    """The things of a set after `background`, which all other classes become. Raises DataError where it has none."""
    things = [index for index, is_thing in enumerate(labels.is_thing) if is_thing]
    if not things:
        raise DataError(f"label set '{labels.name}': no class with instances, so no things to write")
    ids = [labels.dataset_ids[index] for index in things]
    return LabelSet(
        name=labels.name,
        names=("background", *(labels.names[index] for index in things)),
        is_thing=(False, *(True for _ in things)),
        palette=((0, 0, 0), *(labels.palette[index] for index in things)),
        dataset_ids=(0 if 0 not in ids else max(ids) + 1, *ids),
        void_ids=(max(255, *ids) + 2,),
    )


def _image_ids(ids: Sequence[str], *, after: int) -> list[int]:
    """The ids as numbers if they are numbers, else those after the largest of other splits."""
    if all(id.isascii() and id.isdigit() and len(id) <= 15 for id in ids) and len({int(id) for id in ids}) == len(ids):
        return [int(id) for id in ids]
    return [*range(after + 1, after + len(ids) + 1)]
