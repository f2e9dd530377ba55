"""The JSON files of COCO's family: reading them, and everything that can be wrong with what stands in them.

The same findings serve opening a set, which refuses or skips, and checking it, which reports them all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pixelwise.data.kinds.coco_json import (
    CocoJson,
    Entry,
    image_name,
    is_finite,
    is_id,
    is_integer,
    labels_from,
    named_categories,
    number_of_text,
    other_type,
    truth_value,
    type_name,
)
from pixelwise.data.listing import Fault
from pixelwise.errors import DataError
from pixelwise.labels import LabelSet, published
from pixelwise.ops.rle import FARTHEST_PX

DRAWN_BACKGROUND = "_background_"
"""What LabelMe, and COCO files made from its, call the background."""


def labels_of(
    categories: Sequence[Entry],
    *,
    source: Path,
    stored: Mapping[str, Any] | None = None,
    used: Collection[Any] = (),
) -> tuple[LabelSet, dict[Any, int]]:
    """The label set of a JSON's categories, and category id → class id.

    The label set stored in the file is taken if it has these categories. Else categories that are those of COCO 2017
    give the published set. Others follow `background` in the order of their ids; a category that is itself called
    `background` is taken for it. Ids that are text are numbered. See `skipped_categories` for what is no class.

    Args:
        categories: the entries.
        source: the file, for errors.
        stored: what `info.label_set` holds.
        used: the category ids of the annotations.

    Raises:
        DataError: a category without id and name, or an id or name twice.
    """
    skipped = [entry for entries in skipped_categories(categories, used).values() for entry in entries]
    kept = [category for category in categories if not any(category is entry for entry in skipped)]
    numbers = _numbers_of_ids(kept)
    named = named_categories([{**one, "id": numbers.get(_id_of(one), one.get("id"))} for one in kept], source=source)
    named = [(id, "background" if name == DRAWN_BACKGROUND else name) for id, name in named]
    if [name for _, name in named].count("background") > 1:
        raise DataError(f"{source}: the categories 'background' and '{DRAWN_BACKGROUND}' mean the same; keep one")
    coco, stored_labels = published("coco"), _stored_labels(stored, named)
    if stored_labels is not None:
        labels = stored_labels
    elif named == sorted(zip(coco.dataset_ids[1:], coco.names[1:], strict=True)):
        labels = coco
    else:
        labels = labels_from(named, name=source.stem.removeprefix("instances_"))
    return labels, {id: labels.dataset_ids.index(number) for id, number in numbers.items()}


def labels_in(content: CocoJson, *, source: Path) -> tuple[LabelSet, dict[Any, int]]:
    """The label set of a file, and category id → class id; categories of one name are one class.

    Raises DataError for unusable categories.
    """
    used = used_in(content.annotations)
    twins = twins_in(content.categories, used)
    single = [one for one in content.categories if _id_of(one) not in twins]
    labels, class_of = labels_of(single, source=source, stored=content.label_set, used=used)
    return labels, class_of | {id: class_of[first] for id, first in twins.items()}


def twins_in(categories: Sequence[Entry], used: Collection[Any]) -> dict[Any, Any]:
    """Categories with annotations whose name an earlier one has: id → id of that."""
    others = [entry for entries in skipped_categories(categories, used).values() for entry in entries]
    first: dict[str, Any] = {}
    twins: dict[Any, Any] = {}
    for category in categories:
        name, id = category.get("name"), _id_of(category)
        is_class = isinstance(name, str) and id is not None and not any(category is entry for entry in others)
        if is_class and first.setdefault(str(name), id) != id:
            twins[id] = first[str(name)]
    return twins


def category_problems(categories: Sequence[Entry], used: Collection[Any]) -> Iterator[Fault]:
    """Categories of one name, of which several have annotations."""
    twins = twins_in(categories, used)
    for category in categories:
        if _id_of(category) in twins:
            id, first = category["id"], twins[category["id"]]
            text = f"category {first} has the same name; are they one? pixelwise data check --fix joins them"
            yield Fault("repeated name", f"category {id} '{category['name']}'", text, True, category)


def used_in(annotations: Iterable[Entry]) -> set[Any]:
    """The category ids of annotations."""
    return {one["category_id"] for one in annotations if is_id(one.get("category_id"))}


def skipped_categories(categories: Sequence[Entry], used: Collection[Any]) -> dict[str, list[Entry]]:
    """Categories that are no classes, by why: Roboflow's root, and those without annotations whose name another has.

    The root is the category 0 if it has no annotations, and all others have it as their supercategory.
    """
    names = [category.get("name") for category in categories]
    roots = [
        category
        for category in categories
        if len(categories) > 1
        and _id_of(category) == 0
        and 0 not in used
        and category.get("supercategory") in (None, "none")
        and all(other is category or other.get("supercategory") == category.get("name") for other in categories)
    ]
    rest = [category for category in categories if not any(category is root for root in roots)]
    twins: list[Entry] = []
    for name in dict.fromkeys(name for name in names if isinstance(name, str)):
        same = [category for category in rest if category.get("name") == name]
        idle = [category for category in same if _id_of(category) not in used]
        if len(same) > 1 and len({str(_id_of(category)) for category in same}) == len(same):
            twins += idle if len(idle) < len(same) else idle[:-1]
    return {"root": roots, "twin": twins}


def annotation_problems(
    annotation: Entry, images: Mapping[int | str, Entry], class_of: Mapping[Any, int]
) -> Iterator[Fault]:
    """The faults of one annotation that are found without rasterising it.

    Args:
        annotation: the entry.
        images: id → entry.
        class_of: category id → class id.
    """
    where = annotation_name(annotation, images)
    for kind, text, fatal in (
        *_reference_problems(annotation, images, class_of),
        *_field_problems(annotation),
        *_box_problems(annotation),
        *_segmentation_problems(annotation.get("segmentation")),
    ):
        yield Fault(kind, where, text, fatal, annotation)


def repeated_annotations(annotations: Iterable[Entry], images: Mapping[int | str, Entry]) -> Iterator[Fault]:
    """Annotations with the id of one before."""
    seen: set[Any] = set()
    for annotation in annotations:
        id = annotation.get("id")
        if not is_id(id):
            continue  # a fault of its own
        if id in seen:
            where = annotation_name(annotation, images)
            yield Fault("repeated id", where, "another annotation has the same id", False, annotation)
        seen.add(id)


def annotation_name(annotation: Entry, images: Mapping[int | str, Entry]) -> str:
    """How errors name an annotation: its id, and the id and the file of its image."""
    image_id = annotation.get("image_id")
    image = images.get(image_id) if isinstance(image_id, int | str) else None
    file = f", '{image_name(image)}'" if image else ""
    return f"annotation {annotation.get('id')} (image {image_id}{file})"


def has_segmentation(annotation: Entry) -> bool:
    """Whether a sound annotation says which pixels it means: by an RLE, or a polygon of three points or more."""
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, dict):
        return bool(segmentation)
    return isinstance(segmentation, list) and any(isinstance(one, list) and len(one) >= 6 for one in segmentation)


def has_box(annotation: Entry) -> bool:
    """Whether the box of a sound annotation has width and height."""
    box = annotation.get("bbox")
    return bool(box) and box[2] > 0 and box[3] > 0


def _id_of(category: Entry) -> Any:
    id = category.get("id")
    return id if is_id(id) else None


def _numbers_of_ids(categories: Sequence[Entry]) -> dict[Any, int]:
    """The number of each category: its id, the number that its id says as text, or else its place in the list."""
    ids = [_id_of(category) for category in categories]
    texts = [id for id in ids if isinstance(id, str)]
    if len(texts) < len(ids):
        return {id: id for id in ids if is_integer(id)}
    numbers = [number_of_text(id) for id in texts]
    whole = [number for number in numbers if isinstance(number, int)]
    if len(set(whole)) == len(texts):
        return dict(zip(texts, whole, strict=True))
    return {id: place for place, id in enumerate(dict.fromkeys(texts), start=1)}


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
    annotation: Entry, images: Mapping[int | str, Entry], class_of: Mapping[Any, int]
) -> Iterator[tuple[str, str, bool]]:
    id = annotation.get("id")
    if not is_id(id):
        yield "annotation entry", f"its id is {id!r}; expected a whole number or text", True
    for field, noun, known, plural in (
        ("image_id", "image", images, "images"),
        ("category_id", "category", class_of, "categories"),
    ):
        id = annotation.get(field)
        if is_id(id) and id in known:
            continue
        meant = other_type(id, known)
        if meant is not None:
            yield f"type of {field}", f"its {field} is {type_name(id)}, {plural} have {type_name(meant)}", True
        else:
            yield f"unknown {noun}", f"{noun} {id} is not in {plural}", True


def _field_problems(annotation: Entry) -> Iterator[tuple[str, str, bool]]:
    crowd, area = annotation.get("iscrowd"), annotation.get("area")
    if isinstance(crowd, str) or truth_value(crowd) is None:
        yield "iscrowd", f"its iscrowd is {crowd!r}; expected 0 or 1", True
    if area is not None and not is_finite(area):
        yield "area", f"its area is {area!r}; expected a number of square pixels", True
    elif area is not None and area < 0:
        yield "area", f"its area is {area:g}; that of its pixels is taken", False


def _box_problems(annotation: Entry) -> Iterator[tuple[str, str, bool]]:
    box = annotation.get("bbox")
    if not box and isinstance(box, list | None) and has_segmentation(annotation):
        yield "no box", "no box; that of its segmentation is taken", False
    elif not isinstance(box, list) or len(box) != 4 or not all(is_finite(value) for value in box):
        yield "box", f"box {box} is not four numbers x, y, width, height", True
    else:
        flat = [side for side, length in (("width", box[2]), ("height", box[3])) if length <= 0]
        if flat:
            stated = ",".join(f"{value:g}" for value in box)
            yield "box without extent", f"box [{stated}] has no {' and no '.join(flat)}", False


def _segmentation_problems(segmentation: Any) -> Iterator[tuple[str, str, bool]]:
    if not segmentation:
        yield "no segmentation", "no segmentation; a box alone does not say which pixels", False
    elif isinstance(segmentation, dict):
        if not _is_rle(segmentation):
            yield "segmentation", "its RLE needs size [height, width], whole numbers, and counts", True
    elif not isinstance(segmentation, list):
        yield "segmentation", f"its segmentation is a {type(segmentation).__name__}, not polygons or an RLE", True
    elif not any(isinstance(polygon, list) for polygon in segmentation):
        text = f"its segmentation is one list of {len(segmentation)} values; expected a list of polygons [[x1, y1, …]]"
        yield "segmentation", text, True
    elif not any(segmentation):
        yield "no segmentation", "its polygons are empty; a box alone does not say which pixels", False
    else:
        found = [
            problem
            for number, polygon in enumerate(segmentation, start=1)
            for problem in _polygon_problems(polygon, f"polygon {number}")
        ]
        if found:  # one for each annotation, the worst
            kind, text, fatal = next((problem for problem in found if problem[2]), found[0])
            more = f", and {len(found) - 1} more of its polygons are faulty" if len(found) > 1 else ""
            yield kind, text + more, fatal


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
