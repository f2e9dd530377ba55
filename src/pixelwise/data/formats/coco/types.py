"""Fields of a COCO JSON whose type is not the one that is meant: text for a number, a number for text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pixelwise.data.formats.coco.json import twins_in, used_in
from pixelwise.data.kinds.coco_json import CocoJson, Entry, is_id, is_integer, number_of_text, other_type, truth_value


def typed(content: CocoJson, done: Counter[str]) -> CocoJson:
    """The content with numbers where text says one, ids of one type in all places, and categories of one name joined.

    Args:
        content: of a file.
        done: is told what was changed, by the keys of `repair.REPAIRS`.
    """
    images, image_ids = _one_type(content.images, content.annotations, "image_id", done)
    categories, category_ids = _one_type(content.categories, content.annotations, "category_id", done)
    annotations = [
        _with(one, {"image_id": image_ids, "category_id": category_ids}, done) for one in content.annotations
    ]
    categories, annotations = _joined(categories, annotations, done)
    return content._replace(
        images=[_numbers(image, ("height", "width"), done) for image in images],
        categories=categories,
        annotations=[_annotation(one, done) for one in annotations],
    )


def _one_type(
    entries: Sequence[Entry], annotations: Sequence[Entry], field: str, done: Counter[str]
) -> tuple[list[Entry], Mapping[Any, Any]]:
    """The entries and, for ids of annotations that are not of their type, the id that is meant.

    Ids of text become numbers where the annotations have numbers and every text says one.
    """
    known = {entry["id"] for entry in entries if is_id(entry.get("id"))}
    used = {one[field] for one in annotations if is_id(one.get(field))}
    strange = {id for id in used - known if other_type(id, known) is not None}
    if not strange:
        return [*entries], {}
    numbers = {id: number_of_text(id) if isinstance(id, str) else id for id in known}
    are_whole = all(map(is_integer, numbers.values())) and len(set(numbers.values())) == len(numbers)
    if are_whole and any(map(is_integer, strange)):
        done["ids_as_numbers"] += sum(isinstance(entry.get("id"), str) for entry in entries)
        whole = [{**entry, "id": numbers[entry["id"]]} if is_id(entry.get("id")) else entry for entry in entries]
        return whole, {id: number for id in used if is_integer(number := number_of_text(id))}
    return [*entries], {id: other_type(id, known) for id in strange}


def _with(annotation: Entry, meant: Mapping[str, Mapping[Any, Any]], done: Counter[str]) -> Entry:
    changed = {}
    for field, ids in meant.items():
        id = annotation.get(field)
        if is_id(id) and id in ids:
            changed[field] = ids[id]
            done["ids_as_numbers" if isinstance(id, str) else "ids_as_text"] += 1
    return {**annotation, **changed} if changed else annotation


def _joined(
    categories: Sequence[Entry], annotations: Sequence[Entry], done: Counter[str]
) -> tuple[list[Entry], list[Entry]]:
    """Categories of one name, of which several have annotations, as the first of them."""
    renamed = twins_in(categories, used_in(annotations))
    kept = [category for category in categories if not is_id(category.get("id")) or category["id"] not in renamed]
    done["joined_categories"] += len(renamed)
    if not renamed:
        return kept, [*annotations]
    moved = [
        {**one, "category_id": renamed[one["category_id"]]}
        if is_id(one.get("category_id")) and one["category_id"] in renamed
        else one
        for one in annotations
    ]
    return kept, moved


def _annotation(annotation: Entry, done: Counter[str]) -> Entry:
    annotation = _numbers(annotation, ("area",), done)
    changed: dict[str, Any] = {}
    crowd = annotation.get("iscrowd")
    if isinstance(crowd, str) and truth_value(crowd) is not None:
        changed["iscrowd"] = int(bool(truth_value(crowd)))
    for field in ("bbox", "segmentation"):
        values = annotation.get(field)
        if isinstance(values, list) and _has_text(values):
            changed[field] = [_number(one) if not isinstance(one, list) else [*map(_number, one)] for one in values]
    done["numbers"] += len(changed)
    return {**annotation, **changed} if changed else annotation


def _numbers(entry: Entry, fields: Iterable[str], done: Counter[str]) -> Entry:
    changed = {name: number for name in fields if (number := number_of_text(entry.get(name))) is not None}
    done["numbers"] += len(changed)
    return {**entry, **changed} if changed else entry


def _has_text(values: Sequence[Any]) -> bool:
    return any(isinstance(one, str) or (isinstance(one, list) and _has_text(one)) for one in values)


def _number(value: Any) -> Any:
    number = number_of_text(value)
    return value if number is None else number
