"""COCO's panoptic results, as panopticapi reads them: a JSON, and a PNG of ids for each image in its folder.

They are written image by image; `evaluate --predictions` reads them. Where `--map` changed the classes, the JSON has
them in a field `label_set`, which other tools ignore; reading needs the same map.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self, TextIO

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pixelwise.data.dataset import Dataset
from pixelwise.data.kinds.panoptic_json import panoptic_categories
from pixelwise.data.kinds.segment_maps import read_segment_ids, segment_infos
from pixelwise.data.truth.segments import panoptic_of, regions_of_ids
from pixelwise.errors import DataError
from pixelwise.files.text import read_json
from pixelwise.labels import LARGEST_ID, LabelSet
from pixelwise.predictions.coco_objects import (
    CocoResults,
    ImageId,
    Number,
    WholeNumber,
    coco_image_ids,
    first_fault,
    image_named,
    images_by_name,
    stored_label_set,
)
from pixelwise.predictions.pictures import segment_picture
from pixelwise.types import Annotation, Panoptic, Sample

PANOPTIC_RESULTS_NAME = "panoptic_results.json"
"""Name of the file that `predict`, `merge` and `evaluate` write."""


# ---- writing


class PanopticResults:
    """Writes the results image by image; the JSON exists only after it is closed.

    Args:
        json: the file; the PNGs lie in the folder of its name without suffix, under the ids of the images.
        ids: of all possible images.
        labels: its ids on disk are the category ids.
        mapped: whether the classes are not those of the data set.

    Raises:
        DataError: the place cannot be written; so may every method.
    """

    def __init__(self, json: Path, ids: Sequence[str], labels: LabelSet, *, mapped: bool = False) -> None:
        self.maps, self.labels = json.with_suffix(""), labels
        self._image_ids = coco_image_ids(ids)
        self._names = _file_names(ids)
        head = panoptic_head(labels)
        try:
            self._results = CocoResults(json, head={**head, "label_set": labels.to_json()} if mapped else head)
        except OSError as error:
            raise _unwritable(json, error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: Any) -> None:
        try:
            self._results.__exit__(*raised)
        except OSError as error:
            raise _unwritable(self._results.path, error) from None

    def add(self, id: str, panoptic: Panoptic) -> None:
        """Write the segments of one image that have pixels. Raises DataError for ids that 24 bits do not hold."""
        panoptic = panoptic.to("cpu")
        path = self.maps / self._names[id]
        try:
            picture = segment_picture(panoptic)
        except DataError as error:
            raise DataError(f"{path}: {error}") from None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
            entry = {"image_id": self._image_ids[id], "file_name": self._names[id]}
            self._results.add([{**entry, "segments_info": [*segment_infos(panoptic, self.labels)]}])
        except OSError as error:
            raise _unwritable(path, error) from None


def panoptic_head(labels: LabelSet) -> dict[str, Any]:
    """The fields before the annotations of the JSON."""
    return {"categories": panoptic_categories(labels)}


def panoptic_entry_of_record(
    record: Mapping[str, Any], picture: str, labels: LabelSet, *, image_id: int | str
) -> dict[str, Any]:
    """The segments of a line of `results.jsonl`.

    Args:
        record: the line.
        picture: the PNG with their ids, relative to the folder of the results.
        labels: its ids on disk are the category ids.
        image_id: of the image.
    """
    segments: list[dict[str, Any]] = []
    for segment in record["segments"]:
        x1, y1, x2, y2 = segment["box"]
        info: dict[str, Any] = {"id": segment["id"], "category_id": labels.dataset_ids[segment["label"]]}
        info |= {"area": segment["area"], "bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": 0}
        segments.append(info if segment["score"] is None else {**info, "score": segment["score"]})
    return {"image_id": image_id, "file_name": picture, "segments_info": segments}


def _file_names(ids: Sequence[str]) -> dict[str, str]:
    """The PNG of each image, below the folder: its id with its folders, and a number where two would be equal."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for id in ids:
        stem = "/".join(part for part in id.split("/") if part not in ("", ".", "..")) or "image"
        name, number = stem, 1
        while name.lower() in taken:
            name = f"{stem}_{(number := number + 1)}"
        taken.add(name.lower())
        names[id] = f"{name}.png"
    return names


