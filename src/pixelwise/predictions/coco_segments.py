"""Segments of many images as COCO's panoptic results: a JSON, and a PNG of ids for each in the folder of its name.

`evaluate --predictions` reads them again, and so does panopticapi.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, Self, TextIO

import torch

from pixelwise.data.dataset import Dataset
from pixelwise.data.kinds.panoptic_json import panoptic_categories
from pixelwise.data.kinds.segment_maps import box_of, panoptic_of, read_segment_ids
from pixelwise.data.truth.segments import regions_of_ids
from pixelwise.errors import DataError
from pixelwise.files.text import read_json
from pixelwise.labels import LARGEST_ID, LabelSet
from pixelwise.predictions.coco_objects import (
    CocoResults,
    coco_image_ids,
    image_named,
    images_by_name,
    is_number,
)
from pixelwise.predictions.pictures import segment_picture
from pixelwise.types import Annotation, Panoptic, Sample


class PanopticResults:
    """The results, written image by image; the JSON is there whole, once it is closed, or not at all.

    Args:
        json: the file; the PNGs lie in the folder of its name without suffix, under the ids of the images.
        ids: of all images that may come.
        labels: whose ids on disk are the category ids.

    Raises:
        DataError: the place cannot be written; so may every method.
    """

    def __init__(self, json: Path, ids: Sequence[str], labels: LabelSet) -> None:
        self.maps, self.labels = json.with_suffix(""), labels
        self._image_ids = coco_image_ids(ids)
        self._names = _file_names(ids)
        try:
            self._results = CocoResults(json, categories=panoptic_categories(labels))
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
            self._results.add([{**entry, "segments_info": self._infos(panoptic)}])
        except OSError as error:
            raise _unwritable(path, error) from None

    def _infos(self, panoptic: Panoptic) -> list[dict[str, Any]]:
        regions = regions_of_ids(panoptic.ids.numpy())
        place = {id: number for number, id in enumerate(regions.ids.tolist())}
        scores = [None] * len(panoptic) if panoptic.scores is None else panoptic.scores.tolist()
        infos: list[dict[str, Any]] = []
        for id, label, score in zip(panoptic.segment_ids.tolist(), panoptic.labels.tolist(), scores, strict=True):
            if id not in place:
                continue
            number = place[id]
            info: dict[str, Any] = {"id": id, "category_id": self.labels.dataset_ids[label], "iscrowd": 0}
            info |= {"area": int(regions.areas[number]), "bbox": box_of(regions.boxes[number])}
            infos.append(info if score is None else {**info, "score": score})
        return infos


def _file_names(ids: Sequence[str]) -> dict[str, str]:
    """The PNG of each image, below the folder: its id with the folders in it, and a number where two would be one."""
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


class StoredSegment(NamedTuple):
    """One segment of the JSON; its score is None where there is none."""

    id: int
    class_id: int
    score: float | None


class StoredMap(NamedTuple):
    """A PNG, and what its ids are."""

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


def find_segments(path: Path) -> Path | None:
    """The panoptic JSON that a path is, or that lies in a folder as the only one; None where there is none.

    Raises DataError for a folder with several.
    """
    if not path.is_dir():
        return path if _lists_segments(path) else None
    found = [file for file in sorted(path.glob("*.json")) if _lists_segments(file)]
    if len(found) > 1:
        raise DataError(f"{path}: {found[0].name} and {found[1].name} are panoptic results; name one of them")
    return found[0] if found else None


def read_segments(path: Path, dataset: Dataset) -> StoredSegments:
    """Read a panoptic JSON and pair its PNGs with the images of a data set, by id or by the name of the file.

    Images of other sets are passed over.

    Raises:
        DataError: no panoptic JSON, an entry that is not sound, an unknown category, or no image of the set.
    """
    content = read_json(path)
    annotations = content.get("annotations") if isinstance(content, dict) else None
    if not isinstance(annotations, list):
        raise DataError(f"{path}: panoptic results are an object with a list 'annotations'")
    class_of = _classes(path, content.get("categories"), dataset.labels)
    id_of = images_by_name(dataset)
    folders = (path.with_suffix(""), path.parent / "pan_pred", path.parent)
    maps: dict[str, StoredMap] = {}
    for number, entry in enumerate(annotations, start=1):
        try:
            name, segments = _understood(entry, class_of, dataset.labels)
        except _UnsoundError as error:
            raise DataError(f"{path}: annotation {number}: {error}") from None
        id = image_named(entry["image_id"], id_of)
        if id is None:
            continue
        if id in maps:
            raise DataError(f"{path}: annotation {number}: another one is of image '{id}' too")
        places = [folder / name for folder in folders]
        maps[id] = StoredMap(next((place for place in places if place.is_file()), places[-1]), segments)
    if not maps:
        raise DataError(
            f"{path}: none of its {len(annotations):,} annotations is of one of the {len(dataset):,} images of "
            f"{dataset.name}; image_id is an image's id or file, such as '{dataset.ids[0]}'"
        )
    return StoredSegments(maps)


class _UnsoundError(Exception):
    """Why an annotation cannot be used."""


def _lists_segments(path: Path) -> bool:
    """Whether a file is a panoptic JSON; COCO's results of objects are a list, and may be long."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            parts = _parts(file)
            first = next(parts, "")
            return first.lstrip().startswith("{") and any("segments_info" in part for part in chain([first], parts))
    except OSError:
        return False


def _parts(file: TextIO) -> Iterator[str]:
    """The text of a file in parts that overlap."""
    end = ""
    while part := file.read(2**20):
        yield end + part
        end = part[-32:]


def _understood(entry: Any, class_of: Mapping[int, int], labels: LabelSet) -> tuple[str, tuple[StoredSegment, ...]]:
    """The name of the PNG of an annotation, and its segments. Raises _UnsoundError."""
    if not isinstance(entry, dict) or not isinstance(entry.get("image_id"), int | str):
        raise _UnsoundError("an object with the image_id of an image is wanted")
    name, infos = entry.get("file_name"), entry.get("segments_info")
    if not isinstance(name, str) or not name:
        raise _UnsoundError(f"image {entry['image_id']}: the file_name of its PNG is wanted")
    if not isinstance(infos, list) or not all(isinstance(info, dict) for info in infos):
        raise _UnsoundError(f"image {entry['image_id']}: a list segments_info of objects is wanted")
    segments: dict[int, StoredSegment] = {}
    for info in infos:
        id, category, score = info.get("id"), info.get("category_id"), info.get("score")
        if not isinstance(id, int) or isinstance(id, bool) or not 0 < id < LARGEST_ID:
            raise _UnsoundError(f"image {entry['image_id']}: segment id {id!r}; 1 to {LARGEST_ID - 1:,} is wanted")
        if id in segments:
            raise _UnsoundError(f"image {entry['image_id']}: two segments have the id {id}")
        if not isinstance(category, int) or category not in class_of:
            raise _UnsoundError(
                f"image {entry['image_id']}, segment {id}: category {category!r} is not in '{labels.name}' "
                f"({labels.describe_ids()})"
            )
        if score is not None and not is_number(score):
            raise _UnsoundError(f"image {entry['image_id']}, segment {id}: score {score!r} is no number")
        segments[id] = StoredSegment(id, class_of[category], score)
    return name, tuple(segments.values())


def _classes(path: Path, categories: Any, labels: LabelSet) -> dict[int, int]:
    """Category id → class id: by the categories' names where the results tell them and all are the set's; else by id.

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
