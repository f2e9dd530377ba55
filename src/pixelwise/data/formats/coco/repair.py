"""A COCO JSON file with its faults repaired where that can be done without guessing, and skipped where it cannot."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pixelwise.data.formats.coco.json import labels_in
from pixelwise.data.formats.coco.places import PREFIX, image_files, image_folder
from pixelwise.data.formats.coco.types import typed
from pixelwise.data.kinds.coco_json import Entry, image_name, is_finite, is_id, is_integer, read_json, truth_value
from pixelwise.data.kinds.repairing import read_upright
from pixelwise.data.listing import Item, Repair, Repaired, Repairer, Written
from pixelwise.data.spec import DataSpec
from pixelwise.data.truth.boxes import is_elsewhere, leaves_image
from pixelwise.errors import DataError
from pixelwise.files.atomic import write_file
from pixelwise.files.exif import Frame, Size, common_frame, frame_of, turned_points
from pixelwise.files.images import exif_orientation, image_size, turned_upright
from pixelwise.ops import rle


class _Image(NamedTuple):
    """One image that stays.

    Attributes:
        size: height and width of the upright image.
        stated: the same by the faulty file, or None where that makes no sense.
        orientation: by which its annotations are to be turned; 1 leaves them.
    """

    size: Size
    stated: Size | None
    orientation: int


class _Listed(NamedTuple):
    """What the faulty file says of an image.

    Attributes:
        entry: of the image, with the name under which its file lies.
        annotations: of it, with ids of known types.
        orientation: by which these are to be turned; 1 leaves them.
    """

    entry: Entry
    annotations: tuple[Entry, ...]
    orientation: int


def repair_of(path: Path, split: str, options: Mapping[str, str], source: Path) -> Repair:
    """How a repaired copy of the JSON of one split is made. Raises DataError where it is unusable as a whole."""
    done: Counter[str] = Counter()
    content = typed(read_json(source), done)
    _, class_of = labels_in(content, source=source)
    named = [image for image in content.images if _is_named(image)]
    done["images"] += len(content.images) - len(named)
    folder = image_folder(path, split, options, named)
    files = image_files(path, split, options, named)
    kept: dict[Any, tuple[Entry, Path]] = {}
    moved: dict[Any, Any] = {}
    id_of: dict[Path, Any] = {}
    for image, file in zip(named, files, strict=True):
        id = image["id"]
        if id in kept or file in id_of:
            moved.setdefault(id, id_of.get(file, id))
            done["merged_images"] += 1
            continue
        id_of[file] = id
        kept[id] = _with_name(image, file, folder, done), file
    annotations: dict[Any, list[Entry]] = {id: [] for id in kept}
    for annotation in content.annotations:
        image_id, category_id = annotation.get("image_id"), annotation.get("category_id")
        image_id = moved.get(image_id, image_id) if is_id(image_id) else None
        if image_id not in kept or not is_id(category_id) or category_id not in class_of:
            done["annotations"] += 1
        else:
            annotations[image_id].append({**annotation, "image_id": image_id})
    turned = _orientations(kept, annotations, done)
    items = [
        Item(str(id), file, source, extra=_Listed(image, tuple(annotations[id]), turned.get(id, 1)))
        for id, (image, file) in kept.items()
    ]
    ids = [annotation["id"] for annotation in content.annotations if is_integer(annotation.get("id"))]
    repairer = CocoRepairer(content.rest, tuple(content.categories), max(ids, default=0) + 1)
    lists = partial(_opens_as, path, options.get("images") or from_folder(path, folder))
    return Repair(items, repairer, dict(done), lists=lists, list_name=PREFIX)


def _opens_as(path: Path, images: str, file: Path) -> str:
    return str(DataSpec("coco", str(path), None, (("annotations", from_folder(path, file)), ("images", images))))


@dataclass(frozen=True)
class CocoRepairer(Repairer):
    """Writes instances_SPLIT.json; the images stay where they are. See Repairer.

    Attributes:
        rest: of the faulty file, what is neither images nor annotations nor categories.
        categories: of it.
        free: a number above those of its annotations.
    """

    rest: Mapping[str, Any]
    categories: tuple[Entry, ...]
    free: int

    def repair(self, item: Item, *, root: Path, split: str, id: str) -> Repaired:  # noqa: ARG002
        """Measure the image, and make its annotations fit it. See Repairer."""
        listed: _Listed = item.extra
        pixels, _ = read_upright(item, needs_truth=False)
        done: Counter[str] = Counter()
        size, stated = (pixels.shape[0], pixels.shape[1]), _stated(listed.entry)
        entry = listed.entry
        if stated != size:
            done["sizes"] += 1
            entry = {**entry, "height": size[0], "width": size[1]}
        image = _Image(size, stated, listed.orientation if stated != size else 1)
        annotations = [*_annotations(listed.annotations, image, done)]
        return Repaired(Written(id, str(item.image), {}, {"image": entry, "annotations": annotations}), done)

    def finish(self, root: Path, *, split: str, written: Sequence[Written]) -> Mapping[str, int]:
        """Write the file; annotations without a number of their own get one."""
        numbers, taken, renumbered = count(self.free), set[int](), 0
        annotations: list[Entry] = []
        for one in written:
            for annotation in one.entry["annotations"]:
                id = annotation.get("id")
                if not is_integer(id) or id in taken:
                    id = next(numbers)
                    renumbered += 1
                taken.add(id)
                annotations.append({**annotation, "id": id})
        content = {
            **self.rest,
            "images": [one.entry["image"] for one in written],
            "annotations": annotations,
            "categories": [*self.categories],
        }
        write_file(root / f"{PREFIX}{split}.json", json.dumps(content, ensure_ascii=False))
        return {"ids": renumbered}


def _with_name(image: Entry, file: Path, folder: Path, done: Counter[str]) -> Entry:
    """The entry with the name under which its file lies in the folder of images."""
    if image_name(image) == image.get("file_name") and (folder / image["file_name"]).is_file():
        return image
    if not file.is_file() or not file.is_relative_to(folder):
        return image
    done["file_names"] += 1
    return {**image, "file_name": file.relative_to(folder).as_posix()}


def _orientations(
    images: Mapping[Any, tuple[Entry, Path]], annotations: Mapping[Any, Sequence[Entry]], done: Counter[str]
) -> dict[Any, int]:
    """By which EXIF orientation the annotations of an image are to be turned: id of the image → 5 to 8.

    Images whose size is stated as stored were annotated in the stored frame or in the upright one: their run lengths
    tell it by their size, else their coordinates, if they fit one frame alone; else most other images of the file.
    """
    swapped: dict[Any, tuple[Size, int]] = {}
    frames: dict[Any, Frame | None] = {}
    for id, (image, file) in images.items():
        stated = _stated(image)
        size, orientation = _measured(file)
        if stated is None or size is None or orientation < 5 or stated != size[::-1] or size[0] == size[1]:
            continue
        swapped[id] = stated, orientation
        sizes = [one["segmentation"].get("size") for one in annotations[id] if _has_runs(one)]
        if [*stated] in sizes or [*size] in sizes:
            frames[id] = "stored" if [*stated] in sizes else "upright"
        else:
            frames[id] = frame_of((point for one in annotations[id] for point in _points_of(one)), stated)
    common = common_frame(frames.values())
    done["frames_by_size"] += sum(
        frame is None and common is None and any(map(_points_of, annotations[id])) for id, frame in frames.items()
    )
    return {id: swapped[id][1] for id, frame in frames.items() if (frame or common or "stored") == "stored"}


def _has_runs(annotation: Entry) -> bool:
    return isinstance(annotation.get("segmentation"), dict)


def _measured(file: Path) -> tuple[Size | None, int]:
    """Height and width of the upright image (None if it cannot be read) and its EXIF orientation, from its header."""
    try:
        return image_size(file), exif_orientation(file)
    except DataError:
        return None, 1


def _points_of(annotation: Entry) -> list[float]:
    """The corners of the polygons of an annotation, else those of its box."""
    segmentation, points = annotation.get("segmentation"), list[float]()
    for polygon in segmentation if isinstance(segmentation, list) else ():
        if isinstance(polygon, list) and len(polygon) % 2 == 0 and all(map(_is_near, polygon)):
            points += polygon
    box = annotation.get("bbox")
    if not points and isinstance(box, list) and len(box) == 4 and all(map(_is_near, box)):
        points = [box[0], box[1], box[0] + box[2], box[1] + box[3]]
    return points


def _stated(image: Entry) -> Size | None:
    height, width = image.get("height"), image.get("width")
    if is_integer(height) and is_integer(width) and height > 0 and width > 0:
        return height, width
    return None


def _annotations(annotations: Sequence[Entry], image: _Image, done: Counter[str]) -> Iterator[Entry]:
    """The annotations of an image that stay, repaired."""
    first_of: dict[tuple[Any, ...], Entry] = {}
    for annotation in annotations:
        repaired = _repaired_shape(annotation, image, done)
        if repaired is None:
            done["annotations"] += 1
            continue
        shape, mask, place = repaired
        key = (truth_value({**annotation, **shape}.get("iscrowd")), place, np.packbits(mask).tobytes())
        before = first_of.setdefault(key, annotation)
        if before is not annotation and before.get("category_id") == annotation.get("category_id"):
            done["repeated_annotations"] += 1
            continue
        done["two_classes"] += before is not annotation
        area, crowd = annotation.get("area"), annotation.get("iscrowd")
        if area is not None and mask.any() and not (is_finite(area) and area > 0):
            shape = {**shape, "area": int(mask.sum())}
            done["areas"] += 1
        if truth_value(crowd) is None and "iscrowd" not in shape:
            shape = {**shape, "iscrowd": 1}  # whatever it means, it is no plain object
            done["numbers"] += 1
        yield {**annotation, **shape}


def _repaired_shape(
    annotation: Entry, image: _Image, done: Counter[str]
) -> tuple[dict[str, Any], np.ndarray, rle.Box] | None:
    """Segmentation and box of an annotation, its pixels and where they lie; or None where no pixel is left.

    An annotation whose segmentation cannot be used is no background: its box becomes a region.
    """
    segmentation, box = annotation.get("segmentation"), annotation.get("bbox")
    stated = _turned_box(box, image)
    if isinstance(segmentation, dict) and segmentation:
        drawn = _repaired_runs(segmentation, image)
    elif isinstance(segmentation, list):
        polygons = as_polygons(segmentation)
        drawn = _repaired_polygons(polygons, image, done)
        if polygons is not segmentation and drawn is not None:
            if stated is not None and (not drawn[1].size or is_elsewhere(stated, drawn[2])):
                drawn = None  # the numbers are no corners
            done["wrapped_polygons"] += drawn is not None
    else:
        drawn = None
    if drawn is None or not drawn[1].size:
        return _region_of_box(box, image, done)
    repaired, mask, place = drawn
    done["turned_annotations"] += image.orientation != 1
    has_extent = stated is not None and isinstance(box, list) and box[2] > 0 and box[3] > 0
    cut = _cut_box(stated, image.size) if stated and has_extent else None
    if cut is None or (not annotation.get("iscrowd") and is_elsewhere(cut, place)):
        cut = place
    if cut == stated and image.orientation == 1 and has_extent:
        return {"segmentation": repaired}, mask, place  # the box stays as it is written
    done["boxes"] += cut != stated or not has_extent
    x1, y1, x2, y2 = cut
    return {"segmentation": repaired, "bbox": [x1, y1, x2 - x1, y2 - y1]}, mask, place


def as_polygons(segmentation: Sequence[Any]) -> Sequence[Any]:
    """A flat list of corners, as numbers or as pairs, as a list of one polygon; anything else as it is."""
    if len(segmentation) >= 6 and len(segmentation) % 2 == 0 and all(map(_is_near, segmentation)):
        return [list(segmentation)]
    pairs = [one for one in segmentation if isinstance(one, list) and len(one) == 2 and all(map(_is_near, one))]
    if len(pairs) >= 3 and len(pairs) == len(segmentation):
        return [[value for pair in pairs for value in pair]]
    return segmentation


def _region_of_box(stated: Any, image: _Image, done: Counter[str]) -> tuple[dict[str, Any], np.ndarray, rle.Box] | None:
    """The box of an annotation without segmentation as a crowd region, which is ignored in training and evaluation."""
    turned = _turned_box(stated, image)
    box = turned and _cut_box(turned, image.size)
    if turned is None or box is None:
        return None
    x1, y1, x2, y2 = box
    outline = [x1, y1, x2, y1, x2, y2, x1, y2]
    mask, place = rle.crop_polygons([outline], image.size)
    if not mask.size:
        return None
    done["regions_of_boxes"] += 1
    done["boxes"] += box != turned or stated[2] < 0 or stated[3] < 0
    done["turned_annotations"] += image.orientation != 1
    shape = {"segmentation": [outline], "bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": 1}
    return shape, mask, place


def _repaired_runs(segmentation: Entry, image: _Image) -> tuple[Any, np.ndarray, rle.Box] | None:
    size = segmentation.get("size")
    try:
        if image.orientation == 1 or size == list(image.size):
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
    return image_name(image) is not None and is_id(image.get("id"))


def _is_near(value: Any) -> bool:
    """Whether a coordinate is a number that rasterising can bear."""
    return is_finite(value) and abs(value) <= rle.FARTHEST_PX


def from_folder(path: Path, place: Path) -> str:
    """A place as it is written in the options of a set: relative to its folder where it lies in it."""
    place, path = place.absolute(), path.absolute()
    return str(place.relative_to(path)) if place.is_relative_to(path) else str(place)
