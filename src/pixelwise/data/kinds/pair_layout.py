"""How folders of images and masks that are paired by name are laid out, and divided into splits.

The layouts are those of the format masks; see there. It uses the options `images`, `masks` and `suffix`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from pixelwise.data.kinds.folders import (
    EVERY_FIFTH,
    annot_splits,
    divided,
    in_reading_order,
    list_images,
    pair_folders,
    require_split,
)
from pixelwise.data.listing import Item
from pixelwise.errors import DataError


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


def list_items(path: Path, split: str, options: Mapping[str, str]) -> tuple[Item, ...]:
    """The images and masks of one split, also those without partner, by name."""
    require_split(split, ("train", "val") if has_no_splits(path, options) else splits(path, options), source=path)
    suffix = options.get("suffix", "")
    if not _has_two_folders(path, options):
        return _paired(path / split, path / f"{split}annot", suffix=suffix)
    images, masks = _folders(path, options)
    if _sub_splits(path, options):
        return _paired(images / split, masks / split, suffix=suffix)
    return _every_pair(path, options, split)


def _paired(images: Path, masks: Path, *, suffix: str) -> tuple[Item, ...]:
    """The pairs of two folders. Raises DataError where not one is a pair, and another suffix of masks makes pairs."""
    items = pair_folders(images, masks, suffix=suffix)
    if any(item.image and item.truth for item in items):
        return items
    stems = {image.stem for image in list_images(images)}
    found = Counter(
        ending
        for mask in list_images(masks)
        for cut in range(1, len(mask.stem) + 1)
        if (ending := mask.stem[cut:]) != suffix and mask.stem[:cut] in stems and (ending or images != masks)
    )
    ending, count = max(found.items(), key=lambda one: (one[1], len(one[0])), default=("", 0))
    if 2 * count <= len(list_images(masks)):
        return items
    advice = f"add ?suffix={ending}" if not suffix else f"write ?suffix={ending}" if ending else "leave ?suffix= out"
    named = f"end with '{ending}'" if ending else "have the names of the images"
    looked = f" with '{suffix}' after its name" if suffix else ""
    raise DataError(f"{masks}: no image has a mask{looked}; {count:,} masks {named}: {advice}")


def _every_pair(path: Path, options: Mapping[str, str], split: str) -> tuple[Item, ...]:
    """The pairs of a set without splits that belong to one."""
    images, masks = _folders(path, options)
    return divided(_paired(images, masks, suffix=options.get("suffix", "")), split)


def source_of(path: Path, split: str, options: Mapping[str, str]) -> Path:
    """The folder in which the images of a split lie."""
    if not _has_two_folders(path, options):
        return path / split
    images, _ = _folders(path, options)
    return images if has_no_splits(path, options) else images / split


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


def has_no_splits(path: Path, options: Mapping[str, str]) -> bool:
    """Whether the set has no splits of its own."""
    return _has_two_folders(path, options) and not _sub_splits(path, options)


def split_notes(path: Path, options: Mapping[str, str]) -> tuple[str, ...]:
    """How a set without splits is divided; nothing of one with splits."""
    return (EVERY_FIFTH,) if has_no_splits(path, options) else ()


def places_of(options: Mapping[str, str], *, format: str) -> tuple[str, str]:
    """Where images (without their suffix) and masks of a new set go, with {split} and {name}.

    Raises DataError for folders outside of the set, or one folder for both without a suffix.
    """
    images, masks, suffix = (
        options.get(option, default) for option, default in (("images", "images"), ("masks", "masks"), ("suffix", ""))
    )
    if Path(images).is_absolute() or Path(masks).is_absolute() or ".." in (*Path(images).parts, *Path(masks).parts):
        raise DataError(f"{format}: images and masks are names of folders in the new set")
    if images == masks and not suffix:
        raise DataError(f"{format}: images and masks in one folder need a suffix, such as suffix=_mask")
    return f"{_literal(images)}/{{split}}/{{name}}", f"{_literal(masks)}/{{split}}/{{name}}{_literal(suffix)}.png"


def _literal(text: str) -> str:
    """Text that stays itself in a template."""
    return text.replace("{", "{{").replace("}", "}}")
