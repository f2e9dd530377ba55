"""The JSON files of COCO and of the formats that follow it: categories, images, and the types of their fields."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from pixelwise.data.listing import Fault
from pixelwise.errors import DataError
from pixelwise.files import text
from pixelwise.files.images import MAX_MEGAPIXELS
from pixelwise.labels import LARGEST_ID, LabelSet, voc_colour

Entry = Mapping[str, Any]
"""One image, annotation or category of the JSON."""


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
    content = text.read_json(path)
    if not isinstance(content, dict):
        raise DataError(f"{path}: COCO JSON is an object with images, annotations and categories, not a list")
    lists: dict[str, list[Entry]] = {}
    for name, fields in _WHOLE.items():
        values = content.get(name, [] if name in optional else None)
        if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
            raise DataError(f"{path}: no list '{name}' of objects; expected images, annotations and categories")
        lists[name] = [_with_whole_numbers(value, fields) for value in values]
    rest = {name: value for name, value in content.items() if name not in lists}
    info = rest.get("info")
    stored = info.get("label_set") if isinstance(info, dict) else None
    return CocoJson(**lists, label_set=stored if isinstance(stored, dict) else None, rest=rest)


_WHOLE = {
    "images": ("id", "height", "width"),
    "annotations": ("id", "image_id", "category_id", "iscrowd"),
    "categories": ("id",),
}
"""The lists of a file, and their fields that hold whole numbers."""


def _with_whole_numbers(entry: Entry, fields: Sequence[str]) -> Entry:
    """The entry with 7 where 7.0 stands in a field of whole numbers, or in an RLE."""
    changed: Entry = {name: int(entry[name]) for name in fields if _is_whole_float(entry.get(name))}
    runs = entry.get("segmentation")
    if isinstance(runs, dict):
        parts = {name: runs[name] for name in ("size", "counts") if isinstance(runs.get(name), list)}
        whole = {
            name: [int(value) if _is_whole_float(value) else value for value in values]
            for name, values in parts.items()
            if any(type(value) is float for value in values)
        }
        if whole:
            changed["segmentation"] = {**runs, **whole}
    return {**entry, **changed} if changed else entry


def _is_whole_float(value: Any) -> bool:
    return type(value) is float and value.is_integer()


def whole(value: Any) -> Any:
    """7 for 7.0; any other value as it is."""
    return int(value) if _is_whole_float(value) else value


def number_of_text(value: Any) -> int | float | None:
    """The number that a text says, or None where it is no text or says no number."""
    if not isinstance(value, str):
        return None
    try:
        return int(value)
    except ValueError:
        pass
    try:
        number = float(value)
    except ValueError:
        return None
    if not math.isfinite(number):
        return None
    return int(number) if number.is_integer() else number


def truth_value(value: Any) -> bool | None:
    """Whether a flag is set: true, false, 1, 0, or null; or these as text. None of anything else."""
    if isinstance(value, str):
        value = {"true": 1, "1": 1, "yes": 1, "false": 0, "0": 0, "no": 0, "": 0}.get(value.strip().lower())
        return None if value is None else bool(value)
    if value is None:
        return False
    return bool(value) if isinstance(value, int | float) and value in (0, 1) else None


def is_id(value: Any) -> TypeGuard[int | str]:
    """Whether a value may be an id: a whole number or text."""
    return is_integer(value) or (isinstance(value, str) and value != "")


def other_type(id: Any, known: Mapping[Any, Any] | Container[Any]) -> int | str | None:
    """The id that is meant where text stands for a number or a number for text; None where none is."""
    for meant in (number_of_text(id), str(id) if is_integer(id) else None):
        if meant is not None and meant in known:
            return meant if isinstance(meant, str) else int(meant)
    return None


def type_name(value: Any) -> str:
    """What a message calls the type of an id."""
    return f"the text '{value}'" if isinstance(value, str) else f"the number {value}"


def named_categories(categories: Sequence[Entry], *, source: Path) -> list[tuple[int, str]]:
    """Id and name of each category, by id. Raises DataError where there is none, or one of them stands twice."""
    if not categories:
        raise DataError(f"{source}: no categories in it")
    for category in categories:
        if not isinstance(category, dict):
            raise DataError(f"{source}: a category is {category!r}; expected an object with an id and a name")
        name = category.get("name")
        if not is_integer(category.get("id")) or not isinstance(name, str):
            raise DataError(f"{source}: category {dict(category)}: expected an integer id and a name")
        if not name.strip():
            raise DataError(f"{source}: category {category['id']} has an empty name; give it one")
        if abs(category["id"]) >= LARGEST_ID - 1:  # the background takes the id before the smallest
            raise DataError(f"{source}: category id {category['id']}; ids are below {LARGEST_ID - 1:,}")
        if any("\ud800" <= character <= "\udfff" for character in name):
            raise DataError(f"{source}: the name {name!a} of category {category['id']} is no Unicode text; rename it")
    named = sorted((int(category["id"]), str(category["name"])) for category in categories)
    for place, what in ((0, "id"), (1, "name")):
        value, count = Counter(pair[place] for pair in named).most_common(1)[0]
        if count > 1:
            raise DataError(f"{source}: {count} categories have the {what} '{value}'")
    return named


def image_name(image: Entry) -> str | None:
    """The name of an image's file: `file_name`, or the end of `coco_url`, as LVIS has it; None without either."""
    name, url = image.get("file_name"), image.get("coco_url")
    if isinstance(name, str) and name:
        return name
    if isinstance(url, str) and "/" in url:
        return url.rpartition("/")[2] or None
    return None


def image_problems(images: Sequence[Entry]) -> Iterator[Fault]:
    """What is wrong with the entries of images."""
    seen_ids: set[Any] = set()
    seen_files: set[str] = set()
    for position, image in enumerate(images, start=1):
        name, id = image_name(image), image.get("id")
        if name is None or not is_id(id):
            where = f"image number {position}"
            yield Fault("image entry", where, "expected an id and a file_name", True, image)
            continue
        where = f"image {id} '{name}'"
        sides = {side: image.get(side) for side in ("height", "width")}
        if not all(is_integer(value) and value > 0 for value in sides.values()):
            text = f"height {sides['height']!r}, width {sides['width']!r}; expected whole numbers of pixels"
            yield Fault("image entry", where, text, True, image)
        elif image["height"] * image["width"] > MAX_MEGAPIXELS * 1e6:
            text = f"{image['height']:,}×{image['width']:,} pixels; at most {MAX_MEGAPIXELS:g} megapixels are read"
            yield Fault("image entry", where, text, True, image)
        if str(id) in seen_ids:
            yield Fault("repeated id", where, "another image has the same id", True, image)
        if name in seen_files:
            yield Fault("repeated file", where, "another image has the same file", False, image)
        seen_ids.add(str(id))
        seen_files.add(name)


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
    dataset_ids = (background, *(id for id, _ in objects))
    return LabelSet(
        name=name,
        names=("background", *(category for _, category in objects)),
        is_thing=(False, *(True for _ in objects)),
        palette=tuple(voc_colour(index) for index in range(count)),
        dataset_ids=dataset_ids,
        void_ids=(255,) if 255 not in dataset_ids else (max(dataset_ids) + 1,),
    )


def is_integer(value: Any) -> TypeGuard[int]:
    """Whether a value of the JSON is a whole number; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_finite(value: Any) -> TypeGuard[float]:
    """Whether a value of the JSON is a number, and neither NaN nor infinite nor a whole number that no float holds."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