def _unwritable(path: Path, error: OSError) -> DataError:
    return DataError(f"{path}: cannot be written ({error.strerror or error}); free some room or choose another --out")


# ---- reading


class SegmentEntry(BaseModel):
    """A segment of the JSON."""

    model_config = ConfigDict(strict=True)
    id: Annotated[WholeNumber, Field(gt=0, lt=LARGEST_ID)]
    category_id: WholeNumber
    score: Number | None = None


class ImageEntry(BaseModel):
    """An annotation of the JSON."""

    model_config = ConfigDict(strict=True)
    image_id: ImageId
    file_name: Annotated[str, Field(min_length=1)]
    segments_info: list[SegmentEntry]


class StoredSegment(NamedTuple):
    """One segment of an image, with its score or None."""

    id: int
    class_id: int
    score: float | None


class StoredMap(NamedTuple):
    """A PNG and its segments."""

    path: Path
    segments: tuple[StoredSegment, ...]


@dataclass(frozen=True)
class StoredSegments:
    """Predictions with the PNG of each sample.

    Attributes:
        maps: by the id of the sample.
    """

    maps: Mapping[str, StoredMap]

    def __call__(self, sample: Sample) -> Annotation:
        """The segments of a sample that have pixels.

        Raises DataError for a PNG that cannot be read, has another size, or has an id that is not listed.
        """
        path, segments = self.maps[sample.id]
        ids = read_segment_ids(path)
        height, width = sample.image.shape[1:]
        if ids.shape != (height, width):
            raise DataError(
                f"{path}: the PNG is {ids.shape[0]}×{ids.shape[1]}, image '{sample.id}' {height}×{width} "
                "(height×width); predictions must have the image's size"
            )
        regions = regions_of_ids(ids)
        area_of = dict(zip(regions.ids.tolist(), regions.areas.tolist(), strict=True))
        strange = area_of.keys() - {0, *(segment.id for segment in segments)}
        if strange:
            first = min(strange)
            raise DataError(
                f"{path}: id {first} ({area_of[first]:,} pixels) has no segment in the JSON (image '{sample.id}'); "
                f"{len(strange)} such ids in all, void is 0"
            )
        kept = [segment for segment in segments if segment.id in area_of]
        panoptic = panoptic_of(
            ids, [segment.id for segment in kept], [segment.class_id for segment in kept], [False] * len(kept)
        )
        scores = [segment.score for segment in kept if segment.score is not None]
        if kept and len(scores) == len(kept):
            panoptic = replace(panoptic, scores=torch.tensor(scores, dtype=torch.float32))
        return Annotation(panoptic=panoptic)


@dataclass(frozen=True)
class SegmentList:
    """The content of a panoptic JSON, before pairing with a data set.

    Attributes:
        path: the file.
        content: the JSON.
        label_set: the classes of its categories, if the file has them.
    """

    path: Path
    content: Mapping[str, Any]
    label_set: LabelSet | None


def find_segments(path: Path) -> Path | None:
    """The panoptic JSON at a path, or the only one in a folder; None without one.

    Raises DataError for a folder with several.
    """
    if not path.is_dir():
        return path if _lists_segments(path) else None
    found = [file for file in sorted(path.glob("*.json")) if _lists_segments(file)]
    if len(found) > 1:
        raise DataError(f"{path}: {found[0].name} and {found[1].name} are panoptic results; name one of them")
    return found[0] if found else None


def read_segment_list(path: Path) -> SegmentList:
    """Read a panoptic JSON. Raises DataError where it is none."""
    content = read_json(path, expected="panoptic results")
    if not isinstance(content, dict) or not isinstance(content.get("annotations"), list):
        raise DataError(f"{path}: expected panoptic results, an object with a list 'annotations'")
    return SegmentList(path, content, stored_label_set(content.get("label_set"), source=path))


