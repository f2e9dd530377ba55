"""The JSON files of COCO's family: reading them, and everything that can be wrong with what stands in them.

The same findings serve opening a set, which refuses or leaves out, and checking it, which reports them all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pixelwise.data.kinds.coco_json import Entry, Problem, is_finite, is_integer, labels_from, named_categories
from pixelwise.errors import DataError
from pixelwise.labels import LabelSet, published
from pixelwise.ops.rle import FARTHEST_PX


def labels_of(
    categories: Sequence[Entry], *, source: Path, stored: Mapping[str, Any] | None = None
) -> tuple[LabelSet, dict[int, int]]:
    """The label set of a JSON's categories, and category id → class id.

    The label set stored in the file is taken if it has these categories. Else categories that are those of COCO 2017
    give the published set. Others follow `background` in the order of their ids; a category that is itself called
    `background` is taken for it.

    Raises:
        DataError: a category without integer id and name, or an id or name twice.
    """
    named = named_categories(categories, source=source)
    coco, kept = published("coco"), _stored_labels(stored, named)
    if kept is not None:
        labels = kept
    elif named == sorted(zip(coco.dataset_ids[1:], coco.names[1:], strict=True)):
        labels = coco
    else:
        labels = labels_from(named, name=source.stem.removeprefix("instances_"))
    return labels, {id: labels.dataset_ids.index(id) for id, _ in named}


def annotation_problems(
    annotation: Entry, images: Mapping[int | str, Entry], class_of: Mapping[int, int]
) -> Iterator[Problem]:
    """What is wrong with one annotation, as far as it can be told without rasterising it.

    Args:
        annotation: the entry.
        images: id → entry.
        class_of: category id → class id.
    """
    where = annotation_name(annotation, images)
    for kind, text, fatal in (
        *_reference_problems(annotation, images, class_of),
        *_box_problems(annotation.get("bbox")),
        *_segmentation_problems(annotation.get("segmentation")),
    ):
        yield Problem(kind, where, text, fatal, annotation)


def repeated_annotations(annotations: Iterable[Entry], images: Mapping[int | str, Entry]) -> Iterator[Problem]:
    """Annotations with the id of one before."""
    seen: set[Any] = set()
    for annotation in annotations:
        id = annotation.get("id")
        if not is_integer(id):
            continue  # a fault of its own
        if id in seen:
            where = annotation_name(annotation, images)
            yield Problem("repeated id", where, "another annotation has the same id", False, annotation)
        seen.add(id)


def annotation_name(annotation: Entry, images: Mapping[int | str, Entry]) -> str:
    """How errors name an annotation: its id, and the id and the file of its image."""
    image_id = annotation.get("image_id")
    image = images.get(image_id) if isinstance(image_id, int | str) else None
    file = f", '{image.get('file_name')}'" if image else ""
    return f"annotation {annotation.get('id')} (image {image_id}{file})"


def has_segmentation(annotation: Entry) -> bool:
    """Whether an annotation has more than a box."""
    return bool(annotation.get("segmentation"))


def has_extent(annotation: Entry) -> bool:
    """Whether a sound annotation covers anything.

    Its box has width and height, and one of its polygons three points, if it has any.
    """
    segmentation = annotation.get("segmentation")
    has_shape = not segmentation or isinstance(segmentation, dict) or any(len(polygon) >= 6 for polygon in segmentation)
    return has_shape and annotation["bbox"][2] > 0 and annotation["bbox"][3] > 0


def _stored_labels(stored: Mapping[str, Any] | None, named: Sequence[tuple[int, str]]) -> LabelSet | None:
    """The stored label set, if its classes but for the background are these categories."""
    if stored is None:
        return None
    try:
        labels = LabelSet.from_json(stored)
    except DataError:
        return None
    pairs = zip(labels.dataset_ids, labels.names, strict=True)
    classes = [pair for index, pair in enumerate(pairs) if index != labels.background_id]
    return labels if sorted(classes) == list(named) else None


def _reference_problems(
    annotation: Entry, images: Mapping[int | str, Entry], class_of: Mapping[int, int]
) -> Iterator[tuple[str, str, bool]]:
    id, image_id, category_id = (annotation.get(name) for name in ("id", "image_id", "category_id"))
    if not is_integer(id):
        yield "annotation entry", f"its id is {id!r}, a whole number is wanted", True
    if not isinstance(image_id, int | str) or image_id not in images:
        yield "unknown image", f"image {image_id} is not in images", True
    if not isinstance(category_id, int) or category_id not in class_of:
        yield "unknown category", f"category {category_id} is not in categories", True


def _box_problems(box: Any) -> Iterator[tuple[str, str, bool]]:
    if not isinstance(box, list) or len(box) != 4 or not all(is_finite(value) for value in box):
        yield "box", f"box {box} is not four numbers x, y, width, height", True
        return
    for side, length in (("width", box[2]), ("height", box[3])):
        if length <= 0:
            yield "box without extent", f"box [{','.join(f'{value:g}' for value in box)}] has no {side}", False


def _segmentation_problems(segmentation: Any) -> Iterator[tuple[str, str, bool]]:
    if not segmentation:
        yield "no segmentation", "no segmentation; a box alone does not say which pixels", False
    elif isinstance(segmentation, dict):
        if not _is_rle(segmentation):
            yield "segmentation", "its RLE needs size [height, width] and counts", True
    elif not isinstance(segmentation, list):
        yield "segmentation", f"its segmentation is a {type(segmentation).__name__}, not polygons or an RLE", True
    else:
        for number, polygon in enumerate(segmentation, start=1):
            yield from _polygon_problems(polygon, f"polygon {number}")


def _polygon_problems(polygon: Any, name: str) -> Iterator[tuple[str, str, bool]]:
    if not isinstance(polygon, list) or len(polygon) % 2 or not all(is_finite(value) for value in polygon):
        yield "segmentation", f"{name} is not a list of numbers x1, y1, x2, y2, …", True
    elif any(abs(value) > FARTHEST_PX for value in polygon):
        yield "segmentation", f"{name} has a coordinate of {max(polygon, key=abs):g} pixels", True
    elif len(polygon) < 6:
        yield "polygon without extent", f"{name} has {len(polygon) // 2} points, not three", False


def _is_rle(segmentation: Mapping[str, Any]) -> bool:
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if not isinstance(size, list) or len(size) != 2 or not all(is_integer(side) and side > 0 for side in size):
        return False
    return isinstance(counts, str) or (
        isinstance(counts, list) and all(is_integer(count) and count >= 0 for count in counts)
    )
