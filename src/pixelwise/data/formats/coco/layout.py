"""Where the files of a set in COCO's layout lie: annotations/PREFIXsplit2017.json, and images in split2017/."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from pixelwise.data.kinds.folders import in_reading_order
from pixelwise.errors import DataError


def splits(path: Path, prefix: str) -> tuple[str, ...]:
    """What stands between the prefix and `.json`, without the year where that leaves it clear.

    Args:
        path: the folder of the set.
        prefix: such as `instances_`.

    Raises:
        DataError: there is no such file.
    """
    full = [file.stem.removeprefix(prefix) for file in path.glob(f"annotations/{prefix}*.json")]
    if not full:
        raise DataError(f"{path}: no annotations/{prefix}SPLIT.json in it, such as {prefix}train2017.json")
    short = [re.sub(r"(?<=.)\d{4}$", "", name) for name in full]
    return in_reading_order(
        name if short.count(name) == 1 else longer for name, longer in zip(short, full, strict=True)
    )


def json_file(path: Path, split: str, prefix: str) -> Path:
    """The JSON file of a split. Raises DataError when there is none, or more than one that it could be."""
    exact = path / "annotations" / f"{prefix}{split}.json"
    if exact.is_file():
        return exact
    found = sorted(path.glob(f"annotations/{prefix}{split}*.json"))
    with_year = [file for file in found if re.fullmatch(r"\d{4}", file.stem.removeprefix(f"{prefix}{split}"))]
    found = with_year or found
    if len(found) > 1:
        names = ", ".join(f"@{file.stem.removeprefix(prefix)}" for file in found)
        raise DataError(f"{path}: split '{split}' could be any of {names}; write one of them")
    if not found:
        raise DataError(f"{path}: no split '{split}'; there are {', '.join(splits(path, prefix))}")
    return found[0]


def image_folder(path: Path, split: str, year: str, *, wanted: str | None, names: Sequence[str]) -> Path:
    """The folder that the names of the image entries start from.

    Args:
        path: the folder of the set.
        split: as in the specification.
        year: the same as in the name of the JSON file.
        wanted: what the option `images` says, or None.
        names: of some images.

    Raises:
        DataError: there is none.
    """
    if wanted is not None:
        folder = path / wanted
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder, named by ?images={wanted}")
        return folder
    named = [parent / name for parent in (path, path / "images") for name in (year, split)]
    starting = sorted(folder for folder in path.glob(f"{split}*") if folder.is_dir())
    folder = next((folder for folder in (*named, *starting) if folder.is_dir()), None)
    if folder is not None:
        return folder
    for folder in (path / "images", path):  # file names with folders of their own, or one folder for all splits
        if names and (folder / names[0]).is_file():
            return folder
    raise DataError(f"{path}: no folder {year}/, {split}/ or images/ with the images; name it by ?images=…")
