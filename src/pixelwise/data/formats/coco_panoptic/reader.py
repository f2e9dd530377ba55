"""COCO panoptic: annotations/panoptic_SPLIT*.json, annotations/panoptic_SPLIT*/ with PNGs, SPLIT*/ with images.

In a PNG id = R + 256·G + 65536·B is the segment of a pixel, 0 = void; the JSON lists the segments of each image with
their categories. `?encoding=2channel` reads PNGs that hold the class in R and the number of the object in G (see
`data.kinds.segment_maps`); then the JSON need only have images and categories.

`?json=FILE`, `?masks=FOLDER` and `?images=FOLDER` name what lies elsewhere: a JSON `examples.json` has its PNGs in
`examples/`, if `masks` does not say otherwise. Where the categories are those of COCO 2018 or of Cityscapes, the label
set is the published one; else it is made from them. Images without annotation are left out, and a note counts them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pixelwise.data.formats.coco import layout as coco_layout
from pixelwise.data.formats.coco_panoptic import dataset as panoptic_pairs
from pixelwise.data.formats.coco_panoptic.dataset import PanopticFiles, PanopticPairs
from pixelwise.data.formats.coco_panoptic.writer import PanopticWriter, panoptic_labels
from pixelwise.data.kinds.class_masks_writer import writable_labels
from pixelwise.data.kinds.coco_json import Entry
from pixelwise.data.kinds.faults import SplitReport
from pixelwise.data.kinds.folders import stored_labels
from pixelwise.errors import DataError
from pixelwise.files.parallel import Progress
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


def open_split(path: Path, split: str, options: Mapping[str, str], *, name: str) -> PanopticPairs:
    """The images of one JSON file. Raises DataError for a malformed file, an unusable entry, a missing file."""
    return panoptic_pairs.open_pairs(files_of(path, split, options), name=name, format="coco-panoptic")


def check_split(path: Path, split: str, options: Mapping[str, str], *, workers: int, progress: Progress) -> SplitReport:
    """Look at every entry of the JSON, read every image and every PNG; report every fault."""
    files = files_of(path, split, options)
    return panoptic_pairs.check_pairs(files, split=split, format="coco-panoptic", workers=workers, progress=progress)


def files_of(path: Path, split: str, options: Mapping[str, str]) -> PanopticFiles:
    """Where a split lies. Raises DataError where its JSON or a folder is missing."""
    json = _json(path, split, options)

    def find_images(images: Sequence[Entry]) -> tuple[Path, ...]:
        folder = image_folder(path, split, options, images)
        return tuple(folder / image["file_name"] for image in images)

    stored = stored_labels(path, options) if "labels" in options else None
    labels = None if stored is None else stored[0]
    return PanopticFiles(json, _maps(path, json, options), find_images, is_two_channel(options), labels)


def image_folder(path: Path, split: str, options: Mapping[str, str], images: Sequence[Entry]) -> Path:
    """The folder that the names of the entries start from. Raises DataError when there is none."""
    year = _json(path, split, options).stem.removeprefix(_PREFIX)
    names = [str(image.get("file_name")) for image in images]
    return coco_layout.image_folder(path, split, year, wanted=options.get("images"), names=names)


def writer(options: Mapping[str, str], source: LabelSet) -> PanopticWriter:
    """Writes a set of this format; see `data.formats.coco_panoptic.writer`."""
    strange = next((name for name in options if name not in ("encoding", "labels")), None)
    if strange is not None:
        raise DataError(f"coco-panoptic: a new set takes no option {strange}; it takes encoding=2channel and labels")
    labels = writable_labels(options, source=source, default=None)
    return PanopticWriter(panoptic_labels(labels), two_channels=is_two_channel(options))


def is_two_channel(options: Mapping[str, str]) -> bool:
    """What the option `encoding` says. Raises DataError for another value than 2channel."""
    encoding = options.get("encoding")
    if encoding not in (None, "2channel"):
        raise DataError(f"coco-panoptic: encoding={encoding}; 2channel is wanted, or nothing")
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
