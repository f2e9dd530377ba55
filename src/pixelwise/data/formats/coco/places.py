"""The JSON file of a split of COCO instances, and the files of its images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pixelwise.data.formats.coco import layout
from pixelwise.data.kinds.coco_json import Entry, image_name
from pixelwise.errors import DataError
from pixelwise.files.lookup import find_files, posix_name

PREFIX = "instances_"
"""What the names of the JSON files begin with."""


def annotation_file(path: Path, split: str, options: Mapping[str, str]) -> Path:
    """The JSON file of a split. Raises DataError when there is none, or more than one that it could be."""
    if "classes" in options:
        raise DataError(f"coco: classes={options['classes']}; it is an option of a set that is written")
    if "annotations" in options:
        return path / options["annotations"]
    return layout.json_file(path, split, PREFIX)


def image_files(path: Path, split: str, options: Mapping[str, str], images: Sequence[Entry]) -> tuple[Path, ...]:
    """The files that the entries name, in the folder of the split. Raises DataError when there is no such folder."""
    folder = image_folder(path, split, options, images)
    names = [image_name(image) or "" for image in images]
    found = find_files(names, [folder, path], below=None if folder == path else folder)
    return tuple(file or folder / posix_name(name) for name, file in zip(names, found, strict=True))


def image_folder(path: Path, split: str, options: Mapping[str, str], images: Sequence[Entry]) -> Path:
    """The folder that the names of the entries start from. Raises DataError when there is none."""
    names = [image_name(image) or "" for image in images]
    file = annotation_file(path, split, options)
    year = file.stem.removeprefix(PREFIX)
    return layout.image_folder(path, split, year, option=options.get("images"), names=names, file=file)
