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

from pixelwise.data.formats.coco.reader import annotation_file, image_files, image_folder, labels_in
from pixelwise.data.formats.coco.types import typed
from pixelwise.data.kinds.coco_json import CocoJson, Entry, image_name, is_finite, is_id, is_integer, read_json
from pixelwise.data.kinds.folders import content_keys
from pixelwise.data.spec import DataSpec
from pixelwise.data.truth.boxes import is_elsewhere, leaves_image
from pixelwise.errors import DataError
from pixelwise.files.atomic import write_file
from pixelwise.files.exif import Frame, Size, common_frame, frame_of, turned_points
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
    done: Counter[str] = Counter()
    content = typed(read_json(source), done)
    _, class_of = labels_in(content, source=source)
    named = [image for image in content.images if _is_named(image)]
    folder = image_folder(path, split, options, named)
    files = image_files(path, split, options, named)
    images, moved = _images(content, folder, files, done, seen, workers=workers, progress=progress, split=split)
    if not images:
        raise DataError(f"{source}: no usable image is left, no copy was written")
    annotations = [*_annotations(content.annotations, images, moved, class_of, done)]
    removed = {image["id"] for image in named} - {*images, *moved}
    if not annotations and any(
        not is_id(id := one.get("image_id")) or id not in removed for one in content.annotations
    ):
        raise DataError(
            f"{source}: none of its {len(content.annotations):,} annotations can be used, no copy was written; see "
            "pixelwise data check"
        )
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
    files: Sequence[Path],
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
    read = apply(_measure, files, workers=workers)
    measured = list(progress(read, total=len(files), what=f"repair {split}"))
    keys = content_keys(file for file in files if file.is_file())
    turned = _orientations(named, measured, content.annotations, done)
    images: dict[int | str, _Image] = {}
    moved: dict[int | str, int | str] = {}
    id_of: dict[Path, int | str] = {}
    for image, file, (size, _) in zip(named, files, measured, strict=True):
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
            images[id] = _with_size(_with_name(image, file, folder, done), size, turned.get(id, 1), done)
    return images, moved


def _with_name(image: Entry, file: Path, folder: Path, done: Counter[str]) -> Entry:
    """The entry with the name under which its file lies in the folder of images."""
    if image_name(image) == image.get("file_name") and (folder / image["file_name"]).is_file():
        return image
    if not file.is_relative_to(folder):
        return image
    done["file_names"] += 1
    return {**image, "file_name": file.relative_to(folder).as_posix()}


def _orientations(
    images: Sequence[Entry],
    measured: Sequence[tuple[Size | None, int]],
    annotations: Sequence[Entry],
    done: Counter[str],
) -> dict[int | str, int]:
    """By which EXIF orientation the annotations of an image are to be turned: id of the image → 5 to 8.

    Images whose size is stated as stored were annotated in the stored frame or in the upright one: their run lengths
    tell it by their size, else their coordinates, if they fit one frame alone; else most other images of the file.
    """
    swapped = {
        image["id"]: (size[::-1], orientation)
        for image, (size, orientation) in zip(images, measured, strict=True)
        if size and orientation >= 5 and _stated(image) == size[::-1] and size[0] != size[1]
    }
    points: dict[int | str, list[float]] = {id: [] for id in swapped}
    told: dict[int | str, Frame | None] = {}
    for annotation in annotations if swapped else ():
        id = annotation.get("image_id")
        if not is_id(id) or id not in swapped:
            continue
        points[id] += _points_of(annotation)
        runs = annotation.get("segmentation")
        size = tuple(runs["size"]) if isinstance(runs, dict) and isinstance(runs.get("size"), list) else None
        if size in (swapped[id][0], swapped[id][0][::-1]):
            told[id] = "stored" if size == swapped[id][0] else "upright"
    frames = {id: told.get(id) or frame_of(points[id], stored) for id, (stored, _) in swapped.items()}
    common = common_frame(frames.values())
    turned: dict[int | str, int] = {}
    for id, frame in frames.items():
        done["frames_by_size"] += frame is None and common is None and bool(points[id])
        if (frame or common or "stored") == "stored":
            turned[id] = swapped[id][1]
    return turned


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
    whole = is_integer(height) and is_integer(width) and height > 0 and width > 0
    return (height, width) if whole else None  # pyright: ignore[reportReturnType]


def _with_size(image: Entry, size: Size, orientation: int, done: Counter[str]) -> _Image:
    stated = _stated(image)
    if stated == size:
        return _Image(image, size, 1)
    done["sizes"] += 1
    return _Image({**image, "height": size[0], "width": size[1]}, stated, orientation)


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
    class_of: Mapping[Any, int],
    done: Counter[str],
) -> Iterator[Entry]:
    """The annotations that stay, repaired."""
    whole = [annotation["id"] for annotation in annotations if is_integer(annotation.get("id"))]
    free, taken = count(max(whole, default=0) + 1), set[int]()
    first_of: dict[tuple[Any, ...], Entry] = {}
    for annotation in annotations:
        image_id, category_id = annotation.get("image_id"), annotation.get("category_id")
        image_id = moved.get(image_id, image_id) if is_id(image_id) else None
        image = images.get(image_id) if image_id is not None else None
        repaired = None
        if image is not None and is_id(category_id) and category_id in class_of:
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
        id, area = annotation.get("id"), annotation.get("area")
        if area is not None and mask.any() and not (is_finite(area) and area > 0):
            shape = {**shape, "area": int(mask.sum())}
            done["areas"] += 1
        if not is_integer(id) or id in taken:
            id = next(free)
            done["ids"] += 1
        taken.add(id)
        yield {**annotation, **shape, "id": id, "image_id": image_id}


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
    has_extent = stated is not None and box[2] > 0 and box[3] > 0
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
    """As a crowd region, in which nothing is learned or evaluated, the box of an annotation that says no more."""
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


def write_repaired(file: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file, whole or not at all. Raises OSError."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_file(file, json.dumps(content, ensure_ascii=False))


def from_folder(path: Path, place: Path) -> str:
    """A place as it is written in the options of a set: relative to its folder where it lies in it."""
    place, path = place.absolute(), path.absolute()
    return str(place.relative_to(path)) if place.is_relative_to(path) else str(place)
