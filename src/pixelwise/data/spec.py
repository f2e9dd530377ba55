"""How data sets are named on the command line, `FORMAT:PATH[@SPLIT][?option=value&…]`, and opened.

A format is a module or package of `pixelwise.data.formats`, found by its name (`instance-masks` is `instance_masks`);
what it states is `Format`.

The text after the last `@` is the split, unless it holds a slash: a folder `photos@2x` is written `photos@2x/`. What
follows the first `?` are options; in their values `%26` stands for `&` and `%25` for `%`. A folder with `?` in its name
cannot be written.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote

from pixelwise.data import proposals
from pixelwise.data.dataset import Dataset, open_listing
from pixelwise.data.kinds.writing import MakeWriter
from pixelwise.data.listing import Listing
from pixelwise.data.proposals import Proposed
from pixelwise.errors import DataError

FORMATS = Path(__file__).with_name("formats")
"""The folder with a module of each."""


@dataclass(frozen=True)
class DataSpec:
    """A parsed specification.

    Attributes:
        format: such as `voc`.
        path: as written, without a slash at the end.
        split: such as `train`, or None where it was left open.
        options: name and value of each, in order.
    """

    format: str
    path: str
    split: str | None = None
    options: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> DataSpec:
        """Parse a specification; nothing is read. Raises DataError for text of another form."""
        format, colon, rest = text.partition(":")
        if not colon or not format or not rest:
            raise DataError(
                f"'{text}' is not a data set; expected FORMAT:PATH[@SPLIT][?option=value&…], "
                f"such as masks:./scans@train (formats: {', '.join(format_names())})"
            )
        location, question, query = rest.partition("?")
        path, at, split = location.rpartition("@")
        if not at or "/" in split:
            path, split = location, None
        if split == "":
            raise DataError(f"'{text}': nothing follows the @; expected a split, such as @train")
        path = path.rstrip("/") or path[:1]
        if not path:
            raise DataError(f"'{text}': no folder between {format}: and what follows")
        return cls(format, path, split, tuple(_options(text, query)) if question else ())

    def __str__(self) -> str:
        """The text that parses to this value."""
        last_name = self.path.rpartition("/")[2]
        slash = "/" if self.split is None and "@" in last_name else ""
        split = f"@{self.split}" if self.split is not None else ""
        query = "&".join(f"{name}={value.replace('%', '%25').replace('&', '%26')}" for name, value in self.options)
        return f"{self.format}:{self.path}{slash}{split}{'?' + query if query else ''}"


ListSplit = Callable[[Path, str, Mapping[str, str]], Listing]
"""Lists one split of a folder, without reading an image. Raises DataError where nothing of it can be read."""

ListSplits = Callable[[Path, Mapping[str, str]], tuple[str, ...]]
"""The splits that a folder has, train first. Raises DataError if the folder has another layout."""


@dataclass(frozen=True)
class Format:
    """What each module of `pixelwise.data.formats` states, as `FORMAT`.

    Attributes:
        options: the options a specification may have, and the meaning of each.
        splits: names the splits.
        list_split: lists one of them.
        writer: makes a writer; None of a format that is only read.
        takes: the options that a new set may have.
        numbered_ids: whether ids are numbers in a list, so that names of files say more.
        synthetic: whether images are not those of their files.
        shared_images: whether an image may stand in several splits, which are lists.
        copies_are_lists: whether a repaired copy is a file that lists images where they are.
    """

    options: Mapping[str, str]
    splits: ListSplits
    list_split: ListSplit
    writer: MakeWriter | None = None
    takes: tuple[str, ...] = ()
    numbered_ids: bool = False
    synthetic: bool = False
    shared_images: bool = False
    copies_are_lists: bool = False


def format_names() -> tuple[str, ...]:
    """The formats there are, as they are written in a specification."""
    modules = pkgutil.iter_modules([str(FORMATS)])
    return tuple(sorted(module.name.replace("_", "-") for module in modules))


def format_of(spec: DataSpec) -> Format:
    """The module of the format. Raises DataError for an unknown format or option, with the known ones."""
    known = format_names()
    if spec.format not in known:
        raise DataError(f"data format '{spec.format}' is not known; there are {', '.join(known)}")
    format = format_named(spec.format)
    known_options = {**format.options, proposals.OPTION: proposals.MEANING}
    for name, _ in spec.options:
        if name not in known_options:
            valid = ", ".join(f"{option} ({meaning})" for option, meaning in known_options.items())
            raise DataError(f"{spec}: {spec.format} has no option '{name}'; it has {valid}")
    return format


def format_named(name: str) -> Format:
    """A format that there is, by its name in specifications."""
    module = importlib.import_module(f"{__package__}.{FORMATS.name}.{name.replace('-', '_')}")
    return module.FORMAT


def folder_of(spec: DataSpec) -> Path:
    """The folder of the specification, `~` expanded. Raises DataError if it is not there."""
    path = Path(spec.path).expanduser()
    if path.is_file():
        raise DataError(f"{spec}: {path} is a file; expected the folder of the data set")
    if not path.is_dir():
        there = next(parent for parent in path.absolute().parents if parent.is_dir())
        raise DataError(f"{spec}: no folder {path}; of its path {there} is there")
    return path


def splits_of(spec: DataSpec | str) -> tuple[str, ...]:
    """The splits of a data set, train first. Raises DataError if it is not a set of its format."""
    spec = DataSpec.parse(spec) if isinstance(spec, str) else spec
    format = format_of(spec)
    return format.splits(folder_of(spec), dict(spec.options))


def open_dataset(spec: DataSpec | str, *, default_split: str) -> Dataset:
    """Open one split of a data set.

    Args:
        spec: the specification.
        default_split: taken where the specification names none.

    Raises:
        DataError: unknown format, option or split, no such folder, or a folder of another layout.
    """
    spec = DataSpec.parse(spec) if isinstance(spec, str) else spec
    format, path, options = format_of(spec), folder_of(spec), dict(spec.options)
    spec = replace(spec, split=spec.split or default_split)
    listing = format.list_split(path, str(spec.split), options)
    dataset = open_listing(listing, name=str(spec), format=spec.format)
    place = options.get(proposals.OPTION)
    if place is None:
        return dataset
    return Proposed(dataset, proposals.proposal_files(path, place, split=str(spec.split)))


def _options(text: str, query: str) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for part in query.split("&"):
        name, equals, value = part.partition("=")
        if not name or not equals:
            raise DataError(f"'{text}': after the ? stands '{part}'; expected option=value, several joined by &")
        if name in seen:
            raise DataError(f"'{text}': option '{name}' occurs more than once")
        seen.add(name)
        yield name, unquote(value)
