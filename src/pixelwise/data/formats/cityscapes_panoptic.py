"""Cityscapes in COCO's panoptic form: gtFine/cityscapes_panoptic_SPLIT.json and the folder of that name with PNGs.

    PATH/
    ├── leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png
    └── gtFine/
        ├── cityscapes_panoptic_train.json
        └── cityscapes_panoptic_train/aachen_000000_000019_gtFine_panoptic.png

It is what the set's own createPanopticImgs writes: categories are labelIds (with `_trainId` in the name: trainIds,
which is a split of its own), a segment's id is labelId · 1000 + number, and labelId alone for stuff and for groups,
which are crowds; all other ids are void, 0. The image of an entry is leftImg8bit/SPLIT/CITY/ID_leftImg8bit.png, PNG or
JPEG. The format cityscapes makes the same of instanceIds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from pixelwise.data.formats.coco_panoptic.listing import PanopticFiles, panoptic_listing
from pixelwise.data.kinds.coco_json import Entry
from pixelwise.data.kinds.folders import in_reading_order, require_split
from pixelwise.data.listing import Listing
from pixelwise.data.spec import Format
from pixelwise.errors import DataError

OPTIONS: Mapping[str, str] = {
    "masks": "the folder of the JSON files and of the folders of PNGs, instead of gtFine/",
}

_PREFIX = "cityscapes_panoptic_"
"""What the names of the JSON files begin with."""

_TRAIN_IDS = "_trainId"
"""What the names of those with trainIds end with."""


def splits(path: Path, options: Mapping[str, str]) -> tuple[str, ...]:
    """What stands between `cityscapes_panoptic_` and `.json`."""
    folder = path / options.get("masks", "gtFine")
    found = in_reading_order(file.stem.removeprefix(_PREFIX) for file in folder.glob(f"{_PREFIX}*.json"))
    if not found:
        raise DataError(
            f"{path}: no {folder.name}/{_PREFIX}SPLIT.json in it; createPanopticImgs of Cityscapes' scripts writes "
            "it, and the format cityscapes reads instanceIds without it"
        )
    return found


def list_split(path: Path, split: str, options: Mapping[str, str]) -> Listing:
    """The images of one JSON file. Raises DataError for a malformed file, or no such split."""
    require_split(split, splits(path, options), source=path)
    json = path / options.get("masks", "gtFine") / f"{_PREFIX}{split}.json"
    folder = path / "leftImg8bit" / split.removesuffix(_TRAIN_IDS)
    return panoptic_listing(PanopticFiles(path, json, json.with_suffix(""), partial(_same, folder), _image_in))


def _same(folder: Path, images: Sequence[Entry]) -> Path:  # noqa: ARG001
    return folder


def _image_in(folder: Path, image: Entry) -> Path:
    """The file of an image, which its entry does not name rightly: ID_gtFine_leftImg8bit.png."""
    id = str(image["id"])
    stem = folder / id.partition("_")[0] / f"{id}_leftImg8bit"
    found = (stem.with_suffix(suffix) for suffix in (".png", ".jpg", ".jpeg"))
    return next((file for file in found if file.is_file()), stem.with_suffix(".png"))


FORMAT = Format(OPTIONS, splits, list_split, copies_are_lists=True)
