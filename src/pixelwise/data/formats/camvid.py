"""CamVid as distributed with SegNet: SPLIT/NAME.png and SPLITannot/NAME.png, ids 0-10, 11 = void.

Images may be of any kind. Without a label file of its own the set has the 11 classes of Sturgess et al. (2009).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pixelwise.data.dataset import SemanticPairs
from pixelwise.data.folders import Entry, annot_splits, labels_for, pair_folders, pairs_dataset, require_complete
from pixelwise.errors import DataError
from pixelwise.labels import LabelSet

OPTIONS: Mapping[str, str] = {"labels": "a published label set, or a .txt or .toml file in the folder"}


def splits(path: Path, options: Mapping[str, str]) -> tuple[str, ...]:  # noqa: ARG001
    """The folders X beside which stands Xannot."""
    found = annot_splits(path)
    if not found:
        raise DataError(f"{path}: not a CamVid folder: no train/ with trainannot/ (or val, or test) is in it")
    return found


def open_split(path: Path, split: str, options: Mapping[str, str], *, name: str) -> SemanticPairs:
    """The images of one folder. Raises DataError when an image lacks its mask, or a mask its image."""
    found = entries(path, split)
    require_complete(found, source=name)
    return pairs_dataset(found, labels(path, options), name=name, format="camvid")


def entries(path: Path, split: str) -> tuple[Entry, ...]:
    """The files of both folders, by name."""
    return pair_folders(path / split, path / f"{split}annot")


def labels(path: Path, options: Mapping[str, str]) -> LabelSet:
    """What the ids in the masks mean."""
    return labels_for(path, options, default="camvid")
