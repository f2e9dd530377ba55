"""Label sets, which define the ids in a mask, and maps between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pixelwise.errors import DataError, count
from pixelwise.files.text import read_toml

Colour = tuple[int, int, int]

LARGEST_ID = 2**24
"""Ids on disk are smaller than this, and larger than its negative: three channels of 8 bits hold no more."""


@dataclass(frozen=True)
class LabelSet:
    """The classes of a data set, a checkpoint, an exported file or a server's reply.

    Three kinds of id are kept apart. A *dataset id* is what a file on disk holds; a *class id* is ours,
    0…K-1 in the order of `names`, and the channel of the scores; `ignore_id` marks pixels nobody evaluates.

    Attributes:
        name: what errors and reports call the set, such as `voc`.
        names: the K class names, unique; at least one.
        is_thing: whether objects of the class can be counted; K claims.
        palette: K colours, RGB 0-255.
        dataset_ids: the id on disk of each class; K unique integers.
        void_ids: ids on disk that mean "ignored"; they become `ignore_id`.

    Raises:
        DataError: the fields do not fit each other.
    """

    name: str
    names: tuple[str, ...]
    is_thing: tuple[bool, ...]
    palette: tuple[Colour, ...]
    dataset_ids: tuple[int, ...]
    void_ids: tuple[int, ...] = (255,)

    def __post_init__(self) -> None:
        count = len(self.names)
        if not count:
            raise DataError(f"label set '{self.name}': no classes; expected at least one")
        for field in ("is_thing", "palette", "dataset_ids"):
            if len(getattr(self, field)) != count:
                raise DataError(
                    f"label set '{self.name}': {len(getattr(self, field))} values in {field} for {count} names"
                )
        for field in ("names", "dataset_ids"):
            repeated = [str(value) for value, times in Counter(getattr(self, field)).items() if times > 1]
            if repeated:
                raise DataError(f"label set '{self.name}': {', '.join(repeated)} occurs more than once in {field}")
        strange = [name for name in self.names if any("\ud800" <= character <= "\udfff" for character in name)]
        if strange:
            raise DataError(f"label set '{self.name}': the class name {strange[0]!a} is no Unicode text; rename it")
        both = sorted(set(self.dataset_ids) & set(self.void_ids))
        if both:
            raise DataError(f"label set '{self.name}': ids {both} are both a class and void")
        too_large = [id for id in (*self.dataset_ids, *self.void_ids) if abs(id) >= LARGEST_ID]
        if too_large:
            raise DataError(f"label set '{self.name}': id {too_large[0]}; ids on disk are below {LARGEST_ID:,}")
        for colour in self.palette:
            if len(colour) != 3 or not all(0 <= channel <= 255 for channel in colour):
                raise DataError(f"label set '{self.name}': a colour is three numbers 0-255, not {list(colour)}")

    @classmethod
    def from_names(cls, name: str, names: tuple[str, ...] | list[str]) -> LabelSet:
        """A set whose ids on disk are 0…K-1, in the colours of PASCAL VOC's scheme.

        Void is 255 on disk, or 65535 where 255 is needed for a class.
        """
        count = len(names)
        return cls(
            name=name,
            names=tuple(names),
            is_thing=(False,) * count,
            palette=tuple(voc_colour(index) for index in range(count)),
            dataset_ids=tuple(range(count)),
            void_ids=(255,) if count <= 255 else (65535,),
        )

    @classmethod
    def from_toml(cls, path: Path) -> LabelSet:
        """Read a set from a file: `name`, `void_ids`, and one `[[class]]` each with `name`, `id`, `colour`, `thing`.

        Only the class names are required: ids then are 0…K-1 and 255 is void. Raises DataError naming the file.
        """
        stored = _read_toml(path, _TomlSet)
        try:
            return _set_of(stored.classes, name=stored.name or path.stem, void_ids=stored.void_ids)
        except DataError as error:
            raise DataError(f"{path}: {error}") from None

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> LabelSet:
        """The inverse of `to_json`. Raises DataError when a field is missing or of the wrong kind."""
        try:
            return cls(**dict(_JsonSet.model_validate(content)))
        except ValidationError as error:
            raise DataError(f"label set: {_first_fault(error)}") from None

    def to_json(self) -> dict[str, Any]:
        """Plain lists and strings, for model.json, recipe.json and replies."""
        return {
            "name": self.name,
            "names": list(self.names),
            "is_thing": list(self.is_thing),
            "palette": [list(colour) for colour in self.palette],
            "dataset_ids": list(self.dataset_ids),
            "void_ids": list(self.void_ids),
        }

    def __len__(self) -> int:
        return len(self.names)

    @property
    def ignore_id(self) -> int:
        """The class id of ignored pixels: 255, or -1 where 255 is needed for a class."""
        return 255 if len(self) <= 255 else -1

    @property
    def background_id(self) -> int | None:
        """The class that means "none of the others", if the set has one; it is not drawn."""
        return self.names.index("background") if "background" in self.names else None

    @property
    def object_ids(self) -> tuple[int, ...]:
        """The classes with instances: the things, or all but the background where none is one."""
        things = tuple(index for index, is_thing in enumerate(self.is_thing) if is_thing)
        return things or tuple(index for index in range(len(self)) if index != self.background_id)

    @property
    def is_class_agnostic(self) -> bool:
        """Whether its objects are of any class: its only class beside the background is `object`."""
        return tuple(name for name in self.names if name != "background") == ("object",)

    def describe_ids(self) -> str:
        """The ids that may stand in a file, as ranges: `0-10, 11 = void`."""
        classes = _ranges(self.dataset_ids)
        return f"{classes}, {_ranges(self.void_ids)} = void" if self.void_ids else classes

    def require_same(self, other: LabelSet, *, mine: str, theirs: str) -> None:
        """Raise DataError with both lists unless `other` has the same names in the same order.

        Args:
            other: the set to compare with.
            mine: what this set belongs to, for the message, such as `model runs/psp`.
            theirs: what the other belongs to, such as `data camvid:./CamVid`.
        """
        if self.names != other.names:
            raise DataError(
                f"label sets differ: {mine} has '{self.name}' ({len(self)}: {_abridged(self.names)}), "
                f"{theirs} has '{other.name}' ({len(other)}: {_abridged(other.names)}); "
                "map them with --map names or --map FILE.toml"
            )

    def class_ids(self, dataset_id: np.ndarray, *, source: str) -> np.ndarray:
        """Turn a map of ids on disk into class ids.

        Args:
            dataset_id: integers of any shape, as read from the file.
            source: the file, named in the error.

        Returns:
            u8 of the same shape (i32 where K > 255), void as `ignore_id`.

        Raises:
            DataError: a value is neither a class nor void; names the value, how often it stands, and the repair.
        """
        low, high = min(*self.dataset_ids, *self.void_ids), max(*self.dataset_ids, *self.void_ids)
        unknown = -2
        table = np.full(high - low + 1, unknown, dtype=np.int32)
        table[np.array(self.dataset_ids) - low] = np.arange(len(self))
        if self.void_ids:
            table[np.array(self.void_ids) - low] = self.ignore_id
        outside = (dataset_id < low) | (dataset_id > high)
        ids = table[np.where(outside, 0, dataset_id.astype(np.int32, copy=False) - low)]
        strange = dataset_id[outside | (ids == unknown)]
        if strange.size:
            strange, counts = np.unique(strange, return_counts=True)
            raise DataError(
                f"{source}: value {strange[0]} ({counts[0]:,} pixels) is not in LabelSet '{self.name}' "
                f"({self.describe_ids()}); {count(len(strange), 'unknown value')} in all; "
                "is this a colour mask, or another label set? see pixelwise data convert"
            )
        return ids.astype(np.uint8 if len(self) <= 255 else np.int32)

    def dataset_ids_of(self, class_ids: np.ndarray) -> np.ndarray:
        """Turn class ids into ids on disk, i32; what is no class becomes the first void id (255 if there is none)."""
        table = np.full(len(self) + 1, self.void_ids[0] if self.void_ids else 255, dtype=np.int32)
        table[: len(self)] = self.dataset_ids
        ids = class_ids.astype(np.int64)
        return table[np.where((ids < 0) | (ids >= len(self)), len(self), ids)]


@dataclass(frozen=True)
class LabelMap:
    """A map from the classes of one set to those of another.

    Attributes:
        source: the set of the data.
        target: the set of the model.
        table: for each class of `source` the class id in `target`, or `target.ignore_id`.
    """

    source: LabelSet
    target: LabelSet
    table: tuple[int, ...]

    @classmethod
    def by_names(
        cls, source: LabelSet, target: LabelSet, *, names: Mapping[str, str] | None = None, default: str = "ignore"
    ) -> LabelMap:
        """Map each class of `source` to one of `target`.

        Args:
            source: the set of the data.
            target: the set of the model.
            names: source name → target name; goes before equal names. `ignore` is a target name that every set has.
            default: target name of all the others.

        Raises:
            DataError: a name is in neither set, or every class would be ignored.
        """
        names, ignored = names or {}, target.ignore_id
        for name in names:
            if name not in source.names:
                raise DataError(f"label map: '{name}' is not in '{source.name}' ({', '.join(source.names)})")

        def target_id(name: str) -> int:
            if name == "ignore":
                return ignored
            if name not in target.names:
                raise DataError(f"label map: '{name}' is not in '{target.name}' ({', '.join(target.names)})")
            return target.names.index(name)

        table = [target_id(names.get(name, name if name in target.names else default)) for name in source.names]
        if all(class_id == ignored or name == "background" for name, class_id in zip(source.names, table, strict=True)):
            raise DataError(
                f"label map: no class of '{source.name}' ({_abridged(source.names)}) becomes one of '{target.name}' "
                f"({_abridged(target.names)}); name pairs in a file, --map FILE.toml"
            )
        return cls(source, target, tuple(table))

    @classmethod
    def by_names_or_objects(cls, source: LabelSet, target: LabelSet) -> LabelMap:
        """Map by equal names, or where the objects of `target` are of any class every class to its `object`."""
        default = "object" if target.is_class_agnostic else "ignore"
        return cls.by_names(source, target, default=default)

    @classmethod
    def from_toml(cls, path: Path, source: LabelSet, target: LabelSet) -> LabelMap:
        """Read `[names]` ("source name" = "target name") and `default` from a file; see `by_names`.

        It may also name the `target` itself, see `target_of`.
        """
        stored = _read_toml(path, _TomlMap)
        try:
            return cls.by_names(source, target, names=stored.names, default=stored.default)
        except DataError as error:
            raise DataError(f"{path}: {error}") from None

    @staticmethod
    def target_of(path: Path) -> LabelSet | None:
        """What a map's file tells of its target: a published set's name, `[[class]]` as in a set's file, or nothing.

        Raises DataError for an unknown name, unsound classes, or both at once.
        """
        stored = _read_toml(path, _TomlMap)
        if stored.target is not None and stored.classes:
            raise DataError(f"{path}: target and [[class]] both define the classes; leave one of them out")
        try:
            if stored.classes:
                return _set_of(stored.classes, name=path.stem)
            return None if stored.target is None else published(stored.target)
        except DataError as error:
            raise DataError(f"{path}: target: {error}") from None

    def apply(self, class_ids: np.ndarray) -> np.ndarray:
        """Map ids of `source` to ids of `target`; what `source` ignores stays ignored."""
        table = np.array((*self.table, self.target.ignore_id), dtype=np.int32)
        ids = class_ids.astype(np.int64)
        mapped = table[np.where((ids < 0) | (ids >= len(self.source)), len(self.source), ids)]
        return mapped.astype(np.uint8 if len(self.target) <= 255 else np.int32)

    def rows(self) -> list[tuple[str, str]]:
        """The table as (source name, target name) pairs, for printing."""
        return [
            (name, self.target.names[target] if 0 <= target < len(self.target) else "ignore")
            for name, target in zip(self.source.names, self.table, strict=True)
        ]


def published(name: str) -> LabelSet:
    """The label set of a published data set, from the .toml file of that name beside this module.

    Raises DataError if there is none.
    """
    if name not in published_names():
        raise DataError(f"there is no label set '{name}'; there are {', '.join(published_names())}")
    with resources.as_file(resources.files("pixelwise.labels").joinpath(f"{name}.toml")) as path:
        return LabelSet.from_toml(path)


def published_names() -> tuple[str, ...]:
    """The label sets of published data sets that come with the package."""
    files = resources.files("pixelwise.labels").iterdir()
    return tuple(sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml")))


def voc_colour(index: int) -> Colour:
    """Colour `index` of PASCAL VOC's scheme: the bits of the index spread over the high bits of R, G and B."""
    red = green = blue = 0
    for bit in range(8):
        red |= (index & 1) << (7 - bit)
        green |= ((index >> 1) & 1) << (7 - bit)
        blue |= ((index >> 2) & 1) << (7 - bit)
        index >>= 3
    return red, green, blue


