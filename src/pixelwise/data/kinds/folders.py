"""What the formats that are folders of files share: listing, pairing by name, and label files."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path

from pixelwise.data.dataset import is_there as is_there
from pixelwise.data.listing import Item
from pixelwise.errors import DataError
from pixelwise.files.images import IMAGE_SUFFIXES
from pixelwise.files.text import read_lines, read_text
from pixelwise.labels import Colour, LabelSet, published

EVERY_FIFTH = "the set has no splits: every fifth pair by name is val, the others are train"
"""The note of a set whose pairs `divided` deals out."""

_EVERY = 5

LABEL_FILES = ("labels.toml", "labels.txt", "labelmap.txt")
"""What says in the folder of a set what ids, or colours, mean; the first that is there."""

UNIONS = ("trainval", "all")
"""Splits that are made of others, by the custom of VOC, and may share images with them."""

FilesByStem = Mapping[str, tuple[Path, ...]]
"""Name without suffix → the files of that name, which should be one."""


def item_of(id: str, images: FilesByStem, masks: FilesByStem) -> Item:
    """What two folders hold under a name."""
    of_image, of_mask = images.get(id, ()), masks.get(id, ())
    return Item(
        id,
        image=of_image[0] if of_image else None,
        truth=of_mask[0] if of_mask else None,
        rivals=(*of_image[1:], *of_mask[1:]),
    )


def list_images(folder: Path) -> list[Path]:
    """The image files of a folder by name; hidden files and other suffixes are skipped.

    Raises DataError when the folder cannot be listed.
    """
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder}: {(error.strerror or str(error)).lower()}") from None
    return [path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")]


def by_stem(folder: Path, *, suffix: str = "") -> FilesByStem:
    """The image files of a folder by their names without the file suffix and without `suffix` before it.

    Files whose names lack `suffix` are skipped.
    """
    found: dict[str, tuple[Path, ...]] = {}
    for path in list_images(folder):
        if path.stem.endswith(suffix):
            stem = path.stem.removesuffix(suffix)
            found[stem] = (*found.get(stem, ()), path)
    return found


def pair_folders(images: Path, masks: Path, *, suffix: str = "") -> tuple[Item, ...]:
    """Every image and every mask of two folders, paired by name, in order of the names.

    Args:
        images: the folder of images.
        masks: the folder of masks; may be the same folder if there is a suffix.
        suffix: what a mask's name has after the image's, such as `_mask`.
    """
    masks_of = by_stem(masks, suffix=suffix)
    images_of = by_stem(images)
    if images == masks and suffix:
        images_of = {stem: paths for stem, paths in images_of.items() if not stem.endswith(suffix)}
    ids = sorted(images_of.keys() | masks_of.keys())
    return tuple(item_of(id, images_of, masks_of) for id in ids)


def divided(entries: Sequence[Item], split: str) -> tuple[Item, ...]:
    """The entries of `train` or `val` of a set without splits: of the pairs by name every fifth is val."""
    whole = [entry for entry in entries if entry.image and entry.truth]
    val = {entry.id for entry in whole[_EVERY - 1 :: _EVERY]}
    return tuple(entry for entry in entries if (entry.id in val) == (split == "val"))


def content_keys(images: Iterable[Path]) -> dict[Path, bytes | Path]:
    """For each file a key that files of the same bytes have in common, and no others.

    Only files whose length another has too are read.
    """
    there = {image: image.stat().st_size for image in images if os.path.isfile(image)}
    lengths = Counter(there.values())
    return {image: _content_key(image) if length and lengths[length] > 1 else image for image, length in there.items()}


def _content_key(image: Path) -> bytes | Path:
    """A key of its bytes, or of the file itself where they cannot be read."""
    try:
        return hashlib.blake2b(image.read_bytes()).digest()
    except OSError:
        return image


def annot_splits(path: Path) -> tuple[str, ...]:
    """The splits of the layout with SPLIT/ and SPLITannot/ side by side."""
    if not path.is_dir():
        return ()
    return in_reading_order(
        folder.name.removesuffix("annot")
        for folder in path.iterdir()
        if folder.name.endswith("annot")
        and folder.name != "annot"
        and folder.is_dir()
        and (path / folder.name.removesuffix("annot")).is_dir()
    )


def require_split(split: str, splits: Sequence[str], *, source: Path | str) -> None:
    """Raise DataError with the splits there are unless `split` is one of them."""
    if split not in splits:
        raise DataError(f"{source}: no split '{split}'; there are {', '.join(splits) or 'none'}")


def in_reading_order(splits: Iterable[str]) -> tuple[str, ...]:
    """Train before val before test, then the others by name."""
    order = ("train", "val", "test")
    return tuple(sorted(splits, key=lambda split: (order.index(split) if split in order else len(order), split)))


def published_names() -> tuple[str, ...]:
    """The label sets that come with the package."""
    files = resources.files("pixelwise.labels").iterdir()
    return tuple(sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml")))


def labels_for(path: Path, options: Mapping[str, str], *, default: str | None = None) -> LabelSet:
    """The label set of a folder: the option `labels`, else its own labels.toml or labels.txt, else `default`.

    Args:
        path: the folder of the data set.
        options: of the specification; `labels` is the name of a published set, or a file, relative to `path`.
        default: a published set, or None where there is no natural one.

    Raises:
        DataError: there is none, or the file is faulty; tells what can be written.
    """
    stored = stored_labels(path, options)
    if stored is not None:
        return stored[0]
    if default:
        return published(default)
    raise DataError(
        f"{path}: no labels.txt and no labels.toml says what the ids in the masks mean; write labels.txt with one "
        f"class name a line (the first is id 0), or add ?labels={'|'.join(published_names())} to the specification"
    )


def stored_labels(path: Path, options: Mapping[str, str]) -> tuple[LabelSet, bool] | None:
    """The label set that the option `labels`, or labels.toml or labels.txt in the folder, says; None without them.

    With it, whether it is a list of names alone. Raises DataError for a faulty file.
    """
    named_labels = options.get("labels")
    if named_labels in published_names():
        return published(named_labels), False
    file = _label_file(path, options)
    return None if file is None else (read_labels(file), file.suffix != ".toml")


def names_colours(path: Path, options: Mapping[str, str]) -> bool:
    """Whether the label file of a folder is CVAT's labelmap.txt, so that masks hold its colours."""
    file = _label_file(path, options)
    return file is not None and file.suffix == ".txt" and file.is_file() and _colour_lines(read_lines(file)) is not None


