"""ADE20K in the SceneParsing layout: images/training/NAME.jpg and annotations/training/NAME.png, and `validation`.

    PATH/
    ├── images/
    │   ├── training/ADE_train_00000001.jpg
    │   └── validation/ADE_val_00000001.jpg
    └── annotations/
        ├── training/ADE_train_00000001.png    0 is unlabelled, 1-150 are classes
        └── validation/ADE_val_00000001.png

PATH is ADEChallengeData2016, or the folder around it. A mask's 0 is unlabelled, 1-150 are the classes. The splits are
`train` and `val`; `training` and `validation` are understood too. Where images/ and annotations/ hold the files
themselves, their names tell the split (`ADE_val_00000001`); if one does not, every fifth pair by name is val. Without a
label file of its own the set has the 150 classes of the challenge.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pixelwise.data.kinds.class_masks import mask_listing
from pixelwise.data.kinds.class_masks_writer import PairWriter, writable_labels
from pixelwise.data.kinds.folders import (
    EVERY_FIFTH,
    divided,
    in_reading_order,
    labels_for,
    list_images,
    pair_folders,
    require_split,
)
from pixelwise.data.listing import Item, Listing
from pixelwise.data.spec import Format
from pixelwise.errors import DataError
from pixelwise.labels import LabelSet, published

OPTIONS: Mapping[str, str] = {"labels": "a published label set, or a .txt or .toml file in the folder"}

_FOLDERS = {"train": "training", "val": "validation"}
"""Split → its folder, of those that differ."""


def splits(path: Path, options: Mapping[str, str]) -> tuple[str, ...]:  # noqa: ARG001
    """The folders that images/ and annotations/ have in common, or what the names of the files tell."""
    root = _root(path)
    names = {value: key for key, value in _FOLDERS.items()}
    found = [folder.name for folder in (root / "images").iterdir() if (root / "annotations" / folder.name).is_dir()]
    if found:
        return in_reading_order(names.get(name, name) for name in found)
    named = {_named_split(image) for image in list_images(root / "images")}
    if not named:
        raise DataError(f"{path}: no training/ or validation/ and no images are in images/ and annotations/")
    return ("train", "val") if None in named else in_reading_order(split for split in named if split)


def list_split(path: Path, split: str, options: Mapping[str, str]) -> Listing:
    """The images and masks of one split, also those without partner, by name."""
    split = next((ours for ours, theirs in _FOLDERS.items() if split == theirs), split)
    require_split(split, splits(path, options), source=path)
    return mask_listing(
        _items(_root(path), split),
        labels_for(_root(path), options, default="ade20k"),
        source=_root(path) / "images",
        writer=writer,
        notes=[EVERY_FIFTH] if _divided_here(path) else (),
    )


def writer(options: Mapping[str, str], source: LabelSet) -> PairWriter:
    """Writes a set of this format; JPEG images, greyscale masks."""
    return PairWriter(
        format="ade20k",
        labels=writable_labels(options, source=source, default="ade20k"),
        image="images/{split}/{name}",
        mask="annotations/{split}/{name}.png",
        suffixes=(".jpg",),
        folders=_FOLDERS,
        default=published("ade20k"),
    )


def _items(root: Path, split: str) -> tuple[Item, ...]:
    images, masks = root / "images", root / "annotations"
    for folder in (_FOLDERS.get(split, split), split):
        if (images / folder).is_dir():
            return pair_folders(images / folder, masks / folder)
    found = pair_folders(images, masks)
    if _divided_here(root):
        return divided(found, split)
    return tuple(item for item in found if _named_split(item.image or item.truth) == split)


def _root(path: Path) -> Path:
    for root in (path, path / "ADEChallengeData2016"):
        if (root / "images").is_dir() and (root / "annotations").is_dir():
            return root
    raise DataError(f"{path}: not a SceneParsing folder: expected images/ and annotations/ in it")


def _divided_here(path: Path) -> bool:
    """Whether neither folders nor names tell the split."""
    images = list_images(_root(path) / "images")
    return bool(images) and any(_named_split(image) is None for image in images)


def _named_split(path: Path | None) -> str | None:
    """`val` of ADE_val_00000001."""
    parts = path.stem.split("_") if path else []
    return parts[1] if len(parts) > 2 and parts[0] == "ADE" and parts[1] else None


FORMAT = Format(OPTIONS, splits, list_split, writer, takes=("labels",))
