"""One's own images with masks of class ids, paired by name.

Layouts, the first that fits: `images/SPLIT/` and `masks/SPLIT/`; `images/` and `masks/` without splits; `SPLIT/` and
`SPLITannot/`. `?images=` and `?masks=` give other names than `images` and `masks`, `?suffix=_mask` what a mask's name
has after its image's. A `labels.txt` (one name a line, from id 0; 255 is void) or a `labels.toml` says what the ids
mean, or `?labels=voc` takes a published label set. With `?palette=labels` the masks hold the colours of that label set
instead of ids; see `data.colour_masks`.

Without splits every fifth pair by name goes to `val`, the others to `train`, and the set's remark says so. Images
without a mask and masks without an image are left out, and the remark counts them: a half-labelled folder is a common
thing. `check_split` reports them as faults.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pixelwise.data.colour_masks import require_distinct
from pixelwise.data.dataset import SemanticPairs
from pixelwise.data.faults import SplitReport, check_pairs
from pixelwise.data.folders import (
    EVERY_FIFTH,
    Entry,
    annot_splits,
    divided,
    in_reading_order,
    labels_for,
    list_images,
    pair_folders,
    pairs_dataset,
    require_split,
)
from pixelwise.data.pair_target import PairTarget, contiguous, target_labels
from pixelwise.data.parallel import Progress
from pixelwise.errors import DataError
from pixelwise.labels import LabelSet

OPTIONS: Mapping[str, str] = {
    "images": "the folder of images",
    "masks": "the folder of masks",
    "suffix": "what a mask's name has after its image's, such as _mask",
    "labels": "a published label set, or a .txt or .toml file in the folder",
    "palette": "labels: the masks are pictures in the colours of the label set",
}


def splits(path: Path, options: Mapping[str, str]) -> tuple[str, ...]:
    """The sub-folders or the folders that stand side by side; `train` and `val` where there are none.

    Fewer than five pairs make no `val`.
    """
    if not _has_two_folders(path, options):
        found = annot_splits(path)
        if not found:
            images, masks = _folders(path, options)
            raise DataError(
                f"{path}: no {images.name}/ with {masks.name}/ and no train/ with trainannot/ is in it; "
                "name the folders by ?images=…&masks=…"
            )
        return found
    return _sub_splits(path, options) or ("train", "val")[: 1 + bool(_every_pair(path, options, "val"))]


def open_split(path: Path, split: str, options: Mapping[str, str], *, name: str) -> SemanticPairs:
    """The pairs of one split. Raises DataError when there are none, or the labels are not said."""
    entries = list_entries(path, split, options)
    if not any(entry.image and entry.mask for entry in entries):
        raise DataError(
            f"{name}: no image of this split has a mask; {len(entries)} names were compared"
            + (", every fifth pair is val" if _divided_here(path, options) else "")
        )
    remarks = (_split_remark(path, options), _half_remark(entries))
    remark = "; ".join(text for text in remarks if text)
    return pairs_dataset(
        entries,
        labels_of(path, options),
        name=name,
        format="masks",
        remark=remark or None,
        colours=has_colours(options),
    )


def check_split(path: Path, split: str, options: Mapping[str, str], *, workers: int, progress: Progress) -> SplitReport:
    """Read every image and every mask and report every fault. Raises DataError when the labels are not said."""
    report = check_pairs(
        list_entries(path, split, options),
        labels_of(path, options),
        colours=has_colours(options),
        split=split,
        source=_source(path, split, options),
        workers=workers,
        progress=progress,
    )
    remark = _split_remark(path, options)
    return replace(report, remarks=(remark, *report.remarks)) if remark else report


def list_entries(path: Path, split: str, options: Mapping[str, str]) -> tuple[Entry, ...]:
    """The images and masks of one split, also those without partner, by name."""
    require_split(split, ("train", "val") if _divided_here(path, options) else splits(path, options), source=path)
    suffix = options.get("suffix", "")
    if not _has_two_folders(path, options):
        return pair_folders(path / split, path / f"{split}annot", suffix=suffix)
    images, masks = _folders(path, options)
    if _sub_splits(path, options):
        return pair_folders(images / split, masks / split, suffix=suffix)
    return _every_pair(path, options, split)


def _every_pair(path: Path, options: Mapping[str, str], split: str) -> tuple[Entry, ...]:
    """The pairs of a set without splits that belong to one."""
    images, masks = _folders(path, options)
    return divided(pair_folders(images, masks, suffix=options.get("suffix", "")), split)


def labels_of(path: Path, options: Mapping[str, str]) -> LabelSet:
    """What the label file or the option says; with a palette, no two classes may share a colour."""
    labels = labels_for(path, options)
    if has_colours(options):
        require_distinct(labels)
    return labels


def has_colours(options: Mapping[str, str]) -> bool:
    """Whether the masks hold colours. Raises DataError for an option that is not `labels`."""
    wanted = options.get("palette")
    if wanted not in (None, "labels"):
        raise DataError(f"masks: palette={wanted}; labels is wanted, the colours are those of the label set")
    return wanted is not None


def target(options: Mapping[str, str], source: LabelSet) -> PairTarget:
    """Writes images/SPLIT/ and masks/SPLIT/ (or the names in the options), greyscale masks, and labels.toml."""
    if "palette" in options:
        raise DataError("masks: masks of colours are read, not written; leave out the option palette")
    images, masks, suffix = (options.get(name, default) for name, default in _NAMES)
    if Path(images).is_absolute() or Path(masks).is_absolute() or ".." in (*Path(images).parts, *Path(masks).parts):
        raise DataError("masks: images and masks are names of folders in the new set")
    if images == masks and not suffix:
        raise DataError("masks: images and masks in one folder need a suffix, such as suffix=_mask")
    return PairTarget(
        format="masks",
        labels=contiguous(target_labels(options, source=source, default=None)),
        image=f"{_literal(images)}/{{split}}/{{name}}",
        mask=f"{_literal(masks)}/{{split}}/{{name}}{_literal(suffix)}.png",
    )


_NAMES = (("images", "images"), ("masks", "masks"), ("suffix", ""))


def _literal(text: str) -> str:
    """Text that stays itself in a template."""
    return text.replace("{", "{{").replace("}", "}}")


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
    return EVERY_FIFTH


def _half_remark(entries: Sequence[Entry]) -> str | None:
    lonely_images = sum(entry.mask is None for entry in entries)
    lonely_masks = sum(entry.image is None for entry in entries)
    if not lonely_images and not lonely_masks:
        return None
    return f"left out: {lonely_images} images without a mask, {lonely_masks} masks without an image"
