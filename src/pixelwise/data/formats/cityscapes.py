"""Cityscapes: leftImg8bit/SPLIT/CITY/ID_leftImg8bit.png and gtFine/SPLIT/CITY/ID_gtFine_labelIds.png.

The truth has the 19 classes of the benchmark, read from `labelIds` or, by `?ids=trainIds` or where only those are
there, from `*_labelTrainIds.png` (0-18, 255 = void); every other id is void. `?annotations=gtCoarse` takes the coarse
masks. `?instances=true` adds the objects of `*_instanceIds.png`: an id from 24000 on is labelId · 1000 + number;
smaller ids are regions or groups, and no objects here. Images may be of any kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from pixelwise.data.dataset import Dataset, SemanticPairs
from pixelwise.data.faults import SplitReport, check_pairs
from pixelwise.data.folders import (
    Entry,
    FilesByStem,
    by_stem,
    in_reading_order,
    pairs_dataset,
    require_complete,
    require_split,
)
from pixelwise.data.images import read_ids
from pixelwise.data.pair_target import PairTarget
from pixelwise.data.parallel import Progress
from pixelwise.errors import DataError
from pixelwise.labels import LabelSet, published
from pixelwise.types import Instances, Masks, Sample

OPTIONS: Mapping[str, str] = {
    "ids": "labelIds or trainIds; labelIds where they are there",
    "annotations": "gtFine or gtCoarse",
    "instances": "true adds the objects of instanceIds",
}

_FILES = {"labelIds": "labelIds", "trainIds": "labelTrainIds"}
"""Ids → what the names of their files end with."""

_FIRST_OBJECT = 24000
"""The first class whose objects are told apart is labelId 24, person."""


@dataclass(frozen=True)
class CityscapesObjects:
    """Images with masks and with the objects in them. See Dataset for the attributes.

    Attributes:
        pairs: the images and masks.
        instance_files: the file of instance ids of each.
    """

    pairs: SemanticPairs
    instance_files: tuple[Path, ...] = field(repr=False)

    @property
    def name(self) -> str:
        """As the pairs."""
        return self.pairs.name

    @property
    def format(self) -> str:
        """As the pairs."""
        return self.pairs.format

    @property
    def labels(self) -> LabelSet:
        """As the pairs."""
        return self.pairs.labels

    @property
    def ids(self) -> tuple[str, ...]:
        """As the pairs."""
        return self.pairs.ids

    @property
    def remark(self) -> str | None:
        """As the pairs."""
        return self.pairs.remark

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        """Read an image, its mask and its objects. Raises DataError when one is unusable, or their sizes differ."""
        sample = self.pairs[index]
        instances = read_instances(self.instance_files[index], sample.original_size)
        return replace(sample, truth=replace(sample.truth, instances=instances))

    def size_of(self, index: int) -> tuple[int, int]:
        """Height and width of the upright image, from its header."""
        return self.pairs.size_of(index)

    def image_path(self, index: int) -> Path:
        """The file of the image."""
        return self.pairs.image_path(index)

    def truth_path(self, index: int) -> Path:
        """The mask file."""
        return self.pairs.truth_path(index)


def splits(path: Path, options: Mapping[str, str]) -> tuple[str, ...]:
    """The folders that leftImg8bit/ and gtFine/ have in common."""
    images, masks = path / "leftImg8bit", path / _annotations(options)
    missing = [folder.name for folder in (images, masks) if not folder.is_dir()]
    if missing:
        raise DataError(f"{path}: not a Cityscapes folder: {', '.join(f'{name}/' for name in missing)} is missing")
    found = in_reading_order(folder.name for folder in images.iterdir() if (masks / folder.name).is_dir())
    if not found:
        raise DataError(f"{path}: {images.name}/ and {masks.name}/ have no split in common, such as train/ or val/")
    return found


def open_split(path: Path, split: str, options: Mapping[str, str], *, name: str) -> Dataset:
    """The images of one split. Raises DataError when a file of the two or three of an image is missing."""
    entries = list_entries(path, split, options)
    require_complete(entries, source=name)
    pairs = pairs_dataset(entries, _labels(path, split, options), name=name, format="cityscapes")
    wanted = options.get("instances", "false")
    if wanted not in ("true", "false"):
        raise DataError(f"{name}: instances={wanted}; true or false is wanted")
    if wanted == "false":
        return pairs
    kind, annotations = _FILES[ids_of(path, split, options)], _annotations(options)
    files = tuple(
        mask.with_name(f"{id}_{annotations}_instanceIds.png") for id, mask in zip(pairs.ids, pairs.masks, strict=True)
    )
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise DataError(f"{missing[0]}: no such file beside {kind}; {len(missing)} of {len(files)} are missing")
    return CityscapesObjects(pairs, files)


def check_split(path: Path, split: str, options: Mapping[str, str], *, workers: int, progress: Progress) -> SplitReport:
    """Read every image and every mask of the split and report every fault."""
    return check_pairs(
        list_entries(path, split, options),
        _labels(path, split, options),
        split=split,
        source=path / "leftImg8bit" / split,
        workers=workers,
        progress=progress,
    )


def list_entries(path: Path, split: str, options: Mapping[str, str]) -> tuple[Entry, ...]:
    """The images and masks of all cities of a split, also those without partner, by name."""
    require_split(split, splits(path, options), source=path)
    annotations, kind = _annotations(options), _FILES[ids_of(path, split, options)]
    images = _of_all_cities(path / "leftImg8bit" / split, "_leftImg8bit")
    masks = _of_all_cities(path / annotations / split, f"_{annotations}_{kind}")
    return tuple(Entry.from_files(id, images, masks) for id in sorted(images.keys() | masks.keys()))


def labels_of(path: Path, options: Mapping[str, str]) -> LabelSet:
    """The 19 classes with the ids of the files that the first split has."""
    return _labels(path, splits(path, options)[0], options)


def read_instances(path: Path, size: tuple[int, int]) -> Instances:
    """The objects of a file of instance ids, in the order of their ids, those of the 19 classes.

    Raises:
        DataError: an unreadable file, or one of another size.
    """
    ids = read_ids(path)
    if ids.shape != size:
        raise DataError(f"{path}: {ids.shape[0]}×{ids.shape[1]} pixels, its image {size[0]}×{size[1]}")
    native = published("cityscapes").native_ids
    found = [int(id) for id in np.unique(ids) if id >= _FIRST_OBJECT and id // 1000 in native]
    masks = Masks.from_arrays((ids == id for id in found), size)
    return Instances(
        boxes=masks.boxes.float(),
        labels=torch.tensor([native.index(id // 1000) for id in found], dtype=torch.int64),
        masks=masks,
        crowd=torch.zeros(len(found), dtype=torch.bool),
    )


def target(options: Mapping[str, str], source: LabelSet) -> PairTarget:  # noqa: ARG001
    """Writes a set of this format, all cities as one folder `all`; PNG or JPEG images, greyscale masks."""
    ids, annotations = _wanted_ids(options) or "labelIds", _annotations(options)
    if "instances" in options:
        raise DataError("cityscapes: ids of objects are read, not written; leave out the option instances")
    return PairTarget(
        format="cityscapes",
        labels=_with_ids(ids),
        image="leftImg8bit/{split}/all/{name}_leftImg8bit",
        mask=f"{annotations}/{{split}}/all/{{name}}_{annotations}_{_FILES[ids]}.png",
        suffixes=(".png", ".jpg"),
        default=_with_ids(ids),
    )


def _of_all_cities(folder: Path, suffix: str) -> FilesByStem:
    found: dict[str, tuple[Path, ...]] = {}
    for city in sorted(inner for inner in folder.iterdir() if inner.is_dir()):
        for id, files in by_stem(city, suffix=suffix).items():
            found[id] = (*found.get(id, ()), *files)
    return found


def _annotations(options: Mapping[str, str]) -> str:
    wanted = options.get("annotations", "gtFine")
    if wanted not in ("gtFine", "gtCoarse"):
        raise DataError(f"cityscapes: annotations={wanted}; gtFine or gtCoarse is wanted")
    return wanted


def _wanted_ids(options: Mapping[str, str]) -> str | None:
    wanted = options.get("ids")
    if wanted is not None and wanted not in _FILES:
        raise DataError(f"cityscapes: ids={wanted}; labelIds or trainIds is wanted")
    return wanted


def ids_of(path: Path, split: str, options: Mapping[str, str]) -> str:
    """`labelIds` unless others are wanted, or only `trainIds` are there."""
    folder, annotations = path / _annotations(options) / split, _annotations(options)
    there = (ids for ids, name in _FILES.items() if any(folder.glob(f"*/*_{annotations}_{name}.*")))
    return _wanted_ids(options) or next(there, "labelIds")


def _labels(path: Path, split: str, options: Mapping[str, str]) -> LabelSet:
    return _with_ids(ids_of(path, split, options))


def _with_ids(ids: str) -> LabelSet:
    labels = published("cityscapes")
    if ids == "labelIds":
        return labels
    return replace(labels, native_ids=tuple(range(len(labels))), void_ids=(255, -1))