def pair_segments(listed: SegmentList, dataset: Dataset) -> StoredSegments:
    """Pair the PNGs of a panoptic JSON with the images of a data set, by id or by the name of the file.

    Images of other sets are skipped.

    Raises:
        DataError: an invalid annotation, an unknown category, or no image of the set.
    """
    path, annotations = listed.path, listed.content["annotations"]
    class_of = _classes(path, listed.content.get("categories"), dataset.labels)
    id_of = images_by_name(dataset)
    folders = (path.with_suffix(""), path.parent / "pan_pred", path.parent)
    maps: dict[str, StoredMap] = {}
    for number, one in enumerate(annotations, start=1):
        try:
            entry = ImageEntry.model_validate(one)
            segments = _understood(entry, class_of, dataset.labels)
        except ValidationError as error:
            raise DataError(f"{path}: annotation {number}: {first_fault(error)}") from None
        except DataError as error:
            raise DataError(f"{path}: annotation {number}: {error}") from None
        id = image_named(entry.image_id, id_of)
        if id is None:
            continue
        if id in maps:
            raise DataError(f"{path}: annotation {number}: another one is of image '{id}' too")
        places = [folder / entry.file_name for folder in folders]
        maps[id] = StoredMap(next((place for place in places if os.path.isfile(place)), places[-1]), segments)
    if not maps:
        raise DataError(
            f"{path}: none of its {len(annotations):,} annotations is of one of the {len(dataset):,} images of "
            f"{dataset.name}; image_id is an image's id or file, such as '{dataset.ids[0]}'"
        )
    return StoredSegments(maps)


def _lists_segments(path: Path) -> bool:
    """Whether a file is a panoptic JSON; COCO's instance results are a list, and may be long."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            parts = _parts(file)
            first = next(parts, "")
            return first.lstrip("\ufeff \t\r\n").startswith("{") and any(
                "segments_info" in part for part in chain([first], parts)
            )
    except OSError:
        return False


def _parts(file: TextIO) -> Iterator[str]:
    """The text of a file in parts that overlap."""
    end = ""
    while part := file.read(2**20):
        yield end + part
        end = part[-32:]


def _understood(entry: ImageEntry, class_of: Mapping[int, int], labels: LabelSet) -> tuple[StoredSegment, ...]:
    """The segments of an annotation. Raises DataError for an id that stands twice or an unknown category."""
    segments: dict[int, StoredSegment] = {}
    for one in entry.segments_info:
        if one.id in segments:
            raise DataError(f"image {entry.image_id}: two segments have the id {one.id}")
        if one.category_id not in class_of:
            raise DataError(
                f"image {entry.image_id}, segment {one.id}: category {one.category_id} is not in '{labels.name}' "
                f"({labels.describe_ids()})"
            )
        segments[one.id] = StoredSegment(one.id, class_of[one.category_id], one.score)
    return tuple(segments.values())


def _classes(path: Path, categories: Any, labels: LabelSet) -> dict[int, int]:
    """Category id → class id: by the categories' names if the results have them and all are the set's; else by id.

    Raises DataError where the categories of the results have the ids of the data set, and other names.
    """
    listed = [one for one in categories if isinstance(one, dict)] if isinstance(categories, list) else []
    told: dict[int, str] = {
        one["id"]: one["name"] for one in listed if isinstance(one.get("id"), int) and isinstance(one.get("name"), str)
    }
    if told and len(told) == len(listed) == len(set(told.values())) and set(told.values()) <= set(labels.names):
        return {id: labels.names.index(name) for id, name in told.items()}
    names = dict(zip(labels.dataset_ids, labels.names, strict=True))
    for id, name in told.items():
        if names.get(id, name) != name:
            raise DataError(f"{path}: category {id} is '{name}', but '{names[id]}' in '{labels.name}' of the data set")
    return {dataset_id: index for index, dataset_id in enumerate(labels.dataset_ids)}
