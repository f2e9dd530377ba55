"""CamVid as distributed with SegNet: SPLIT/NAME.png and SPLITannot/NAME.png, ids 0-10, 11 = void.

Images may be of any kind. Without a label file of its own the set has the 11 classes of Sturgess et al. (2009).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pixelwise.data.kinds.class_masks import SemanticPairs
from pixelwise.data.kinds.class_masks_writer import PairWriter, writable_labels
from pixelwise.data.kinds.faults import SplitReport, check_pairs
from pixelwise.data.kinds.folders import (
    Entry,
    annot_splits,
    labels_for,
    pair_folders,
    pairs_dataset,
    require_complete,
    require_split,
)
from pixelwise.errors import DataError
from pixelwise.files.parallel import Progress
from pixelwise.labels import LabelSet, published

OPTIONS: Mapping[str, str] = {"labels": "a published label set, or a .txt or .toml file in the folder"}


def splits(path: Path, options: Mapping[str, str]) -> tuple[str, ...]:  # noqa: ARG001
    """The folders X beside which stands Xannot."""
    found = annot_splits(path)
    if not found:
        raise DataError(f"{path}: not a CamVid folder: no train/ with trainannot/ (or val, or test) is in it")
    return found


def open_split(path: Path, split: str, options: Mapping[str, str], *, name: str) -> SemanticPairs:
    """The images of one folder. Raises DataError when an image lacks its mask, or a mask its image."""
    entries = list_entries(path, split, options)
    require_complete(entries, source=name)
    return pairs_dataset(entries, labels_of(path, options), name=name, format="camvid")


def check_split(path: Path, split: str, options: Mapping[str, str], *, workers: int, progress: Progress) -> SplitReport:
    """Read every image and every mask of both folders and report every fault."""
    entries, labels = list_entries(path, split, options), labels_of(path, options)
    return check_pairs(entries, labels, split=split, source=path / split, workers=workers, progress=progress)


def list_entries(path: Path, split: str, options: Mapping[str, str]) -> tuple[Entry, ...]:
    """The images and masks of one split, also those without partner, by name."""
    require_split(split, splits(path, options), source=path)
    return pair_folders(path / split, path / f"{split}annot")


def labels_of(path: Path, options: Mapping[str, str]) -> LabelSet:
    """The 11 classes, unless the folder or an option names others."""
    return labels_for(path, options, default="camvid")


def writer(options: Mapping[str, str], source: LabelSet) -> PairWriter:
    """Writes a set of this format; images of any kind, greyscale masks."""
    return PairWriter(
        format="camvid",
        labels=writable_labels(options, source=source, default="camvid"),
        image="{split}/{name}",
        mask="{split}annot/{name}.png",
        default=published("camvid"),
    )
