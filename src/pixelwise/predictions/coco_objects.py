"""COCO's instance results, as pycocotools and COCO servers read them: a list with one entry for each instance.

They are written entry by entry. `evaluate --predictions` pairs the entries with the images of a data set, `merge` with
masks. Where `--map` changed the classes, the first entry has them in a field `label_set`, which other tools ignore;
reading needs the same map.
"""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Self

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from pixelwise.data.dataset import Dataset
from pixelwise.errors import DataError
from pixelwise.files.text import read_json
from pixelwise.labels import LabelSet
from pixelwise.types import Annotation, Instances, Masks, Sample

COCO_RESULTS_NAME = "coco_results.json"
"""Name of the file that `predict` and `evaluate` write."""


# ---- ids


def coco_image_id(name: str) -> int | str:
    """COCO's id of an image: the number in its file name, or else the name itself."""
    stem = Path(name).stem
    return int(stem) if stem.isascii() and stem.isdecimal() and len(stem) <= 15 else name


def coco_image_ids(names: Iterable[str]) -> dict[str, int | str]:
    """The ids of the images of one run: as `coco_image_id`, but names where numbers would repeat."""
    ids = {name: coco_image_id(name) for name in names}
    times = Counter(ids.values())
    return {name: id if times[id] == 1 else name for name, id in ids.items()}


def images_by_name(dataset: Dataset) -> dict[str, str]:
    """The id of each image by its possible names in results: its file, with or without folder and suffix, or its id.

    The end of an id after the name of its clip counts too, and the end of a path. Ambiguous short names are skipped.
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


def image_named(image_id: int | str, names: Mapping[str, str]) -> str | None:
    """The id of the image of a result; None for an unknown image.

    Args:
        image_id: in the results. An unknown path is matched by its end, with at least one folder, since the data set
            may be elsewhere.
        names: of `images_by_name`.
    """
    name = str(image_id)
    parts = name.split("/")
    ends = ("/".join(parts[start:]) for start in range(1, len(parts) - 1))
    return next((names[one] for one in (name, *ends) if one in names), None)


# ---- writing


def coco_entry(
    image_id: int | str,
    label: int,
    box_xywh: Sequence[float],
    score: float,
    rle: Mapping[str, Any] | None,
    *,
    labels: LabelSet,
) -> dict[str, Any]:
    """An entry for one instance.

    Args:
        image_id: of the image, see `coco_image_ids`.
        label: class id.
        box_xywh: x y width height, pixels.
        score: in [0, 1].
        rle: its mask, compressed; None without mask.
        labels: its ids on disk are the category ids.
    """
    entry: dict[str, Any] = {"image_id": image_id, "category_id": labels.dataset_ids[label]}
    entry |= {"bbox": list(box_xywh), "score": score}
    return entry if rle is None else {**entry, "segmentation": dict(rle)}


def entries_of_instances(image_id: int | str, instances: Instances, labels: LabelSet) -> Iterator[dict[str, Any]]:
    """Entries of the instances of an image."""
    instances = instances.to("cpu")
    runs = [None] * len(instances) if instances.masks is None else instances.masks.to_coco()
    for index, label in enumerate(instances.labels.tolist()):
        x1, y1, x2, y2 = instances.boxes[index].double().tolist()
        score = 1.0 if instances.scores is None else float(instances.scores[index])
        yield coco_entry(image_id, label, (x1, y1, x2 - x1, y2 - y1), score, runs[index], labels=labels)


def entries_of_record(record: Mapping[str, Any], labels: LabelSet, *, image_id: int | str) -> Iterator[dict[str, Any]]:
    """Entries of the instances in a line of `results.jsonl`."""
    for segment in record["segments"]:
        x1, y1, x2, y2 = segment["box"]
        box, score = (x1, y1, x2 - x1, y2 - y1), segment["score"]
        yield coco_entry(
            image_id, segment["label"], box, 1.0 if score is None else score, segment["rle"], labels=labels
        )


class CocoResults:
    """Writes the file entry by entry; it exists only after it is closed.

    Args:
        path: of the file.
        mapped: the classes, if they are not those of the data set.
        head: for results that are an object with the list in `annotations`: the fields before it.

    Raises:
        OSError: the place cannot be written; so may every method.
    """

    def __init__(self, path: Path, *, mapped: LabelSet | None = None, head: Mapping[str, Any] | None = None) -> None:
        self.path = path
        self._first = {} if mapped is None else {"label_set": mapped.to_json()}
        before = "".join(f"{json.dumps(name)}: {json.dumps(value)},\n" for name, value in (head or {}).items())
        self._opening, self._closing = ("[", "]\n") if head is None else (f'{{{before}"annotations": [', "]}\n")
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
        """Write further entries."""
        for entry in entries:
            self._file.write(f"{self._separator}{json.dumps({**entry, **self._first})}")
            self._separator, self._first = ",\n", {}


# ---- reading


def _whole(value: Any) -> Any:
    """An integer, also written as 3.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


WholeNumber = Annotated[int, BeforeValidator(_whole)]
Number = Annotated[float, Field(allow_inf_nan=False)]
ImageId = Annotated[int | str, BeforeValidator(_whole)]


class Entry(BaseModel):
    """One entry of the results."""

    model_config = ConfigDict(strict=True)
    image_id: ImageId
    category_id: WholeNumber
    score: Number
    bbox: Annotated[list[Number], Field(min_length=4, max_length=4)] | None = None
    segmentation: dict[str, Any] | list[list[Number]] | None = None


