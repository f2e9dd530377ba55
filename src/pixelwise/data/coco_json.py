"""The JSON files of COCO's family: reading them, and everything that can be wrong with what stands in them.

The same findings serve opening a set, which refuses or leaves out, and checking it, which reports them all.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pixelwise.data.images import MAX_MEGAPIXELS
from pixelwise.errors import DataError
from pixelwise.labels import LabelSet, published, voc_colour
from pixelwise.ops.rle import FARTHEST_PX

Entry = Mapping[str, Any]
"""One image, annotation or category of the JSON."""


class Problem(NamedTuple):
    """What is wrong with one entry.

    Attributes:
        kind: a few words, the same for all problems of the kind.
        where: the entry, as errors name it.
        text: what is wrong.
        fatal: whether the entry is unusable, and a set with it cannot be opened.
        entry: the entry itself.
    """

    kind: str
    where: str
    text: str
    fatal: bool
    entry: Entry


class CocoJson(NamedTuple):
    """The content of a file.

    Attributes:
        images: as they stand in it.
        annotations: as they stand in it.
        categories: as they stand in it.
        label_set: what `info.label_set` holds, which `pixelwise data convert` writes; None in all other files.
        rest: everything else in the file, such as `licenses`.
    """

    images: list[Entry]
    annotations: list[Entry]
    categories: list[Entry]
    label_set: Mapping[str, Any] | None
    rest: Mapping[str, Any]


def read_json(path: Path, *, optional: Sequence[str] = ()) -> CocoJson:
    """Read a file.

    Args:
        path: the file.
        optional: lists that need not be in it, and are empty then.

    Raises:
        DataError: it has no lists of images, annotations and categories.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error})") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: COCO JSON is an object with images, annotations and categories, not a list")
    lists: dict[str, list[Entry]] = {}
    for name in ("images", "annotations", "categories"):
        values = content.get(name, [] if name in optional else None)
        if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
            raise DataError(f"{path}: no list '{name}' of objects; images, annotations and categories are wanted")
        lists[name] = values
    rest = {name: value for name, value in content.items() if name not in lists}
    info = rest.get("info")
    stored = info.get("label_set") if isinstance(info, dict) else None
    return CocoJson(**lists, label_set=stored if isinstance(stored, dict) else None, rest=rest)


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
    elif named == sorted(zip(coco.native_ids[1:], coco.names[1:], strict=True)):
        labels = coco
    else:
        labels = labels_from(named, name=source.stem.removeprefix("instances_"))
    return labels, {id: labels.native_ids.index(id) for id, _ in named}


def named_categories(categories: Sequence[Entry], *, source: Path) -> list[tuple[int, str]]:
    """Id and name of each category, by id. Raises DataError where there is none, or one of them stands twice."""
    if not categories:
        raise DataError(f"{source}: no categories in it")
    for category in categories:
        if not is_integer(category.get("id")) or not isinstance(category.get("name"), str):
            raise DataError(f"{source}: category {dict(category)} needs an integer id and a name")
    named = sorted((int(category["id"]), str(category["name"])) for category in categories)
    for place, what in ((0, "id"), (1, "name")):
        value, count = Counter(pair[place] for pair in named).most_common(1)[0]
        if count > 1:
            raise DataError(f"{source}: {count} categories have the {what} '{value}'")
    return named


def image_problems(images: Sequence[Entry]) -> Iterator[Problem]:
    """What is wrong with the entries of images."""
    seen_ids: set[Any] = set()
    seen_files: set[str] = set()
    for position, image in enumerate(images, start=1):
        name, id = image.get("file_name"), image.get("id")
        if not isinstance(name, str) or not name or not isinstance(id, int | str):
            where = f"image number {position}"
            yield Problem("image entry", where, "an id and a file_name are wanted", True, image)
            continue
        where = f"image {id} '{name}'"
        if not all(is_integer(image.get(side)) and image[side] > 0 for side in ("height", "width")):
            text = f"height {image.get('height')}, width {image.get('width')}; whole numbers of pixels are wanted"
            yield Problem("image entry", where, text, True, image)
        elif image["height"] * image["width"] > MAX_MEGAPIXELS * 1e6:
            text = f"{image['height']:,}×{image['width']:,} pixels; at most {MAX_MEGAPIXELS:g} megapixels are read"
            yield Problem("image entry", where, text, True, image)
        if id in seen_ids:
            yield Problem("repeated id", where, "another image has the same id", True, image)
        if name in seen_files:
            yield Problem("repeated file", where, "another image has the same file", False, image)
        seen_ids.add(id)
        seen_files.add(name)


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
    pairs = zip(labels.native_ids, labels.names, strict=True)
    classes = [pair for index, pair in enumerate(pairs) if index != labels.background_id]
    return labels if sorted(classes) == list(named) else None


def labels_from(named: Sequence[tuple[int, str]], *, name: str) -> LabelSet:
    """A label set of countable classes (id on disk, name), `background` before them.

    A class that is itself called `background` is taken for it; else its id is 0, or the one before the others'.
    """
    ids = [id for id, _ in named]
    background = next((id for id, category in named if category == "background"), None)
    if background is None:
        background = 0 if 0 not in ids else min(ids) - 1
    objects = [(id, category) for id, category in named if category != "background"]
    count = len(objects) + 1
    native_ids = (background, *(id for id, _ in objects))
    return LabelSet(
        name=name,
        names=("background", *(category for _, category in objects)),
        is_thing=(False, *(True for _ in objects)),
        palette=tuple(voc_colour(index) for index in range(count)),
        native_ids=native_ids,
        void_ids=(255,) if 255 not in native_ids else (max(native_ids) + 1,),
    )


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


def is_integer(value: Any) -> bool:
    """Whether a value of the JSON is a whole number; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_finite(value: Any) -> bool:
    """Whether a value of the JSON is a number, and neither NaN nor infinite."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