class _TomlClass(BaseModel):
    """One `[[class]]` of a label set's file."""

    model_config = ConfigDict(extra="forbid", strict=True)
    name: str
    id: int | None = None
    colour: Colour | None = Field(default=None, strict=False)
    thing: bool = False


def _set_of(classes: Sequence[_TomlClass], *, name: str, void_ids: tuple[int, ...] = (255,)) -> LabelSet:
    return LabelSet(
        name=name,
        names=tuple(entry.name for entry in classes),
        is_thing=tuple(entry.thing for entry in classes),
        palette=tuple(
            voc_colour(index) if entry.colour is None else entry.colour for index, entry in enumerate(classes)
        ),
        dataset_ids=tuple(index if entry.id is None else entry.id for index, entry in enumerate(classes)),
        void_ids=void_ids,
    )


class _TomlSet(BaseModel):
    """A label set's file."""

    model_config = ConfigDict(extra="forbid", strict=True)
    name: str | None = None
    void_ids: tuple[int, ...] = Field(default=(255,), strict=False)
    classes: tuple[_TomlClass, ...] = Field(alias="class", strict=False)


class _TomlMap(BaseModel):
    """A label map's file."""

    model_config = ConfigDict(extra="forbid", strict=True)
    names: dict[str, str] = {}
    default: str = "ignore"
    target: str | None = None
    classes: tuple[_TomlClass, ...] = Field(alias="class", default=(), strict=False)


class _JsonSet(BaseModel):
    """A label set in model.json, recipe.json and replies."""

    name: str
    names: tuple[str, ...]
    is_thing: tuple[bool, ...]
    palette: tuple[Colour, ...]
    dataset_ids: tuple[int, ...]
    void_ids: tuple[int, ...]


Content = TypeVar("Content", bound=BaseModel)


def _read_toml(path: Path, form: type[Content]) -> Content:
    try:
        return form.model_validate(read_toml(path))
    except ValidationError as error:
        raise DataError(f"{path}: {_first_fault(error)}") from None


def _first_fault(error: ValidationError) -> str:
    """The first thing that is wrong with a file's content: `class.3.colour: …`."""
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"


def _ranges(ids: tuple[int, ...]) -> str:
    parts: list[str] = []
    start = previous = None
    for value in (*sorted(ids), None):
        if previous is not None and value == previous + 1:
            previous = value
            continue
        if start is not None:
            parts.append(f"{start}" if start == previous else f"{start}-{previous}")
        start = previous = value
    return ", ".join(parts)


def _abridged(names: tuple[str, ...], limit: int = 24) -> str:
    shown = ", ".join(names[:limit])
    return f"{shown}, … {len(names) - limit} more" if len(names) > limit else shown
