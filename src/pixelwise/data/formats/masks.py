"""One's own images with masks of class ids, paired by name.

Layouts, the first that fits: `images/SPLIT/` and `masks/SPLIT/`; `images/` and `masks/` without splits; `SPLIT/` and
`SPLITannot/`. `?images=` and `?masks=` give other names than `images` and `masks`, `?suffix=_mask` what a mask's name
has after its image's. A `labels.txt` (one name a line, from id 0; 255 is void) or a `labels.toml` says what the ids
mean, or `?labels=voc` takes a published label set.

Without splits every fifth pair by name goes to `val`, the others to `train`, and the set's remark says so. Images
without a mask and masks without an image are left out, and the remark counts them: a half-labelled folder is a common
thing. `check_split` reports them as faults.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pixelwise.data.dataset import SemanticPairs
from pixelwise.data.faults import SplitReport, check_pairs
from pixelwise.data.folders import (
    Entry,
    annot_splits,
    in_reading_order,
    labels_for,
    list_images,
    pair_folders,
    pairs_dataset,
    require_split,
)
from pixelwise.data.parallel import Progress
from pixelwise.errors import DataError

OPTIONS: Mapping[str, str] = {
    "images": "the folder of images",
    "masks": "the folder of masks",
    "suffix": "what a mask's name has after its image's, such as _mask",
    "labels": "a published label set, or a .txt or .toml file in the folder",
}

_EVERY = 5
"""Of how many pairs one goes to val; the remark says `fifth`."""


def splits(path: Path, options: Mapping[str, str]) -> tuple[str, ...]:
    """The sub-folders or the folders that stand side by side; `train` and `val` where there are none."""
    if not _has_two_folders(path, options):
        found = annot_splits(path)
        if not found:
            images, masks = _folders(path, options)
            raise DataError(
                f"{path}: no {images.name}/ with {masks.name}/ and no train/ with trainannot/ is in it; "
                "name the folders by ?images=…&masks=…"
            )
        return found
    return _sub_splits(path, options) or ("train", "val")


def open_split(path: Path, split: str, options: Mapping[str, str], *, name: str) -> SemanticPairs:
    """The pairs of one split. Raises DataError when there are none, or the labels are not said."""
    entries = _entries(path, split, options)
    if not any(entry.image and entry.mask for entry in entries):
        raise DataError(
            f"{name}: no image of this split has a mask; {len(entries)} names were compared"
            + (", every fifth pair is val" if _divided_here(path, options) else "")
        )
    remarks = (_split_remark(path, options), _half_remark(entries))
    remark = "; ".join(text for text in remarks if text)
    return pairs_dataset(entries, labels_for(path, options), name=name, format="masks", remark=remark or None)


def check_split(path: Path, split: str, options: Mapping[str, str], *, workers: int, progress: Progress) -> SplitReport:
    """Read every image and every mask and report every fault. Raises DataError when the labels are not said."""
    entries, labels = _entries(path, split, options), labels_for(path, options)
    report = check_pairs(
        entries, labels, split=split, source=_source(path, split, options), workers=workers, progress=progress
    )
    remark = _split_remark(path, options)
    return replace(report, remarks=(remark, *report.remarks)) if remark else report


def _entries(path: Path, split: str, options: Mapping[str, str]) -> tuple[Entry, ...]:
    """The images and masks of one split, also those without partner, by name."""
    require_split(split, splits(path, options), source=path)
    suffix = options.get("suffix", "")
    if not _has_two_folders(path, options):
        return pair_folders(path / split, path / f"{split}annot", suffix=suffix)
    images, masks = _folders(path, options)
    if _sub_splits(path, options):
        return pair_folders(images / split, masks / split, suffix=suffix)
    found = pair_folders(images, masks, suffix=suffix)
    whole = [entry for entry in found if entry.image and entry.mask]
    val = {entry.id for entry in whole[_EVERY - 1 :: _EVERY]}
    return tuple(entry for entry in found if (entry.id in val) == (split == "val"))


def _source(path: Path, split: str, options: Mapping[str, str]) -> Path:
    """The folder in which the images of a split lie."""
    if not _has_two_folders(path, options):
        return path / split
    images, _ = _folders(path, options)
    return images if _divided_here(path, options) else images / split


def _folders(path: Path, options: Mapping[str, str]) -> tuple[Path, Path]:
    return path / options.get("images", "images"), path / options.get("masks", "masks")


def _has_two_folders(path: Path, options: Mapping[str, str]) -> bool:
    return all(folder.is_dir() for folder in _folders(path, options))


def _sub_splits(path: Path, options: Mapping[str, str]) -> tuple[str, ...]:
    """Sub-folders that images and masks have in common, if the images lie in none but sub-folders."""
    images, masks = _folders(path, options)
    if list_images(images):
        return ()
    return in_reading_order(
        folder.name for folder in images.iterdir() if folder.is_dir() and (masks / folder.name).is_dir()
    )


def _divided_here(path: Path, options: Mapping[str, str]) -> bool:
    """Whether the set has no splits of its own."""
    return _has_two_folders(path, options) and not _sub_splits(path, options)


def _split_remark(path: Path, options: Mapping[str, str]) -> str | None:
    if not _divided_here(path, options):
        return None
    return "the set has no splits: every fifth pair by name is val, the others are train"


def _half_remark(entries: Sequence[Entry]) -> str | None:
    lonely_images = sum(entry.mask is None for entry in entries)
    lonely_masks = sum(entry.image is None for entry in entries)
    if not lonely_images and not lonely_masks:
        return None
    return f"left out: {lonely_images} images without a mask, {lonely_masks} masks without an image"
