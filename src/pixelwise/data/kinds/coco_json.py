"""The JSON files of COCO and of the formats that follow it: categories, images, and the types of their fields."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pixelwise.errors import DataError
from pixelwise.files import text
from pixelwise.files.images import MAX_MEGAPIXELS
from pixelwise.labels import LabelSet, voc_colour

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
    content = text.read_json(path)
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


def is_integer(value: Any) -> bool:
    """Whether a value of the JSON is a whole number; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_finite(value: Any) -> bool:
    """Whether a value of the JSON is a number, and neither NaN nor infinite."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
