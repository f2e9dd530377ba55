"""COCO's results JSON, as pycocotools, panopticapi and every COCO server read them.

Of objects there is one entry for each that was found; of segments one for each image, beside the PNG that shows them.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch

from pixelwise.data.dataset import Dataset
from pixelwise.errors import DataError
from pixelwise.files.text import read_json
from pixelwise.labels import LabelSet
from pixelwise.types import Annotation, Instances, Masks, Sample

COCO_RESULTS_NAME = "coco_results.json"
PANOPTIC_RESULTS_NAME = "panoptic_results.json"


def coco_image_id(name: str) -> int | str:
    """The id that COCO gives an image: the number that its file is named after, or else the name itself."""
    stem = Path(name).stem
    return int(stem) if stem.isascii() and stem.isdecimal() and len(stem) <= 15 else name


def coco_image_ids(names: Iterable[str]) -> dict[str, int | str]:
    """The ids of the images of one run: as `coco_image_id`, but the name itself of those that would share a number."""
    ids = {name: coco_image_id(name) for name in names}
    times = Counter(ids.values())
    return {name: id if times[id] == 1 else name for name, id in ids.items()}


def coco_entry(
    image_id: int | str,
    label: int,
    box_xywh: Sequence[float],
    score: float,
    rle: Mapping[str, Any] | None,
    *,
    labels: LabelSet,
) -> dict[str, Any]:
    """One object.

    Args:
        image_id: of the image, see `coco_image_ids`.
        label: class id.
        box_xywh: x y width height, pixels.
        score: in [0, 1].
        rle: its mask, compressed; None where there is no mask.
        labels: whose ids on disk are the category ids.
    """
    entry: dict[str, Any] = {"image_id": image_id, "category_id": labels.dataset_ids[label]}
    entry |= {"bbox": [round(value, 2) for value in box_xywh], "score": score}
    return entry if rle is None else {**entry, "segmentation": dict(rle)}


def entries_of_instances(image_id: int | str, instances: Instances, labels: LabelSet) -> Iterator[dict[str, Any]]:
    """The objects that were found in an image."""
    instances = instances.to("cpu")
    runs = [None] * len(instances) if instances.masks is None else instances.masks.to_coco()
    for index, label in enumerate(instances.labels.tolist()):
        x1, y1, x2, y2 = instances.boxes[index].double().tolist()
        score = 1.0 if instances.scores is None else float(instances.scores[index])
        yield coco_entry(image_id, label, (x1, y1, x2 - x1, y2 - y1), score, runs[index], labels=labels)


def entries_of_record(record: Mapping[str, Any], labels: LabelSet, *, image_id: int | str) -> Iterator[dict[str, Any]]:
    """The objects of a line of `results.jsonl`."""
    for segment in record["segments"]:
        x1, y1, x2, y2 = segment["box"]
        box = (x1, y1, x2 - x1, y2 - y1)
        yield coco_entry(image_id, segment["label"], box, segment["score"], segment["rle"], labels=labels)


def panoptic_entry_of_record(
    record: Mapping[str, Any], picture: str, labels: LabelSet, *, image_id: int | str
) -> dict[str, Any]:
    """The segments of a line of `results.jsonl`.

    Args:
        record: the line.
        picture: the PNG with their ids, relative to the folder of the results.
        labels: whose ids on disk are the category ids.
        image_id: of the image.
    """
    segments: list[dict[str, Any]] = []
    for segment in record["segments"]:
        x1, y1, x2, y2 = segment["box"]
        info: dict[str, Any] = {"id": segment["id"], "category_id": labels.dataset_ids[segment["label"]]}
        info |= {"area": segment["area"], "bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": 0}
        segments.append(info if segment["score"] is None else {**info, "score": segment["score"]})
    return {"image_id": image_id, "file_name": picture, "segments_info": segments}


class CocoResults:
    """The file, written entry by entry, so that few are held; it is there whole, once it is closed, or not at all.

    Args:
        path: of the file.
        categories: of panoptic results, which are an object with the list as its `annotations`.

    Raises:
        OSError: the place cannot be written; so may every method.
    """

    def __init__(self, path: Path, *, categories: Sequence[Mapping[str, Any]] | None = None) -> None:
        self.path = path
        head = "" if categories is None else f'{{"categories": {json.dumps(list(categories))},\n"annotations": '
        self._opening, self._closing = f"{head}[", "]\n" if categories is None else "]}\n"
        self._temporary = path.with_name(f".{path.name}.tmp")
        self._file = self._temporary.open("w", encoding="utf-8")
        self._separator = self._opening

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._file.write(f"{self._opening if self._separator == self._opening else ''}{self._closing}")
        self._file.close()
        if kind is None:
            os.replace(self._temporary, self.path)
        else:
            self._temporary.unlink(missing_ok=True)

    def add(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Write so many more."""
        for entry in entries:
            self._file.write(f"{self._separator}{json.dumps(entry)}")
            self._separator = ",\n"


Entry = Mapping[str, Any]


@dataclass(frozen=True)
class StoredObjects:
    """Predictions with the entries of each sample; a sample without any has no objects.

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
        class_of = {dataset_id: index for index, dataset_id in enumerate(self.labels.dataset_ids)}
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
    content = read_json(path)
    if not isinstance(content, list):
        raise DataError(
            f"{path}: COCO results are a list of objects with image_id, category_id, score and bbox or segmentation, "
            f"not a {type(content).__name__}"
        )
    names = images_by_name(dataset)
    entries: defaultdict[str, list[Entry]] = defaultdict(list)
    categories = set(dataset.labels.dataset_ids)
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
