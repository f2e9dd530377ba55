"""A COCO JSON file with its faults repaired where that can be done without guessing, and left out where it cannot."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pixelwise.data.formats.coco.json import labels_of
from pixelwise.data.formats.coco.reader import annotation_file, image_folder
from pixelwise.data.kinds.coco_json import CocoJson, Entry, is_finite, is_integer, read_json
from pixelwise.data.kinds.folders import content_keys
from pixelwise.data.spec import DataSpec
from pixelwise.data.truth.boxes import is_elsewhere, leaves_image
from pixelwise.errors import DataError
from pixelwise.files.atomic import write_file
from pixelwise.files.exif import Size, turned_points
from pixelwise.files.images import exif_orientation, read_image, turned_upright
from pixelwise.files.parallel import Progress, apply
from pixelwise.ops import rle


@dataclass(frozen=True)
class RepairedJson:
    """What was done to one file.

    Attributes:
        done: key of `repair.REPAIRS` → how often.
        images: how many are left.
        opens_as: the specification under which the copy opens.
    """

    done: Mapping[str, int]
    images: int
    opens_as: str


class _Image(NamedTuple):
    """One image that stays.

    Attributes:
        entry: of the repaired file.
        stated: height and width by the faulty file, or None where that makes no sense.
        orientation: by which its annotations are to be turned; 1 leaves them.
    """

    entry: Entry
    stated: Size | None
    orientation: int

    @property
    def size(self) -> Size:
        """Height and width of the upright image."""
        return self.entry["height"], self.entry["width"]


def repair_json(
    path: Path,
    split: str,
    options: Mapping[str, str],
    file: Path,
    *,
    seen: set[Any],
    workers: int,
    progress: Progress,
) -> RepairedJson:
    """Write a repaired copy of the JSON of one split.

    Args:
        path: the folder of the set.
        split: its split.
        options: of the specification.
        file: the copy.
        seen: contents of images that other splits keep; those of this split are added.
        workers: processes that read images; 0 reads in this one.
        progress: is told of each image.

    Raises:
        DataError: the file as a whole is unusable, or no image is left.
        OSError: the copy cannot be written.
    """
    source = annotation_file(path, split, options)
    content = read_json(source)
    _, class_of = labels_of(content.categories, source=source, stored=content.label_set)
    folder = image_folder(path, split, options, [image for image in content.images if _is_named(image)])
    done: Counter[str] = Counter()
    images, moved = _images(content, folder, done, seen, workers=workers, progress=progress, split=split)
    if not images:
        raise DataError(f"{source}: no usable image is left, no copy was written")
    annotations = [*_annotations(content.annotations, images, moved, class_of, done)]
    repaired = {
        **content.rest,
        "images": [image.entry for image in images.values()],
        "annotations": annotations,
        "categories": content.categories,
    }
    write_repaired(file, repaired)
    query = {"annotations": from_folder(path, file), "images": options.get("images") or from_folder(path, folder)}
    opens_as = DataSpec("coco", str(path), None, tuple(query.items()))
    return RepairedJson({key: number for key, number in done.items() if number}, len(images), str(opens_as))


def _images(
    content: CocoJson,
    folder: Path,
    done: Counter[str],
    seen: set[Any],
    *,
    workers: int,
    progress: Progress,
    split: str,
) -> tuple[dict[int | str, _Image], dict[int | str, int | str]]:
    """The images that stay, by id, and ids that became another, whose entry has the same file."""
    named = [image for image in content.images if _is_named(image)]
    done["images"] += len(content.images) - len(named)
    files = [folder / image["file_name"] for image in named]
    read = apply(_measure, files, workers=workers)
    measured = list(progress(read, total=len(files), what=f"repair {split}"))
    keys = content_keys(file for file in files if file.is_file())
    images: dict[int | str, _Image] = {}
    moved: dict[int | str, int | str] = {}
    id_of: dict[Path, int | str] = {}
    for image, file, (size, orientation) in zip(named, files, measured, strict=True):
        id = image["id"]
        if id in images:
            done["merged_images"] += 1
        elif file in id_of:
            moved[id] = id_of[file]
            done["merged_images"] += 1
        elif size is None:
            done["images"] += 1
        elif keys.get(file) in seen:
            done["repeated_images"] += 1
        else:
            seen.add(keys.get(file))
            id_of[file] = id
            images[id] = _with_size(image, size, orientation, done)
    return images, moved


def _with_size(image: Entry, size: Size, orientation: int, done: Counter[str]) -> _Image:
    stated = (image.get("height"), image.get("width"))
    if stated == size:
        return _Image(image, size, 1)
    done["sizes"] += 1
    entry = {**image, "height": size[0], "width": size[1]}
    whole = all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in stated)
    is_turned = orientation >= 5 and stated == size[::-1]
    return _Image(entry, stated if whole else None, orientation if is_turned else 1)  # pyright: ignore[reportArgumentType]


def _measure(file: Path) -> tuple[Size | None, int]:
    """Height and width of the upright image (None if it cannot be read) and its EXIF orientation."""
    try:
        _, height, width = read_image(file).shape
        return (height, width), exif_orientation(file)
    except DataError:
        return None, 1


def _annotations(
    annotations: Sequence[Entry],
    images: Mapping[int | str, _Image],
    moved: Mapping[int | str, int | str],
    class_of: Mapping[int, int],
    done: Counter[str],
) -> Iterator[Entry]:
    """The annotations that stay, repaired."""
    whole = [annotation["id"] for annotation in annotations if is_integer(annotation.get("id"))]
    free, taken = count(max(whole, default=0) + 1), set[int]()
    first_of: dict[tuple[Any, ...], Entry] = {}
    for annotation in annotations:
        image_id, category_id = annotation.get("image_id"), annotation.get("category_id")
        image_id = moved.get(image_id, image_id) if isinstance(image_id, int | str) else None
        image = images.get(image_id) if image_id is not None else None
        repaired = None
        if image is not None and isinstance(category_id, int) and category_id in class_of:
            repaired = _repaired_shape(annotation, image, done)
        if repaired is None:
            done["annotations"] += 1
            continue
        shape, mask, place = repaired
        key = (image_id, bool({**annotation, **shape}.get("iscrowd")), place, np.packbits(mask).tobytes())
        before = first_of.setdefault(key, annotation)
        if before is not annotation and before.get("category_id") == category_id:
            done["repeated_annotations"] += 1
            continue
        done["two_classes"] += before is not annotation
        id = annotation.get("id")
        if not isinstance(id, int) or isinstance(id, bool) or id in taken:
            id = next(free)
            done["ids"] += 1
        taken.add(id)
        yield {**annotation, **shape, "id": id, "image_id": image_id}


def _repaired_shape(
    annotation: Entry, image: _Image, done: Counter[str]
) -> tuple[dict[str, Any], np.ndarray, rle.Box] | None:
    """Segmentation and box of an annotation, its pixels and where they lie; or None where no pixel is left."""
    segmentation = annotation.get("segmentation")
    if not segmentation:
        return _region_of_box(annotation.get("bbox"), image, done)
    if isinstance(segmentation, dict):
        drawn = _repaired_runs(segmentation, image)
    elif isinstance(segmentation, list):
        drawn = _repaired_polygons(segmentation, image, done)
    else:
        drawn = None
    if drawn is None or not drawn[1].size:
        return None
    repaired, mask, place = drawn
    done["turned_annotations"] += image.orientation != 1
    stated = _turned_box(annotation.get("bbox"), image)
    box = stated and _cut_box(stated, image.size)
    if box is None or (not annotation.get("iscrowd") and is_elsewhere(box, place)):
        box = place
    if box == stated and image.orientation == 1:
        return {"segmentation": repaired}, mask, place  # the box stays as it is written
    done["boxes"] += box != stated
    x1, y1, x2, y2 = box
    return {"segmentation": repaired, "bbox": [x1, y1, x2 - x1, y2 - y1]}, mask, place


def _region_of_box(stated: Any, image: _Image, done: Counter[str]) -> tuple[dict[str, Any], np.ndarray, rle.Box] | None:
    """As a crowd region, in which nothing is learned or evaluated, the box of an annotation that says no more."""
    turned = _turned_box(stated, image)
    box = turned and _cut_box(turned, image.size)
    if box is None:
        return None
    x1, y1, x2, y2 = box
    outline = [x1, y1, x2, y1, x2, y2, x1, y2]
    mask, place = rle.crop_polygons([outline], image.size)
    if not mask.size:
        return None
    done["regions_of_boxes"] += 1
    done["boxes"] += box != turned
    done["turned_annotations"] += image.orientation != 1
    shape = {"segmentation": [outline], "bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": 1}
    return shape, mask, place


def _repaired_runs(segmentation: Entry, image: _Image) -> tuple[Any, np.ndarray, rle.Box] | None:
    try:
        if image.orientation == 1:
            return segmentation, *rle.crop(segmentation, size=image.size)
        repaired = rle.encode(turned_upright(rle.decode(segmentation, size=image.stated), image.orientation))
    except DataError:
        return None
    return repaired, *rle.crop(repaired)


def _repaired_polygons(
    segmentation: Sequence[Any], image: _Image, done: Counter[str]
) -> tuple[Any, np.ndarray, rle.Box] | None:
    polygons: list[list[float]] = []
    for polygon in segmentation:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2 or not all(map(_is_near, polygon)):
            done["polygons"] += 1
            continue
        polygons.append(turned_points(polygon, image.size, image.orientation))
    return (polygons, *rle.crop_polygons(polygons, image.size)) if polygons else None


def _turned_box(box: Any, image: _Image) -> tuple[float, float, float, float] | None:
    """x1 y1 x2 y2 in the upright image, or None for what is no box."""
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_near, box)):
        return None
    x, y, width, height = box
    x1, y1, x2, y2 = turned_points((x, y, x + width, y + height), image.size, image.orientation)
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


def _cut_box(box: tuple[float, float, float, float], size: Size) -> tuple[float, float, float, float] | None:
    """The part of a box that lies in the image, or None; the whole box if it leaves it by no more than a pixel."""
    x1, y1, x2, y2 = box
    if leaves_image(box, size):
        x1, y1, x2, y2 = max(x1, 0), max(y1, 0), min(x2, size[1]), min(y2, size[0])
    return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None


def _is_named(image: Entry) -> bool:
    name, id = image.get("file_name"), image.get("id")
    return isinstance(name, str) and bool(name) and isinstance(id, int | str)


def _is_near(value: Any) -> bool:
    """Whether a coordinate is a number that rasterising can bear."""
    return is_finite(value) and abs(value) <= rle.FARTHEST_PX


def write_repaired(file: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file, whole or not at all. Raises OSError."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_file(file, json.dumps(content, ensure_ascii=False))


def from_folder(path: Path, place: Path) -> str:
    """A place as it is written in the options of a set: relative to its folder where it lies in it."""
    place, path = place.absolute(), path.absolute()
    return str(place.relative_to(path)) if place.is_relative_to(path) else str(place)
