"""PASCAL VOC: JPEGImages/ID.jpg, SegmentationClass/ID.png, and ImageSets/Segmentation/SPLIT.txt with one id a line.

PATH is the folder of one year, such as VOC2012, or the VOCdevkit around it. Without a label file of its own the set has
the 20 classes and the background of VOC 2012.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pixelwise.data.dataset import SemanticPairs
from pixelwise.data.faults import SplitReport, check_pairs
from pixelwise.data.folders import (
    Entry,
    by_stem,
    in_reading_order,
    labels_for,
    pairs_dataset,
    require_complete,
    require_split,
)
from pixelwise.data.pair_target import PairTarget, target_labels
from pixelwise.data.parallel import Progress
from pixelwise.errors import DataError
from pixelwise.labels import LabelSet, published

OPTIONS: Mapping[str, str] = {"labels": "a published label set, or a .txt or .toml file in the folder"}

_LISTS = Path("ImageSets", "Segmentation")


def splits(path: Path, options: Mapping[str, str]) -> tuple[str, ...]:  # noqa: ARG001
    """The lists in ImageSets/Segmentation."""
    lists = _year(path) / _LISTS
    found = in_reading_order(file.stem for file in lists.glob("*.txt"))
    if not found:
        raise DataError(f"{lists}: no list in it; train.txt or val.txt with one id a line is wanted")
    return found


def open_split(path: Path, split: str, options: Mapping[str, str], *, name: str) -> SemanticPairs:
    """The images of one list. Raises DataError when a listed id lacks its image or its mask."""
    entries = list_entries(path, split, options)
    require_complete(entries, source=name)
    return pairs_dataset(entries, labels_of(path, options), name=name, format="voc")


def check_split(path: Path, split: str, options: Mapping[str, str], *, workers: int, progress: Progress) -> SplitReport:
    """Read every listed image and its mask and report every fault. Raises DataError when there is no such list."""
    return check_pairs(
        list_entries(path, split, options),
        labels_of(path, options),
        split=split,
        source=_list(path, split),
        workers=workers,
        progress=progress,
    )


def list_entries(path: Path, split: str, options: Mapping[str, str]) -> tuple[Entry, ...]:
    """The listed ids in the list's order, with the files that are there."""
    require_split(split, splits(path, options), source=path)
    try:
        listed = _list(path, split).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{_list(path, split)}: not a readable text file ({error})") from None
    images, masks = by_stem(_year(path) / "JPEGImages"), by_stem(_year(path) / "SegmentationClass")
    return tuple(Entry.from_files(id, images, masks) for id in map(str.strip, listed) if id)


def _list(path: Path, split: str) -> Path:
    return _year(path) / _LISTS / f"{split}.txt"


def labels_of(path: Path, options: Mapping[str, str]) -> LabelSet:
    """The 20 classes and the background, unless the folder or an option names others."""
    return labels_for(_year(path), options, default="voc")


def target(options: Mapping[str, str], source: LabelSet) -> PairTarget:
    """Writes a set of this format; JPEG images, palette masks, and a list for each split."""
    return PairTarget(
        format="voc",
        labels=target_labels(options, source=source, default="voc"),
        image="JPEGImages/{name}",
        mask="SegmentationClass/{name}.png",
        suffixes=(".jpg",),
        list_file="ImageSets/Segmentation/{split}.txt",
        palette=True,
        default=published("voc"),
    )


def _year(path: Path) -> Path:
    """The folder with the images: `path` itself, or the one year in a VOCdevkit."""
    wanted = ("JPEGImages", "SegmentationClass", str(_LISTS))
    missing = [name for name in wanted if not (path / name).is_dir()]
    if not missing:
        return path
    devkit = path / "VOCdevkit" if (path / "VOCdevkit").is_dir() else path
    years = [folder for folder in sorted(devkit.glob("VOC*")) if all((folder / name).is_dir() for name in wanted)]
    if len(years) == 1:
        return years[0]
    if years:
        raise DataError(f"{path}: several years in it ({', '.join(year.name for year in years)}); name one of them")
    raise DataError(f"{path}: not a VOC folder: {', '.join(f'{name}/' for name in missing)} is missing")