def _label_file(path: Path, options: Mapping[str, str]) -> Path | None:
    """The file that the option `labels` names, else the first that is there."""
    named_labels = options.get("labels")
    if named_labels in published_names():
        return None
    if named_labels:
        return path / named_labels
    return next((path / name for name in LABEL_FILES if (path / name).exists()), None)


def labels_toml(labels: LabelSet) -> str:
    """The text of a label file that reads back as the same set."""
    lines = [f"name = {json.dumps(labels.name, ensure_ascii=False)}", f"void_ids = {list(labels.void_ids)}"]
    classes = zip(labels.names, labels.dataset_ids, labels.palette, labels.is_thing, strict=True)
    for name, id, colour, is_thing in classes:
        quoted = json.dumps(name, ensure_ascii=False).replace("\x7f", "\\u007f")  # the one that TOML has and JSON not
        lines += ["", "[[class]]", f"name = {quoted}", f"id = {id}", f"colour = {list(colour)}"]
        lines.append(f"thing = {str(is_thing).lower()}")
    return "\n".join(lines) + "\n"


def read_labels(path: Path) -> LabelSet:
    """A label set from a .toml file (see LabelSet.from_toml) or from a text file with one name a line, ids from 0.

    CVAT's labelmap.txt (`name:r,g,b:parts:actions`) and Roboflow's _classes.csv (`Pixel Value, Class`) are read too.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such label file; published label sets are {', '.join(published_names())}")
    if path.suffix == ".toml":
        return LabelSet.from_toml(path)
    lines = read_text(path).rstrip().split("\n")
    coloured = _colour_lines(lines)
    if coloured is not None:
        return _numbered([*enumerate(name for name, _ in coloured)], [colour for _, colour in coloured], path)
    if path.suffix == ".csv":
        return _numbered(_csv_lines(lines, path), None, path)
    names = [name.strip() for name in lines]
    if names == [""]:
        raise DataError(f"{path}: no class names in it; expected one a line, the first is id 0")
    if "" in names:
        raise DataError(f"{path}: line {names.index('') + 1} is empty; every line is a class, the first is id 0")
    try:
        return LabelSet.from_names(path.resolve().parent.name, names)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


_COLOUR_LINE = re.compile(r"(?P<name>[^:#]+):(?P<colour>\d+,\d+,\d+):[^:]*:[^:]*")


def _colour_lines(lines: Sequence[str]) -> list[tuple[str, Colour]] | None:
    """Names and colours of CVAT's labelmap.txt; None of another file."""
    found = [_COLOUR_LINE.fullmatch(line.strip()) for line in lines if line.strip() and not line.startswith("#")]
    coloured: list[tuple[str, Colour]] = []
    for one in found:
        if one is None:
            return None
        red, green, blue = map(int, one["colour"].split(","))
        coloured.append((one["name"].strip(), (red, green, blue)))
    return coloured or None


def _csv_lines(lines: Sequence[str], path: Path) -> list[tuple[int, str]]:
    """Ids and names of a list of both. Raises DataError for another list."""
    pairs = [line.split(",", 1) for line in lines[1:]]
    if not pairs or not all(len(pair) == 2 and pair[0].strip().isdecimal() and pair[1].strip() for pair in pairs):
        raise DataError(f"{path}: expected a line 'Pixel Value, Class' and below it an id and a name on each line")
    return [(int(id), name.strip()) for id, name in pairs]


def _numbered(pairs: Sequence[tuple[int, str]], palette: Sequence[Colour] | None, path: Path) -> LabelSet:
    """The label set of ids and names, and perhaps colours. Raises DataError, beginning with the file."""
    try:
        plain = LabelSet.from_names(path.resolve().parent.name, [name for _, name in pairs])
        ids = tuple(id for id, _ in pairs)
        void = next(id for id in (255, 65535) if id not in ids)
        return replace(plain, dataset_ids=ids, void_ids=(void,), palette=tuple(palette or plain.palette))
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
