"""COCO's results JSON that any tool wrote, as what is judged."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pixelwise.data.dataset import Dataset
from pixelwise.errors import DataError
from pixelwise.inference.coco_results import coco_image_id
from pixelwise.labels import LabelSet
from pixelwise.types import Annotation, Instances, Masks, Sample

Entry = Mapping[str, Any]


@dataclass(frozen=True)
class StoredObjects:
    """Answers with the entries of each sample; a sample without any has no objects.

    Attributes:
        path: the file.
        labels: whose ids on disk are the categories.
        entries: by the id of the sample.
        masked: whether entries have masks; all have, or none.
    """

    path: Path
    labels: LabelSet
    entries: Mapping[str, Sequence[Entry]]
    masked: bool

    def __call__(self, sample: Sample) -> Annotation:
        """The objects of a sample. Raises DataError for a mask of another size or one that cannot be read."""
        entries = self.entries.get(sample.id, ())
        height, width = sample.image.shape[1:]
        masks = None
        if self.masked:
            source = f"{self.path}: image '{sample.id}', object"
            masks = Masks.from_coco([entry["segmentation"] for entry in entries], (height, width), source=source)
        boxes = torch.zeros(len(entries), 4)
        areas = torch.zeros(len(entries), dtype=torch.float64) if masks is None else masks.areas().double()
        for index, entry in enumerate(entries):
            if "bbox" in entry:
                x, y, w, h = entry["bbox"]
                boxes[index] = torch.tensor([x, y, x + w, y + h])
                areas[index] = w * h  # as pycocotools does even of masks
            elif masks is not None:
                boxes[index] = masks.boxes[index].float()
        class_of = {native: index for index, native in enumerate(self.labels.native_ids)}
        return Annotation(
            instances=Instances(
                boxes=boxes,
                labels=torch.tensor([class_of[entry["category_id"]] for entry in entries], dtype=torch.int64),
                masks=masks,
                scores=torch.tensor([float(entry["score"]) for entry in entries], dtype=torch.float64),
                areas=areas,
            )
        )


def read_objects(path: Path, dataset: Dataset) -> StoredObjects:
    """Read a results file and pair its entries with the images of a data set, by id or by the name of the file.

    Raises:
        DataError: no results JSON, an entry that is not sound, an unknown category, or an image that is not in the set.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error})") from None
    if not isinstance(content, list):
        raise DataError(
            f"{path}: COCO results are a list of objects with image_id, category_id, score and bbox or segmentation, "
            f"not a {type(content).__name__}"
        )
    names = images_by_name(dataset)
    entries: defaultdict[str, list[Entry]] = defaultdict(list)
    categories = set(dataset.labels.native_ids)
    masked = any(isinstance(entry, dict) and "segmentation" in entry for entry in content)
    for number, entry in enumerate(content, start=1):
        fault = _fault(entry, names, categories, dataset, masked=masked)
        if fault:
            raise DataError(f"{path}: entry {number}: {fault}")
        id = image_named(entry["image_id"], names)
        assert id is not None
        entries[id].append(entry)
    return StoredObjects(path, dataset.labels, entries, masked)


def images_by_name(dataset: Dataset) -> dict[str, str]:
    """The id of each image by what results may call it: its file, with or without folder and suffix, or its id.

    The end of an id, behind the name of its clip, will do too, and the end of a path. A short name that several images
    have is none of theirs.
    """
    names: dict[str, str] = {}
    shared: set[str] = set()
    files = [dataset.image_path(index) for index in range(len(dataset))]
    for file, id in zip(files, dataset.ids, strict=True):
        ends = (Path(*file.parts[-length:]).as_posix() for length in range(2, len(file.parts)))
        for name in (file.name, file.stem, str(coco_image_id(file.name)), id.rpartition("/")[2], *ends):
            if names.setdefault(name, id) != id:
                shared.add(name)
    for name in shared:
        del names[name]
    for file, id in zip(files, dataset.ids, strict=True):
        names[file.as_posix()] = names[id] = id
    return names


def image_named(image_id: Any, names: Mapping[str, str]) -> str | None:
    """The id of the image that results mean; None where there is no such one.

    Args:
        image_id: as it stands in the results. Of a path that is none of the data set's the end tells the image, with a
            folder at least, for where the data set lies may be written in two ways.
        names: of `images_by_name`.
    """
    name = str(image_id)
    parts = name.split("/")
    ends = ("/".join(parts[start:]) for start in range(1, len(parts) - 1))
    return next((names[one] for one in (name, *ends) if one in names), None)


def _fault(entry: Any, names: Mapping[str, str], categories: set[int], dataset: Dataset, *, masked: bool) -> str | None:
    """What is wrong with an entry, or None."""
    if not isinstance(entry, dict):
        return f"an object is wanted, not a {type(entry).__name__}"
    if image_named(entry.get("image_id"), names) is None:
        return f"image {entry.get('image_id')!r} is not in {dataset.name}"
    category = entry.get("category_id")
    if not isinstance(category, int) or category not in categories:
        return f"category {category!r} is not in '{dataset.labels.name}'"
    score = entry.get("score")
    if not is_number(score):
        return f"score {score!r} is no number"
    box = entry.get("bbox")
    if box is not None and not (isinstance(box, list) and len(box) == 4 and all(map(is_number, box))):
        return f"box {box} is not four numbers x, y, width, height"
    if masked and "segmentation" not in entry:
        return "no segmentation, which other entries have"
    if not masked and box is None:
        return "neither bbox nor segmentation"
    return None


def is_number(value: Any) -> bool:
    """Whether a value of the JSON is a number, and neither NaN nor infinite."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
