"""What the numbers in a mask mean: label sets, and maps between them."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from pixelwise.errors import DataError

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class LabelSet:
    """The classes of a data set, a checkpoint, an exported file or a server's reply.

    Three kinds of id are kept apart. A *native id* is what a file on disk holds; a *class id* is ours,
    0…K-1 in the order of `names`, and the channel of the scores; `ignore_id` marks pixels nobody judges.

    Attributes:
        name: what errors and reports call the set, such as `voc`.
        names: the K class names, unique.
        is_thing: whether objects of the class can be counted; K claims.
        palette: K colours, RGB 0-255.
        native_ids: the id on disk of each class; K unique integers.
        void_ids: ids on disk that mean "not judged"; they become `ignore_id`.
    """

    name: str
    names: tuple[str, ...]
    is_thing: tuple[bool, ...]
    palette: tuple[Colour, ...]
    native_ids: tuple[int, ...]
    void_ids: tuple[int, ...] = (255,)

    def __post_init__(self) -> None:
        count = len(self.names)
        for field in ("is_thing", "palette", "native_ids"):
            if len(getattr(self, field)) != count:
                raise DataError(
                    f"label set '{self.name}': {len(getattr(self, field))} values in {field} for {count} names"
                )
        for field in ("names", "native_ids"):
            values = getattr(self, field)
            repeated = sorted({str(value) for value in values if values.count(value) > 1})
            if repeated:
                raise DataError(f"label set '{self.name}': {', '.join(repeated)} stands more than once in {field}")
        both = sorted(set(self.native_ids) & set(self.void_ids))
        if both:
            raise DataError(f"label set '{self.name}': ids {both} are both a class and void")

    @classmethod
    def from_names(cls, name: str, names: tuple[str, ...] | list[str]) -> LabelSet:
        """A set whose ids on disk are 0…K-1 and 255 for void, in the colours of PASCAL VOC's scheme."""
        count = len(names)
        return cls(
            name=name,
            names=tuple(names),
            is_thing=(False,) * count,
            palette=tuple(voc_colour(index) for index in range(count)),
            native_ids=tuple(range(count)),
        )

    @classmethod
    def from_toml(cls, path: Path) -> LabelSet:
        """Read a set from a file: `name`, `void_ids`, and one `[[class]]` each with `name`, `id`, `colour`, `thing`.

        Only the class names are required. Raises DataError naming the file.
        """
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise DataError(f"{path}: not a readable TOML file ({error})") from None
        classes = content.get("class")
        if not isinstance(classes, list) or not all(isinstance(entry, dict) and "name" in entry for entry in classes):
            raise DataError(f"{path}: a label set needs one [[class]] with a name for each class")
        try:
            return cls(
                name=str(content.get("name", path.stem)),
                names=tuple(str(entry["name"]) for entry in classes),
                is_thing=tuple(bool(entry.get("thing", False)) for entry in classes),
                palette=tuple(
                    _colour(entry.get("colour", voc_colour(index)), path) for index, entry in enumerate(classes)
                ),
                native_ids=tuple(int(entry.get("id", index)) for index, entry in enumerate(classes)),
                void_ids=tuple(int(value) for value in content.get("void_ids", (255,))),
            )
        except (TypeError, ValueError) as error:
            raise DataError(f"{path}: {error}") from None

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> LabelSet:
        """The inverse of `to_json`. Raises DataError when a field is missing or of the wrong kind."""
        try:
            return cls(
                name=str(content["name"]),
                names=tuple(str(value) for value in content["names"]),
                is_thing=tuple(bool(value) for value in content["is_thing"]),
                palette=tuple(_colour(value, "model.json") for value in content["palette"]),
                native_ids=tuple(int(value) for value in content["native_ids"]),
                void_ids=tuple(int(value) for value in content["void_ids"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"label set: {error!r} in its JSON form") from None

    def to_json(self) -> dict[str, Any]:
        """Plain lists and strings, for model.json, recipe.json and replies."""
        return {
            "name": self.name,
            "names": list(self.names),
            "is_thing": list(self.is_thing),
            "palette": [list(colour) for colour in self.palette],
            "native_ids": list(self.native_ids),
            "void_ids": list(self.void_ids),
        }

    def __len__(self) -> int:
        return len(self.names)

    @property
    def ignore_id(self) -> int:
        """The class id of pixels nobody judges: 255, or -1 where 255 is needed for a class."""
        return 255 if len(self) <= 255 else -1

    @property
    def background_id(self) -> int | None:
        """The class that means "none of the others", if the set has one; it is not drawn."""
        return self.names.index("background") if "background" in self.names else None

    def describe_ids(self) -> str:
        """The ids that may stand in a file, as ranges: `0-10, 11 = void`."""
        classes = _ranges(self.native_ids)
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

    def class_ids(self, native: np.ndarray, *, source: str) -> np.ndarray:
        """Turn a map of ids on disk into class ids.

        Args:
            native: integers of any shape, as read from the file.
            source: the file, named in the error.

        Returns:
            u8 of the same shape (i32 where K > 255), void as `ignore_id`.

        Raises:
            DataError: a value is neither a class nor void; names the value, how often it stands, and the mend.
        """
        low, high = min(*self.native_ids, *self.void_ids), max(*self.native_ids, *self.void_ids)
        unknown = -2
        table = np.full(high - low + 1, unknown, dtype=np.int32)
        table[np.array(self.native_ids) - low] = np.arange(len(self))
        if self.void_ids:
            table[np.array(self.void_ids) - low] = self.ignore_id
        values = native.astype(np.int64) - low
        outside = (values < 0) | (values >= table.size)
        ids = np.where(outside, unknown, table[np.where(outside, 0, values)])
        if (ids == unknown).any():
            strange, counts = np.unique(native[ids == unknown], return_counts=True)
            raise DataError(
                f"{source}: value {strange[0]} ({counts[0]:,} pixels) is not in LabelSet '{self.name}' "
                f"({self.describe_ids()}); {len(strange)} unknown value(s) in all; "
                "is this a colour mask, or another label set?"
            )
        return ids.astype(np.uint8 if len(self) <= 255 else np.int32)

    def native_of(self, class_ids: np.ndarray) -> np.ndarray:
        """Turn class ids into ids on disk, i32; `ignore_id` becomes the first void id (255 if there is none)."""
        table = np.full(len(self) + 1, self.void_ids[0] if self.void_ids else 255, dtype=np.int32)
        table[: len(self)] = self.native_ids
        ids = class_ids.astype(np.int64)
        return table[np.where((ids < 0) | (ids >= len(self)), len(self), ids)]


@dataclass(frozen=True)
class LabelMap:
    """How the classes of one set become those of another.

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
        cls, source: LabelSet, target: LabelSet, names: Mapping[str, str] | None = None, default: str = "ignore"
    ) -> LabelMap:
        """Map equal names, then `names` (source name → target name), and all the others to `default`.

        `ignore` is a target name that every set has. Raises DataError when a name is in neither set.
        """
        names = names or {}
        for name in names:
            if name not in source.names:
                raise DataError(f"label map: '{name}' is not in '{source.name}' ({', '.join(source.names)})")

        def target_id(name: str) -> int:
            if name == "ignore":
                return target.ignore_id
            if name not in target.names:
                raise DataError(f"label map: '{name}' is not in '{target.name}' ({', '.join(target.names)})")
            return target.names.index(name)

        table = [target_id(names.get(name, name if name in target.names else default)) for name in source.names]
        return cls(source, target, tuple(table))

    @classmethod
    def from_toml(cls, path: Path, source: LabelSet, target: LabelSet) -> LabelMap:
        """Read `[names]` ("source name" = "target name") and `default` from a file; see `by_names`."""
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise DataError(f"{path}: not a readable label map ({error})") from None
        names = content.get("names", {})
        if not isinstance(names, dict):
            raise DataError(f"{path}: [names] must map source names to target names")
        try:
            return cls.by_names(source, target, names, str(content.get("default", "ignore")))
        except DataError as error:
            raise DataError(f"{path}: {error}") from None

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
    """The label set of a published data set, from the .toml file of that name beside this module."""
    with resources.as_file(resources.files(__package__).joinpath(f"{name}.toml")) as path:
        return LabelSet.from_toml(path)


def voc_colour(index: int) -> Colour:
    """Colour `index` of PASCAL VOC's scheme: the bits of the index spread over the high bits of R, G and B."""
    red = green = blue = 0
    for bit in range(8):
        red |= (index & 1) << (7 - bit)
        green |= ((index >> 1) & 1) << (7 - bit)
        blue |= ((index >> 2) & 1) << (7 - bit)
        index >>= 3
    return red, green, blue


def _colour(value: Any, source: Path | str) -> Colour:
    values = tuple(int(channel) for channel in value)
    if len(values) != 3 or not all(0 <= channel <= 255 for channel in values):
        raise DataError(f"{source}: a colour is three numbers 0-255, not {list(values)}")
    return values[0], values[1], values[2]


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
