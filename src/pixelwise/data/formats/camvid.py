"""CamVid as distributed with SegNet: SPLIT/NAME.png and SPLITannot/NAME.png, ids 0-10, 11 = void.

    PATH/
    ├── train/0001TP_006690.png
    ├── trainannot/0001TP_006690.png    ids 0-10, 11 is void
    ├── val/, valannot/
    └── test/, testannot/

Images may be of any kind. Without a label file of its own the set has the 11 classes of Sturgess et al. (2009).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pixelwise.data.kinds.class_masks import mask_listing
from pixelwise.data.kinds.class_masks_writer import PairWriter, writable_labels
from pixelwise.data.kinds.folders import annot_splits, labels_for, pair_folders, require_split
from pixelwise.data.listing import Listing
from pixelwise.data.spec import Format
from pixelwise.errors import DataError
from pixelwise.labels import LabelSet, published

OPTIONS: Mapping[str, str] = {"labels": "a published label set, or a .txt or .toml file in the folder"}


def splits(path: Path, options: Mapping[str, str]) -> tuple[str, ...]:  # noqa: ARG001
    """The folders X beside which stands Xannot."""
    found = annot_splits(path)
    if not found:
        raise DataError(f"{path}: not a CamVid folder: no train/ with trainannot/ (or val, or test) is in it")
    return found


def list_split(path: Path, split: str, options: Mapping[str, str]) -> Listing:
    """The images and masks of one split, also those without partner, by name."""
    require_split(split, splits(path, options), source=path)
    items = pair_folders(path / split, path / f"{split}annot")
    labels = labels_for(path, options, default="camvid")
    return mask_listing(items, labels, source=path / split, writer=writer)


def writer(options: Mapping[str, str], source: LabelSet) -> PairWriter:
    """Writes a set of this format; images of any kind, greyscale masks."""
    return PairWriter(
        format="camvid",
        labels=writable_labels(options, source=source, default="camvid"),
        image="{split}/{name}",
        mask="{split}annot/{name}.png",
        default=published("camvid"),
    )


FORMAT = Format(OPTIONS, splits, list_split, writer, takes=("labels",))
