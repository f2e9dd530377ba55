"""The JSON files of COCO's panoptic family: categories, and the segments of each image's PNG.

An annotation is of one image: `image_id`, `file_name` of its PNG, and `segments_info`, a list of `id`, `category_id`
and optionally `iscrowd`, `area` and `bbox` (x, y, width, height). The same findings serve opening a set, which refuses,
and checking it, which reports them all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pixelwise.data.kinds.coco_json import Entry, is_integer, named_categories
from pixelwise.data.listing import Fault
from pixelwise.errors import DataError
from pixelwise.labels import LARGEST_ID, Colour, LabelSet, published, voc_colour

PUBLISHED = ("coco_panoptic", "cityscapes")
"""The label sets that categories are compared with."""

FAULTS_OF_SEGMENTS = ("segment id", "repeated segment", "unknown category", "segment entry")
"""Kinds of fault of single segments."""


def panoptic_labels_of(
    categories: Sequence[Entry],
    *,
    source: Path,
    stored: Mapping[str, Any] | None = None,
    given: LabelSet | None = None,
) -> tuple[LabelSet, dict[int, int]]:
    """The label set of a JSON's categories, and category id → class id.

    The label set stored in the file is taken if it has these categories, else a published one that has. Else it is made
    of the categories in the order of their ids; those without `color` get one of PASCAL VOC's scheme.

    Args:
        categories: the entries.
        source: the file.
        stored: the label set that stands in it, if one does.
        given: is taken whatever the categories say, but for a category that is called otherwise.

    Raises:
        DataError: a category without integer id, name and `isthing`, or an id or name twice.
    """
    named = named_categories(categories, source=source) if categories or given is None else []
    if given is not None:
        name_of = dict(zip(given.dataset_ids, given.names, strict=True))
        for id, name in named:
            if name_of.get(id, name) != name:
                raise DataError(f"{source}: category {id} is '{name}', but '{name_of[id]}' in '{given.name}'")
        return given, {id: index for index, id in enumerate(given.dataset_ids)}
    by_id = {int(category["id"]): category for category in categories}
    for id, name in named:
        if by_id[id].get("isthing") not in (0, 1):
            raise DataError(
                f"{source}: category {id} '{name}' has isthing {by_id[id].get('isthing')!r}; expected 1 of classes "
                "with instances, 0 of the others"
            )
    things = tuple(bool(by_id[id]["isthing"]) for id, _ in named)
    known = [published(name) for name in PUBLISHED]
    with suppress(DataError):  # the categories say enough
        known[:0] = [LabelSet.from_json(stored)] if stored is not None else []
    triples = [(id, name, is_thing) for (id, name), is_thing in zip(named, things, strict=True)]
    for labels in known:
        if sorted(zip(labels.dataset_ids, labels.names, labels.is_thing, strict=True)) == triples:
            return labels, {id: index for index, id in enumerate(labels.dataset_ids)}
    ids = tuple(id for id, _ in named)
    labels = LabelSet(
        name=source.stem.removeprefix("panoptic_"),
        names=tuple(name for _, name in named),
        is_thing=things,
        palette=tuple(_colour(by_id[id].get("color"), index) for index, id in enumerate(ids)),
        dataset_ids=ids,
        void_ids=next((void,) for void in (0, 255, max(ids) + 1) if void not in ids),
    )
    return labels, {id: index for index, id in enumerate(ids)}


def panoptic_categories(labels: LabelSet) -> list[dict[str, Any]]:
    """The classes as COCO's panoptic files tell them, under their ids on disk."""
    classes = zip(labels.dataset_ids, labels.names, labels.is_thing, labels.palette, strict=True)
    return [
        {"id": id, "name": name, "supercategory": name, "isthing": int(is_thing), "color": list(colour)}
        for id, name, is_thing, colour in classes
    ]


def panoptic_problems(
    annotations: Iterable[Entry], images: Mapping[int | str, Entry], class_of: Mapping[int, int], *, segments: bool
) -> Iterator[Fault]:
    """The faults of the annotations that are found without reading a PNG.

    The entry of a problem is an annotation, or one of its segments.

    Args:
        annotations: the entries.
        images: id → entry.
        class_of: category id → class id.
        segments: whether they have `segments_info`.
    """
    seen: set[int | str] = set()
    for annotation in annotations:
        where, image_id = panoptic_name(annotation, images), annotation.get("image_id")
        if not isinstance(image_id, int | str) or image_id not in images:
            yield Fault("unknown image", where, f"image {image_id} is not in images", True, annotation)
            continue
        if image_id in seen:
            yield Fault("repeated annotation", where, "another annotation is of the same image", True, annotation)
            continue
        seen.add(image_id)
        name, infos = annotation.get("file_name"), annotation.get("segments_info")
        if not isinstance(name, str) or not name:
            yield Fault("annotation entry", where, "expected the file_name of its PNG", True, annotation)
        if not segments:
            continue
        if not isinstance(infos, list) or not all(isinstance(info, dict) for info in infos):
            yield Fault("annotation entry", where, "expected a list segments_info of objects", True, annotation)
            continue
        yield from _segment_problems(infos, where, class_of)
    for image_id, image in images.items():
        if image_id not in seen:
            where = f"image {image_id} '{image.get('file_name')}'"
            yield Fault("missing annotation", where, "no annotation is of it", False, image)


def panoptic_name(annotation: Entry, images: Mapping[int | str, Entry]) -> str:
    """How errors name an annotation: the id and the file of its image."""
    image_id = annotation.get("image_id")
    image = images.get(image_id) if isinstance(image_id, int | str) else None
    return f"image {image_id}" + (f" '{image.get('file_name')}'" if image else "")


def _segment_problems(infos: Sequence[Entry], where: str, class_of: Mapping[int, int]) -> Iterator[Fault]:
    seen: set[int] = set()
    for position, info in enumerate(infos, start=1):
        id, category_id = info.get("id"), info.get("category_id")
        if not isinstance(id, int) or isinstance(id, bool) or not 0 <= id < LARGEST_ID:
            text = f"its id is {id!r}; expected a whole number from 1 to {LARGEST_ID - 1:,}"
            yield Fault("segment id", f"{where}, segment number {position}", text, True, info)
            continue
        name = f"{where}, segment {id}"
        if id == 0:
            yield Fault("segment id", name, "0 stands for void in every PNG", True, info)
        elif id in seen:
            yield Fault("repeated segment", name, "another segment of the image has the same id", True, info)
        elif not is_integer(category_id) or category_id not in class_of:
            yield Fault("unknown category", name, f"category {category_id} is not in categories", True, info)
        elif info.get("iscrowd", 0) not in (0, 1):
            yield Fault("segment entry", name, f"iscrowd is {info['iscrowd']!r}; expected 0 or 1", True, info)
        seen.add(id)


def _colour(stored: Any, index: int) -> Colour:
    is_colour = isinstance(stored, list) and len(stored) == 3 and all(map(is_integer, stored))
    if is_colour and all(0 <= value <= 255 for value in stored):
        return stored[0], stored[1], stored[2]
    return voc_colour(index + 1)
