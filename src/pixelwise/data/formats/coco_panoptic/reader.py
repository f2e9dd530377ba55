"""Reading COCO panoptic; see the package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from pixelwise.data.formats.coco import layout as coco_layout
from pixelwise.data.formats.coco_panoptic.listing import PanopticFiles, panoptic_listing
from pixelwise.data.formats.coco_panoptic.writer import PanopticWriter, panoptic_labels
from pixelwise.data.kinds.class_masks_writer import writable_labels
from pixelwise.data.kinds.coco_json import Entry
from pixelwise.data.kinds.folders import stored_labels
from pixelwise.data.listing import Listing
from pixelwise.errors import DataError
from pixelwise.files.lookup import find_file, posix_name
from pixelwise.labels import LabelSet

OPTIONS: Mapping[str, str] = {
    "json": "a JSON file in the folder, instead of annotations/panoptic_SPLIT*.json",
    "masks": "the folder of PNGs, instead of the one named as the JSON",
    "images": "the folder of images, instead of SPLIT*/",
    "labels": "a published label set, or a .txt or .toml file in the folder, instead of the categories",
    "encoding": "2channel where R is the class and G the number of the object; ids without it",
}

_PREFIX = "panoptic_"
"""What the names of the JSON files begin with."""


def splits(path: Path, options: Mapping[str, str]) -> tuple[str, ...]:
    """What stands between `panoptic_` and `.json`, without the year where that leaves it clear."""
    return ("all",) if "json" in options else coco_layout.splits(path, _PREFIX)


def list_split(path: Path, split: str, options: Mapping[str, str]) -> Listing:
    """The images of one JSON file. Raises DataError for a malformed file, or a missing folder."""
    return panoptic_listing(files_of(path, split, options))


def files_of(path: Path, split: str, options: Mapping[str, str]) -> PanopticFiles:
    """Where a split lies. Raises DataError where its JSON or a folder is missing."""
    json = _json(path, split, options)
    stored = stored_labels(path, options) if "labels" in options else None
    return PanopticFiles(
        path,
        json,
        _maps(path, json, options),
        partial(image_folder, path, split, options),
        _image_in,
        is_two_channel(options),
        None if stored is None else stored[0],
        {name: options[name] for name in ("labels",) if name in options},
    )


def _image_in(folder: Path, image: Entry) -> Path:
    name = image["file_name"]
    return find_file(name, [folder]) or folder / posix_name(name)


def image_folder(path: Path, split: str, options: Mapping[str, str], images: Sequence[Entry]) -> Path:
    """The folder that the names of the entries start from. Raises DataError when there is none."""
    year = _json(path, split, options).stem.removeprefix(_PREFIX)
    names = [str(image.get("file_name")) for image in images]
    return coco_layout.image_folder(path, split, year, option=options.get("images"), names=names)


def writer(options: Mapping[str, str], source: LabelSet) -> PanopticWriter:
    """Writes a set of this format; see `data.formats.coco_panoptic.writer`."""
    labels = writable_labels(options, source=source, default=None)
    return PanopticWriter(panoptic_labels(labels), two_channels=is_two_channel(options))


def is_two_channel(options: Mapping[str, str]) -> bool:
    """What the option `encoding` says. Raises DataError for another value than 2channel."""
    encoding = options.get("encoding")
    if encoding not in (None, "2channel"):
        raise DataError(f"coco-panoptic: encoding={encoding}; expected 2channel, or nothing")
    return encoding is not None


def _json(path: Path, split: str, options: Mapping[str, str]) -> Path:
    return path / options["json"] if "json" in options else coco_layout.json_file(path, split, _PREFIX)


def _maps(path: Path, json: Path, options: Mapping[str, str]) -> Path:
    """The folder of PNGs: named by an option, or after the JSON, beside it or in the folder of the set."""
    if "masks" in options:
        folder = path / options["masks"]
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder, named by ?masks={options['masks']}")
        return folder
    found = next((folder for folder in (json.with_suffix(""), path / json.stem) if folder.is_dir()), None)
    if found is None:
        raise DataError(f"{json.with_suffix('')}: no such folder with the PNGs of {json.name}; name it by ?masks=…")
    return found