@dataclass(frozen=True)
class Entries:
    """A results file with valid entries.

    Attributes:
        path: the file.
        entries: one for each instance.
        label_set: the classes of its categories, if the file has them.
    """

    path: Path
    entries: Sequence[Entry]
    label_set: LabelSet | None


@dataclass(frozen=True)
class StoredObjects:
    """Predictions with the entries of each sample; a sample without any has no instances.

    Attributes:
        path: the file.
        labels: its ids on disk are the categories.
        entries: by the id of the sample.
        masked: whether entries have masks; all have, or none.
        boxed: whether the size of detections is that of their boxes; else that of their masks.
    """

    path: Path
    labels: LabelSet
    entries: Mapping[str, Sequence[Entry]]
    masked: bool
    boxed: bool

    @property
    def note(self) -> str | None:
        """A note to the user on the numbers, or None."""
        if self.masked or not self.entries:
            return None
        return f"{self.path}: boxes without masks, so mask AP is not counted (pycocotools takes the boxes for masks)"

    def __call__(self, sample: Sample) -> Annotation:
        """The instances of a sample. Raises DataError for a mask of another size or one that cannot be read."""
        entries = self.entries.get(sample.id, ())
        height, width = sample.image.shape[1:]
        masks = None
        if self.masked:
            source = f"{self.path}: image '{sample.id}', entry"
            masks = Masks.from_coco([entry.segmentation for entry in entries], (height, width), source=source)
        boxes = torch.zeros(len(entries), 4, dtype=torch.float64)
        areas = torch.zeros(len(entries), dtype=torch.float64) if masks is None else masks.areas().double()
        for index, entry in enumerate(entries):
            if entry.bbox is not None:
                x, y, w, h = entry.bbox
                boxes[index] = torch.tensor([x, y, x + w, y + h], dtype=torch.float64)
                areas[index] = w * h if self.boxed else areas[index]  # as pycocotools does for masks too
            elif masks is not None:
                boxes[index] = masks.boxes[index].double()
        class_of = {dataset_id: index for index, dataset_id in enumerate(self.labels.dataset_ids)}
        return Annotation(
            instances=Instances(
                boxes=boxes,
                labels=torch.tensor([class_of[entry.category_id] for entry in entries], dtype=torch.int64),
                masks=masks,
                scores=torch.tensor([entry.score for entry in entries], dtype=torch.float64),
                areas=areas,
            )
        )


def read_entries(path: Path) -> Entries:
    """Read a results file. Raises DataError that names the entry and the field where it is no such list."""
    content = read_json(path, expected="COCO results, a list of entries")
    if not isinstance(content, list):
        raise DataError(
            f"{path}: expected COCO results, a list of entries with image_id, category_id, score and bbox or "
            f"segmentation; not a {type(content).__name__}"
        )
    entries: list[Entry] = []
    for number, one in enumerate(content, start=1):
        if isinstance(one, dict) and one.get("bbox") == []:  # as pycocotools, read as no box
            one = {**one, "bbox": None}
        try:
            entries.append(Entry.model_validate(one))
        except ValidationError as error:
            raise DataError(f"{path}: entry {number}: {first_fault(error)}") from None
    first = content[0].get("label_set") if content else None
    return Entries(path, entries, stored_label_set(first, source=f"{path}: entry 1"))


def stored_label_set(value: Any, *, source: object) -> LabelSet | None:
    """The label set of a results file, or None without one. Raises DataError for an invalid one."""
    if value is not None and not isinstance(value, dict):
        raise DataError(f"{source}: label_set: expected an object, not a {type(value).__name__}")
    try:
        return None if value is None else LabelSet.from_json(value)
    except DataError as error:
        raise DataError(f"{source}: label_set: {error}") from None


def pair_objects(results: Entries, dataset: Dataset) -> StoredObjects:
    """Pair the entries of a results file with the images of a data set, by id or by the name of the file.

    Raises:
        DataError: an entry of an unknown category or image, or with fewer fields than others.
    """
    names = images_by_name(dataset)
    categories = set(dataset.labels.dataset_ids)
    masked = any(entry.segmentation is not None for entry in results.entries)
    entries: defaultdict[str, list[Entry]] = defaultdict(list)
    for number, entry in enumerate(results.entries, start=1):
        id = image_named(entry.image_id, names)
        fault = None
        if id is None:
            fault = f"image {entry.image_id!r} is not in {dataset.name}"
        elif entry.category_id not in categories:
            fault = f"category {entry.category_id} is not in '{dataset.labels.name}' ({dataset.labels.describe_ids()})"
        elif masked and entry.segmentation is None:
            fault = "no segmentation, which other entries have"
        elif not masked and entry.bbox is None:
            fault = "neither bbox nor segmentation"
        if fault is not None:
            raise DataError(f"{results.path}: entry {number}: {fault}")
        entries[str(id)].append(entry)
    boxed = bool(results.entries) and results.entries[0].bbox is not None
    return StoredObjects(results.path, dataset.labels, entries, masked, boxed)


def first_fault(error: ValidationError) -> str:
    """The first fault of a value of a results file: the field, its value and what was expected."""
    fault = next(chain(error.errors(include_url=False)))
    place = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "missing":
        return f"expected a field {place}"
    came = repr(fault["input"])
    return f"{place or 'it'} is {came if len(came) <= 60 else came[:59] + '…'}: {fault['msg'].lower()}"
